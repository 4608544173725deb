"""Two hubs on one store in memory."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from hub_helpers import FakeSink

from h3trio.hub import Hub, HubSettings
from h3trio.testing import SharedMemoryHistory, SharedMemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from trio.testing import MockClock

    from h3trio import SSEEvent

TIMEOUT = 5.0


class Two:
    """Two hubs on one store."""

    def __init__(self, store: SharedMemoryStore, *, delay: float = 0.0) -> None:
        self.store = store
        self.histories = [SharedMemoryHistory(store, delay=delay) for _ in range(2)]
        settings = HubSettings(follow_timeout=TIMEOUT)
        self.hubs = [Hub(history, settings=settings) for history in self.histories]

    async def publish(self, number: int, data: str, topic: str = "a") -> str:
        """Publish at one of them."""
        return await self.hubs[number].publish(data, topics=[topic])

    async def read(self, number: int, topic: str = "a", **options: object) -> list[SSEEvent]:
        """Return what a client is sent that comes for a moment."""
        sink = FakeSink()
        with trio.move_on_after(0.5):
            await self.hubs[number].subscribe(sink, [topic], **options)  # type: ignore[arg-type]  # as `subscribe` has them
        return sink.events


@asynccontextmanager
async def two(
    clock: MockClock | None = None, *, delay: float = 0.0, max_events: int = 100
) -> AsyncGenerator[Two]:
    """Run two hubs; a clock is for those tests where time goes by."""
    assert clock is not None or not delay
    both = Two(SharedMemoryStore(max_events=max_events), delay=delay)
    async with both.hubs[0], both.hubs[1]:
        yield both


def resets(events: Sequence[SSEEvent]) -> list[str]:
    """The reasons of the resets among some events."""
    return [json.loads(e.data or "")["reason"] for e in events if e.event == "reset"]
