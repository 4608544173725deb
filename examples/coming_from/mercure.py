"""Mercure's address for clients that can't be changed.

    python -m h3trio serve examples/coming_from/mercure.py:app
    curl -N 'localhost:3000/.well-known/mercure?topic=https://example.com/books/1'
    curl -d topic=https://example.com/books/1 -d data=hi localhost:3000/.well-known/mercure

The hub itself is at `/events`, as ever. It keeps the newest 10,000 events, in memory; who comes too
late for them gets an event of type `reset`.
docs/how-to/coming-from/mercure.md says what is missing.
"""

from __future__ import annotations

from h3trio import H3Event, HTTPError, Response, SSEEvent
from h3trio.hub import Hub
from h3trio.hubserver import AccessControl, create_app

hub = Hub()
access = AccessControl()
app = create_app(hub, access=access)


def check(topics: list[str]) -> None:
    """Raise HTTPError 400 for topics that can't be, while there is still an answer to give."""
    access.check_topics(topics)
    try:
        hub.check_topics(topics)
    except ValueError as exc:
        raise HTTPError(400, str(exc)) from exc


@app.get("/.well-known/mercure")
async def subscribe(event: H3Event) -> None:
    """Stream some topics, each exact; `AccessControl` says who may."""
    grant = await access.check_subscribe(event)
    topics = event.query.get_list("topic")
    if not topics:
        raise HTTPError(400, "name a topic")
    check(topics)
    private = [
        topic for topic in topics if grant.subscribe and grant.subscribe.matches_topic(topic)
    ]
    # Counts the subject's streams, and ends this one when the token does.
    with access.stream(event, grant):
        async with event.start_sse() as writer:
            await hub.subscribe(writer, topics, last_event_id=event.last_event_id, allow=private)


@app.post("/.well-known/mercure")
async def publish(event: H3Event) -> Response:
    """Publish a form as Mercure's clients send it."""
    form = await event.form()
    topics = form.get_list("topic")
    if not topics:
        raise HTTPError(400, "name a topic")
    check(topics)
    grant = await access.check_publish(event, *topics)
    if pace := access.pace(event, grant):
        pace.check()
    retry = form.get("retry")
    try:
        update = SSEEvent(
            form.get("data") or "",
            event=form.get("type"),
            id=form.get("id"),
            retry=None if retry is None else int(retry),
        )
        stored = await hub.publish(update, topics=topics, private="private" in form)
    except ValueError as exc:
        raise HTTPError(400, str(exc)) from exc
    return Response(stored)
