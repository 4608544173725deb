"""The body of a request, between the task that reads and the task that asks.

The connection's reader feeds what arrives, the handler takes it. The buffer has
a bound: at `is_full` the reader stops reading until `on_room` is called. What
nobody wants is discarded, up to a cap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from h3trio._http.errors import HTTPError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@final
class BodyStream(trio.abc.ReceiveStream):
    """A request body as a `trio.abc.ReceiveStream`: iterate it, or `receive_some`."""

    __slots__ = (
        "_buffer",
        "_buffer_bytes",
        "_discarding",
        "_error",
        "_lot",
        "_on_room",
        "_send_continue",
        "complete",
        "discarded",
        "is_streamed",
        "is_wanted",
        "received",
    )

    def __init__(
        self,
        *,
        buffer_bytes: int,
        on_room: Callable[[], object],
        send_continue: Callable[[], Awaitable[None]],
    ) -> None:
        self._buffer = bytearray()
        self._buffer_bytes = buffer_bytes
        self._on_room = on_room
        self._send_continue = send_continue
        self._lot: trio.lowlevel.ParkingLot | None = None
        self._discarding = False
        self._error: HTTPError | None = None
        self.complete: bool = False
        self.discarded: int = 0
        self.received: int = 0
        """Bytes of the body that arrived, read or not."""
        self.is_wanted: bool = False
        """Whether somebody has asked for it."""
        self.is_streamed: bool = False
        """Whether it is taken as a stream, whose length and pace are the handler's business."""

    def __repr__(self) -> str:
        state = "complete" if self.complete else "open"
        return f"<BodyStream: {state}, {len(self._buffer)} bytes buffered>"

    # -- the reader's side

    @property
    def is_full(self) -> bool:
        """Whether the reader must wait for the handler."""
        return len(self._buffer) >= self._buffer_bytes

    def feed(self, data: bytes) -> None:
        """Add bytes that arrived."""
        self.received += len(data)
        if self._discarding:
            self.discarded += len(data)
        else:
            self._buffer += data
        self._wake()

    def feed_eof(self) -> None:
        """The body is complete."""
        self.complete = True
        self._wake()

    def fail(self, error: HTTPError) -> None:
        """The rest will not come; whoever asks for it gets the error."""
        self._error = error
        self._wake()

    @property
    def failed(self) -> bool:
        """Whether the rest will not come."""
        return self._error is not None

    def _wake(self) -> None:
        if self._lot:
            self._lot.unpark_all()

    # -- the handler's side

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes, `b""` at the end. A checkpoint only if it must wait.

        Raises:
            HTTPError: 400 if the body's framing is broken, 408 if it stalls.
            trio.ClosedResourceError: the body was closed.
            ValueError: `max_bytes` is less than 1.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes!r}")
        self._raise_if_closed()
        self.is_wanted = True
        while not self._buffer and not self.complete:
            await self._wait_more()
        size = len(self._buffer) if max_bytes is None else max_bytes
        data = bytes(self._buffer[:size])
        was_full = self.is_full
        del self._buffer[:size]
        if was_full:
            self._on_room()
        return data

    async def _wait_more(self) -> None:
        """Wait until something was fed; sends `100 Continue` if the client waits for it."""
        if self._error is not None:
            # A new one for each who asks: its traceback holds frames, and they hold us.
            raise HTTPError(self._error.status, self._error.detail)
        await self._send_continue()
        # Looked at again: the rest may have come while that was on its way.
        if not (self._buffer or self.complete or self._error or self._discarding):
            await self._park()
        self._raise_if_closed()

    async def _park(self) -> None:
        if self._lot is None:
            self._lot = trio.lowlevel.ParkingLot()
        await self._lot.park()

    def _raise_if_closed(self) -> None:
        if self._discarding:
            raise trio.ClosedResourceError("the request body was closed")

    async def read(self, max_bytes: int) -> bytes | None:
        """Return the whole body, or `None` if it is longer than `max_bytes`."""
        data = bytearray()
        while piece := await self.receive_some():
            data += piece
            if len(data) > max_bytes:
                return None
        return bytes(data)

    def discard(self) -> None:
        """Throw away what is buffered and what still arrives."""
        was_full = self.is_full
        self._discarding = True
        self.discarded += len(self._buffer)
        self._buffer.clear()
        self._wake()
        if was_full:
            self._on_room()

    def spill(self) -> int:
        """Throw away a full buffer that nobody asked for; return how much was thrown away so far.

        Unread under a stream, it would hide the EOF behind it.
        """
        if self.is_full and not self.is_wanted:
            self.discard()
        return self.discarded

    async def wait_discarded(self, max_bytes: int) -> bool:
        """Discard until the end; `False` if more than `max_bytes` came, or it failed."""
        self.discard()
        while not self.complete:
            if self._error is not None or self.discarded > max_bytes:
                return False
            await self._park()
        return True

    async def aclose(self) -> None:
        """Discard the rest of the body."""
        self.discard()
        await trio.lowlevel.checkpoint()
