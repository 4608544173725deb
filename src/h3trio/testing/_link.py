"""One connection of a client in memory: its two ends, and how each saw it end."""

from __future__ import annotations

import contextlib
import enum
from typing import TYPE_CHECKING, final

import trio

from h3trio._nursery import OwnedNursery
from h3trio._server.connection import Connection
from h3trio._server.peer import Peer
from h3trio._server.sockets.transport import StreamTransport
from h3trio._server.state import ServerState

from ._pipe import pipe_pair
from ._response import ResponseReader

if TYPE_CHECKING:
    from h3trio import Closing, H3Event, Settings
    from h3trio._server.event import Handler


@final
class Ending(enum.StrEnum):
    """How a response ended, seen from the client."""

    COMPLETE = "complete"
    """It is whole: the server meant it to end there."""
    CUT = "cut"
    """The connection was closed in the middle of it."""
    RESET = "reset"
    """The connection broke."""
    LEFT = "left"
    """The client went away first."""


@final
class Link:
    """One connection of a client: its two ends, and what has come through."""

    def __init__(self, handler: Handler, request: bytes, *, settings: Settings, room: int) -> None:
        self._handler = handler
        self._request = request
        ours, self.stream = pipe_pair(room)
        self.state = ServerState(settings)
        self.state.connections = 1
        self._connection = Connection(
            StreamTransport(ours),
            self._watched,
            peer=Peer("memory", "http", self.state),
            state=self.state,
        )
        self.response = ResponseReader(is_head=request.startswith(b"HEAD "))
        self.ending: Ending | None = None
        self.closing: Closing | None = None
        self.answered = trio.Event()
        self.served = trio.Event()

    async def _watched(self, event: H3Event) -> object:
        event.on_close(self._closed)
        return await self._handler(event)

    def _closed(self, closing: Closing) -> None:
        self.closing = closing
        self.answered.set()

    async def serve(self) -> None:
        """Run the server's side."""
        async with OwnedNursery() as nursery:
            nursery.start_soon(self.state.heartbeat.run)
            await self._connection.run()
        self.answered.set()
        self.served.set()

    async def send_request(self) -> None:
        """Send the request; a server that doesn't want all of it has answered."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.stream.send_all(self._request)

    def leave(self) -> None:
        """Close the client's end."""
        self.ending = self.ending or Ending.LEFT
        self.stream.close()
