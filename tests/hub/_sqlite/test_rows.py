"""Damaged rows: whatever a column has in it, the error is a `HistoryError` and nobody's end."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import trio
from hub_helpers import FakeSink
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import SSEEvent
from h3trio.hub import HistoryError, Hub, Selection, SQLiteHistory, Update
from h3trio.hub._history.damage import DamagedError

if TYPE_CHECKING:
    from pathlib import Path

EVENTS: Final = 6
EVERYTHING: Final = Selection(["*"])
OWN_ID: Final = "mine"

RECORDS: Final = (
    "id = x'00ff'",
    "id = ''",
    "id = 'a' || char(10) || 'data: forged'",
    "id = CAST(x'ff' AS TEXT)",
    "private = 'yes'",
    "private = 7",
    "private = x'01'",
    "published = 'yesterday'",
    "published = x'00'",
    "published = 9e999",
    "topics = ''",
    "topics = ' '",
    "topics = 'one'",
    "topics = '99'",
    "topics = x'31'",
    "topics = CAST(x'ff' AS TEXT)",
    "frame = 'data: x' || char(10, 10)",
    "frame = x''",
    "frame = x'646174613a2078'",
    "frame = x'646174613a20ff0a0a'",
    "frame = 7",
)
STATE: Final = (
    "UPDATE state SET last = 'x'",
    "UPDATE state SET last = -1",
    "UPDATE state SET last = 1",
    "UPDATE state SET last = 9e300",
    "UPDATE state SET events = 'x'",
    "UPDATE state SET events = -1",
    "UPDATE state SET bytes = x'00'",
    "UPDATE state SET floor = 1000",
    "UPDATE state SET trims = 'x'",
)


async def make(path: Path, *, tail: int = 2) -> SQLiteHistory:
    """Make a database with some events, the third with an id of its publisher's."""
    history = open_history(path, tail=tail)
    async with history:
        for number in range(EVENTS):
            event = SSEEvent(f"event {number}", id=OWN_ID if number == 2 else None)
            for answer in await history.append([Update(event, ["news"])]):
                assert answer.record is not None
                history.log.append(answer.record)
    return open_history(path, tail=tail)


def open_history(path: Path, *, tail: int = 2) -> SQLiteHistory:
    """Make a history of a database, with the newest events in memory."""
    return SQLiteHistory(path, durability="fast", reserve_bytes=0, tail_events=tail)


def spoil(path: Path, statement: str) -> None:
    """Write into the database what nobody else would."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)


@pytest.mark.slow
@table("column", RECORDS)
async def test_a_damaged_record_cant_be_read(tmp_path: Path, column: str) -> None:
    """The error names the file and the record; what is in front of it comes with the error."""
    path = tmp_path / f"{hash(column)}.db"
    async with await make(path) as history:
        spoil(path, f"UPDATE records SET {column} WHERE position = 3")  # noqa: S608 - a constant
        with pytest.raises(HistoryError, match=r"\.db is damaged: record 3"):
            await history.read(2, selection=EVERYTHING, max_records=10, max_bytes=10**6)
        page = await history.read(3, selection=EVERYTHING, max_records=10, max_bytes=10**6)
        assert [record.position for record in page.records] == [4, 5, 6]


@pytest.mark.slow
@table("column", RECORDS)
async def test_a_damaged_record_in_the_newest_part_is_found_at_the_start(
    tmp_path: Path, column: str
) -> None:
    """The history doesn't open, and lets go of the file."""
    path = tmp_path / f"{hash(column)}.db"
    history = await make(path)
    spoil(path, f"UPDATE records SET {column} WHERE position = 5")  # noqa: S608 - a constant
    for _ in range(2):
        with pytest.raises(HistoryError):
            await history.open()


