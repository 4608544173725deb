"""`Sweep`: short turns, fair between feeds; and single feeds in a row."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
from hub_helpers import FakeSink, record
from trio.testing import wait_all_tasks_blocked

from h3trio._wire.batch import Batch
from h3trio.hub._fanout.feed import FanoutState, Feed, Subscriber
from h3trio.hub._fanout.sweep import (
    CALM_SENDS,
    SLICE_SENDS,
    TURN_SENDS,
    Sweep,
    sweep_single_feeds,
)
from h3trio.hub._history.selection import NOTHING, Selection

if TYPE_CHECKING:
    from trio.testing import MockClock

    from h3trio.hub._history.record import Record


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


def feed_of(name: str, count: int, notes: list[str], state: FanoutState) -> Feed:
    """A feed with so many ready subscribers."""
    feed = Feed(Selection([name]), NOTHING, state)
    for _ in range(count):
        sink = NotingSink(name, notes)
        feed.add(Subscriber(sink, selection=feed.selection, allow=NOTHING, info={}))
    return feed


async def test_a_small_feed_is_not_held_up_by_a_large_one(nursery: trio.Nursery) -> None:
    """One subscriber beside a thousand is written to after one slice, not after the thousand."""
    notes: list[str] = []
    state = FanoutState(1000)
    sweep = Sweep(state)
    for feed in (feed_of("large", 1000, notes, state), feed_of("small", 1, notes, state)):
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
    state = FanoutState(1000)
    feed = feed_of("large", 10 * sends, notes, state)
    for position in range(1, records + 1):
        feed.append(record(position))
    assert 0 < max(await waits_beside(nursery, state, [feed], notes)) <= 2 * sends


@pytest.mark.parametrize("is_shared", [True, False])
async def test_turns_are_long_where_all_wait_for_one_record(
    nursery: trio.Nursery, *, is_shared: bool
) -> None:
    """Also if they are feeds of one subscriber each; not where each waits for another record."""
    notes: list[str] = []
    state = FanoutState(10_000)
    feeds = [feed_of(f"{number}", 1, notes, state) for number in range(4 * CALM_SENDS)]
    shared = record(len(feeds) + 1)
    for number, feed in enumerate(feeds, 1):
        feed.append(shared if is_shared else record(number))
    longest = max(await waits_beside(nursery, state, feeds, notes))
    assert (longest > 2 * TURN_SENDS) == is_shared


async def waits_beside(
    nursery: trio.Nursery, state: FanoutState, feeds: list[Feed], notes: list[str]
) -> list[int]:
    """Sweep; return how many sends another task waited each time that it yielded."""
    sends, turns = sum(len(feed.ready) for feed in feeds), [0]

    async def other() -> None:
        while len(notes) < sends:
            turns.append(len(notes))
            await trio.lowlevel.checkpoint()

    sweep = Sweep(state)
    sweep.add(feeds)
    nursery.start_soon(sweep.run)
    nursery.start_soon(other)
    await wait_all_tasks_blocked()
    return [after - before for before, after in pairwise(turns)]


async def test_the_sweep_sleeps_until_a_feed_comes(nursery: trio.Nursery) -> None:
    """An idle sweep is woken by the next record, as often as one comes."""
    notes: list[str] = []
    state = FanoutState(1000)
    sweep = Sweep(state)
    feed = feed_of("one", 1, notes, state)
    nursery.start_soon(sweep.run)
    for position in (1, 2, 3):
        await wait_all_tasks_blocked()
        assert not feed.dirty
        assert feed.append(record(position))
        sweep.add([feed])
    await wait_all_tasks_blocked()
    assert notes == ["one"] * 3
    assert not feed.dirty


async def test_a_flush_interval_lets_records_gather(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The first record waits for so long, and others that come go with it in one send."""
    state = FanoutState(1000)
    sweep = Sweep(state, flush_interval=0.01)
    feed = Feed(Selection(["news"]), NOTHING, state)
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


# -- feeds of one subscriber, served in a row


def join(feed: Feed) -> tuple[Subscriber, FakeSink]:
    """Make a new subscriber ready."""
    sink = FakeSink()
    subscriber = Subscriber(sink, selection=feed.selection, allow=feed.allow, info={})
    feed.add(subscriber)
    return subscriber, sink


def single_feeds(state: FanoutState, number: int) -> tuple[list[Feed], list[FakeSink]]:
    """Make feeds with a ready subscriber each."""
    feeds = [Feed(Selection([f"{n}", "news"]), NOTHING, state) for n in range(number)]
    return feeds, [join(feed)[1] for feed in feeds]


def queue_of(feeds: list[Feed], *records: Record) -> deque[Feed]:
    """Append records to feeds in turn, and queue these as the sweep does."""
    for number, feed in enumerate(feeds):
        assert feed.append(records[number % len(records)])
    return deque(feeds)


def test_single_feeds_in_a_row() -> None:
    """Each gets its record, is up to date and out of the queue, and everything is counted."""
    state = FanoutState(1000)
    feeds, sinks = single_feeds(state, 5)
    first, second = record(1, data="one"), record(2, data="two")
    queue = queue_of(feeds, first, second)
    assert sweep_single_feeds(queue, state, 3) == 3
    assert [sink.data for sink in sinks] == [["one"], ["two"], ["one"], [], []]
    assert sweep_single_feeds(queue, state, 3) == 2
    assert [sink.data for sink in sinks] == [["one"], ["two"], ["one"], ["two"], ["one"]]
    assert not queue
    assert not any(feed.dirty or feed.window for feed in feeds)
    assert [next(iter(feed.ready)).position for feed in feeds] == [1, 2, 1, 2, 1]
    assert (state.records, state.delivered) == (0, 5)
    assert state.delivered_bytes == 3 * len(first.frame) + 2 * len(second.frame)
    assert state.passes.statistics().count == 5


def test_a_single_subscriber_that_takes_its_time() -> None:
    """With a batch on its way it leaves; while busy it lacks the record; gone, it leaves too."""
    state = FanoutState(1000)
    feeds, (slow, busy, gone) = single_feeds(state, 3)
    members = [next(iter(feed.ready)) for feed in feeds]
    slow.stalled = busy.stalled = True
    busy.send_batch_nowait(Batch([b"own"]))
    gone.vanish()
    assert sweep_single_feeds(queue_of(feeds, record(5)), state, 9) == 3
    assert [member.feed for member in members] == [None] * 3
    assert [member.position for member in members] == [5, 4, 4]
    assert (state.records, state.ready, state.delivered) == (0, 0, 1)


def test_a_single_subscriber_that_has_it() -> None:
    """A record before its cursor isn't sent again."""
    state = FanoutState(1000)
    feeds, (sink,) = single_feeds(state, 1)
    next(iter(feeds[0].ready)).position = 7
    assert sweep_single_feeds(queue_of(feeds, record(7)), state, 9) == 1
    assert not sink.batches
    assert state.records == 0


def test_a_pass_under_way_goes_on() -> None:
    """A feed whose other subscriber left in the middle of a pass isn't served beside that."""
    state = FanoutState(1000)
    feed = Feed(Selection(["news"]), NOTHING, state)
    (leaver, _), _ = join(feed), join(feed)
    queue = queue_of([feed], record(1))
    feed.sweep(1)
    leaver.leave_feed()
    assert len(feed.ready) == 1
    assert sweep_single_feeds(queue, state, 9) == 0
    assert list(queue) == [feed]
