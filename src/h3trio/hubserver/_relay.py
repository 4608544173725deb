"""`add_relay`: the whole log as an event stream, for programs that keep a copy or look into it.

    GET    /relay               all records and what becomes of them, for who has the right

It needs a right of its own (`Grant.relay`): there are private events, and the names of all topics.
Nobody has it without a token.

The `id:` of each event is the hub's own cursor, `<epoch>-<position>`, whatever id the publisher
chose. An event without a type has one record as JSON. The others are notices:

    epoch      the table of epochs: at the beginning, and when one has begun
    trimmed    the newest removed positions of topics: all at the beginning, then those that are new
    closed     a topic has ended: behind the record that closed it
    purged     all records of a topic up to a position were removed, as somebody asked
    reset      the cursor isn't good: an unknown id, or something was lost

A reader goes at its own pace, through the history; it is no subscriber, and nothing waits for it.
What was removed is told in front of the records that are read behind it.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Final, final

from h3trio import HTTPError, SSEEvent

from ._errors import hub_errors
from ._query import check_query

if TYPE_CHECKING:
    from collections.abc import Iterator

    from h3trio import App, H3Event, SSEWriter
    from h3trio.hub import Hub, Mark, Record, Start

    from ._access.access import AccessControl

MAX_NOTICE_CHARACTERS: Final = 64 * 1024
"""Characters of the topics in one notice, or those of one record: what is written in one step."""

_MARK_CHARACTERS: Final = 50
"""Characters of a removed position beside its topics, about."""

_QUERY: Final = ("first", "last_event_id", "lastEventID", "lastEventId")


def add_relay(app: App, hub: Hub, access: AccessControl) -> None:
    """Route `/relay`."""

    @app.get("/relay")
    async def relay(event: H3Event) -> None:
        grant = await access.check_relay(event)
        check_query(event, *_QUERY)
        first = event.query.get("first")
        if first not in (None, "oldest", "newest"):
            raise HTTPError(400, f"first must be oldest or newest, not {first!r}")
        with access.stream(event, grant):
            with hub_errors(event):
                start = await hub.locate(
                    ["*"], last_event_id=event.last_event_id, first=first, allow=["*"]
                )
            event.response_headers.update(start.headers)
            async with event.start_sse() as writer:
                await _Reader(hub, writer, start).run()


@final
class _Reader:
    """One reader of the log."""

    def __init__(self, hub: Hub, writer: SSEWriter, start: Start) -> None:
        self._hub = hub
        self._history = hub.history
        self._writer = writer
        self._start = start
        self._position = start.position
        self._cursor = start.cursor
        self._epochs: list[tuple[str, int]] = []
        self._serial: int | None = None

    async def run(self) -> None:
        """Send what there is, and then what comes."""
        start, history = self._start, self._history
        if start.unknown or start.lost:
            await self._tell_reset("unknown" if start.unknown else "lost", start.last_event_id)
        while True:
            await self._tell_epochs()
            page = await self._hub.read_log(self._position)
            if list(history.epochs) != self._epochs:
                continue  # it may be of another past
            # All of it before anything is sent. What was removed not before the page was read, or
            # a gap would be missed; what is removed later is told with the next page.
            notices = self._removed()
            events = [
                event
                for record in page.records
                for event in _events(record, id=history.epochs.format(record.position))
            ]
            self._go_to(page.last)
            for notice in notices:
                await self._writer.send_event(notice)
            for event in events:
                await self._writer.send_event(event)
            await self._writer.flush()
            if not page.more and self._is_up():
                await self._hub.wait_published()

    def _is_up(self) -> bool:
        """Whether there is nothing to tell: no checkpoint from here to the wait for more."""
        history = self._history
        is_same = list(history.epochs) == self._epochs and history.gaps.serial == self._serial
        return is_same and history.log.head <= self._position

    def _go_to(self, position: int) -> None:
        self._position = position
        self._cursor = self._history.epochs.format(position)

    async def _tell_epochs(self) -> None:
        """Tell the epochs if one has begun, and if something was lost by that."""
        known = list(self._history.epochs)
        if known == self._epochs:
            return
        self._epochs = known
        left = self._history.epochs.last_kept(self._cursor)
        if left is not None:
            self._go_to(left)
        await self._writer.send_event(_event({"epochs": known}, kind="epoch", id=self._cursor))
        if left is not None:
            await self._tell_reset("lost", None)

    async def _tell_reset(self, reason: str, asked: str | None) -> None:
        notice = _event({"reason": reason, "id": asked}, kind="reset", id=self._cursor)
        await self._writer.send_event(notice)

    def _removed(self) -> Iterator[SSEEvent]:
        """Return the notices of what was removed since the last time; at first of all."""
        gaps, serial, cursor = self._history.gaps, self._serial, self._cursor
        self._serial = gaps.serial
        if serial == gaps.serial:
            return iter(())
        floors = {"floor": gaps.floor, "private_floor": gaps.private_floor}
        marks = gaps.marks_since(serial or 0)
        trimmed = (
            _event({**floors, "marks": some}, kind="trimmed", id=cursor) for some in _parts(marks)
        )
        # Who comes back lets go of all that the marks tell of.
        purges = [] if serial is None else gaps.purges_since(serial)
        purged = (
            _event({"topic": topic, "position": position}, kind="purged", id=cursor)
            for topic, position in purges
        )
        return chain(trimmed, purged)


def _event(fields: dict[str, object], *, kind: str | None = None, id: str) -> SSEEvent:
    data = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    return SSEEvent(data, event=kind, id=id)


def _events(record: Record, *, id: str) -> Iterator[SSEEvent]:
    """Give a record, and the notice that it closed its topics.

    Both have the record's id: a reader that drops between them knows it by the record.
    """
    fields: dict[str, object] = {"topics": record.topics, "private": record.private}
    rest = {"published": record.published, "last": record.last, "frame": record.frame.decode()}
    yield _event(fields | rest, id=id)
    if record.last:
        yield _event(fields, kind="closed", id=id)


def _parts(marks: Iterator[Mark]) -> Iterator[list[dict[str, object]]]:
    """Part marks into lists of a bounded size, at least one list."""
    some: list[dict[str, object]] = []
    size = 0
    for topics, position, private in marks:
        size += _MARK_CHARACTERS + sum(map(len, topics))
        if some and size > MAX_NOTICE_CHARACTERS:
            yield some
            some, size = [], _MARK_CHARACTERS + sum(map(len, topics))
        some.append({"topics": topics, "position": position, "private": private})
    yield some
