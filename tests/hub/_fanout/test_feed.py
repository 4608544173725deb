"""`Feed`: one window, shared by those who are up to date with it."""

from __future__ import annotations

import pytest
from hub_helpers import FakeSink, record

from h3trio._wire.batch import Batch
from h3trio.hub._fanout.feed import MAX_BATCH_BYTES, MAX_SINGLE_BYTES, FanoutState, Feed, Subscriber
from h3trio.hub._history.selection import NOTHING, Selection


def make_feed(*, max_records: int = 1000, allow: Selection = NOTHING) -> Feed:
    """A feed of the topic `news`."""
    return Feed(Selection(["news"]), allow, FanoutState(max_records))


def join(feed: Feed, position: int = 0) -> tuple[Subscriber, FakeSink]:
    """Make a new subscriber ready."""
    sink = FakeSink()
    subscriber = Subscriber(sink, selection=feed.selection, allow=feed.allow, info={})
    subscriber.position = position
    feed.add(subscriber)
    return subscriber, sink


def sweep_all(feed: Feed) -> None:
    """Sweep in short turns until nothing waits."""
    while feed.window:
        feed.sweep(2)


async def test_a_pass_gives_every_ready_subscriber_everything_in_one_send() -> None:
    """Three records that wait are one batch, the same object for all at the same cursor."""
    feed = make_feed()
    sinks = [join(feed)[1] for _ in range(5)]
    for position in (1, 2, 3):
        feed.append(record(position))
    sweep_all(feed)
    assert [sink.data for sink in sinks] == [["1", "2", "3"]] * 5
    assert len({id(batch) for sink in sinks for batch in sink.batches}) == 1


async def test_a_record_that_comes_during_a_pass_goes_with_it() -> None:
    """Those not yet visited get it in the same send, the others in the next pass, nobody twice."""
    feed = make_feed()
    sinks = [join(feed)[1] for _ in range(4)]
    feed.append(record(1))
    assert feed.sweep(2) == 2
    feed.append(record(2))
    assert feed.sweep(3) == 2
    assert [sink.data for sink in sinks] == [["1"]] * 2 + [["1", "2"]] * 2
    assert feed.sweep(5) == 2
    assert [sink.data for sink in sinks] == [["1", "2"]] * 4
    assert [len(sink.batches) for sink in sinks] == [2, 2, 1, 1]
    assert not feed.window


async def test_what_a_pass_found_is_cut_off_at_its_end() -> None:
    """The window keeps the records that came during a pass, and none that all have."""
    state = FanoutState(1000)
    feed = Feed(Selection(["news"]), NOTHING, state)
    for _ in range(3):
        join(feed)
    for position in range(1, 10):
        feed.append(record(position))
        feed.sweep(4)
        assert state.records == 0
    feed.append(record(10))
    feed.sweep(2)
    feed.append(record(11))
    feed.sweep(2)
    assert state.records == 1


async def test_a_window_keeps_what_did_not_fit_into_one_batch() -> None:
    """A pass of batches that were full leaves the rest in the window, for all."""
    feed = make_feed()
    sinks = [join(feed)[1] for _ in range(3)]
    for position in (1, 2, 3):
        feed.append(record(position, data="x" * (MAX_BATCH_BYTES - 100)))
    assert feed.sweep(4) == 3
    assert [len(sink.events) for sink in sinks] == [1] * 3
    sweep_all(feed)
    assert [[event.id for event in sink.events] for sink in sinks] == [["e-1", "e-2", "e-3"]] * 3


async def test_who_joins_at_the_head_gets_only_what_comes_later() -> None:
    """A subscriber that joined while records waited isn't given those."""
    feed = make_feed()
    _, early = join(feed)
    feed.append(record(1))
    feed.append(record(2))
    _, late = join(feed, position=2)
    feed.append(record(3))
    sweep_all(feed)
    assert early.data == ["1", "2", "3"]
    assert late.data == ["3"]


async def test_who_joins_during_a_pass_misses_nothing() -> None:
    """Joining between two turns of a pass loses no later record and doubles none."""
    feed = make_feed()
    sinks = [join(feed)[1] for _ in range(3)]
    feed.append(record(1))
    feed.sweep(1)
    _, late = join(feed, position=1)
    feed.append(record(2))
    sweep_all(feed)
    assert [sink.data for sink in sinks] == [["1", "2"]] * 3
    assert late.data == ["2"]


async def test_who_was_passed_over_misses_nothing() -> None:
    """One that needed nothing when the pass came by gets the records of the rest of it."""
    feed = make_feed()
    _, first = join(feed, position=1)
    _, second = join(feed)
    feed.append(record(1))
    assert feed.sweep(1) == 0
    feed.append(record(2))
    sweep_all(feed)
    assert second.data == ["1", "2"]
    assert first.data == ["2"]


async def test_a_sink_that_took_less_than_all_leaves_the_ready_set() -> None:
    """The batch it is owed is inside the sink; the cursor stands behind it."""
    feed = make_feed()
    subscriber, sink = join(feed)
    _, other = join(feed)
    sink.stalled = True
    feed.append(record(1))
    sweep_all(feed)
    feed.append(record(2))
    sweep_all(feed)
    assert subscriber.feed is None
    assert subscriber.position == 1
    assert sink.data == ["1"]
    assert other.data == ["1", "2"]


