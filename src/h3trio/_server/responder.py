"""What an event needs of the connection it came by, while its answer lasts and after."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol, final

from h3trio._http.errors import ResponseStateError

if TYPE_CHECKING:
    import trio

    from h3trio._http.closing import CloseReason
    from h3trio._http.settings import Settings
    from h3trio._http.statistics import ServerStatistics

    from .writer import SSEWriter


class ServerPort(Protocol):
    """What an event needs of the server it came to, for as long as anybody has the event."""

    @property
    def draining(self) -> trio.Event: ...
    @property
    def settings(self) -> Settings: ...
    def statistics(self) -> ServerStatistics: ...
    def retry_after(self) -> int: ...
    def met(self, limit: str) -> None: ...


class ResponsePort(Protocol):
    """What an event needs of the connection it came by."""

    @property
    def server(self) -> ServerPort: ...
    async def open_stream(self) -> SSEWriter: ...
    def fail_stream(self) -> None: ...
    def end(self, reason: CloseReason) -> None: ...


@final
class ClosedPort:
    """What an event needs when its answer is over: one for all the events of a server.

    With the port it came by, an event would hold its exchange, which holds the event: a
    circle that stays until the garbage collector comes by.
    """

    __slots__ = ("server",)

    def __init__(self, server: ServerPort) -> None:
        self.server: ServerPort = server

    async def open_stream(self) -> SSEWriter:
        """Never reached: no stream can be started by then."""
        raise ResponseStateError("can't stream: closed already")

    def fail_stream(self) -> None:
        """Do nothing: the stream has ended."""

    def end(self, reason: CloseReason) -> None:
        """Do nothing: it has ended."""


class ResponseState(enum.Enum):
    """How far the answer to a request has come."""

    NEW = "new"
    STREAM_STARTED = "stream started"
    STREAMING = "streaming"
    RESPONDED = "responded"
    CLOSED = "closed"
