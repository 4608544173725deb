"""`MemoryHistory`: the suite for histories, its limits, and its forgetting."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from hub_helpers import BusiestStep

from h3trio import SSEEvent
from h3trio.hub import MemoryHistory, Selection, Update
from h3trio.hub._history.log import Log
from h3trio.hub._history.selection import MAX_SCAN
from h3trio.testing import check_history

if TYPE_CHECKING:
    from collections.abc import Sequence

EVERYTHING = Selection(["*"])


class Clock:
    """Unix time that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Tell it."""
        return self.now


def put(history: MemoryHistory, *topics: str, dedup: str | None = None) -> str:
    """Publish one event as a hub does; return its id."""
    update = Update(event=SSEEvent("x" * 20), topics=topics or ("a",), dedup=dedup)
    ((id, record, *_rest),) = history.append_nowait([update])
    if record is not None:
        history.log.append(record)
    return id


def kept(history: MemoryHistory) -> Sequence[int]:
    """List the positions of the records that are kept."""
    return [record.position for record in history.log]


async def test_it_is_a_history() -> None:
    """It passes the suite that any history must; an epoch later its records are still there."""
    await check_history(
        MemoryHistory,
        make_small=lambda count: MemoryHistory(max_events=count),
        reopen=lambda history: history,
    )


async def test_appending_is_possible_without_waiting() -> None:
    """`append_nowait` gives positions, and doesn't touch the log."""
    async with MemoryHistory() as history:
        update = Update(event=SSEEvent("1"), topics=("a",))
        first, second = history.append_nowait([update, update])
        assert first.record is not None
        assert second.record is not None
        assert (first.record.position, second.record.position) == (1, 2)
        assert history.log.head == 0


async def test_a_cancelled_append_stores_nothing() -> None:
    """No position is given that no log gets."""
    async with MemoryHistory() as history:
        with trio.CancelScope() as scope:
            scope.cancel()
            await history.append([Update(event=SSEEvent("1"), topics=("a",))])
        assert scope.cancelled_caught
        assert history.statistics().newest == 0


async def test_bytes_are_bounded() -> None:
    """The oldest go when the frames are too many bytes."""
    async with MemoryHistory(max_bytes=150) as history:
        for _ in range(5):
            put(history)
        assert history.statistics().bytes <= 150
        assert kept(history) == [3, 4, 5]


@pytest.mark.parametrize("limits", [{"max_topic_events": 2}, {"max_topic_bytes": 100}])
async def test_topics_are_bounded(limits: dict[str, int]) -> None:
    """A busy topic's oldest go and leave a gap; a quiet one keeps its own."""
    async with MemoryHistory(
        max_topic_events=limits.get("max_topic_events"),
        max_topic_bytes=limits.get("max_topic_bytes"),
    ) as history:
        for topic in ("quiet", "busy", "busy", "busy", "quiet", "busy"):
            put(history, topic)
        assert kept(history) == [1, 4, 5, 6]
        assert history.gaps.newest(Selection(["busy"])) == 3
        assert not history.gaps.has_gap(Selection(["quiet"]), 0)


@pytest.mark.parametrize("limits", [{"max_topic_events": 1}, {"max_topic_bytes": 60}])
async def test_a_close_without_an_event_takes_no_events_place(limits: dict[str, int]) -> None:
    """A topic that is full keeps its last events when it is closed."""
    async with MemoryHistory(
        max_topic_events=limits.get("max_topic_events"),
        max_topic_bytes=limits.get("max_topic_bytes"),
    ) as history:
        put(history, "a")
        put(history, "a")
        before = kept(history)
        ((_id, record, *_),) = history.append_nowait([Update(None, ["a"], last=True)])
        assert record is not None
        history.log.append(record)
        assert kept(history) == [*before, 3]


async def test_age_is_bounded_by_trimming() -> None:
    """A record older than `max_age` goes at the next `trim`, and leaves a gap."""
    clock = Clock()
    async with MemoryHistory(max_age=60, clock=clock) as history:
        put(history, "a")
        clock.now += 30
        put(history, "b")
        assert await history.trim() == 0
        clock.now += 31
        assert await history.trim() == 1
        assert kept(history) == [2]
        assert history.gaps.has_gap(Selection(["a"]), 0)
        assert not history.gaps.has_gap(Selection(["b"]), 0)
        clock.now += 60
        assert await history.trim() == 1
        assert kept(history) == []


async def test_keys_of_removed_records_are_forgotten() -> None:
    """No table grows beyond the records: a key can be used again when its record is gone."""
    async with MemoryHistory(max_events=2) as history:
        first = put(history, dedup="k")
        assert put(history, dedup="k") == first
        put(history)
        put(history)
        again = put(history, dedup="k")
        assert again != first
        assert put(history, dedup="k") == again


async def test_it_is_open_once() -> None:
    """A second opening is refused, and closed it takes nothing."""
    history = MemoryHistory()
    with pytest.raises(trio.ClosedResourceError):
        put(history)
    async with history:
        with pytest.raises(trio.BusyResourceError):
            await history.open()
    with pytest.raises(trio.ClosedResourceError):
        put(history)


def test_limits_are_checked() -> None:
    """A limit that isn't one is refused by name."""
    with pytest.raises(ValueError, match="max_events must be positive"):
        MemoryHistory(max_events=0)
    with pytest.raises(TypeError, match="max_age must be a number"):
        MemoryHistory(max_age="1h")  # type: ignore[arg-type]  # it is what's tested


@pytest.mark.slow
@pytest.mark.parametrize(("topics", "count"), [(1, 1000), (50, 100)])
async def test_removing_lets_others_run(topics: int, count: int) -> None:
    """Purging and trimming take out so many records between checkpoints, by topics of a record."""
    clock = Clock()
    names = [f"t/{n}" for n in range(topics)]
    async with MemoryHistory(max_age=10, clock=clock) as history:
        for remove in (partial(history.purge, "t/0"), history.trim):
            for _ in range(count):
                put(history, *names)
            clock.now += 11
            with BusiestStep(Log.remove) as busiest:
                assert await remove() == count
            assert busiest.total == count
            assert busiest.most <= MAX_SCAN // (4 * topics) + 1
