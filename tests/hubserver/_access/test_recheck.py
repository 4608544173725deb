"""`Revalidator`: when streams end, how often grants are asked for, and what a slow answer costs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

import pytest
import trio
from helpers import kept_cancelled
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import CloseReason, H3Event
from h3trio.hub import Selection
from h3trio.hubserver import Grant
from h3trio.hubserver._access.recheck import SPREAD, HeldStream, Revalidator

if TYPE_CHECKING:
    from trio.testing import MockClock

PUBLIC = Selection()


class Stream:
    """As much of an event as is ended, in a task that holds it open."""

    def __init__(self) -> None:
        self.ended: float | None = None
        self.closed = trio.Event()

    def end(self, reason: CloseReason) -> None:
        """Note when."""
        assert reason is CloseReason.AUTH_EXPIRED
        assert self.ended is None
        self.ended = trio.current_time()

    async def hold(self, revalidator: Revalidator, grant: Grant) -> None:
        """Stay open until the client leaves or the grant ends."""
        with HeldStream(revalidator, cast("H3Event", self), grant):
            await self.closed.wait()


class Desk:
    """An authenticator that takes its time."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.waiting = self.most = 0
        self.asked: list[float] = []
        self.grant: Grant | None = Grant(subscribe=PUBLIC)
        self.error: BaseException | None = None

    async def __call__(self, _event: H3Event) -> Grant | None:
        """Return the grant, after a while."""
        self.asked.append(trio.current_time())
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await trio.sleep(self.delay)
        finally:
            self.waiting -= 1
        if self.error is not None:
            raise self.error
        return self.grant


class Stage:
    """A running revalidator on Trio's clock, and streams that it watches."""

    def __init__(self, nursery: trio.Nursery, desk: Desk, interval: float, timeout: float) -> None:
        self._nursery = nursery
        self.counts: Counter[str] = Counter()
        self.revalidator = Revalidator(
            interval=interval, timeout=timeout, counts=self.counts, clock=trio.current_time
        )
        nursery.start_soon(self.revalidator.run, desk)

    def open(self, expires: float | None = None) -> Stream:
        """Open a stream that may subscribe."""
        stream = Stream()
        self._nursery.start_soon(stream.hold, self.revalidator, grant(expires))
        return stream


def grant(expires: float | None = None) -> Grant:
    """Make a grant that may subscribe."""
    return Grant(subscribe=PUBLIC, expires=expires)


def start(
    nursery: trio.Nursery, desk: Desk, *, interval: float = float("inf"), timeout: float = 10
) -> Stage:
    """Run a revalidator."""
    return Stage(nursery, desk, interval, timeout)


