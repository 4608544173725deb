"""`SSEWriter` and `StreamWriter`: what a handler holds to send events, or bytes of another type.

They turn what users say (strings, events, JSON) into encoded frames and hand them to the stream's
queue, which knows the socket. Each method says whether it waits: `send` waits for room,
`send_nowait` never does, `flush` waits until the transport has everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, final

import trio

from h3trio._http.response import json_text
from h3trio._wire.event import SSEEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from h3trio._wire.batch import Batch

    from .send_queue import SendQueue


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WriterStatistics:
    """A snapshot of one writer."""

    state: str
    """`idle`, `busy` (something waits for the socket), `broken` or `ended`."""
    events_sent: int
    """Events whose sending has begun."""
    bytes_sent: int
    """Bytes that the transport took, head and framing included."""
    queued_events: int
    """Events that wait behind those being sent."""
    queued_bytes: int
    """Their encoded size in bytes, framing not counted."""


class _Writer:
    """The end of a stream that a handler holds, but for what it sends."""

    __slots__ = ("_queue",)

    def __init__(self, queue: SendQueue) -> None:
        self._queue = queue

    def __repr__(self) -> str:
        state, sent = self._queue.state.value, self._queue.events_sent
        return f"<{type(self).__name__}: {state}, {sent} events sent>"

    @property
    def is_active(self) -> bool:
        """Whether anything can still be sent."""
        return self._queue.is_open

    async def flush(self) -> None:
        """Wait until the transport has all that was accepted.

        Raises:
            trio.BrokenResourceError: the client is gone.
            trio.ClosedResourceError: the stream was closed on our side.
        """
        await self._queue.flush()

    async def aclose(self) -> None:
        """End the stream: what was accepted is sent, then the final chunk.

        If cancelled, nothing more is accepted; what was is still sent while the
        handler runs, and for `Settings.farewell_timeout` after it. What isn't out by
        then is dropped, with the final chunk, so that the client knows.
        """
        try:
            await self._queue.finish()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Over already; but `aclose` is a checkpoint, and a handler whose
            # client left shall hear of its cancellation here.
            await trio.lowlevel.checkpoint()

    def statistics(self) -> WriterStatistics:
        """A snapshot; cheap."""
        box = self._queue
        return WriterStatistics(
            state=box.state.value,
            events_sent=box.events_sent,
            bytes_sent=box.bytes_sent,
            queued_events=box.queued_events,
            queued_bytes=box.queued_bytes,
        )


@final
class SSEWriter(_Writer, trio.abc.SendChannel["str | SSEEvent"]):
    """The sending end of one event stream, given by `async with event.start_sse()`.

    Several tasks may send at once; events never interleave. It is also a
    `FrameSink`, so that a hub can feed it.
    """

    __slots__ = ("is_event_source",)

    def __init__(self, queue: SendQueue, *, is_event_source: bool = False) -> None:
        super().__init__(queue)
        self.is_event_source: bool = is_event_source
        """Whether the request is as a browser's `EventSource` makes it: GET, `Accept` exactly
        `text/event-stream`, `Cache-Control: no-cache`, and a `User-Agent` from `Mozilla/` on."""

    async def send(
        self,
        value: str | SSEEvent,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
    ) -> None:
        """Send data with optional fields, or a ready event; wait while the queue is full.

        Accepted is not delivered: `flush` waits for the transport.

        Raises:
            trio.BrokenResourceError: the client is gone.
            trio.ClosedResourceError: the stream was closed on our side.
            TypeError: an event together with fields.
            ValueError: a field can't be framed, see `SSEEvent`.
        """
        await self._queue.send_frame(_frame(value, event, id, retry))

    async def send_event(self, event: SSEEvent) -> None:
        """Send a ready event; as `send`."""
        await self._queue.send_frame(event.encode())

    async def send_json(
        self,
        obj: object,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
    ) -> None:
        """Send an object as compact JSON; as `send`.

        NEL, U+2028 and U+2029 in it are escaped: some clients would end a line there.

        Raises:
            TypeError: the object has no JSON form.
            ValueError: it holds NaN or an infinity, which JSON can't say.
        """
        await self._queue.send_frame(_frame(json_text(obj), event, id, retry))

    def send_nowait(
        self,
        value: str | SSEEvent,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
    ) -> None:
        """Queue an event without waiting. Many in a row leave in few packets.

        Raises:
            trio.WouldBlock: the queue is full.
            trio.BrokenResourceError: the client is gone.
            trio.ClosedResourceError: the stream was closed on our side.
        """
        self._queue.send_frame_nowait(_frame(value, event, id, retry))

    async def send_comment(self, text: str = "") -> None:
        """Send a comment, which clients ignore; as `send`."""
        await self._queue.send_frame(SSEEvent(comment=text).encode())

    async def send_from(self, source: AsyncIterable[str | SSEEvent]) -> None:
        """Send everything that an async iterable gives, then close the iterable.

        The `aclose` of the iterable and of its iterator, where they have one, is
        called however this ends, so an async generator is never left to the garbage
        collector. Raises as `send`.
        """
        iterator = aiter(source)
        try:
            await trio.lowlevel.checkpoint()
            async for value in iterator:
                frame = _frame(value, None, None, None)
                try:
                    self._queue.send_frame_nowait(frame)
                except trio.WouldBlock:
                    await self._queue.send_frame(frame)
        finally:
            try:
                await _close(iterator)
            finally:
                if iterator is not source:
                    await _close(source)

    @property
    def send_batch_nowait(self) -> Callable[[Batch], bool]:
        """See `FrameSink`. The queue's own: a hub calls it for each subscriber and batch."""
        return self._queue.send_batch_nowait


