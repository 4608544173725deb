"""`Committer`: one order, group commit, the answers to publishers, and counts by topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from helpers import kept_cancelled
from hub_helpers import BusiestStep, FakeSink, WrappedHistory
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import SSEEvent
from h3trio.hub import (
    Appended,
    HistoryError,
    HistoryFullError,
    Hub,
    KeyReusedError,
    OutcomeUnknownError,
    OverloadedError,
    Selection,
    Update,
)
from h3trio.hub._committer import (
    CHECK_SECONDS,
    FAILING_SECONDS,
    MAX_COMMIT_BYTES,
    UNKNOWN_SECONDS,
    Committer,
)
from h3trio.hub._fanout.feed import FanoutState, Feed, Subscriber
from h3trio.hub._fanout.feeds import Feeds
from h3trio.hub._fanout.replay import Replay
from h3trio.hub._fanout.sweep import Sweep
from h3trio.hub._history.epochs import Epochs
from h3trio.hub._history.selection import MAX_SCAN, NOTHING
from h3trio.hub._inflow import MAX_COUNTED_TOPICS, Inflow

if TYPE_CHECKING:
    from collections.abc import Sequence


class SlowHistory(WrappedHistory):
    """A history that waits for a test before each append; it keeps records in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.durability = "durable"
        self.calls: list[int] = []
        self.gate = trio.Semaphore(0)
        self.error: BaseException | None = None
        self.failing = False
        self.knows = True
        self.asked = 0

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append once the test lets it, or fail with its error."""
        self.calls.append(len(updates))
        await self.gate.acquire()
        if self.error is not None:
            raise self.error
        return self.inner.append_nowait(updates)

    async def health(self) -> bool:
        """Say that it can store, unless the test says otherwise."""
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.failing:
            raise HistoryError("no disk")
        return self.knows


def update(data: str) -> Update:
    """An update of the topic `news`."""
    return Update(event=SSEEvent(data), topics=("news",))


class Bench:
    """A committer on a slow history, running in a nursery."""

    def __init__(self, *, max_waiting: int = 1000, max_waiting_bytes: int = 10**9) -> None:
        self.history = SlowHistory()
        feeds = Feeds(Sweep(FanoutState(max_records=10**6)))
        self.reader = Subscriber(FakeSink(), selection=Selection(["*"]), allow=NOTHING, info={})
        feeds.join(self.reader)
        self.inflow = Inflow(self.history, feeds, Replay(self.history), [self.reader], timeout=5)
        self.committer = Committer(
            self.history, self.inflow, max_waiting=max_waiting, max_waiting_bytes=max_waiting_bytes
        )

    @property
    def delivered(self) -> list[str]:
        """The ids that reached a feed, in order; no sweep takes them out of it."""
        assert self.reader.feed is not None
        return [record.id for record in self.reader.feed.window]

    async def start(self, nursery: trio.Nursery) -> Committer:
        """Open the history and run."""
        await self.history.open()
        self.committer.open()
        nursery.start_soon(self.committer.run)
        return self.committer


async def test_publishers_that_wait_share_a_commit(nursery: trio.Nursery) -> None:
    """Sixty-four publishers are two calls: the first alone, then all who came meanwhile."""
    bench = Bench()
    committer = await bench.start(nursery)
    ids: list[str] = []

    async def publish(n: int) -> None:
        ids.extend(await committer.append([update(str(n))]))

    nursery.start_soon(publish, 0)
    await wait_all_tasks_blocked()
    for n in range(1, 64):
        nursery.start_soon(publish, n)
    await wait_all_tasks_blocked()
    assert committer.waiting == 64
    bench.history.gate.release()
    bench.history.gate.release()
    await wait_all_tasks_blocked()
    assert bench.history.calls == [1, 63]
    assert committer.waiting == 0
    assert len(set(ids)) == 64


async def test_a_commit_has_a_bound_in_bytes(nursery: trio.Nursery) -> None:
    """Large events that wait are several commits; one beyond the bound goes alone."""
    bench = Bench()
    committer = await bench.start(nursery)
    for size in (1, MAX_COMMIT_BYTES // 4, MAX_COMMIT_BYTES // 6, MAX_COMMIT_BYTES, 1):
        nursery.start_soon(committer.append, [update("x" * size)])
        await wait_all_tasks_blocked()
    for _ in range(5):
        bench.history.gate.release()
    await wait_all_tasks_blocked()
    assert bench.history.calls == [1, 2, 1, 1]


@pytest.mark.slow
@table("feeds, topics", [(1, 1), (1, 100), (100, 1)])
async def test_a_commit_is_delivered_a_turn_at_a_time(
    nursery: trio.Nursery, feeds: int, topics: int
) -> None:
    """However many publishers share it, others run between; their updates share one commit."""
    bench = Bench()
    committer = await bench.start(nursery)
    for n in range(1, feeds):
        selection = Selection(["news", f"user/{n}"])
        reader = Subscriber(FakeSink(), selection=selection, allow=NOTHING, info={})
        committer.inflow.feeds.join(reader)
    names = ["news", *(f"x/{n}" for n in range(1, topics))]
    nursery.start_soon(committer.append, [update("first")])
    await wait_all_tasks_blocked()  # it is on its way alone, whatever Trio shuffles
    for _ in range(600):
        nursery.start_soon(committer.append, [Update(SSEEvent("x"), names)])
    await wait_all_tasks_blocked()
    with BusiestStep(Feed.append) as busiest:
        for _ in range(20):
            bench.history.gate.release()
        await wait_all_tasks_blocked()
    assert busiest.total == 601 * feeds
    assert len(bench.history.calls) <= 4
    assert bench.delivered == [record.id for record in committer.history.log]
    # One more, as a turn ends behind the record that fills it.
    assert busiest.most <= feeds * (MAX_SCAN // (8 * topics + feeds) + 2)


async def test_delivery_is_in_log_order_before_any_publisher_hears(nursery: trio.Nursery) -> None:
    """The records are delivered in the order of their positions, whichever task wakes first."""
    bench = Bench()
    committer = await bench.start(nursery)
    early: list[str] = []

    async def publish(n: int) -> None:
        (event_id,) = await committer.append([update(str(n))])
        if event_id not in bench.delivered:
            early.append(event_id)

    for n in range(20):
        nursery.start_soon(publish, n)
    await wait_all_tasks_blocked()
    for _ in range(2):
        bench.history.gate.release()
    await wait_all_tasks_blocked()
    positions = [int(each.rpartition("-")[2]) for each in bench.delivered]
    assert positions == list(range(1, 21))
    assert early == []


async def test_cancelling_a_publisher_abandons_the_wait_not_the_event(
    nursery: trio.Nursery,
) -> None:
    """The event is stored and delivered although nobody waits for its id."""
    bench = Bench()
    committer = await bench.start(nursery)
    scope = trio.CancelScope()

    async def publish() -> None:
        with scope:
            await committer.append([update("x")])

    nursery.start_soon(publish)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    assert scope.cancelled_caught
    bench.history.gate.release()
    await wait_all_tasks_blocked()
    assert len(bench.delivered) == 1


@pytest.mark.parametrize("error", [HistoryError, HistoryFullError, OutcomeUnknownError])
async def test_every_publisher_of_a_failed_commit_hears_it(
    nursery: trio.Nursery, error: type[HistoryError]
) -> None:
    """Each gets the error of the history, nothing is delivered, and the next commit works."""
    bench = Bench()
    committer = await bench.start(nursery)
    heard: list[str] = []

    async def publish() -> None:
        with pytest.raises(error) as caught:
            await committer.append([update("x")])
        heard.append(str(caught.value))

    bench.history.error = error("no")
    for _ in range(3):
        nursery.start_soon(publish)
    await wait_all_tasks_blocked()
    for _ in range(3):
        bench.history.gate.release()
    await wait_all_tasks_blocked()
    assert heard == ["no"] * 3
    assert bench.delivered == []
    bench.history.error = None
    bench.history.gate.release()
    assert len(await committer.append([update("y")])) == 1


class SmallHistory(SlowHistory):
    """A history whose disk has room for so many bytes."""

    room = 1000

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append what fits, all or none."""
        self.calls.append(len(updates))
        await self.gate.acquire()
        if (size := sum(len(one.encoded) for one in updates)) > self.room:
            raise HistoryFullError("full")
        self.room -= size
        return self.inner.append_nowait(updates)


