"""A full disk: updates are refused, nothing is lost, and removing makes room again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2e.small_disk import occupy, small_disk

from h3trio import SSEEvent
from h3trio.hub import HistoryFullError, Selection, SQLiteHistory, Update

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVERYTHING = Selection(["*"])
MIB = 1024 * 1024
DISK = 16 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small disk in memory."""
    with small_disk(tmp_path / "disk", DISK) as folder:
        yield folder


async def put(history: SQLiteHistory, count: int, size: int, *topics: str) -> None:
    """Publish so many events at once, the topics in turn, as a hub does."""
    names = topics or ("a",)
    updates = [
        Update(event=SSEEvent("x" * size), topics=(names[n % len(names)],)) for n in range(count)
    ]
    for _id, record, *_rest in await history.append(updates):
        if record is not None:
            history.log.append(record)


async def fill_up(history: SQLiteHistory, size: int) -> None:
    """Publish to two topics until there is no room."""
    while history.log.head < 10**6:
        await put(history, 10, size, "a", "b")


async def read(history: SQLiteHistory) -> list[int]:
    """Read the whole file; return positions."""
    found: list[int] = []
    after, more = 0, True
    while more:
        page = await history.read(after, selection=EVERYTHING, max_records=999, max_bytes=10 * MIB)
        found += [record.position for record in page.records]
        after, more = page.last, page.more
    return found


@pytest.mark.parametrize("size", [100, 1000, 20_000, 200_000])
async def test_a_full_disk_refuses_and_recovers_by_removing(disk: Path, size: int) -> None:
    """What is stored stays; a purge works without a free byte, and then updates do."""
    async with SQLiteHistory(disk / "hub.db", tail_events=10) as history:
        with pytest.raises(HistoryFullError, match=r"hub\.db has no room"):
            await fill_up(history, size)
        stored = history.log.head
        for _ in range(3):
            # To one topic alone they would take fewer pages, and may fit.
            with pytest.raises(HistoryFullError):
                await put(history, 10, size, "a", "b")
        assert await read(history) == list(range(1, stored + 1))
        assert await history.purge("a") == stored // 2
        for _ in range(stored // 40):
            await put(history, 10, size)
        kept = await read(history)
    async with SQLiteHistory(disk / "hub.db") as again:
        assert await read(again) == kept


async def test_a_full_disk_recovers_by_age(disk: Path) -> None:
    """An append that finds no room removes first what has become too old."""
    now = [1000.0]
    async with SQLiteHistory(disk / "hub.db", max_age=60, clock=lambda: now[0]) as history:
        with pytest.raises(HistoryFullError):
            await fill_up(history, 1000)
        now[0] += 61
        await put(history, 10, 1000, "a", "b")
        assert history.gaps.has_gap(EVERYTHING, 0)


async def test_limits_that_fit_go_on_beside_a_program_that_fills_the_disk(disk: Path) -> None:
    """At its limits a history turns over in the space that it has."""
    async with SQLiteHistory(disk / "hub.db", max_events=1000) as history:
        for _ in range(300):
            await put(history, 10, 1000)
        occupy(disk, leave=0)
        for _ in range(300):
            await put(history, 10, 1000)
        assert len(await read(history)) == 1000


async def test_a_history_opens_on_a_full_disk(disk: Path) -> None:
    """What is there can be read, and removing makes room for updates, after a restart too."""
    async with SQLiteHistory(disk / "hub.db") as history:
        await put(history, 200, 1000, "a", "b")
    other = occupy(disk, leave=0)
    async with SQLiteHistory(disk / "hub.db") as history:
        assert len(await read(history)) == 200
        assert await history.purge("a") == 100
        await put(history, 10, 1000)
        other.unlink()
        await put(history, 1000, 1000)