async def test_a_busy_or_broken_sink_leaves_without_moving() -> None:
    """A batch that a sink refused isn't counted as given, and the others go on."""
    feed = make_feed()
    busy, busy_sink = join(feed)
    gone, gone_sink = join(feed)
    closed, closed_sink = join(feed)
    _, other = join(feed)
    busy_sink.stalled = True
    busy_sink.send_batch_nowait(Batch((record(99).frame,)))
    gone_sink.broken = True
    closed_sink.closed = True
    feed.append(record(1))
    sweep_all(feed)
    assert [s.feed for s in (busy, gone, closed)] == [None] * 3
    assert [s.position for s in (busy, gone, closed)] == [0] * 3
    assert other.data == ["1"]


async def test_a_batch_has_a_bound_in_bytes() -> None:
    """More than a batch may hold is sent in several, in order; one large event goes alone."""
    feed = make_feed()
    _, sink = join(feed)
    big = "x" * (MAX_BATCH_BYTES // 2 + 1)
    for position in (1, 2):
        feed.append(record(position, data=big))
    feed.append(record(3, data="y" * 3 * MAX_BATCH_BYTES))
    feed.append(record(4))
    sweep_all(feed)
    assert [len(batch.payload) > MAX_BATCH_BYTES for batch in sink.batches] == [
        False,
        False,
        True,
        False,
    ]
    assert [event.id for event in sink.events] == ["e-1", "e-2", "e-3", "e-4"]


async def test_the_sweep_is_told_once() -> None:
    """A record that comes while the feed still stands in its queue is no news."""
    feed = make_feed()
    join(feed)
    assert feed.append(record(1))
    assert not feed.append(record(2))
    sweep_all(feed)
    feed.dirty = False
    assert feed.append(record(3))


async def test_without_subscribers_nothing_is_kept() -> None:
    """A feed that nobody stands in takes no record."""
    feed = make_feed()
    assert not feed.append(record(1))
    assert not feed.window


async def test_full_windows_send_their_subscribers_to_the_log() -> None:
    """If the windows of the hub are full, this one is dropped and its subscribers leave."""
    feed = make_feed(max_records=2)
    subscriber, sink = join(feed)
    feed.append(record(1))
    feed.append(record(2))
    assert len(feed.window) == 2
    assert not feed.append(record(3))
    assert not feed.window
    assert subscriber.feed is None
    assert subscriber.position == 0
    sweep_all(feed)
    assert sink.batches == []


async def test_the_bound_on_windows_counts_all_feeds() -> None:
    """Records that were swept make room for others, in any feed."""
    state = FanoutState(2)
    feeds = [Feed(Selection([topic]), NOTHING, state) for topic in "ab"]
    for feed in feeds:
        join(feed)
        assert feed.append(record(1))
    assert state.records == 2
    sweep_all(feeds[0])
    assert state.records == 1
    feeds[1].append(record(2))
    assert state.records == 2
    feeds[1].clear()
    assert state.records == 0


async def test_the_same_records_in_many_feeds_are_joined_once() -> None:
    """Feeds of one subscriber each share the batch of what they have in common."""
    state = FanoutState(1000)
    feeds = [Feed(Selection([str(n)]), NOTHING, state) for n in range(10)]
    sinks = [join(feed)[1] for feed in feeds]
    records = [record(1), record(2)]
    for feed in feeds:
        for each in records:
            feed.append(each)
    for feed in feeds:
        sweep_all(feed)
    assert len({id(sink.batches[0]) for sink in sinks}) == 1


async def test_a_record_alone_is_framed_once_for_many_feeds() -> None:
    """Its batch is kept for the next feed, beside the newest others, and not for good."""
    state = FanoutState(max_records=1000)
    one = record(1, data="x" * 100_000)
    batch = state.batch_of(one)
    assert (batch.payload, batch.count) == (one.frame, 1)
    fitting = MAX_SINGLE_BYTES // len(batch.chunked)
    for n in range(2, fitting):
        state.batch_of(record(n, data="x" * 100_000))
    assert state.batch([one]) is state.batch_of(one) is batch
    for n in range(fitting, fitting + 3):
        state.batch_of(record(n, data="x" * 100_000))
    assert state.batch_of(one) is not batch


async def test_private_records_need_the_right() -> None:
    """A feed allows a private record where one of its topics is allowed."""
    assert make_feed(allow=Selection(["news"])).allows(record(1, private=True))
    assert not make_feed(allow=Selection(["sport"])).allows(record(1, private=True))
    assert make_feed().allows(record(1))


@pytest.mark.parametrize("count", [1, 4])
async def test_deliveries_are_counted(count: int) -> None:
    """Each event counts once for each subscriber that took it, and for none whose sink refused."""
    state = FanoutState(1000)
    feed = Feed(Selection(["news"]), NOTHING, state)
    sinks = [join(feed)[1] for _ in range(count)]
    feed.append(record(1))
    sweep_all(feed)
    join(feed, position=1)[1].vanish()
    feed.append(record(2))
    feed.sweep(1)
    feed.append(record(3))
    feed.sweep(count)
    feed.append(record(4))
    sweep_all(feed)  # the first is owed more than the second, in the same slice
    assert [sink.data for sink in sinks] == [["1", "2", "3", "4"]] * count
    assert state.delivered == 4 * count
    assert state.delivered_bytes == sum(len(sink.payload) for sink in sinks)
    assert state.passes.statistics().count >= 2
