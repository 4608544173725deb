"""Clients that are slow on purpose: many of them, and nobody else notices.

Run as a program this file is the attacker: in a process of its own, so that what it costs itself
isn't measured as the server's.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
import trio

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e.process import PATIENCE, Connection, ServeProcess, connect, fetch
from e2e.vitals import complaints, serve_hub, vitals

from h3trio._server.serve import raise_open_file_limit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


CLIENTS: Final = 500
"""Of each of three kinds."""
HEAD_TIMEOUT: Final = 4.0
BODY_TIMEOUT: Final = 3.0
PAUSE: Final = 1.0
"""Seconds between two bytes."""
ROUNDS: Final = 3
MOST_ROUNDS: Final = 10
SAMPLES: Final = 200


# -- the attacker


class Slow:
    """Slow clients of one server, and when and how it got rid of them."""

    def __init__(self, port: int) -> None:
        self.port = port

    def end(self, kind: str, since: float, answer: bytes) -> None:
        """Tell what became of a client."""
        record = [kind, trio.current_time() - since, answer[:12].decode("latin-1")]
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()

    async def head(self) -> None:
        """Send a head, a byte at a time."""
        since = trio.current_time()
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            for byte in b"GET /events HTTP/1.1\r\nX-Slow: " + b"x" * 1000:
                await stream.send_all(bytes([byte]))
                with trio.move_on_after(PAUSE):
                    self.end("head", since, bytes(await stream.receive_some()))
                    return

    async def body(self) -> None:
        """Send a body, a byte at a time, each well within the longest silence."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            head = b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
            since = trio.current_time()
            await stream.send_all(head)
            for _ in range(1000):
                with trio.move_on_after(PAUSE):
                    self.end("body", since, bytes(await stream.receive_some()))
                    return
                await stream.send_all(b"x")

    async def stream(self) -> None:
        """Read a stream, a byte at a time."""
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        await sock.connect(("127.0.0.1", self.port))
        async with trio.SocketStream(sock) as stream:
            since = trio.current_time()
            await stream.send_all(b"GET /events/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while await stream.receive_some(1):  # noqa: ASYNC110 - slow is what it is for
                await trio.sleep(PAUSE)
            self.end("stream", since, b"")

    async def run(self) -> None:
        """Be slow for ever: who is thrown out comes again."""
        raise_open_file_limit(3 * CLIENTS)
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                for kind in (self.head, self.body, self.stream):
                    nursery.start_soon(self.again_and_again, kind)

    async def again_and_again(self, kind: Callable[[], Awaitable[None]]) -> None:
        """Do it spread over time, so that they don't come in step."""
        await trio.sleep(random.uniform(0, PAUSE))  # noqa: S311 - it spreads
        while True:
            with contextlib.suppress(trio.BrokenResourceError):
                await kind()


# -- the others


class Latency(NamedTuple):
    """Seconds: of a small GET, and from a publish to the event at a subscriber."""

    get_median: float
    get_p90: float
    event_median: float
    event_p90: float


async def measure(port: int) -> Latency:
    """Measure both, one after the other."""
    gets, events = [], []
    async with (
        await connect(port) as asking,
        await connect(port) as publishing,
        await connect(port) as subscribed,
    ):
        await subscribed.ask(target="/events/a")
        await subscribed.until(b"retry:")
        for number in range(SAMPLES):
            start = trio.current_time()
            await asking.ask(target="/healthz/ready")
            await asking.piece()
            gets.append(trio.current_time() - start)
            start = trio.current_time()
            event = b"<event %d>" % number
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish, publishing, event)
                await subscribed.until(event)
                events.append(trio.current_time() - start)
    nine_of_ten = [quantiles(times, n=10)[8] for times in (gets, events)]
    return Latency(median(gets), nine_of_ten[0], median(events), nine_of_ten[1])


async def publish(connection: Connection, body: bytes) -> None:
    """Publish on a connection that stays."""
    await connection.ask("POST", "/events/a", body=body)
    await connection.piece()


async def best(port: int, *, until: Latency | None = None) -> Latency:
    """Measure some times; the best of each, as what makes it worse now and then isn't ours.

    It takes `ROUNDS`, or as many as bring it below `until`, within reason.
    """
    found = await measure(port)
    for number in range(1, MOST_ROUNDS):
        if number >= ROUNDS and (until is None or within(found, until)):
            break
        found = Latency(*map(min, zip(found, await measure(port), strict=True)))
    return found


def within(found: Latency, limit: Latency) -> bool:
    """Tell whether each is within its limit."""
    return all(now <= most for now, most in zip(found, limit, strict=True))


class Ended(NamedTuple):
    """What the attacker says of a client that was thrown out."""

    kind: str
    after: float
    answer: str


async def collect(attacker: trio.Process, ended: list[Ended]) -> None:
    """Read what the attacker says."""
    assert attacker.stdout is not None
    rest = b""
    async for piece in attacker.stdout:
        *lines, rest = (rest + bytes(piece)).split(b"\n")
        ended += [Ended(*json.loads(line)) for line in lines]


async def wait_tasks(served: ServeProcess, least: float) -> None:
    """Wait until the server has so many tasks, but for some clients that are just coming again."""
    with trio.fail_after(PATIENCE):
        while (await vitals(served)).tasks < 0.95 * least:  # noqa: ASYNC110 - another process: nothing tells
            await trio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.alone
async def test_fifteen_hundred_slow_clients(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Slow heads, bodies and readers make nobody else slower, and are thrown out in time."""
    limits = ("--head-timeout", str(HEAD_TIMEOUT), "--body-timeout", str(BODY_TIMEOUT))
    served = await serve_hub(nursery, tmp_path, *limits)
    normal = await best(served.port)
    command = [sys.executable, __file__, str(served.port)]
    attacker = await nursery.start(
        partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
    )
    ended: list[Ended] = []
    nursery.start_soon(collect, attacker, ended)
    # Two tasks for each connection, and one more for a stream whose client doesn't take it.
    await wait_tasks(served, 2 * 3 * CLIENTS)
    for _ in range(6):
        answer = await fetch(served.port, "POST", "/events/a", body=b"x" * 60_000)
        assert answer.status == 200
    await wait_tasks(served, (2 * 3 + 1) * CLIENTS)
    limit = Latency(*(2 * usual for usual in normal))
    slowed = await best(served.port, until=limit)
    assert within(slowed, limit), (normal, slowed)
    for kind, seconds in (("head", HEAD_TIMEOUT), ("body", BODY_TIMEOUT)):
        with trio.fail_after(PATIENCE):
            while len(those := [end for end in ended if end.kind == kind]) < CLIENTS:  # noqa: ASYNC110 - as above
                await trio.sleep(0.05)
        # The attacker's own machine may be late; long after it is the server's fault.
        times = [end.after for end in those]
        assert seconds <= min(times) <= median(times) <= 2 * seconds
        assert {end.answer for end in those} <= {"HTTP/1.1 408", ""}
    attacker.kill()
    assert not [end for end in ended if end.kind == "stream"]
    assert not complaints(served)
    assert await served.stop() == 0


if __name__ == "__main__":
    trio.run(Slow(int(sys.argv[1])).run)