async def outcomes(
    bench: Bench, nursery: trio.Nursery, waiting: Sequence[Update]
) -> list[str | None]:
    """Publish one update first and the others meanwhile; return each error's name, or none."""
    heard: dict[int, str | None] = {}

    async def publish(n: int, one: Update) -> None:
        try:
            await bench.committer.append([one])
        except (HistoryError, KeyReusedError) as exc:
            heard[n] = type(exc).__name__
        else:
            heard[n] = None

    for n, one in enumerate([update("first"), *waiting]):
        nursery.start_soon(publish, n, one)
        await wait_all_tasks_blocked()
    for _ in range(10):
        bench.history.gate.release()
    await wait_all_tasks_blocked()
    return [heard[n + 1] for n in range(len(waiting))]


async def test_a_refused_update_fails_its_own_publisher(nursery: trio.Nursery) -> None:
    """Those that share its commit are stored, and hear of no error; nor is the store at fault."""
    bench = Bench()
    committer = await bench.start(nursery)
    key = [Update(SSEEvent(data), ("news",), dedup="k") for data in ("1", "2", "1")]
    heard = await outcomes(bench, nursery, [key[0], update("x"), key[1], key[2], update("y")])
    assert bench.history.calls == [1, 5]
    assert heard == [None, None, "KeyReusedError", None, None]
    assert len(bench.delivered) == 4
    assert committer.failure is None


