"""Spans: one row of `placed` for records of one topic, whatever of them is read or removed."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
from hub_helpers import FakeSink
from tables import table

from h3trio import SSEEvent
from h3trio.hub import HistoryError, Hub, Selection, SQLiteHistory, Update
from h3trio.hub._history.damage import DamagedError
from h3trio.hub._history.selection import NOTHING
from h3trio.hub._sqlite import pages
from h3trio.hub._sqlite.change import MAX_REMOVED_RECORDS
from h3trio.hub._sqlite.spans import MAX_SPAN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Opened: TypeAlias = Callable[..., SQLiteHistory]

AMPLE = 10**9
TABLES = ("state", "epochs", "topics", "records", "placed", "removed_private")
MIXED = ("a", "a", "a", "b", "b", "ab", "b", "b", "a", "a=x", "a", "a")
"""Topics of updates, each letter one, and an id of a publisher's."""


@pytest.fixture
def history(tmp_path: Path) -> Opened:
    """Make histories of a file, which keep one event in memory; another case has another file."""

    def make(case: object = "", **limits: Any) -> SQLiteHistory:  # noqa: ANN401 - any option
        path = tmp_path / f"{hash(str(case))}.db"
        return SQLiteHistory(path, durability="fast", reserve_bytes=0, tail_events=1, **limits)

    return make


async def put(history: SQLiteHistory, *updates: str | Update) -> None:
    """Append updates at once, as a hub does; texts are those of `MIXED`."""
    made = [_made_of(update) if isinstance(update, str) else update for update in updates]
    for answer in await history.append(made):
        assert answer.record is not None
        history.log.append(answer.record)


def _made_of(text: str) -> Update:
    topics, _equals, id = text.partition("=")
    return Update(SSEEvent("x", id=id or None), topics=tuple(topics))


async def read(history: SQLiteHistory, *topics: str) -> list[int]:
    """Read the positions of topics page by page from the file."""
    found: list[int] = []
    after, more = 0, True
    while more:
        page = await history.read(
            after, selection=Selection(topics), max_records=50, max_bytes=AMPLE
        )
        found += [record.position for record in page.records]
        after, more = page.last, page.more
    return found


def rows(history: SQLiteHistory, query: str) -> list[tuple[Any, ...]]:
    """Ask the file."""
    with closing(sqlite3.connect(history.path)) as db:
        return db.execute(query).fetchall()


def spans(history: SQLiteHistory) -> list[tuple[int, int]]:
    """List the first and the last position of all spans, in order."""
    found = rows(history, "SELECT position - earlier, position FROM placed ORDER BY 2, topic")
    return [(first, last) for first, last in found]


def spoil(history: SQLiteHistory, statement: str) -> None:
    """Write into the file what nobody else would."""
    with closing(sqlite3.connect(history.path)) as db, db:
        db.execute(statement)


def kept(history: SQLiteHistory) -> dict[str, list[int]]:
    """List the positions of each topic by the rows of the records alone."""
    found = rows(
        history,
        "SELECT name, position FROM topics JOIN records"
        " ON ' ' || topics || ' ' LIKE '% ' || number || ' %' ORDER BY position",
    )
    return {name: [position for of, position in found if of == name] for name, _ in found}


async def check(history: SQLiteHistory) -> None:
    """Check that each topic has its records, and no span is left without its last one."""
    by_records = kept(history)
    for topic, positions in by_records.items():
        assert await read(history, topic) == positions
    assert await read(history, *by_records) == sorted(set().union(*by_records.values()))
    query = "SELECT * FROM placed WHERE position NOT IN (SELECT position FROM records)"
    assert rows(history, query) == []


# -- rows


async def test_an_event_of_one_topic_is_one_row(history: Opened) -> None:
    """A thousand in groups of a hundred make a thousand rows, and one for each group."""
    async with history() as one:
        for _ in range(10):
            await put(one, *("a" * 100))
        count = sum(rows(one, f"SELECT count(*) FROM {name}")[0][0] for name in TABLES)  # noqa: S608 - constants
        assert 1000 < count <= 1000 + 10 + 3


