"""Heartbeats: a comment after silence, spread, and one task for all streams."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from fakes import FakeTransport, exchange_scope
from helpers import connect, request

from h3trio import Settings
from h3trio._server.heartbeat import Heartbeat
from h3trio._server.send_queue import SendQueue
from h3trio._tasks import run_again

if TYPE_CHECKING:
    from trio.testing import MockClock

    from h3trio import H3Event


class Streams:
    """Some streams of one heartbeat, and when each was written to."""

    def __init__(self, nursery: trio.Nursery, interval: float = 15) -> None:
        self.nursery = nursery
        self.heartbeat = Heartbeat(interval, random.Random(1))  # noqa: S311 - it spreads, no more
        nursery.start_soon(self.heartbeat.run)

    def open(self, *, room: int | None = None) -> tuple[SendQueue, FakeTransport]:
        """Open a stream."""
        transport = FakeTransport(room=room)
        queue = SendQueue(
            transport,
            chunked=False,
            settings=Settings(),
            nursery=self.nursery,
            scope=exchange_scope(),
        )
        self.heartbeat.add(queue)
        return queue, transport


async def test_silence(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A silent stream gets a comment within the interval, and again one interval later."""
    streams = Streams(nursery)
    _, transport = streams.open()
    await trio.sleep(11.9)
    assert transport.sent == b""
    await trio.sleep_until(15)
    assert transport.sent == b":\n"
    await trio.sleep_until(26.9)
    assert transport.sent == b":\n"
    await trio.sleep_until(30)
    assert transport.sent == b":\n:\n"
    assert autojump_clock.current_time() == 30


async def test_no_beat_where_there_is_life(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A stream that is written to gets none; once it falls silent, it does."""
    streams = Streams(nursery)
    queue, transport = streams.open()
    for _ in range(20):
        await trio.sleep(10)
        await queue.send_frame(b"x")
    assert transport.sent == b"x" * 20
    await trio.sleep(11)
    assert transport.sent == b"x" * 20
    await trio.sleep(4.1)
    assert transport.sent == b"x" * 20 + b":\n"
    assert autojump_clock.current_time() == pytest.approx(215.1)


async def test_no_beat_while_something_waits(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A stream that has something to send is left alone until it is out."""
    streams = Streams(nursery)
    queue, transport = streams.open(room=1)
    await queue.send_frame(b"xy")
    await trio.sleep(29)
    assert transport.sent == b"x"
    transport.change(room=None)
    await trio.sleep(1)
    assert transport.sent == b"xy"
    await trio.sleep(15)
    assert transport.sent == b"xy:\n"
    assert autojump_clock.current_time() == 45


async def test_spread(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Streams that open together don't beat together, nor does any beat late."""
    streams = Streams(nursery)
    transports = [streams.open()[1] for _ in range(100)]
    beats: list[int] = []
    await trio.sleep(11.95)
    for _ in range(32):
        beats.append(sum(bool(transport.sent) for transport in transports))
        await trio.sleep(0.1)
    assert beats[0] == 0
    assert beats[-1] == 100
    assert max(later - beat for beat, later in itertools.pairwise(beats)) < 20
    await trio.sleep_until(30)
    assert [bytes(transport.sent) for transport in transports] == [b":\n:\n"] * 100
    assert autojump_clock.current_time() == 30


async def test_discard(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A stream that was discarded gets none, and takes no memory for long."""
    streams = Streams(nursery)
    opened = [streams.open() for _ in range(1000)]
    for queue, _ in opened * 2:
        streams.heartbeat.discard(queue)
    assert len(streams.heartbeat) == 0
    assert len(streams.heartbeat._due) < 100  # noqa: SLF001 - because what it holds is the point
    await trio.sleep(100)
    assert not any(transport.sent for _, transport in opened)
    assert len(streams.heartbeat._due) == 0  # noqa: SLF001 - because what it holds is the point
    assert autojump_clock.current_time() == 100


class BrokenTransport(FakeTransport):
    """A transport with a bug: it raises at the first send."""

    def send(self, data: bytes | memoryview, /) -> int:
        """Raise, and behave from then on."""
        if self.incoming:
            return super().send(data)
        self.incoming.append(b"raised")
        raise ZeroDivisionError


async def test_an_error_in_a_beat_is_the_end_of_none(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The task goes on, with all streams, the one that it was about among them."""
    del autojump_clock
    heartbeat = Heartbeat(15, random.Random(1))  # noqa: S311 - it spreads, no more
    failures: Counter[str] = Counter()
    transports = [FakeTransport(), BrokenTransport(), FakeTransport()]
    for transport in transports:
        heartbeat.add(
            SendQueue(
                transport,
                chunked=False,
                settings=Settings(),
                nursery=nursery,
                scope=exchange_scope(),
            )
        )
    run = partial(
        run_again,
        heartbeat.run,
        name="heartbeat",
        logger=logging.getLogger("h3trio.test"),
        failures=failures,
    )
    nursery.start_soon(run)
    await trio.sleep_until(46)
    assert [bytes(transport.sent).count(b":") for transport in transports] == [3, 2, 3]
    assert failures == {"heartbeat": 1}


async def test_lost_client(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A beat that finds its client gone doesn't keep the others from theirs."""
    streams = Streams(nursery)
    transports = [streams.open()[1] for _ in range(10)]
    transports[3].change(broken=True)
    await trio.sleep_until(15)
    assert [bytes(transport.sent) for transport in transports].count(b":\n") == 9
    assert autojump_clock.current_time() == 15


async def test_later_streams_wake_it(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A stream that opens while nothing is due is seen."""
    streams = Streams(nursery, interval=1)
    await trio.sleep(100)
    _, transport = streams.open()
    await trio.sleep(1)
    assert transport.sent == b":\n"
    assert autojump_clock.current_time() == 101


@pytest.mark.parametrize(("version", "beat"), [("1.1", b"2\r\n:\n\r\n"), ("1.0", b":\n")])
async def test_over_a_connection(
    nursery: trio.Nursery, autojump_clock: MockClock, version: str, beat: bytes
) -> None:
    """A quiet handler's stream has one comment at its start, and one for each interval."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse():
            await trio.sleep(50)

    client = connect(nursery, handler)
    await client.send(request("/", "Connection: close", version=version))
    await client.head()
    last = b"0\r\n\r\n" if version == "1.1" else b""
    assert await client.rest() == beat * 4 + last
    assert autojump_clock.current_time() == pytest.approx(50)


async def test_other_tasks_run_between_many_beats(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A thousand streams that are due at once don't hold up the program until the last beat."""
    streams = Streams(nursery, interval=15)
    transports = [streams.open()[1] for _ in range(1000)]
    await trio.testing.wait_all_tasks_blocked()
    autojump_clock.jump(15)
    beaten: list[int] = []
    while sum(beaten[-1:]) < len(transports):
        await trio.lowlevel.checkpoint()
        beaten.append(sum(transport.sent == b":\n" for transport in transports))
    steps = [after - before for before, after in itertools.pairwise([0, *beaten])]
    assert max(steps) <= 2 * 32