async def test_who_asks_for_more_room_than_there_is_fails_alone(nursery: trio.Nursery) -> None:
    """Updates that don't fit together are tried alone, unless a smaller one was refused."""
    bench = Bench()
    bench.history = bench.committer.history = SmallHistory()
    await bench.start(nursery)
    sizes = [10, 2000, 20, 3000, 30, 2000]
    heard = await outcomes(bench, nursery, [update("x" * size) for size in sizes])
    assert heard == [None, *["HistoryFullError", None] * 2, "HistoryFullError"]
    assert bench.history.calls == [1, 6, 1, 1, 1, 1]
    assert len(bench.delivered) == 4


async def test_the_number_of_waiting_updates_is_bounded(nursery: trio.Nursery) -> None:
    """At the bound a publish waits, above it it is refused before the store is asked."""
    bench = Bench(max_waiting=2)
    committer = await bench.start(nursery)
    nursery.start_soon(committer.append, [update("1"), update("2")])
    await wait_all_tasks_blocked()
    with pytest.raises(OverloadedError, match=r"2 updates .* at most 2") as raised:
        await committer.append([update("3")])
    assert raised.value.limit == "max_waiting"
    assert bench.history.calls == [2]


async def test_the_bytes_of_waiting_updates_are_bounded(nursery: trio.Nursery) -> None:
    """Few large events are refused as many small ones are; what was stored counts no more."""
    one = update("x" * 10_000)
    bench = Bench(max_waiting_bytes=2 * one.size)
    committer = await bench.start(nursery)
    for _ in range(2):
        nursery.start_soon(committer.append, [one])
        await wait_all_tasks_blocked()
    with pytest.raises(OverloadedError, match=f"of {2 * one.size} bytes wait") as raised:
        await committer.append([update("")])
    assert raised.value.limit == "max_waiting_bytes"
    for _ in range(3):
        bench.history.gate.release()
    await wait_all_tasks_blocked()
    assert (committer.waiting, committer.waiting_bytes) == (0, 0)
    assert len(await committer.append([one])) == 1


async def test_one_publish_may_be_larger_than_what_may_wait(nursery: trio.Nursery) -> None:
    """If nothing waits it is stored, as it could never be otherwise."""
    bench = Bench(max_waiting=2, max_waiting_bytes=1)
    committer = await bench.start(nursery)
    bench.history.gate.release()
    assert len(await committer.append([update(str(n)) for n in range(3)])) == 3


async def test_a_history_that_waits_has_no_nowait(nursery: trio.Nursery) -> None:
    """`publish_nowait` on it is a WouldBlock."""
    committer = await Bench().start(nursery)
    with pytest.raises(trio.WouldBlock):
        committer.append_nowait([update("x")])


async def test_closing_tells_who_waits(nursery: trio.Nursery) -> None:
    """A publisher whose commit hadn't begun gets a ClosedResourceError."""
    bench = Bench()
    committer = await bench.start(nursery)
    nursery.start_soon(committer.append, [update("under way")])
    await wait_all_tasks_blocked()
    closed = trio.Event()

    async def publish() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await committer.append([update("x")])
        closed.set()

    nursery.start_soon(publish)
    await wait_all_tasks_blocked()
    committer.close()
    await closed.wait()
    assert committer.waiting == 1
    with pytest.raises(trio.ClosedResourceError):
        await committer.append([update("late")])
    nursery.cancel_scope.cancel()


async def test_closing_tells_whose_commit_is_under_way(nursery: trio.Nursery) -> None:
    """A store that is cut off midway may have it or not; whoever only waited hears it's closed."""
    bench = Bench()
    committer = bench.committer
    heard: list[type[Exception]] = []

    async def publish(data: str) -> None:
        with pytest.raises((OutcomeUnknownError, trio.ClosedResourceError)) as caught:
            await committer.append([update(data)])
        heard.append(caught.type)

    async with trio.open_nursery() as running:
        await bench.start(running)
        for data in ("under way", "queued"):
            nursery.start_soon(publish, data)
            await wait_all_tasks_blocked()
        running.cancel_scope.cancel()
    committer.close()
    await wait_all_tasks_blocked()
    assert heard == [OutcomeUnknownError, trio.ClosedResourceError]
    assert committer.waiting == 0
    nursery.cancel_scope.cancel()


