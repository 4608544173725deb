"""The sweep: short turns, fair between feeds."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
from hub_helpers import FakeSink, record
from trio.testing import wait_all_tasks_blocked

from h3trio.hub._fanout.feed import Feed, Windows
from h3trio.hub._fanout.subscriber import Subscriber
from h3trio.hub._fanout.sweep import CALM_SENDS, SLICE_SENDS, TURN_SENDS, Sweep
from h3trio.hub._history.selection import NOTHING, Selection

if TYPE_CHECKING:
    from trio.testing import MockClock

    from h3trio._wire.batch import Batch


class NotingSink(FakeSink):
    """A sink that notes in a list that it was written to."""

    def __init__(self, name: str, notes: list[str]) -> None:
        super().__init__()
        self._name = name
        self._notes = notes

    def send_batch_nowait(self, batch: Batch) -> bool:
        """Note, and take it."""
        self._notes.append(self._name)
        return super().send_batch_nowait(batch)


def feed_of(name: str, count: int, notes: list[str], windows: Windows) -> Feed:
    """A feed with so many ready subscribers."""
    feed = Feed(Selection([name]), NOTHING, windows)
    for _ in range(count):
        sink = NotingSink(name, notes)
        feed.add(Subscriber(sink, selection=feed.selection, allow=NOTHING, info={}))
    return feed


async def test_a_small_feed_is_not_held_up_by_a_large_one(nursery: trio.Nursery) -> None:
    """One subscriber beside a thousand is written to after one slice, not after the thousand."""
    notes: list[str] = []
    windows = Windows(1000)
    sweep = Sweep(windows)
    for feed in (feed_of("large", 1000, notes, windows), feed_of("small", 1, notes, windows)):
        feed.append(record(1))
        sweep.add([feed])
    nursery.start_soon(sweep.run)
    await wait_all_tasks_blocked()
    assert notes.index("small") == SLICE_SENDS
    assert notes.count("large") == 1000


@pytest.mark.parametrize(("records", "sends"), [(1, CALM_SENDS), (2, TURN_SENDS)])
async def test_other_tasks_run_between_turns(
    nursery: trio.Nursery, records: int, sends: int
) -> None:
    """A task that only yields never waits for more than two turns, however Trio shuffles.

    Turns are short where more than one record waits.
    """
    notes: list[str] = []
    windows = Windows(1000)
    feed = feed_of("large", 10 * sends, notes, windows)
    for position in range(1, records + 1):
        feed.append(record(position))
    assert 0 < max(await waits_beside(nursery, windows, [feed], notes)) <= 2 * sends


@pytest.mark.parametrize("is_shared", [True, False])
async def test_turns_are_long_where_all_wait_for_one_record(
    nursery: trio.Nursery, *, is_shared: bool
) -> None:
    """Also if they are feeds of one subscriber each; not where each waits for another record."""
    notes: list[str] = []
    windows = Windows(10_000)
    feeds = [feed_of(f"{number}", 1, notes, windows) for number in range(10 * CALM_SENDS)]
    shared = record(len(feeds) + 1)
    for number, feed in enumerate(feeds, 1):
        feed.append(shared if is_shared else record(number))
    longest = max(await waits_beside(nursery, windows, feeds, notes))
    assert (longest > 2 * TURN_SENDS) == is_shared


async def waits_beside(
    nursery: trio.Nursery, windows: Windows, feeds: list[Feed], notes: list[str]
) -> list[int]:
    """Sweep; return how many sends another task waited each time that it yielded."""
    sends, turns = sum(len(feed.ready) for feed in feeds), [0]

    async def other() -> None:
        while len(notes) < sends:
            turns.append(len(notes))
            await trio.lowlevel.checkpoint()

    sweep = Sweep(windows)
    sweep.add(feeds)
    nursery.start_soon(sweep.run)
    nursery.start_soon(other)
    await wait_all_tasks_blocked()
    return [after - before for before, after in pairwise(turns)]


async def test_the_sweep_sleeps_until_a_feed_comes(nursery: trio.Nursery) -> None:
    """An idle sweep is woken by the next record, as often as one comes."""
    notes: list[str] = []
    windows = Windows(1000)
    sweep = Sweep(windows)
    feed = feed_of("one", 1, notes, windows)
    nursery.start_soon(sweep.run)
    for position in (1, 2, 3):
        await wait_all_tasks_blocked()
        assert not feed.dirty
        assert feed.append(record(position))
        sweep.add([feed])
    await wait_all_tasks_blocked()
    assert notes == ["one"] * 3
    assert len(sweep) == 0


async def test_a_flush_interval_lets_records_gather(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The first waits for so long, and what comes meanwhile goes with it in one send."""
    windows = Windows(1000)
    sweep = Sweep(windows, flush_interval=0.01)
    feed = Feed(Selection(["news"]), NOTHING, windows)
    sink = FakeSink()
    feed.add(Subscriber(sink, selection=feed.selection, allow=NOTHING, info={}))
    nursery.start_soon(sweep.run)
    await wait_all_tasks_blocked()
    start = trio.current_time()
    feed.append(record(1))
    sweep.add([feed])
    await trio.sleep(0.009)
    assert sink.batches == []
    feed.append(record(2))
    await trio.sleep_until(start + 0.01)
    await wait_all_tasks_blocked()
    assert sink.data == ["1", "2"]
    assert len(sink.batches) == 1
    assert autojump_clock.current_time() == start + 0.01
