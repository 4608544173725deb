"""`EventChannel`: a subscription as a Trio receive channel, for code that is no HTTP handler.

The hub speaks frames. `ChannelSink` holds one batch of them, which the channel parses when its
reader asks. While the batch is unread the sink isn't idle, so a slow reader is treated like a slow
client: the log waits for it, not the hub.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import trio

from h3trio._wire.parser import SSEParser

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from h3trio._wire.batch import Batch
    from h3trio._wire.event import SSEEvent

    from .subscription import Start


@final
class ChannelSink:
    """The hub's side of an `EventChannel`: a `FrameSink` of one batch."""

    def __init__(self) -> None:
        self.closed: bool = False
        """Whether the reader wants no more."""
        self._batch: Batch | None = None
        self._ended = False
        self._changed = trio.lowlevel.ParkingLot()

    def send_batch_nowait(self, batch: Batch) -> bool:
        """Take a batch if the last one was read."""
        if self.closed:
            raise trio.BrokenResourceError
        if self._batch is not None:
            raise trio.WouldBlock
        self._batch = batch
        self._changed.unpark_all()
        return False

    async def flush(self) -> None:
        """Wait until the batch was read."""
        await trio.lowlevel.checkpoint()
        while self._batch is not None and not self.closed:
            await self._changed.park()
        if self.closed:
            raise trio.BrokenResourceError

    def end(self) -> None:
        """End the channel behind the batch that is here."""
        self._ended = True
        self._changed.unpark_all()

    def close(self) -> None:
        """Take no more, as the reader is gone."""
        self.closed = True
        self._changed.unpark_all()

    async def take(self) -> Batch:
        """Wait for a batch, as the reader."""
        while not self.closed:
            if self._batch is not None:
                batch, self._batch = self._batch, None
                self._changed.unpark_all()
                return batch
            if self._ended:
                raise trio.EndOfChannel
            await self._changed.park()
        raise trio.ClosedResourceError


@final
class EventChannel(trio.abc.ReceiveChannel["SSEEvent"]):
    """The events of one subscription, in order; given by `Hub.subscription`."""

    def __init__(self, sink: ChannelSink, start: Start, *, max_event_size: int) -> None:
        self.truncated: bool = start.truncated
        """Whether it begins later than `first` asked for; see `Start.truncated`."""
        self._sink = sink
        self._parser = SSEParser(max_event_size=max_event_size, last_event_id=start.cursor)
        self._events: deque[SSEEvent] = deque()

    @property
    def last_event_id(self) -> str:
        """The cursor behind the last event received; before, the one that it began behind."""
        return self._parser.last_event_id

    async def receive(self) -> SSEEvent:
        """Return the next event.

        Raises:
            trio.EndOfChannel: the subscription ended.
            trio.ClosedResourceError: the channel was closed.
        """
        await trio.lowlevel.checkpoint()
        while not self._events:
            batch = await self._sink.take()
            self._events.extend(self._parser.feed(batch.payload))
        return self._events.popleft()

    async def aclose(self) -> None:
        """Stop the subscription."""
        self._sink.close()
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def subscribed(
    locate: Callable[[], Awaitable[Start]],
    subscribe: Callable[[ChannelSink, Start], Awaitable[object]],
    *,
    max_event_size: int,
) -> AsyncGenerator[EventChannel]:
    """Run a subscription beside the block that reads it."""
    start, sink = await locate(), ChannelSink()

    async def feed() -> None:
        try:
            await subscribe(sink, start)
        except trio.BrokenResourceError:
            return  # the reader closed the channel
        finally:
            sink.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, name="h3trio hub subscription")
        yield EventChannel(sink, start, max_event_size=max_event_size)
        nursery.cancel_scope.cancel(reason="the reader is done")