class OddError(HistoryError):
    """An error of a history of somebody's, with arguments of its own."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


@table(
    "raised, heard",
    [
        (ZeroDivisionError("oops"), OutcomeUnknownError),
        (SystemExit(3), OutcomeUnknownError),
        (GeneratorExit(), OutcomeUnknownError),
        (OddError(code=7), OddError),
        (ExceptionGroup("of a nursery", [HistoryFullError("no room")]), HistoryFullError),
        (ExceptionGroup("two", [ValueError("a"), OSError("b")]), OutcomeUnknownError),
    ],
)
async def test_whatever_a_history_raises_is_its_publishers(
    raised: BaseException, heard: type[HistoryError]
) -> None:
    """Those of the commit hear of it, it is counted, and the committer goes on."""
    bench = Bench()
    async with trio.open_nursery() as running:
        committer = await bench.start(running)
        bench.history.error = raised
        bench.history.gate.release()
        with pytest.raises(heard) as caught:
            await committer.append([update("x")])
        assert caught.type is heard
        assert (committer.waiting, committer.task_failures["committer"]) == (0, 1)
        bench.history.error = None
        bench.history.gate.release()
        assert len(await committer.append([update("y")])) == 1
        running.cancel_scope.cancel()


async def test_a_cancelled_that_a_history_kept_is_its_publishers() -> None:
    """Nothing was cancelled here: the hub goes on, and so does everything beside it."""
    bench = Bench()
    bench.history.error = await kept_cancelled()
    ids: list[str] = []
    async with trio.open_nursery() as running:
        committer = await bench.start(running)
        bench.history.gate.release()
        with pytest.raises(OutcomeUnknownError):
            await committer.append([update("x")])
        bench.history.error = None
        bench.history.gate.release()
        ids += await committer.append([update("y")])
        running.cancel_scope.cancel()
    assert len(ids) == 1


async def test_an_answer_that_is_none_is_the_publishers_too(nursery: trio.Nursery) -> None:
    """A history that answers fewer updates than it got stops nobody else."""
    bench = Bench()
    committer = await bench.start(nursery)

    class Short(SlowHistory):
        async def append(self, updates: Sequence[Update]) -> list[Appended]:
            return (await super().append(updates))[1:]

    short = Short()
    await short.open()
    committer.history = short
    short.gate.release()
    with pytest.raises(OutcomeUnknownError):
        await committer.append([update("x")])
    committer.history = bench.history
    bench.history.gate.release()
    assert len(await committer.append([update("y")])) == 1


def test_a_cursor_of_an_earlier_epoch_is_passed_by_what_was_followed() -> None:
    """That the epoch is known, and that it went so far, isn't enough."""
    bench = Bench()
    log, known = bench.history.log, [("bbbbbbbb", 1), ("cccccccc", 10)]
    bench.history.epochs = Epochs(known)
    log.head = 7
    assert [bench.inflow.has_passed(f"bbbbbbbb-{n}") for n in (7, 8, 9, 10)] == [
        True,
        False,
        False,
        False,
    ]


# -- whether the history can store


