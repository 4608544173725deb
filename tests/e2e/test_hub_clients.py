"""The hub with real sockets: many clients, reconnects, stalls, replays.

Clients speak HTTP/1.0, so that a stream is its bare bytes until the connection closes.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
import trio
from e2e.process import ServeProcess, fetch

from h3trio import Server, serve
from h3trio.hub import Hub, MemoryHistory
from h3trio.hubserver import create_app

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

pytestmark = pytest.mark.slow

TOPIC = "news"
_CURSOR = re.compile(rb"^Last-Event-ID: (.*)\r$", re.MULTILINE)
PATIENCE = 120


@asynccontextmanager
async def serving(hub: Hub) -> AsyncGenerator[tuple[Server, int]]:
    """Serve a hub on a free port; give the server and the port."""
    async with trio.open_nursery() as nursery:
        run = partial(serve, create_app(hub), port=0)
        server: Server = await nursery.start(run)
        yield server, int(server.addresses[0].rpartition(":")[2])
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait, on the real clock, until something holds."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - it looks at other processes' doing as well
            await trio.sleep(0.02)


class Client:
    """One subscriber; keeps what it got over reconnects, as bytes: there are thousands of it."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self._port = port
        self._receive_buffer = receive_buffer
        self._got = bytearray()
        self.last_event_id = ""
        self.stream: trio.SocketStream | None = None

    async def connect(self) -> Self:
        """Open the stream, from the cursor if there is one."""
        sock = trio.socket.socket()
        if self._receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        await sock.connect(("127.0.0.1", self._port))
        self.stream = trio.SocketStream(sock)
        cursor = f"Last-Event-ID: {self.last_event_id}\r\n" if self.last_event_id else ""
        request = f"GET /events/{TOPIC} HTTP/1.0\r\nHost: localhost\r\n{cursor}\r\n"
        await self.stream.send_all(request.encode())
        return self

    async def read(self, until: str | None = None, *, pause: float = 0, piece: int = 65536) -> None:
        """Read until an id was seen, or to the end."""
        assert self.stream is not None
        while data := await self.stream.receive_some(piece):
            self._got += data
            if until is not None and until.encode() in self._got[-1000:]:
                return
            if pause:
                await trio.sleep(pause)

    @property
    def ids(self) -> list[str]:
        """The ids of the events it got, in order."""
        return [
            found.decode() for found in re.findall(rb"^id: (.*)\ndata: ", self._got, re.MULTILINE)
        ]

    @property
    def resets(self) -> int:
        """How many gaps it was told of."""
        return self._got.count(b"event: reset")

    def has(self, event_id: str) -> bool:
        """Whether an event was the last that it got."""
        return f"id: {event_id}\n".encode() in self._got[-3000:]

    def close(self) -> None:
        """Drop the connection; the cursor is that of the last whole block."""
        if self.stream is not None:
            self.stream.socket.close()
        if not self.last_event_id and (located := _CURSOR.search(self._got)):
            self.last_event_id = located[1].decode()
        # A frame may have been cut: what came of it is sent again after a reconnect.
        del self._got[self._got.rfind(b"\n\n") + 2 :]
        if cursors := re.findall(rb"^id: (.*)$", self._got, re.MULTILINE):
            self.last_event_id = cursors[-1].decode()

    async def stay(self, limiter: trio.CapacityLimiter) -> None:
        """Connect, some at a time, and read to the end."""
        async with limiter:
            await self.connect()
        await self.read()

    async def come_and_go(
        self,
        limiter: trio.CapacityLimiter,
        rng: random.Random,
        published: Sequence[str],
        done: trio.Event,
    ) -> None:
        """Reconnect at random until all is published; then read to the last event."""
        while not done.is_set():
            with trio.move_on_after(rng.uniform(0.05, 1)):
                await self.stay(limiter)
            self.close()
        async with limiter:
            await self.connect()
        if not self.has(published[-1]):
            await self.read(published[-1])


def has_all(clients: Sequence[Client], published: Sequence[str]) -> bool:
    """Whether each client saw the last event."""
    return all(client.has(published[-1]) for client in clients)


