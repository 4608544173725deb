"""A subscription for code that isn't an HTTP handler: a Trio receive channel.

The hub speaks frames; the channel is a sink that holds one batch of them and
parses it when its reader asks. While the batch is unread the sink isn't idle,
so a slow reader is treated like a slow client: the log waits for it, not the
hub.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, final

import trio

from h3trio._wire.parser import SSEParser

if TYPE_CHECKING:
    from h3trio._wire.batch import Batch
    from h3trio._wire.event import SSEEvent


@final
class EventChannel(trio.abc.ReceiveChannel["SSEEvent"]):
    """The events of one subscription, in order; given by `Hub.subscription`."""

    def __init__(self, *, max_event_size: int) -> None:
        self._parser = SSEParser(max_event_size=max_event_size)
        self._events: deque[SSEEvent] = deque()
        self._batch: Batch | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._ended = False
        self._closed = False

    # -- FrameSink, for the hub

    def send_batch_nowait(self, batch: Batch) -> bool:
        """Take a batch if the last one was read."""
        if self._closed:
            raise trio.BrokenResourceError
        if self._batch is not None:
            raise trio.WouldBlock
        self._batch = batch
        self._changed.unpark_all()
        return False

    async def flush(self) -> None:
        """Wait until the batch was read."""
        await trio.lowlevel.checkpoint()
        while self._batch is not None and not self._closed:
            await self._changed.park()
        if self._closed:
            raise trio.BrokenResourceError

    def end(self) -> None:
        """The subscription ended: what is here can be read, and then no more."""
        self._ended = True
        self._changed.unpark_all()

    # -- ReceiveChannel, for the reader

    @property
    def last_event_id(self) -> str:
        """The cursor behind the last event received."""
        return self._parser.last_event_id

    async def receive(self) -> SSEEvent:
        """Return the next event.

        Raises:
            trio.EndOfChannel: the subscription ended.
            trio.ClosedResourceError: the channel was closed.
        """
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self._closed:
                raise trio.ClosedResourceError
            if self._batch is not None:
                self._events.extend(self._parser.feed(self._batch.payload))
                self._batch = None
                self._changed.unpark_all()
            elif self._ended:
                raise trio.EndOfChannel
            else:
                await self._changed.park()
        return self._events.popleft()

    async def aclose(self) -> None:
        """Stop the subscription."""
        self._closed = True
        self._changed.unpark_all()
        await trio.lowlevel.checkpoint()