async def test_one_event_that_fails_makes_nothing_unready(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """A history that can store others says so behind the failure; nothing is logged."""
    bench = Bench()
    committer = await bench.start(nursery)
    bench.history.error = HistoryFullError("too large for what is left")
    bench.history.gate.release()
    with pytest.raises(HistoryFullError):
        await committer.append([update("x")])
    assert (bench.history.asked, committer.failure) == (1, None)
    assert caplog.text == ""


async def test_a_history_is_asked_until_it_can_store_again(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Probes ask it, once a second at most and without a publish; each change is logged once."""
    del autojump_clock
    bench = Bench()
    committer = await bench.start(nursery)
    bench.history.error, bench.history.failing = HistoryFullError("full"), True
    for _ in range(3):
        bench.history.gate.release()
        with pytest.raises(HistoryFullError):
            await committer.append([update("x")])
    assert committer.failure == "no disk"
    asked = bench.history.asked
    bench.history.failing = False
    for _ in range(5):
        assert await committer.check() == "no disk"
    assert bench.history.asked == asked
    await trio.sleep(CHECK_SECONDS)
    for _ in range(5):
        assert await committer.check() is None
    assert bench.history.asked == asked + 1
    assert [record.message for record in caplog.records] == [
        "the store fails, the hub isn't ready: no disk",
        "the store works again, the hub is ready",
    ]


@pytest.mark.parametrize("is_found_by_a_probe", [True, False])
async def test_a_history_that_works_again_is_found_to(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    is_found_by_a_probe: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Though nobody publishes and no probe comes any more."""
    del autojump_clock
    bench = Bench()
    committer = await bench.start(nursery)
    bench.history.error, bench.history.failing = HistoryError("gone"), True
    if is_found_by_a_probe:
        await committer.check()
    else:
        bench.history.gate.release()
        with pytest.raises(HistoryError):
            await committer.append([update("x")])
    await trio.sleep(3 * FAILING_SECONDS)
    assert committer.failure == "no disk"
    bench.history.failing = False
    await trio.sleep(FAILING_SECONDS)
    await wait_all_tasks_blocked()
    assert committer.failure is None


async def test_a_shared_history_may_fail_for_a_while(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A probe is told when that time is over; statistics and log have it at once."""
    del autojump_clock
    bench = Bench()
    committer = await bench.start(nursery)
    committer.unready_after = 30
    bench.history.failing = True
    assert await committer.check() is None
    assert committer.failure == "no disk"
    await trio.sleep(29)
    assert await committer.check() is None
    await trio.sleep(1)
    assert await committer.check() == "no disk"
    bench.history.failing = False
    await trio.sleep(CHECK_SECONDS)
    assert await committer.check() is None
    bench.history.failing = True
    await trio.sleep(CHECK_SECONDS)
    assert await committer.check() is None
    assert [record.message for record in caplog.records] == [
        "the store fails, the hub isn't ready if that lasts 30 s: no disk",
        "the store works again, the hub is ready",
        "the store fails, the hub isn't ready if that lasts 30 s: no disk",
    ]


async def test_a_history_that_cant_tell_is_judged_by_its_last_commit(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """It is unready for a while, and then it is for the next publisher to find out."""
    del autojump_clock
    bench = Bench()
    committer = await bench.start(nursery)
    bench.history.knows = False
    assert await committer.check() is None
    bench.history.error = HistoryError("gone")
    bench.history.gate.release()
    with pytest.raises(HistoryError):
        await committer.append([update("x")])
    await trio.sleep(UNKNOWN_SECONDS - 1)
    assert await committer.check() == "gone"
    await trio.sleep(1)
    await wait_all_tasks_blocked()
    assert await committer.check() is None


async def test_a_stored_event_is_an_answer_too(nursery: trio.Nursery) -> None:
    """Nobody need ask: the next commit that works says that the history does."""
    bench = Bench()
    committer = await bench.start(nursery)
    bench.history.error, bench.history.failing = HistoryError("no"), True
    bench.history.gate.release()
    with pytest.raises(HistoryError):
        await committer.append([update("x")])
    bench.history.error = None
    bench.history.gate.release()
    await committer.append([update("y")])
    assert committer.failure is None


# -- counts by topic


async def test_many_topics_are_bounded() -> None:
    """A topic for each event makes room at the limit, and not before; the busy one stays."""
    async with Hub() as hub:
        hub._inflow.topic_counts.update({str(n): 1 for n in range(MAX_COUNTED_TOPICS - 2)})  # noqa: SLF001 - publishing to each takes a second
        for topic in ("busy", "busy", "last that fits"):
            hub.publish_nowait("x", topics=[topic])
        assert hub.statistics().topics == MAX_COUNTED_TOPICS
        hub.publish_nowait("x", topics=["busy", "one more"])
        assert hub.statistics().topics == MAX_COUNTED_TOPICS // 2 + 1
        (busiest,) = hub.busiest_topics(1)
        assert (busiest.topic, busiest.published) == ("busy", 3)


async def test_the_half_with_fewer_events_is_forgotten() -> None:
    """The topics that have more keep their counts."""
    async with Hub() as hub:
        counts = {str(n): n + 1 for n in range(MAX_COUNTED_TOPICS)}
        hub._inflow.topic_counts.update(counts)  # noqa: SLF001 - as above
        hub.publish_nowait("x", topics=["new"])
        kept = hub.busiest_topics(MAX_COUNTED_TOPICS)
        assert len(kept) == MAX_COUNTED_TOPICS // 2 + 1
        assert [topic.published for topic in kept[:-1]] == sorted(counts.values())[:2047:-1]
        assert kept[-1].topic == "new"