@pytest.mark.slow
@table(
    "statement",
    [
        *STATE,
        "DELETE FROM state",
        "UPDATE topics SET name = x'ff'",
        "UPDATE topics SET name = ''",
        "UPDATE topics SET name = 'a' || char(10)",
        "UPDATE topics SET trimmed = 'x'",
        "UPDATE topics SET trimmed = 1000",
        "DELETE FROM topics",
        "UPDATE epochs SET name = x'00'",
        "UPDATE epochs SET first = 'x'",
        "UPDATE epochs SET first = 1000",
        "UPDATE records SET position = -7 WHERE position = 6",
    ],
)
async def test_damage_beside_the_records_is_found_when_it_is_met(
    tmp_path: Path, statement: str
) -> None:
    """At the start, or where something is read or stored; never another error."""
    path = tmp_path / f"{hash(statement)}.db"
    history = await make(path)
    spoil(path, statement)
    try:
        async with history:
            await history.read(0, selection=EVERYTHING, max_records=10, max_bytes=10**6)
            await history.find(OWN_ID, selection=EVERYTHING, allow=EVERYTHING)
            for answer in await history.append([Update(SSEEvent("x"), ["news"])]):
                if answer.error is not None:
                    raise answer.error
            await history.purge("news")
    except HistoryError:
        return
    assert "-7" in statement, "nothing was met"


@table(
    "statement",
    [
        "UPDATE state SET trims = 'x'",
        "DELETE FROM records WHERE position = 3",
    ],
)
async def test_a_damaged_index_is_an_error_of_reading_by_topic(
    tmp_path: Path, statement: str
) -> None:
    """Another topic's, or another record's, it is not."""
    path = tmp_path / f"{hash(statement)}.db"
    async with await make(path) as history:
        spoil(path, statement)
        with pytest.raises(HistoryError, match="is damaged"):
            await history.read(2, selection=Selection(["news"]), max_records=10, max_bytes=10**6)


async def test_the_error_of_a_matcher_is_no_damage(tmp_path: Path) -> None:
    """It comes from the application's code, and stays what it is."""

    class Matcher:
        def matches(self, topic: str, /) -> bool:
            raise ValueError(topic)

    async with await make(tmp_path / "x.db") as history:
        with pytest.raises(ValueError, match="news"):
            await history.read(0, selection=Selection([Matcher()]), max_records=10, max_bytes=10**6)


@pytest.mark.slow
@table("column", RECORDS)
@table("topics", [["*"], ["news"]])
async def test_a_replay_passes_over_what_is_damaged(
    tmp_path: Path, column: str, topics: list[str]
) -> None:
    """The client is told of a gap and gets all the rest, and the hub goes on for everybody."""
    path = tmp_path / f"{hash((column, topics[0]))}.db"
    async with Hub(await make(path)) as hub, trio.open_nursery() as nursery:
        spoil(path, f"UPDATE records SET {column} WHERE position = 3")  # noqa: S608 - a constant
        sink, live = FakeSink(), FakeSink()
        nursery.start_soon(hub.subscribe, live, topics)
        nursery.start_soon(partial(hub.subscribe, sink, topics, first="oldest"))
        await sink.wait_for(EVENTS)
        await hub.publish("new", topics=["news"])
        await wait_all_tasks_blocked()
        got = [event.data for event in sink.events if event.event != "reset"]
        assert got == [*(f"event {n}" for n in (0, 1, 3, 4, 5)), "new"]
        assert [event.event for event in sink.events].count("reset") == 1
        assert live.data == ["new"]
        nursery.cancel_scope.cancel()


