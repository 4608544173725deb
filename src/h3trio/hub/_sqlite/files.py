"""`owned`, `Reserve`, `Identities`: the files beside a database, and whether they are still there.

The owner's lock is on a file of its own. Were it on the database, closing any
descriptor of that would drop the locks that SQLite itself holds there (POSIX
record locks belong to the process). It is never deleted: whoever deletes a lock
file may delete one that another just took.

The reserve is disk space held back. On a full disk SQLite can't even delete: what
a transaction changes is first written to the write-ahead log, and that is emptied
into the database file, which may have to grow. Giving the reserve up makes room
for both.

A file that was deleted or replaced lives on for who has it open, and goes with its last descriptor:
what is written to it is lost. So the paths are compared with the files that were opened. An inode
isn't given to another file as long as this one is open, so its number is enough.

All of them are for their owner alone: they hold private events. None is reached through a symbolic
link, by which whoever may write to the folder would have us write elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, final

from h3trio.hub._history.errors import HistoryError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

logger = logging.getLogger("h3trio.hub")

_MODE: Final = 0o600
# A pipe in the place of a file is refused, not waited for.
_SAFE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WITHOUT_EVENTS: Final = (".lock", "-shm")


def beside(path: Path, suffix: str) -> Path:
    """Name a file beside a database."""
    return path.with_name(path.name + suffix)


def lock_file(path: Path) -> Path:
    """Name the file with the lock of a database; it exists if that ever had an owner."""
    return beside(path, ".lock")


def owner_note(path: Path) -> str:
    """Return what to add where a file can't be used: that it isn't ours, if so."""
    with suppress(OSError):
        if path.stat().st_uid != os.geteuid():
            return "; it belongs to another user"
    return ""


def make_private(path: Path, *, create: bool = False) -> None:
    """Let a file be read and written by its owner alone; one that is missing may be made.

    SQLite gives its own files the mode of the database, but leaves those that exist as they are.

    Raises:
        HistoryError: it is a symbolic link, no file, or can't be opened.
    """
    try:
        descriptor = _open(path, os.O_RDONLY | (os.O_CREAT if create else 0))
    except FileNotFoundError as exc:
        if create:
            raise HistoryError(f"{path} can't be opened: {exc.strerror}") from exc
        return
    os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    """Open a plain file for its owner alone; return the descriptor."""
    try:
        descriptor = os.open(path, flags | _SAFE, _MODE)
    except FileNotFoundError:
        raise
    except OSError as exc:
        is_link = exc.errno == errno.ELOOP
        why = f"can't be opened: {exc.strerror}{owner_note(path)}"
        problem = "is a symbolic link" if is_link else why
        raise HistoryError(f"{path} {problem}") from exc
    try:
        _keep_private(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _keep_private(path: Path, descriptor: int) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise HistoryError(f"{path} is no file")
    if found.st_mode & ~_MODE & 0o777:
        try:
            os.fchmod(descriptor, _MODE)
        except OSError as exc:
            logger.warning("%s may be read by others: %s", path, exc.strerror)


@contextmanager
def owned(path: Path) -> Generator[None]:
    """Be the one owner of a database during the block; there is none in any other process.

    The kernel drops the lock when the process ends, however it does.

    Raises:
        HistoryError: there is another.
    """
    file = lock_file(path)
    try:
        descriptor = _open(file, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError as exc:
        raise HistoryError(f"{path} can't be made: there is no folder {path.parent}") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            problem = "is in use by another process, or by another hub of this one"
            raise HistoryError(f"{path} {problem}") from exc
        except OSError as exc:
            raise HistoryError(f"{file} can't be locked: {exc.strerror}") from exc
        yield
    finally:
        os.close(descriptor)


@final
class Identities:
    """The files of an open database, as they were when it was opened.

    Raises:
        HistoryError: one is missing.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._known = {path: _identity(path) for path in paths}

    def check(self) -> None:
        """Check that each path still names the file that was opened.

        Raises:
            HistoryError: one was removed or replaced, or can't be looked at.
        """
        for path, known in self._known.items():
            if _identity(path) != known:
                raise HistoryError(f"{path} was replaced while in use: {_advice(path)}")


def _advice(path: Path) -> str:
    """Say what to do about a file that went: the database and its log have events, others none."""
    if path.name.endswith(_WITHOUT_EVENTS):
        return "restart the hub"
    return "put it back, or save the events: a restart goes without it"


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = os.lstat(path)
    except FileNotFoundError as exc:
        raise HistoryError(f"{path} was removed while in use: {_advice(path)}") from exc
    except OSError as exc:
        raise HistoryError(f"{path} can't be looked at: {exc.strerror}") from exc
    return found.st_dev, found.st_ino


@final
class Reserve:
    """Disk space held back in a file that can be given up.

    Args:
        path: the database's; the reserve is `<path>-reserve`.
        size: bytes; 0 for none.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._file = beside(path, "-reserve")
        self._size = size
        self._is_held = False

    @property
    def is_wanting(self) -> bool:
        """Whether there should be space held back, and isn't."""
        return self._size > 0 and not self._is_held

    def take(self) -> None:
        """Hold the space back, if there is enough; it doesn't matter if there isn't."""
        try:
            descriptor = _open(self._file, os.O_WRONLY | os.O_CREAT)
        except (OSError, HistoryError) as exc:
            logger.warning("no disk space is held back: %s", exc)
            return
        try:
            if os.fstat(descriptor).st_nlink > 1:
                logger.warning("no disk space is held back: %s has another name", self._file)
                return
            os.posix_fallocate(descriptor, 0, self._size)
            os.ftruncate(descriptor, self._size)
            self._is_held = True
        except OSError:
            self.give_up()
        finally:
            os.close(descriptor)

    def give_up(self) -> None:
        """Make the space free."""
        self._is_held = False
        with suppress(OSError):
            self._file.unlink(missing_ok=True)
