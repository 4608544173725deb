"""`PipeEnd`: one end of a byte stream in memory that holds so many bytes.

Trio's `memory_stream_pair` takes whatever is sent, and `lockstep_stream_pair` nothing that isn't
being received. Between two kernels there is a buffer: sending goes well until it is full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


class _Pipe:
    """One direction."""

    def __init__(self, room: int) -> None:
        self.data = bytearray()
        self.room = room
        self.ended = self.broken = self.abandoned = False
        self._changed = trio.lowlevel.ParkingLot()

    def change(self, *, ended: bool = False, broken: bool = False, abandoned: bool = False) -> None:
        """Set flags, none of which is ever reset, and wake both ends."""
        self.ended |= ended
        self.broken |= broken
        self.abandoned |= abandoned
        self._changed.unpark_all()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to hold; a reset comes first."""
        await trio.lowlevel.checkpoint()
        while not (self.broken or condition()):
            await self._changed.park()
        if self.broken:
            raise trio.BrokenResourceError("connection reset by peer")

    def has_room(self) -> bool:
        """Whether a byte can be sent, or not even that makes sense."""
        return len(self.data) < self.room or self.abandoned or self.ended

    def has_data(self) -> bool:
        """Whether there is something to receive, or nothing ever again."""
        return bool(self.data) or self.ended or self.abandoned


@final
class PipeEnd(trio.abc.HalfCloseableStream):
    """One end of a connection in memory."""

    def __init__(self, outgoing: _Pipe, incoming: _Pipe) -> None:
        self._out = outgoing
        self._in = incoming
        self._sending = False
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; waits while there is no room."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            rest = memoryview(data)
            while True:
                await self.wait_send_all_might_not_block()
                fits = self._out.room - len(self._out.data)
                self._out.data += rest[:fits]
                self._out.change()
                rest = rest[fits:]
                if not rest:
                    return
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        self._check_open()
        await self._out.until(self._out.has_room)
        self._check_open()
        if self._out.ended:
            raise trio.ClosedResourceError("the sending side was closed")
        if self._out.abandoned:
            raise trio.BrokenResourceError("the peer has closed the connection")

    async def send_eof(self) -> None:
        """Close the sending side."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        self._out.change(ended=True)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come, `b""` at its end."""
        self._check_open()
        await self._in.until(self._in.has_data)
        self._check_open()
        data = bytes(self._in.data[:max_bytes])
        del self._in.data[: len(data)]
        self._in.change()
        return data

    async def aclose(self) -> None:
        """Close: the peer still gets what was sent, then EOF."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close, at once."""
        self._closed = True
        self._out.change(ended=True)
        self._in.change(abandoned=True)

    def reset(self) -> None:
        """Break the connection: nothing that is under way arrives any more."""
        for pipe in (self._out, self._in):
            pipe.data.clear()
            pipe.change(broken=True)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")


def pipe_pair(room: int) -> tuple[PipeEnd, PipeEnd]:
    """Return the two ends of a connection that holds `room` bytes each way."""
    one, other = _Pipe(room), _Pipe(room)
    return PipeEnd(one, other), PipeEnd(other, one)