async def test_each_ends_in_its_time(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Streams end as their grants do, in whatever order they came; without an end they stay."""
    stage = start(nursery, Desk())
    now = autojump_clock.current_time()
    ends = (30.0, 10.0, 20.0, None, 40.0)
    streams = [stage.open(None if after is None else now + after) for after in ends]
    await wait_all_tasks_blocked()
    streams[4].closed.set()
    await trio.sleep(100)
    found = [None if s.ended is None else round(s.ended - now, 3) for s in streams]
    assert found == [30, 10, 20, None, None]
    assert stage.counts == {"expired": 3}
    nursery.cancel_scope.cancel()


async def test_a_grant_that_is_over_ends_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A token may run out between the check and the stream."""
    stream = start(nursery, Desk()).open(autojump_clock.current_time() - 5)
    await wait_all_tasks_blocked()
    assert stream.ended is not None
    nursery.cancel_scope.cancel()


async def test_a_slow_check_keeps_no_stream(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A stream ends with its grant while its grant is being asked for, which is done once."""
    desk = Desk(delay=1000)
    stage = start(nursery, desk, interval=10, timeout=5000)
    now = autojump_clock.current_time()
    stream = stage.open(now + 50)
    await trio.sleep(60)
    assert len(desk.asked) == 1
    assert stream.ended == pytest.approx(now + 50)
    assert stage.counts == {"expired": 1}
    nursery.cancel_scope.cancel()


async def test_a_check_that_hangs_is_given_up(
    nursery: trio.Nursery,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
) -> None:
    """The stream stays, and its grant is asked for again."""
    desk = Desk(delay=float("inf"))
    stage = start(nursery, desk, interval=100, timeout=5)
    stream = stage.open()
    await trio.sleep(450)
    assert stage.counts == {"recheck_failures": 4}
    assert stream.ended is None
    nursery.cancel_scope.cancel()


@table(
    "error, answer",
    [
        (ZeroDivisionError(), None),
        (SystemExit(1), None),
        (ExceptionGroup("of a nursery", [OSError(), ValueError()]), None),
        (None, "no grant"),
        (None, Grant(subscribe=PUBLIC, expires=cast("float", "tomorrow"))),
    ],
)
async def test_an_authenticator_with_a_bug_ends_nothing(
    autojump_clock: MockClock, error: BaseException | None, answer: object
) -> None:
    """Whatever it raises or returns, streams stay as they are, and are asked about again."""
    del autojump_clock
    async with trio.open_nursery() as nursery:
        desk = Desk()
        desk.error, desk.grant = error, cast("Grant | None", answer)
        stage = start(nursery, desk, interval=10)
        stream = stage.open()
        await trio.sleep(35)
        assert (len(desk.asked), stream.ended) == (3, None)
        assert stage.counts == {"recheck_failures": 3}
        nursery.cancel_scope.cancel()


async def test_a_cancelled_that_an_authenticator_kept_ends_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Nothing was cancelled here, so it is an error like any other."""
    del autojump_clock
    desk = Desk()
    desk.error = await kept_cancelled()
    stage = start(nursery, desk, interval=10)
    stream = stage.open()
    await trio.sleep(35)
    assert (len(desk.asked), stream.ended) == (3, None)
    nursery.cancel_scope.cancel()


async def test_few_are_asked_for_at_once(nursery: trio.Nursery, autojump_clock: MockClock) -> None:  # noqa: ARG001 - time that jumps
    """However many are due, an authenticator has sixteen to answer."""
    desk = Desk(delay=1)
    stage = start(nursery, desk, interval=1, timeout=100)
    for _ in range(50):
        stage.open()
    await trio.sleep(20)
    assert desk.most == 16
    assert len(desk.asked) > 100
    nursery.cancel_scope.cancel()


async def test_streams_are_asked_about_one_after_another(
    nursery: trio.Nursery,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
) -> None:
    """Each interval all are asked about once, evenly over a fifth of it."""
    desk = Desk()
    stage = start(nursery, desk, interval=100)
    for _ in range(20):
        stage.open()
    await trio.sleep(300.5)
    assert SPREAD == 0.2
    times = [begin + later for begin in (80, 180, 280) for later in range(20)]
    assert [round(asked) for asked in desk.asked] == times
    nursery.cancel_scope.cancel()


async def test_streams_that_left_are_not_asked_about(
    nursery: trio.Nursery,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
) -> None:
    """A stream that leaves before its turn is passed over; the others have theirs."""
    desk = Desk()
    stage = start(nursery, desk, interval=100)
    leaving = [stage.open() for _ in range(20)]
    await trio.sleep(85.5)
    assert len(desk.asked) == 6
    for stream in leaving:
        stream.closed.set()
    stage.open()
    await trio.sleep(60)
    assert len(desk.asked) == 6
    await trio.sleep(50)
    assert len(desk.asked) == 7
    nursery.cancel_scope.cancel()


async def test_a_new_end_counts(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A grant that was prolonged ends later, one that was cut ends earlier."""
    desk = Desk()
    stage = start(nursery, desk, interval=10)
    now = autojump_clock.current_time()
    stream = stage.open(now + 50)
    desk.grant = grant(now + 100)
    await trio.sleep(70)
    assert stream.ended is None
    desk.grant = grant(now + 90)
    await trio.sleep(50)
    assert stream.ended == pytest.approx(now + 90)
    nursery.cancel_scope.cancel()


async def test_a_stream_that_leaves_during_its_check(
    nursery: trio.Nursery,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
) -> None:
    """It isn't ended again, whatever the answer is."""
    desk = Desk(delay=5)
    stage = start(nursery, desk, interval=10)
    stream = stage.open()
    await trio.sleep(10)
    assert desk.waiting == 1
    desk.grant = None
    stream.closed.set()
    await trio.sleep(100)
    assert (stream.ended, stage.counts, len(desk.asked)) == (None, {}, 1)
    nursery.cancel_scope.cancel()


async def test_nobody_is_asked_about_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Without a stream no task wakes."""
    desk = Desk()
    desk.grant = grant(autojump_clock.current_time() + 15)
    start(nursery, desk, interval=10).open()
    await trio.sleep(100)
    assert len(desk.asked) == 1
    autojump_clock.autojump_threshold = float("inf")
    await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
    nursery.cancel_scope.cancel()
