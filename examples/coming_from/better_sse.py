"""What is done with better-sse, done with h3trio.

    python -m h3trio serve examples/coming_from/better_sse.py:app
    curl -N localhost:3000/sse
    curl localhost:3000/listeners

The hub keeps the newest 10,000 events, in memory; who comes back too late for them gets a `reset`.

docs/how-to/coming-from/better-sse.md has it beside the original.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

import trio

from h3trio import App, H3Event, SSEEvent
from h3trio.hub import Hub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

hub = Hub()


async def tick() -> None:
    """Broadcast a number every second."""
    for n in count():
        await hub.publish(SSEEvent(str(n), event="tick"), topics=["ticker"])
        await trio.sleep(1)


@asynccontextmanager
async def lifespan() -> AsyncGenerator[None]:
    """Run the hub, and what broadcasts, while the app is served."""
    async with hub, trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        yield
        nursery.cancel_scope.cancel(reason="the app is closed")


app = App(lifespan=lifespan)


@app.get("/sse")
async def subscribe(event: H3Event) -> None:
    """Greet the client, then give it what is broadcast, from where it stands."""
    async with event.start_sse() as writer:
        await writer.send("Hello world!")
        await hub.subscribe(writer, ["ticker"], last_event_id=event.last_event_id)


@app.get("/listeners")
async def listeners(_event: H3Event) -> dict[str, int]:
    """Count who listens."""
    return {"listeners": hub.statistics().subscribers}
