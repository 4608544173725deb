"""What an exchange needs of the connection it came by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import trio

    from h3trio._http.http1 import Http1

    from .context import Context
    from .sockets.transport import Transport


class ConnectionPort(Protocol):
    """What a `Connection` is to its exchange."""

    @property
    def context(self) -> Context: ...
    @property
    def http(self) -> Http1: ...
    @property
    def is_last(self) -> bool: ...
    @property
    def transport(self) -> Transport: ...
    @property
    def nursery(self) -> trio.Nursery: ...
    def admit_stream(self) -> None: ...
    def leave_stream(self) -> None: ...
    def cut(self) -> None: ...
