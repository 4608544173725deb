"""Mercure's address for clients that can't be changed.

    python -m h3trio serve examples/coming_from/mercure.py:app
    curl -N 'localhost:3000/.well-known/mercure?topic=https://example.com/books/1'
    curl -d topic=https://example.com/books/1 -d data=hi localhost:3000/.well-known/mercure

The hub itself is at `/events`, as ever.
docs/how-to/coming-from/mercure.md says what is missing.
"""

from __future__ import annotations

from h3trio import H3Event, HTTPError, Response, SSEEvent
from h3trio.hub import Hub
from h3trio.hubserver import Access, create_app

hub = Hub()
access = Access()
app = create_app(hub, access=access)


@app.get("/.well-known/mercure")
async def subscribe(event: H3Event) -> None:
    """Stream some topics, each exact; `Access` says who may."""
    grant = await access.check_subscribe(event)
    topics = event.query.get_list("topic")
    if not topics:
        raise HTTPError(400, "name a topic")
    access.check_topics(topics)
    async with event.start_sse() as writer:
        await hub.subscribe(
            writer,
            topics,
            last_event_id=event.last_event_id,
            allow=[
                topic
                for topic in topics
                if grant.subscribe and grant.subscribe.matches_topic(topic)
            ],
        )


@app.post("/.well-known/mercure")
async def publish(event: H3Event) -> Response:
    """Publish a form as Mercure's clients send it."""
    form = await event.form()
    topics = form.get_list("topic")
    if not topics:
        raise HTTPError(400, "name a topic")
    for topic in topics:
        await access.check_publish(event, topic)
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
