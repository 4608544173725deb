"""The hub's routes: HTTP in front of one `Hub`.

    GET    /events              everything public, or `?topic=a&topic=b`
    GET    /events/TOPIC        one topic
    POST   /events/TOPIC        publish
    DELETE /events/TOPIC        purge
    GET    /healthz/live, /healthz/ready
    GET    /                    a page that shows the stream

The topic is the rest of the path, percent-decoded: slashes and whole IRIs work.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from h3trio import CORS, App, CloseReason, H3Event, HTTPError, Response
from h3trio.hub import EndReason, Hub

from ._browser import PAGE_HEADERS, add_browser_safety
from ._page import PAGE
from ._publish import publish
from ._rights import Rights

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

_EVENT_STREAM = ("text/event-stream", "text/*", "*/*")


def create_app(
    hub: Hub | None = None, *, rights: Rights | None = None, cors: CORS | None = None
) -> App:
    """Make the app of a hub; serving it runs the hub.

    Args:
        hub: not yet running; one in memory if not given.
        rights: what may be done without a key; nothing beyond this machine if
            not given.
        cors: which other sites' pages may read, and publish where they have the right to.
    """
    hub = hub or Hub()
    rights = rights or Rights()

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        async with hub:
            yield

    app = App(lifespan=lifespan)
    add_browser_safety(app, cors=cors, trusted=rights.allowed_origins)
    _add_events(app, hub, rights)
    _add_operation(app, hub, rights)
    return app


def _add_events(app: App, hub: Hub, rights: Rights) -> None:
    @app.get("/events")
    async def subscribe_to_some(event: H3Event) -> None:
        rights.check_subscribe(event)
        await _subscribe(hub, event, event.query.get_list("topic") or ["*"])

    @app.get("/events/*")
    async def subscribe_to_one(event: H3Event) -> None:
        rights.check_subscribe(event)
        await _subscribe(hub, event, [event.params["*"]])

    @app.post("/events/*")
    async def publish_to_one(event: H3Event) -> Response:
        rights.check_publish(event)
        return await publish(hub, event, event.params["*"])

    @app.delete("/events/*")
    async def purge(event: H3Event) -> dict[str, int]:
        rights.check_publish(event)
        return {"purged": await hub.purge(event.params["*"])}


async def _subscribe(hub: Hub, event: H3Event, topics: Iterable[str]) -> None:
    _check_accept(event)
    try:
        hub.check_topics(topics)
        first = _first(event.query.get("first"))
    except ValueError as exc:
        raise HTTPError(400, str(exc)) from exc
    async with event.start_sse() as writer:
        reason = await hub.subscribe(
            writer,
            topics,
            last_event_id=event.last_event_id,
            first=first,
            info={"client": event.client},
        )
        if reason is EndReason.KICKED:
            event.end(CloseReason.KICKED)


def _first(text: str | None) -> int | str | None:
    if text is None or text in ("oldest", "newest"):
        return text
    if text.isascii() and text.isdigit() and len(text) < 10:  # noqa: PLR2004 - more than any history holds
        return int(text)
    msg = f"first must be a number, oldest or newest, not {text!r}"
    raise ValueError(msg)


def _check_accept(event: H3Event) -> None:
    """406 for a client that says it can't take an event stream (RFC 9110 section 12.5.1)."""
    accept = event.headers.get("accept", "*/*")
    accepted = (part.partition(";")[0].strip().lower() for part in accept.split(","))
    if accept.strip() and not any(part in _EVENT_STREAM for part in accepted):
        raise HTTPError(406, "this is a text/event-stream")


def _add_operation(app: App, hub: Hub, rights: Rights) -> None:
    @app.get("/")
    async def page(event: H3Event) -> Response:
        rights.check_operate(event)
        return Response.html(PAGE, headers=PAGE_HEADERS)

    @app.get("/healthz/live")
    async def live(event: H3Event) -> Response:
        rights.check_operate(event)
        return Response("ok\n", headers={"Cache-Control": "no-store"})

    @app.get("/healthz/ready")
    async def ready(event: H3Event) -> Response:
        rights.check_operate(event)
        headers = {"Cache-Control": "no-store"}
        if event.draining.is_set():
            return Response("draining\n", status=503, headers=headers)
        if (failure := hub.statistics().failure) is not None:
            return Response(f"history: {failure}\n", status=503, headers=headers)
        return Response("ready\n", headers=headers)
