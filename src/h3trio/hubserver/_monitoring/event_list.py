"""`add_event_list`: the stream from which the dashboard lists events, with topics and times.

An event on a stream of `/events` says neither its topics nor when it was published: its bytes are
the same for all who get it, whatever they asked for. So the page has a stream of its own.

It is no subscription. When something is published it waits for `LOOK_SECONDS`, and then reads the
newest records: an open page costs the same however much is published, and isn't counted among those
it shows. What was left out is told. To read at each event would bring nothing: the page draws no
sooner, and would be the most expensive subscriber of a busy hub.

Its format is the page's affair, and may change with it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import trio

from h3trio import HTTPError, SSEEvent, SSEParser
from h3trio.hub import HistoryError, read_recent
from h3trio.hubserver._access.grant import NO_TOPICS, members
from h3trio.hubserver._errors import hub_errors
from h3trio.hubserver._query import check_query, found_topics

if TYPE_CHECKING:
    from h3trio import App, H3Event, SSEWriter
    from h3trio.hub import Hub, Recent, Record, Selection
    from h3trio.hubserver._access.access import AccessControl

    from .watchers import Watchers

LOOK_SECONDS: Final = 0.25
"""The least time from one look at the log to the next."""

MAX_SHOWN: Final = 200
"""Events of one look: as many as the page keeps."""

MAX_CHARACTERS: Final = 20_000
"""Of the data of one event; of more, its size is told."""


def add_event_list(app: App, hub: Hub, access: AccessControl, watchers: Watchers) -> None:
    """Route `/dashboard/events`, for who may subscribe."""

    @app.get("/dashboard/events")
    async def list_events(event: H3Event) -> None:
        watchers.count_answer(event)
        grant = await access.check_subscribe(event)
        allow = grant.subscribe or NO_TOPICS
        check_query(event, "topic", "first")
        topics = found_topics(event) or ["*"]
        access.check_topics(topics)
        # The count by which one is told of what was left out while the stream was lost.
        first, cursor = _first(event.query.get("first")), event.last_event_id
        if cursor is None and first == 0:
            cursor = hub.last_event_id

        async def look() -> Recent:
            count = MAX_SHOWN if cursor is not None else first
            return await read_recent(
                hub.history, topics, count=count, last_event_id=cursor, allow=members(allow)
            )

        with hub_errors(event):
            hub.check_topics(topics)
            found = await look()
        with access.stream(event, grant), watchers.streaming():
            async with event.start_sse() as writer:
                await _send(writer, found, allow)
                await writer.send_event(SSEEvent("{}", event="begin", id=found.last_event_id))
                while True:
                    await writer.flush()
                    if hub.last_event_id == found.last_event_id:
                        await hub.wait_published()
                    await trio.sleep(LOOK_SECONDS)
                    cursor = found.last_event_id
                    try:
                        found = await look()
                    except HistoryError:
                        return  # the page asks again, and is told why it is refused
                    await _send(writer, found, allow)


async def _send(writer: SSEWriter, found: Recent, allow: Selection) -> None:
    if found.gap is not None:
        await writer.send_event(SSEEvent(json.dumps({"gap": found.gap}), event="gap"))
    for record in found.records:
        if (shown := _shown(record, allow)) is not None:
            # Escaped to ASCII, as in the statistics.
            await writer.send_event(SSEEvent(json.dumps(shown), event="event", id=record.id))


def _shown(record: Record, allow: Selection) -> dict[str, object] | None:
    """Return what the page shows of a record, `None` if it is no event: without data."""
    parsed = SSEParser(max_event_size=len(record.frame)).feed(record.frame)
    if not parsed:
        return None
    data = parsed[0].data or ""
    return {
        "id": record.id,
        # A private event is seen by one topic. The names of the others may be private too.
        "topics": [t for t in record.topics if not record.private or allow.matches_topic(t)],
        "private": record.private,
        "published": record.published,
        "type": parsed[0].event,
        "data": data[:MAX_CHARACTERS],
        "size": len(data.encode()),
    }


def _first(text: str | None) -> int:
    """Read how many events to begin with; HTTPError 400 for what is no such number."""
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= MAX_SHOWN):  # noqa: PLR2004 - longer than any number that is allowed
        raise HTTPError(400, f"first must be a number up to {MAX_SHOWN}")
    return int(text)