@final
class StreamWriter(_Writer, trio.abc.SendChannel["str | bytes"]):
    """The sending end of a stream of any type, given by `async with event.start_stream(…)`.

    What is sent goes out as it is. For a client the pieces are one sequence of bytes: they arrive
    joined or cut. Bounds, deadlines and states are those of `SSEWriter`, each piece is counted as
    an event; several tasks may send at once, and pieces never interleave.
    """

    __slots__ = ()

    async def send(self, value: str | bytes) -> None:
        """Send a piece, text as UTF-8; wait while the queue is full.

        Accepted is not delivered: `flush` waits for the transport. An empty piece sends nothing.

        Raises:
            trio.BrokenResourceError: the client is gone.
            trio.ClosedResourceError: the stream was closed on our side.
            ValueError: a text holds a lone surrogate.
        """
        if piece := _piece(value):
            await self._queue.send_frame(piece)
        else:
            await trio.lowlevel.checkpoint()

    async def send_json(self, obj: object) -> None:
        """Send an object as a line of compact JSON, as NDJSON and JSON Lines have it; as `send`.

        Raises:
            TypeError: the object has no JSON form.
            ValueError: it holds NaN or an infinity, which JSON can't say.
        """
        await self.send(f"{json_text(obj)}\n")

    def send_nowait(self, value: str | bytes) -> None:
        """Queue a piece without waiting. Many in a row leave in few packets.

        Raises:
            trio.WouldBlock: the queue is full.
            trio.BrokenResourceError, trio.ClosedResourceError, ValueError: as `send`.
        """
        if piece := _piece(value):
            self._queue.send_frame_nowait(piece)


def _piece(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(cast("bytes", value))  # or another of these: it is copied
    raise TypeError(f"a piece of a stream is str or bytes, not {type(value).__name__}")


async def _close(source: object) -> None:
    close: Callable[[], Awaitable[object]] | None = getattr(source, "aclose", None)
    if close is not None:
        await close()


def _frame(value: str | SSEEvent, event: str | None, id_: str | None, retry: int | None) -> bytes:
    if isinstance(value, SSEEvent):
        if event is not None or id_ is not None or retry is not None:
            raise TypeError("an SSEEvent has its own event, id and retry")
        return value.encode()
    if (
        (event is None and id_ is None and retry is None)
        and (type(value) is str and value.isascii())
        and "\n" not in value
        and "\r" not in value
    ):
        # Most events of a stream of tokens: the same bytes, without the event.
        return b"data: %b\n\n" % value.encode("ascii")
    given: object = value
    if isinstance(given, dict | list | tuple | int | float):
        raise TypeError(f"data must be str, not {type(given).__name__}; send_json sends JSON")
    return SSEEvent(value, event=event, id=id_, retry=retry).encode()