async def test_a_span_is_bounded(history: Opened) -> None:
    """However many one transaction stores; and the next one begins anew."""
    last = 2 * MAX_SPAN + 1
    async with history() as one:
        await put(one, *("a" * last))
        await put(one, "a")
        ends = [(1, MAX_SPAN), (MAX_SPAN + 1, 2 * MAX_SPAN), (last, last), (last + 1, last + 1)]
        assert spans(one) == ends
        await check(one)
    with closing(sqlite3.connect(one.path, isolation_level=None)) as db:
        for head in (1, MAX_SPAN, MAX_SPAN + 1):
            page, _trims = pages.read_page(
                db, after=0, head=head, selection=Selection(["a"]), max_records=999, max_bytes=AMPLE
            )
            assert len(page.records) == head


async def test_other_records_have_rows_of_their_own(history: Opened) -> None:
    """Records of several topics, or with ids of their publishers', stand between spans."""
    async with history() as one:
        await put(one, *MIXED)
        assert spans(one) == [(1, 3), (4, 5), (6, 6), (6, 6), (7, 8), (9, 9), (10, 10), (11, 12)]
        await check(one)
        assert await one.find("x", selection=Selection(["a"]), allow=NOTHING) == 10


# -- reading


@pytest.mark.slow
async def test_a_span_is_read_from_anywhere_to_anywhere(history: Opened) -> None:
    """Behind any cursor, up to any head, forward and backward, while its first ones are gone."""
    for most in (AMPLE, 2):
        async with history(most, max_topic_events=most) as one:
            await put(one, *MIXED)
            await put(one, "ab", "a", "a", "a")
            await check(one)
            head = one.log.head
            by_topic = kept(one)
        for topics in ("a", "b", "ab"):
            positions = sorted(set().union(*(by_topic[topic] for topic in topics)))
            with closing(sqlite3.connect(one.path, isolation_level=None)) as db:
                for end in range(head + 1):
                    up_to = [position for position in positions if position <= end]
                    look(db, Selection(list(topics)), end, up_to)


def look(db: sqlite3.Connection, selection: Selection, head: int, positions: list[int]) -> None:
    """Check that this is found behind each position, and back from the head."""
    for after in range(head + 1):
        page, _trims = pages.read_page(
            db, after=after, head=head, selection=selection, max_records=99, max_bytes=AMPLE
        )
        assert [r.position for r in page.records] == [p for p in positions if p > after]
    for count, position in enumerate(reversed(positions), start=1):
        found = pages.look_back(db, count=count, head=head, selection=selection, allow=NOTHING)
        assert found == (0, position - 1)
    count = len(positions) + 1
    found = pages.look_back(db, count=count, head=head, selection=selection, allow=NOTHING)
    assert found == (1, 0)


# -- removing


@pytest.mark.slow
@table("limits", [{"max_events": 5}, {"max_topic_events": 2}, {"max_topic_bytes": 60}])
async def test_limits_take_a_span_from_its_beginning(
    history: Opened, limits: dict[str, int]
) -> None:
    """One by one, and its row with its last record."""
    async with history(limits, **limits) as one:
        await put(one, *MIXED)
        for _ in range(2):
            for topic in ("a", "b", "b", "ab", "a", "a"):
                await put(one, topic)
                await check(one)
        await put(one, *MIXED)
        await put(one, *MIXED)
        await check(one)
        assert spans(one)[0][0] > 2 * len(MIXED)


async def test_age_takes_a_span_at_once(history: Opened) -> None:
    """All of its records were stored at one time; and some of those of several topics stay."""
    now = 1000.0
    async with history(max_age=10, clock=lambda: now) as one:
        await put(one, *MIXED)
        now += 5
        await put(one, *MIXED)
        now += 6
        assert await one.trim() == len(MIXED)
        assert len(spans(one)) == 8
        await check(one)


async def test_a_purge_takes_spans_in_steps(history: Opened) -> None:
    """Those of other topics stay, and so does what isn't in the log yet at the end of a span."""
    async with history() as one:
        await put(one, *("a" * (MAX_REMOVED_RECORDS + 9)), *MIXED)
        (early, _late) = await one.append([_made_of("a"), _made_of("a")])
        assert early.record is not None
        one.log.append(early.record)
        assert await one.purge("a") == MAX_REMOVED_RECORDS + 9 + 8 + 1
        assert [last - first for first, last in spans(one)] == [1, 1, 1]
        one.log.head += 1
        await check(one)
        assert await read(one, "a") == [one.log.head]
        assert await one.purge("b") == 4
        assert await one.purge("a") == 1
        assert spans(one) == []


