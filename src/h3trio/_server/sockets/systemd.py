"""The protocol of a service manager: sockets that it passes, and states that it is told.

It is the part of `sd_listen_fds(3)`, `sd_notify(3)` and `sd_watchdog_enabled(3)` that a server
needs: environment variables and datagrams. Other supervisors speak the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

logger = logging.getLogger("h3trio.server")

_FIRST: Final = 3  # SD_LISTEN_FDS_START
# More than any unit has; a wrong number must not mean a million system calls.
_MOST: Final = 256
_MAX_DIGITS: Final = 18
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def inherited_descriptors(environ: MutableMapping[str, str]) -> list[int]:
    """Take over the descriptors that were passed to this very process, none for most.

    The variables are removed, so that children don't take them as theirs.

    Raises:
        ValueError: their number is none.
    """
    pid, count = environ.get("LISTEN_PID", ""), environ.get("LISTEN_FDS", "")
    if pid != str(os.getpid()):
        return []
    for name in _VARIABLES:
        environ.pop(name, None)
    if not (count.isascii() and count.isdecimal() and int(count) <= _MOST):
        raise ValueError(f"LISTEN_FDS: {count!r} is not a number of descriptors")
    return list(range(_FIRST, _FIRST + int(count)))


def adopt(descriptor: int) -> socket.socket:
    """Take a descriptor that was inherited as a listening socket.

    Raises:
        ValueError: it isn't one.
    """
    wrong = f"descriptor {descriptor} is not a listening stream socket"
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as exc:
        raise ValueError(f"{wrong}: {exc.strerror}") from exc
    is_stream = sock.type == socket.SOCK_STREAM
    if not is_stream or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise ValueError(wrong)
    sock.set_inheritable(False)
    return sock


def watchdog_interval(environ: Mapping[str, str]) -> float:
    """Return the seconds within which the manager wants `WATCHDOG=1`; 0 if it doesn't ask."""
    pid, microseconds = environ.get("WATCHDOG_PID"), environ.get("WATCHDOG_USEC", "")
    if pid not in (None, "", str(os.getpid())):
        return 0.0
    if not (
        microseconds.isascii() and microseconds.isdecimal() and len(microseconds) <= _MAX_DIGITS
    ):
        return 0.0
    return int(microseconds) / 1_000_000


def notify(state: str, address: str | None) -> None:
    """Tell the service manager, if there is one: `READY=1`, `STOPPING=1`, `WATCHDOG=1`.

    Args:
        state: what to say.
        address: the value of `NOTIFY_SOCKET`: a path, or `@` and an abstract name.
    """
    if not address:
        return
    name = f"\0{address[1:]}" if address.startswith("@") else address
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(0)
        try:
            sock.sendto(state.encode(), name)
        except OSError as exc:
            logger.warning("can't notify %s: %s", address, exc.strerror)
