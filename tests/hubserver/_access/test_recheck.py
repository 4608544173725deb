"""`Watch`: what ends when, what is asked, and what is left when streams leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from h3trio import CloseReason, H3Event
from h3trio.hub import Selection
from h3trio.hubserver import Grant
from h3trio.hubserver._access.recheck import Watch

if TYPE_CHECKING:
    from trio.testing import MockClock

PUBLIC = Selection()


class Stream:
    """As much of an event as is ended."""

    def __init__(self) -> None:
        self.ended: float | None = None

    def end(self, reason: CloseReason) -> None:
        """Note when."""
        assert reason is CloseReason.AUTH_EXPIRED
        assert self.ended is None
        self.ended = trio.current_time()


class Desk:
    """An authenticator that takes its time."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.waiting = self.most = self.asked = 0
        self.grant: Grant | None = Grant(subscribe=PUBLIC)

    async def __call__(self, _event: H3Event) -> Grant | None:
        """Return the grant, after a while."""
        self.asked += 1
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await trio.sleep(self.delay)
        finally:
            self.waiting -= 1
        return self.grant


def start(
    nursery: trio.Nursery, desk: Desk, *, interval: float = float("inf"), timeout: float = 10
) -> Watch:
    """Run a watch on Trio's clock."""
    watch = Watch(desk, interval=interval, timeout=timeout, clock=trio.current_time)
    nursery.start_soon(watch.run)
    return watch


def grant(expires: float | None = None) -> Grant:
    """Make a grant that may subscribe."""
    return Grant(subscribe=PUBLIC, expires=expires)


def event(stream: Stream) -> H3Event:
    """Pass a stream off as an event."""
    return cast("H3Event", stream)


async def test_each_ends_in_its_time(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Whatever the order they came in; those without an end stay, those that left are left."""
    watch = start(nursery, Desk())
    now = autojump_clock.current_time()
    await wait_all_tasks_blocked()
    ends = (30.0, 10.0, 20.0, None, 40.0)
    streams = [Stream() for _ in ends]
    watched = [
        watch.add(event(stream), grant(None if after is None else now + after))
        for stream, after in zip(streams, ends, strict=True)
    ]
    watch.discard(watched[4])
    await trio.sleep(100)
    found = [None if s.ended is None else round(s.ended - now, 3) for s in streams]
    assert found == [30, 10, 20, None, None]
    assert (watch.expired, watch.revoked) == (3, 0)
    nursery.cancel_scope.cancel()


async def test_a_grant_that_is_over_ends_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A token may run out between the check and the stream."""
    watch = start(nursery, Desk())
    stream = Stream()
    watch.add(event(stream), grant(autojump_clock.current_time() - 5))
    await wait_all_tasks_blocked()
    assert stream.ended is not None
    nursery.cancel_scope.cancel()


async def test_a_slow_check_keeps_no_stream(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A stream ends with its grant while its rights are being asked for."""
    desk = Desk(delay=1000)
    watch = start(nursery, desk, interval=10, timeout=5000)
    now, stream = autojump_clock.current_time(), Stream()
    watch.add(event(stream), grant(now + 50))
    await trio.sleep(60)
    assert desk.asked == 1
    assert stream.ended == pytest.approx(now + 50)
    assert watch.expired == 1
    nursery.cancel_scope.cancel()


async def test_a_check_that_hangs_is_given_up(
    nursery: trio.Nursery,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
) -> None:
    """The stream stays, and is asked for again."""
    desk = Desk(delay=float("inf"))
    watch = start(nursery, desk, interval=100, timeout=5)
    stream = Stream()
    watch.add(event(stream), grant())
    await trio.sleep(500)
    assert 3 <= watch.failures <= 6
    assert stream.ended is None
    nursery.cancel_scope.cancel()


async def test_few_are_asked_for_at_once(nursery: trio.Nursery, autojump_clock: MockClock) -> None:  # noqa: ARG001 - time that jumps
    """However many are due, an authenticator has sixteen to answer."""
    desk = Desk(delay=1)
    watch = start(nursery, desk, interval=1, timeout=100)
    for _ in range(50):
        watch.add(event(Stream()), grant())
    await trio.sleep(30)
    assert desk.most == 16
    assert desk.asked > 100
    nursery.cancel_scope.cancel()


async def test_a_new_end_counts(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A grant that was prolonged ends later, one that was cut ends earlier."""
    desk = Desk()
    watch = start(nursery, desk, interval=10)
    now = autojump_clock.current_time()
    stream = Stream()
    watch.add(event(stream), grant(now + 50))
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
    watch = start(nursery, desk, interval=10)
    stream = Stream()
    watched = watch.add(event(stream), grant())
    await trio.sleep(13)
    assert desk.waiting == 1
    desk.grant = None
    watch.discard(watched)
    await trio.sleep(100)
    assert (stream.ended, watch.revoked, desk.asked) == (None, 0, 1)
    nursery.cancel_scope.cancel()


async def test_streams_that_left_take_no_room(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Of many that come and go, the heap keeps few; those that stay still end."""
    watch = start(nursery, Desk())
    now = autojump_clock.current_time()
    staying = [Stream() for _ in range(10)]
    for stream in staying:
        watch.add(event(stream), grant(now + 1000))
    for _ in range(5000):
        watch.discard(watch.add(event(Stream()), grant(now + 500)))
        assert len(watch._heap) < 200  # noqa: SLF001 - nothing else shows it
    await trio.sleep(2000)
    assert all(stream.ended for stream in staying)
    assert (watch._heap, watch._stale) == ([], 0)  # noqa: SLF001 - as above
    nursery.cancel_scope.cancel()