async def test_what_is_pinned_keeps_its_spans(history: Opened) -> None:
    """Noise and other topics go; and a record of both doesn't begin a span of the other."""
    async with history(max_events=4) as one:
        one.pin("b")
        await put(one, *MIXED)
        for _ in range(6):
            await put(one, *"nnn")
            await check(one)
        assert kept(one)["b"] == [4, 5, 6, 7, 8]
        one.unpin("b")
        for _ in range(3):
            await put(one, *"nnn")
            await check(one)
        assert "b" not in kept(one)


async def test_a_closing_record_stays_behind_what_is_pinned(history: Opened) -> None:
    """It is the last of its span: the others go, and it is found as before."""
    async with history(max_events=2) as one:
        one.pin("b")
        await put(one, "ab", "a", "a", Update(None, ["a"], last=True))
        await put(one, *"nnn")
        assert kept(one)["a"] == [1, 4]
        await check(one)
        await one.purge("a")
        await check(one)


# -- damage


@table("where", [7, 8])
async def test_a_damaged_record_of_a_pinned_topic_keeps_its_place(
    history: Opened, where: int
) -> None:
    """The limits in all pass over it, as over the others, and it goes with its topic."""
    async with history(where) as one:
        await put(one, *MIXED)
        spoil(one, f"UPDATE records SET topics = 'b' WHERE position = {where}")  # noqa: S608 - a number
    async with history(where, max_events=2) as one:
        one.pin("b")
        await put(one, *"nnn")
        await put(one, *"nnn")
        places = "SELECT position FROM records WHERE position < 13"
        assert [position for (position,) in rows(one, places)] == [4, 5, 6, 7, 8]
        assert await one.purge("b") == 5
        assert spans(one) == [(16, 18)]


@table("where", [1, 2, 3])
async def test_a_damaged_record_goes_with_its_span(
    history: Opened, where: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever topics its row names, it is placed in those of its span, and counted there."""
    async with history(where, max_events=3) as one:
        await put(one, *"aaa")
        spoil(one, f"UPDATE records SET topics = 'a' WHERE position = {where}")  # noqa: S608 - a number
        caplog.clear()
        with caplog.at_level(logging.ERROR, "h3trio.hub"):
            for _ in range(3):
                await put(one, "a")
        assert caplog.text.count("it is removed") == 1
        assert kept(one) == {"a": [4, 5, 6]}
        assert rows(one, "SELECT events FROM topics") == [(3,)]
        await check(one)


@table("where", [2, 3])
async def test_a_record_that_is_missing_in_a_span_is_damage(history: Opened, where: int) -> None:
    """Who reads the topic is told of a gap, and gets what stands around it."""
    async with history(where) as one:
        await put(one, *"aaaa")
    async with Hub(history(where)) as hub, trio.open_nursery() as nursery:
        spoil(one, f"DELETE FROM records WHERE position = {where}")  # noqa: S608 - a number
        with pytest.raises(HistoryError, match=f"is damaged: record {where}"):
            await hub.history.read(1, selection=Selection(["a"]), max_records=9, max_bytes=AMPLE)
        sink = FakeSink()
        nursery.start_soon(partial(hub.subscribe, sink, ["a"], first="oldest"))
        await sink.wait_for(4)
        assert [event.event for event in sink.events].count("reset") == 1
        nursery.cancel_scope.cancel()


@table("earlier", ["1000", "-1", "'x'", "9e300"])
async def test_a_damaged_span_brings_no_other_topics_records(history: Opened, earlier: str) -> None:
    """It is damage, or what is left of it is read."""
    async with history(earlier) as one:
        await put(one, *("b" * 300), "a", "a")
        spoil(one, f"UPDATE placed SET earlier = {earlier} WHERE position = 302")  # noqa: S608 - constants
        try:
            found = await read(one, "a")
        except DamagedError as damage:
            found = [damage.position or 0]
        assert found == [302]