def tcp_memory() -> int:
    """Bytes of kernel memory that TCP sockets hold, of the whole machine."""
    line = next(
        line for line in Path("/proc/net/sockstat").read_text().splitlines() if "TCP:" in line
    )
    return int(line.split()[-1]) * os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> int:
    """Bytes of resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.alone
async def test_clients_that_reconnect_at_random_end_with_the_same_log() -> None:
    """Of 2,000 subscribers 200 reconnect while events flow; all see each event once, in order."""
    rng = random.Random(7)  # noqa: S311 - reproducible, not secret
    hub = Hub(MemoryHistory(max_events=10_000))
    published: list[str] = []
    done = trio.Event()

    async with serving(hub) as (_server, port):
        clients = [Client(port) for _ in range(2000)]

        async def publish() -> None:
            for n in range(100):
                published.append(await hub.publish(f"{n:0>100}", topics=[TOPIC]))
                await trio.sleep(0.03)
            published.append(await hub.publish("end", topics=[TOPIC]))
            done.set()

        async with trio.open_nursery() as steadies:
            limiter = trio.CapacityLimiter(100)
            for client in clients[200:]:
                steadies.start_soon(client.stay, limiter)
            await until(lambda: hub.statistics().ready == 1800, PATIENCE)
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as others:
                    for client in clients[:200]:
                        others.start_soon(client.come_and_go, limiter, rng, published, done)
                    others.start_soon(publish)
                await until(lambda: has_all(clients[200:], published), PATIENCE)
            steadies.cancel_scope.cancel()

        for client in clients[200:]:
            assert client.ids == published
        for client in clients[:200]:
            # It began when it first connected: from there on, everything.
            assert client.resets == 0
            assert client.ids == published[len(published) - len(client.ids) :]
        for client in clients:
            client.close()


async def publish(port: int, body: bytes, *, count: int) -> str:
    """Publish `count` copies of an event in one request; return the last id."""
    stream = b"data: %b\n\n" % body * count
    headers = {"Content-Type": "text/event-stream"}
    answer = await fetch(port, "POST", f"/events/{TOPIC}", headers=headers, body=stream)
    found = json.loads(answer.body)
    assert found["published"] == count
    return str(found["id"])


@pytest.mark.alone
async def test_stalled_and_slow_clients_cost_the_others_nothing(nursery: trio.Nursery) -> None:
    """100 zero-window clients go after the write timeout, 100 slow ones get the whole log."""
    events, size = 200, 2000
    served = await ServeProcess.start(nursery, "--write-timeout", "3", "--heartbeat", "1")
    stalled = [Client(served.port, receive_buffer=4096) for _ in range(100)]
    slow = [Client(served.port, receive_buffer=4096) for _ in range(100)]
    healthy = [Client(served.port) for _ in range(300)]
    for client in (*stalled, *slow, *healthy):
        await client.connect()
        await client.read(":")  # the comment that opens the stream
    kernel, process = tcp_memory(), resident(served.pid)
    async with trio.open_nursery() as readers:
        for client in healthy:
            readers.start_soon(client.read)
        for client in slow:
            readers.start_soon(partial(client.read, pause=0.05, piece=8192))
        for _ in range(events - 1):
            await publish(served.port, b"x" * size, count=1)
        last = await publish(served.port, b"x" * size, count=1)
        kernel_used, process_used = tcp_memory() - kernel, resident(served.pid) - process
        await until(lambda: all(client.has(last) for client in (*healthy, *slow)), PATIENCE)
        await until(lambda: sum(" slow " in line for line in served.log) == len(stalled), PATIENCE)
        readers.cancel_scope.cancel()

    assert {len(client.ids) for client in (*healthy, *slow)} == {events}
    assert len({tuple(client.ids) for client in (*healthy, *slow)}) == 1
    assert not any(client.resets for client in (*healthy, *slow))
    # Kernel: what 200 sockets hold unsent, and in flight to a window of a few KiB, with the
    # kernel's own bookkeeping of as much again.
    assert kernel_used < 200 * 2 * (128 + 64) * 1024
    # Process: one batch for each of 200, the log, and a MiB for what comes and goes.
    assert process_used < 200 * 64 * 1024 + events * 2 * size + 2**20
    for client in (*stalled, *slow, *healthy):
        client.close()
    assert await served.stop() == 0


@pytest.mark.alone
async def test_a_thousand_replays_at_once_share_their_pages(nursery: trio.Nursery) -> None:
    """1,000 clients replay 10,000 events: memory grows by at most 64 KiB each and 32 MiB."""
    served = await ServeProcess.start(nursery, "--max-events", "20000", "--no-access-log")
    cursor = await publish(served.port, b"start", count=1)
    last = await publish(served.port, b"x" * 100, count=10_000)
    clients = [Client(served.port) for _ in range(1000)]
    before, peak = resident(served.pid), 0
    finished = 0

    async def replay(client: Client) -> None:
        nonlocal finished
        client.last_event_id = cursor
        await client.connect()
        assert client.stream is not None
        tail = b""
        while last.encode() not in tail:
            tail = tail[-200:] + await client.stream.receive_some(65536)
        finished += 1

    def is_over() -> bool:
        nonlocal peak
        peak = max(peak, resident(served.pid))
        return finished == len(clients)

    for client in clients:
        nursery.start_soon(replay, client)
    await until(is_over, PATIENCE)
    assert peak - before < 1000 * 64 * 1024 + 32 * 2**20
    for client in clients:
        client.close()
    assert await served.stop() == 0
