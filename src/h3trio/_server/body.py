"""`BodyBuffer`: the body of a request, between the reader that fills it and those who ask for it.

It has a bound. At `is_full` the reader waits for `room()`, so a slow handler makes a slow client.
What nobody wants is discarded, up to a cap that the reader sees to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import trio

from h3trio._http.errors import HTTPError

from .parking import SingleWaiter


@final
@dataclass(slots=True, eq=False, repr=False)
class BodyBuffer:
    """Bytes of one body between the task that reads and the tasks that ask."""

    limit: int
    """Bytes at which it is full."""
    complete: bool = False
    """Whether all of it has come."""
    continued_at: float | None = None
    """When the client was told to send it, on Trio's clock, if it waited for that."""
    discarded: int = 0
    """Bytes thrown away."""
    received: int = 0
    """Bytes of the body that arrived, read or not."""
    is_wanted: bool = False
    """Whether somebody has asked for it."""
    is_streamed: bool = False
    """Whether it is taken as a stream, whose length and pace are the handler's business."""
    # These three are made when they are first needed.
    _buffer: bytearray | None = None
    _lot: trio.lowlevel.ParkingLot | None = None
    _reader: SingleWaiter | None = None
    _discarding: bool = False
    _error: HTTPError | None = None

    def __repr__(self) -> str:
        state = "complete" if self.complete else "open"
        return f"<BodyBuffer: {state}, {len(self._buffer or b'')} bytes>"

    # -- the reader's side

    @property
    def is_full(self) -> bool:
        """Whether the reader must wait for the handler."""
        return len(self._buffer or b"") >= self.limit

    async def room(self) -> None:
        """Wait until the reader is to look again: for there is room, or a stream, or an end."""
        if self._reader is None:
            self._reader = SingleWaiter()
        await self._reader.park()

    def feed(self, data: bytes) -> None:
        """Add bytes that arrived."""
        self.received += len(data)
        if self._discarding:
            self.discarded += len(data)
        elif self._buffer is None:
            self._buffer = bytearray(data)
        else:
            self._buffer += data
        self._wake()

    def feed_eof(self) -> None:
        """Note that the body is complete."""
        self.complete = True
        self._wake()

    def fail(self, error: HTTPError) -> None:
        """Note that the rest will not come; whoever asks for it gets the error."""
        self._error = error
        self._wake()

    def spill(self) -> int:
        """Throw away a full buffer that nobody asked for; return how much was thrown away so far.

        Unread under a stream, it would hide the EOF behind it.
        """
        if self.is_full and not self.is_wanted:
            self.discard()
        return self.discarded

    def _wake(self) -> None:
        if self._lot:
            self._lot.unpark_all()

    # -- the other side

    def wake_reader(self) -> None:
        """Let the reader look again."""
        if self._reader is not None:
            self._reader.wake()

    def take(self, max_bytes: int | None) -> bytes:
        """Return what is there, at most so many bytes."""
        buffer = self._buffer
        if buffer is None:
            return b""
        size = len(buffer) if max_bytes is None else max_bytes
        data = bytes(buffer[:size])
        del buffer[:size]
        self.wake_reader()
        return data

    @property
    def is_waiting(self) -> bool:
        """Whether there is nothing to take, and more may come."""
        return not (self._buffer or self.complete or self._error or self._discarding)

    def require_open(self) -> None:
        """See that there is something to take, or may come.

        Raises:
            HTTPError: 400 if the body's framing is broken, 408 if it stalls.
            trio.ClosedResourceError: the body was closed.
        """
        if self._discarding:
            raise trio.ClosedResourceError("the request body was closed")
        if self._error is not None and not (self._buffer or self.complete):
            # A new one for each who asks: its traceback holds frames, and they hold us.
            raise HTTPError(self._error.status, self._error.detail)

    async def wait(self) -> None:
        """Wait until something has happened to it. A checkpoint."""
        if self._lot is None:
            self._lot = trio.lowlevel.ParkingLot()
        await self._lot.park()

    def discard(self) -> None:
        """Throw away what is buffered and what still arrives."""
        self._discarding = True
        self.discarded += len(self._buffer or b"")
        self._buffer = None
        self._wake()
        self.wake_reader()

    async def wait_discarded(self, max_bytes: int) -> bool:
        """Discard until the end; `False` if more than `max_bytes` came, or it failed."""
        self.discard()
        while not self.complete:
            if self._error is not None or self.discarded > max_bytes:
                return False
            await self.wait()
        return True
