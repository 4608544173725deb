"""A hub inside an application, on a file: what is acknowledged survives `kill -9`.

python -m h3trio serve examples/hub_durable.py:app
curl -N 'localhost:3000/news/sport?first=10'
curl -d goal localhost:3000/news/sport

Who comes back gets what it missed, of the newest 1,000,000 events or 1 GiB that the file keeps
(`SQLiteHistory(max_events=..., max_age=...)`); who comes too late gets an event of type `reset`.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from h3trio import App, H3Event, HTTPError, SSEEvent
from h3trio.hub import Hub, SQLiteHistory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

hub = Hub(SQLiteHistory(os.environ.get("HUB_DB", "hub.db"), durability="durable"))


@asynccontextmanager
async def lifespan() -> AsyncGenerator[None]:
    """Run the hub while the app is served."""
    async with hub:
        yield


app = App(lifespan=lifespan)


@app.get("/news/:topic")
async def news(event: H3Event) -> None:
    """Stream a topic, from where the client stands."""
    topic, first = event.params["topic"], event.query.get("first")
    try:
        start = await hub.locate([topic], last_event_id=event.last_event_id, first=first)
    except ValueError as exc:
        raise HTTPError(400, str(exc)) from None
    event.response_headers.update(start.headers)
    if start.complete:
        return
    async with event.start_sse() as writer:
        await hub.subscribe(writer, start)


@app.post("/news/:topic")
async def publish(event: H3Event) -> dict[str, str]:
    """Publish the body; answer once it is on disk."""
    data = await event.text()
    return {"id": await hub.publish(SSEEvent(data), topics=[event.params["topic"]])}
