"""The hub's routes, over a plain hub in memory: every event to every subscriber now."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import trio

from h3trio import App, H3Event, HTTPError, Response, SSEEvent, SSEWriter

from ._page import PAGE
from ._rights import Rights

if TYPE_CHECKING:
    from collections.abc import Iterable

ALL = "*"


def create_app(rights: Rights | None = None) -> App:
    """Make the hub's app; each has topics of its own."""
    rights = rights or Rights()
    app = App()
    topics: dict[str, set[SSEWriter]] = defaultdict(set)
    numbers = itertools.count(1)

    async def subscribe(event: H3Event, wanted: Iterable[str]) -> None:
        rights.check_subscribe(event)
        async with event.start_sse() as writer:
            try:
                for topic in wanted:
                    topics[topic].add(writer)
                await trio.sleep_forever()
            finally:
                for topic in wanted:
                    topics[topic].discard(writer)

    @app.get("/")
    async def page(_event: H3Event) -> Response:
        return Response.html(PAGE)

    @app.get("/events")
    async def some(event: H3Event) -> None:
        await subscribe(event, event.query.get_list("topic") or [ALL])

    @app.get("/events/*")
    async def one(event: H3Event) -> None:
        await subscribe(event, [_topic(event)])

    @app.post("/events/*")
    async def publish(event: H3Event) -> dict[str, str]:
        rights.check_publish(event)
        update = await _update(event, str(next(numbers)))
        for writer in topics[_topic(event)] | topics[ALL]:
            try:
                writer.send_nowait(update)
            except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                continue
        return {"id": update.id or ""}

    return app


def _topic(event: H3Event) -> str:
    return unquote_to_bytes(event.raw_path.removeprefix(b"/events/")).decode()


async def _update(event: H3Event, default_id: str) -> SSEEvent:
    query = event.query
    try:
        retry = int(query["retry"]) if "retry" in query else None
        data = (await event.body()).decode()
        return SSEEvent(data, event=query.get("event"), id=query.get("id", default_id), retry=retry)
    except ValueError as exc:
        raise HTTPError(400, str(exc)) from exc