async def test_damage_that_nobody_can_place_ends_at_what_is_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A client is told of a gap and gets the newest; the log says it once for all of them."""
    path = tmp_path / "x.db"
    async with Hub(await make(path)) as hub, trio.open_nursery() as nursery:
        cursor = hub.last_event_id.rpartition("-")[0] + "-1"
        spoil(path, "UPDATE state SET trims = 'x'")
        sinks = [FakeSink(), FakeSink()]
        for sink in sinks:
            nursery.start_soon(partial(hub.subscribe, sink, ["news"], last_event_id=cursor))
        with caplog.at_level(logging.ERROR, "h3trio.hub"):
            for sink in sinks:
                await sink.wait_for(3)
        for sink in sinks:
            assert sink.events[0].event == "reset"
            assert sink.data[1:] == ["event 4", "event 5"]
        assert caplog.text.count("is passed over") == 1
        nursery.cancel_scope.cancel()


@pytest.mark.slow
@table("column", RECORDS)
async def test_a_damaged_record_is_in_the_way_of_no_removal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    """By number, by age and by topic: it goes with the rest, sums and gaps stay whole."""
    path = tmp_path / f"{hash(column)}.db"
    await make(path)
    spoil(path, f"UPDATE records SET {column} WHERE position = 1")  # noqa: S608 - a constant
    for how in ("number", "age", "topic"):
        copy = tmp_path / f"{hash(column)}{how}.db"
        copy.write_bytes(path.read_bytes())
        history = SQLiteHistory(
            copy,
            durability="fast",
            reserve_bytes=0,
            tail_events=2,
            max_events=EVENTS if how == "number" else 10**6,
            max_age=1.0 if how == "age" else None,
            clock=lambda: time.time() + 100,
        )
        caplog.clear()
        async with history:
            if how == "age":
                assert await history.trim() == EVENTS
            elif how == "topic":
                assert await history.purge("news") == EVENTS
            for number in range(2):
                await history.append([Update(SSEEvent(str(number)), ["news"])])
            left = 6 if how == "number" else 2
            assert history.statistics().events == left
            assert history.gaps.has_gap(Selection(["news"]), 0)
        assert caplog.text.count("it is removed") <= 1
        with closing(sqlite3.connect(copy)) as db:
            for table_name in ("records", "placed"):
                (rows,) = db.execute(f"SELECT count(*) FROM {table_name}").fetchone()  # noqa: S608 - the two names above
                assert rows == left
            (events,) = db.execute("SELECT events FROM topics WHERE name = 'news'").fetchone()
            assert events == left


@table(
    "statement",
    [
        "UPDATE records SET frame = 'x' WHERE dedup IS NOT NULL",
        "UPDATE topics SET events = 'x' WHERE name = 'b'",
    ],
)
async def test_damage_that_one_publisher_meets_is_not_the_others(
    tmp_path: Path, statement: str
) -> None:
    """A damaged record with a key, or a damaged topic, fails those who publish there."""
    path = tmp_path / f"{hash(statement)}.db"
    async with await make(path) as history:
        keyed = Update(SSEEvent("first"), ["a", "b"], dedup="k")
        for answer in await history.append([keyed]):
            assert answer.record is not None
            history.log.append(answer.record)
        spoil(path, statement)
        others = [Update(SSEEvent(str(n)), ["a"]) for n in range(2)]
        answers = await history.append([others[0], keyed, others[1]])
        assert [type(answer.error) for answer in answers] == [type(None), DamagedError, type(None)]
        good = [answer.record for answer in answers if answer.record is not None]
        assert [record.position for record in good] == [EVENTS + 2, EVENTS + 3]
        assert history.statistics().events == EVENTS + 3


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM records WHERE last = 1", "UPDATE records SET topics = '99' WHERE last = 1"],
)
async def test_a_damaged_close_keeps_nobody_from_the_topic(tmp_path: Path, statement: str) -> None:
    """What is good of it can be read, as if it were open; a purge opens it for publishers too."""
    path = tmp_path / "hub.db"
    async with Hub(await make(path)) as hub:
        await hub.publish("end", topics=["news"], last=True, private=True)
        await hub.publish_all(["x"] * 5, topics=["other"])
    spoil(path, statement)
    async with Hub(open_history(path)) as hub:
        sink = FakeSink()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: hub.subscribe(sink, ["news"], first="oldest"))
            await sink.wait_for(EVENTS)
            nursery.cancel_scope.cancel()
        assert not (await hub.locate(["news"], allow=["news"])).closed
        await hub.purge("news")
        await hub.publish("new", topics=["news"])
