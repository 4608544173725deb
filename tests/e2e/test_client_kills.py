"""Clients that are killed: after each storm the server holds exactly what it held before.

Run as a program this file is the victim: many clients in one process, each doing something else
each time, until `kill -9`. The kernel then closes what they had in the middle of all of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

import pytest
import trio

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e.process import ServeProcess, fetch
from e2e.vitals import (
    HISTORY,
    Held,
    complaints,
    fill_history,
    held,
    serve_hub,
    vitals,
    wait_at_rest,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

CYCLES: Final = 10
SECONDS: Final = 6.0
"""Load of one cycle; the rest of its six seconds is for coming to rest."""
VICTIMS: Final = 3
CLIENTS: Final = 20
# SO_LINGER on, for no time: closing sends RST instead of FIN.
RESET: Final = struct.pack("ii", 1, 0)


# -- the victim


class Client:
    """One client after another, each with its own manners."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self.port = port
        self.chance = chance
        self.manners: list[Callable[[trio.SocketStream], Awaitable[None]]] = [
            self.subscribe,
            self.subscribe,
            self.subscribe_to_much,
            self.publish,
            self.publish,
            self.ask_in_part,
            self.publish_in_part,
            self.pipeline,
        ]

    async def run(self) -> None:
        """Connect, do something, and leave in some way, without end."""
        while True:
            with contextlib.suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                stream = await trio.open_tcp_stream("127.0.0.1", self.port)
                async with stream:
                    with trio.move_on_after(self.chance.expovariate(4)):
                        await self.chance.choice(self.manners)(stream)
                    await self.leave(stream)

    async def leave(self, stream: trio.SocketStream) -> None:
        """Close, break off, or half-close."""
        manner = self.chance.randrange(3)
        if manner == 0:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif manner == 1:
            await stream.send_eof()
            with trio.move_on_after(0.1):
                await stream.receive_some()

    async def send(self, stream: trio.SocketStream, head: str, body: bytes = b"") -> None:
        """Send a request."""
        await stream.send_all(head.encode() + b"\r\nHost: localhost\r\n\r\n" + body)

    async def subscribe(self, stream: trio.SocketStream) -> None:
        """Read a stream of events as fast as they come."""
        topic = self.chance.choice("abc")
        await self.send(stream, f"GET /events/{topic}?first=oldest HTTP/1.1")
        while await stream.receive_some():
            pass

    async def subscribe_to_much(self, stream: trio.SocketStream) -> None:
        """Ask for everything, and read none of it."""
        await self.send(stream, "GET /events?first=oldest HTTP/1.1")
        await trio.sleep_forever()

    async def publish(self, stream: trio.SocketStream) -> None:
        """Publish one event after the other."""
        while True:
            topic, body = self.chance.choice("abc"), b"x" * self.chance.choice([10, 1000, 50_000])
            head = f"POST /events/{topic} HTTP/1.1\r\nContent-Length: {len(body)}"
            await self.send(stream, head, body)
            if not await stream.receive_some():
                return
            await trio.sleep(0.01)

    async def ask_in_part(self, stream: trio.SocketStream) -> None:
        """Send a part of a head."""
        head = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await stream.send_all(head[: self.chance.randrange(len(head))])
        await trio.sleep_forever()

    async def publish_in_part(self, stream: trio.SocketStream) -> None:
        """Send a part of a body."""
        body = b"x" * self.chance.randrange(100_000)
        await self.send(stream, "POST /events/a HTTP/1.1\r\nContent-Length: 100000", body)
        await trio.sleep_forever()

    async def pipeline(self, stream: trio.SocketStream) -> None:
        """Send requests, or what is none, behind a stream."""
        await self.send(stream, "GET /events/a HTTP/1.1", self.chance.randbytes(30_000))
        while await stream.receive_some():
            pass


async def be_killed(port: int, seed: int) -> None:
    """Be many clients until killed."""
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            chance = random.Random(seed * 1000 + number)  # noqa: S311 - it picks manners
            nursery.start_soon(Client(port, chance).run)
        sys.stdout.write("ready\n")
        sys.stdout.flush()


# -- the test


async def kill_at_random(port: int, seed: int, until: float) -> None:
    """Start clients and kill them after a while, again and again."""
    chance = random.Random(seed)  # noqa: S311 - it picks moments
    while trio.current_time() < until:
        seed += 1
        command = [sys.executable, __file__, str(port), str(seed)]
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, env={**os.environ}
        )
        try:
            # A busy machine may take seconds to start a program; it is killed in time all the same.
            with trio.move_on_at(until):
                assert process.stdout is not None, "it was asked for"
                assert await process.stdout.receive_some() == b"ready\n"
                await trio.sleep(chance.uniform(1, 3))
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        assert process.returncode == -signal.SIGKILL, "it ended by itself"


async def storm(served: ServeProcess, cycle: int) -> None:
    """Let one cycle's clients come and be killed."""
    until = trio.current_time() + SECONDS
    async with trio.open_nursery() as nursery:
        for victim in range(VICTIMS):
            nursery.start_soon(kill_at_random, served.port, cycle * 1000 + victim * 100, until)


@pytest.mark.slow
@pytest.mark.alone
async def test_killed_clients_leave_nothing_behind(nursery: trio.Nursery, tmp_path: Path) -> None:
    """After each of ten storms tasks and descriptors are what they were, and memory is level."""
    served = await serve_hub(nursery, tmp_path, "--linger-timeout", "0.2")
    baseline = await vitals(served)
    taken: list[Held] = []
    for cycle in range(CYCLES):
        await storm(served, cycle)
        await fill_history(served)
        await wait_at_rest(served, baseline)
        taken.append(await held(served))
    assert not complaints(served)
    assert await published(served) > (HISTORY + 10) * CYCLES, "they did publish"
    # The first two fill what is bounded, such as caches and the allocators' pools.
    settled = taken[2:]
    assert growth([held.blocks for held in settled]) <= 0.01, taken
    assert growth([held.allocated for held in settled]) <= 0.01, taken
    # The busiest moment so far decides what is resident: it grows less and less often.
    assert settled[-1].resident <= 1.25 * settled[0].resident, taken
    assert await served.stop() == 0


def growth(sizes: Sequence[int]) -> float:
    """Tell by what share something grows in each cycle.

    Theil and Sen's slope: a leak shows in most pairs, what is kept once in few.
    """
    pairs = combinations(enumerate(sizes), 2)
    return median((b - a) / (j - i) for (i, a), (j, b) in pairs) / fmean(sizes)


async def published(served: ServeProcess) -> int:
    """Publish once more, and tell from the id how many there were."""
    answer = await fetch(served.port, "POST", "/events/a", body=b"last")
    return int(json.loads(answer.body)["id"].rpartition("-")[2])


def test_growth_is_seen() -> None:
    """What grows by a hundredth in each cycle shows; what grew once, late, doesn't."""
    assert growth([100 + n for n in range(8)]) > 0.009
    assert growth([100] * 6 + [110] * 2) == 0


if __name__ == "__main__":
    trio.run(be_killed, int(sys.argv[1]), int(sys.argv[2]))
