"""A listening unix socket, and its file.

The socket is bound under a name of its own, gets its mode and listens; only then is it linked to
the path. So no client finds a file that refuses it or that has another mode for a moment, and a
file that refuses is one whose process is gone: it is replaced. Any other file at the path is an
error, and stays.

At the end the file is removed if it is still this one: the next server may have put its own there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .listeners import SocketSource

if TYPE_CHECKING:
    from h3trio._http.settings import Settings


def open_unix(path: str, *, mode: int, settings: Settings, scheme: str = "http") -> SocketSource:
    """Listen at a path of the file system.

    Raises:
        OSError: another server listens there, or the file can't be made.
    """
    try:
        return _open(Path(path), mode, settings, scheme)
    except OSError as exc:
        why = exc.strerror or str(exc)
        raise OSError(exc.errno, f"can't listen on unix:{path}: {why}") from exc


def _open(path: Path, mode: int, settings: Settings, scheme: str) -> SocketSource:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ours = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        sock.settimeout(0)
        sock.bind(str(ours))
        try:
            ours.chmod(mode)
            sock.listen(settings.backlog)
            identity = _identity(ours)
            _link(ours, path)
        finally:
            ours.unlink()
    except BaseException:
        sock.close()
        raise
    remove = partial(_remove, path, identity)
    return SocketSource(sock, scheme=scheme, address=f"unix:{path}", on_close=remove)


def _link(ours: Path, path: Path) -> None:
    try:
        path.hardlink_to(ours)
    except FileExistsError:
        stale = _identity(path)
        _require_stale(path)
        _remove(path, stale)
        # This raises if another server was faster.
        path.hardlink_to(ours)


def _require_stale(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise FileExistsError(errno.EEXIST, "the file exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except BlockingIOError:
            pass  # its backlog is full
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _remove(path: Path, identity: tuple[int, int]) -> None:
    """Remove the file if it is this one."""
    with contextlib.suppress(FileNotFoundError):
        if _identity(path) == identity:
            path.unlink()
