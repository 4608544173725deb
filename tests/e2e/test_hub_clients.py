"""The hub with real sockets: many clients, reconnects, stalls, replays.

Clients speak HTTP/1.0, so that a stream is its bare bytes until the connection closes.
"""

from __future__ import annotations

import gc
import os
import random
import socket
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
import trio

from h3trio import Server, Settings, SSEParser, serve
from h3trio.hub import Hub, MemoryHistory
from h3trio.hubserver import create_app

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

pytestmark = pytest.mark.slow

TOPIC = "news"


@asynccontextmanager
async def serving(hub: Hub, settings: Settings | None = None) -> AsyncGenerator[tuple[Server, int]]:
    """Serve a hub on a free port; give the server and the port."""
    async with trio.open_nursery() as nursery:
        run = partial(serve, create_app(hub), port=0, settings=settings)
        server: Server = await nursery.start(run)
        yield server, int(server.addresses[0].rpartition(":")[2])
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait, on the real clock, until something holds."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - it looks at other processes' doing as well
            await trio.sleep(0.02)


class Client:
    """One subscriber; keeps what it got over reconnects."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self._port = port
        self._receive_buffer = receive_buffer
        self.ids: list[str] = []
        self.resets = 0
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

    async def read(self, until: str | None = None, *, pause: float = 0, piece: int = 65536) -> bool:
        """Read until an id was seen; `False` if the stream ended before."""
        assert self.stream is not None
        parser = SSEParser(last_event_id=self.last_event_id)
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := await self.stream.receive_some(piece)):
                return False
            head += data
        data = head.partition(b"\r\n\r\n")[2]
        while True:
            for event in parser.feed(data):
                if event.event == "reset":
                    self.resets += 1
                else:
                    self.ids.append(event.id or "")
            self.last_event_id = parser.last_event_id
            if until is not None and self.ids and self.ids[-1] == until:
                return True
            if pause:
                await trio.sleep(pause)
            if not (data := await self.stream.receive_some(piece)):
                return False

    def close(self) -> None:
        """Drop the connection."""
        if self.stream is not None:
            self.stream.socket.close()


def has_all(clients: Sequence[Client], published: Sequence[str]) -> bool:
    """Whether each client saw the last event."""
    return all(client.ids[-1:] == published[-1:] for client in clients)


def tcp_memory() -> int:
    """Bytes of kernel memory that TCP sockets hold, of the whole machine."""
    line = next(
        line for line in Path("/proc/net/sockstat").read_text().splitlines() if "TCP:" in line
    )
    return int(line.split()[-1]) * os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_clients_that_reconnect_at_random_end_with_the_same_log() -> None:
    """Of 2,000 subscribers 200 reconnect while events flow; all see each event once, in order."""
    rng = random.Random(7)  # noqa: S311 - reproducible, not secret
    hub = Hub(MemoryHistory(max_events=10_000))
    published: list[str] = []
    done = trio.Event()

    async with serving(hub) as (_server, port):
        clients = [Client(port) for _ in range(2000)]

        async def publish() -> None:
            for n in range(300):
                published.append(await hub.publish(f"{n:0>100}", topics=[TOPIC]))
                await trio.sleep(0.01)
            published.append(await hub.publish("end", topics=[TOPIC]))
            done.set()

        async def steady(client: Client, limiter: trio.CapacityLimiter) -> None:
            async with limiter:
                await client.connect()
            await client.read()

        async def flighty(client: Client, limiter: trio.CapacityLimiter) -> None:
            while not done.is_set():
                with trio.move_on_after(rng.uniform(0.05, 1)):
                    async with limiter:
                        await client.connect()
                    await client.read()
                client.close()
            async with limiter:
                await client.connect()
            if not client.ids or client.ids[-1] != published[-1]:
                await client.read(published[-1])

        async with trio.open_nursery() as steadies:
            limiter = trio.CapacityLimiter(100)
            for client in clients[200:]:
                steadies.start_soon(steady, client, limiter)
            await until(lambda: hub.statistics().ready == 1800, 30)
            with trio.fail_after(60):
                async with trio.open_nursery() as others:
                    for client in clients[:200]:
                        others.start_soon(flighty, client, limiter)
                    others.start_soon(publish)
                await until(lambda: has_all(clients[200:], published), 30)
            steadies.cancel_scope.cancel()

        for client in clients[200:]:
            assert client.ids == published
        for client in clients[:200]:
            # It began when it first connected: from there on, everything.
            assert client.resets == 0
            assert client.ids == published[len(published) - len(client.ids) :]
        for client in clients:
            client.close()


async def test_stalled_and_slow_clients_cost_the_others_nothing() -> None:
    """100 zero-window clients go after the write timeout, 100 slow ones get the whole log."""
    settings = Settings(write_timeout=3.0, heartbeat_interval=1.0)
    hub = Hub(MemoryHistory(max_events=100_000))
    async with serving(hub, settings) as (server, port):
        stalled = [Client(port, receive_buffer=4096) for _ in range(100)]
        slow = [Client(port, receive_buffer=4096) for _ in range(100)]
        healthy = [Client(port) for _ in range(300)]
        for client in (*stalled, *slow, *healthy):
            await client.connect()
        await until(lambda: hub.statistics().ready == 500, 20)
        gc.collect()
        kernel, process = tcp_memory(), resident()
        published: list[str] = []

        async def publish() -> None:
            for _ in range(400):
                published.append(await hub.publish("x" * 2000, topics=[TOPIC]))
                await trio.sleep(0.005)

        async with trio.open_nursery() as nursery:
            for client in healthy:
                nursery.start_soon(client.read)
            for client in slow:
                nursery.start_soon(partial(client.read, pause=0.05, piece=8192))
            await publish()
            kernel_used, process_used = tcp_memory() - kernel, resident() - process
            await until(lambda: has_all([*healthy, *slow], published), 40)
            await until(lambda: server.statistics().streams == 400, 30)
            nursery.cancel_scope.cancel()

        assert all(client.ids == published for client in (*healthy, *slow))
        assert sum(client.resets for client in (*healthy, *slow)) == 0
        # Kernel: the low-water mark and the window of each of 200, doubled for its bookkeeping.
        assert kernel_used < 200 * 2 * (settings.notsent_lowat + 256 * 1024)
        # Process: one batch for each of 200, the log, and what 500 clients in this process parse.
        assert process_used < 200 * 64 * 1024 + 400 * 2300 + 64 * 2**20
        for client in (*stalled, *slow, *healthy):
            client.close()


async def test_a_thousand_replays_at_once_share_their_pages() -> None:
    """1,000 clients replay 10,000 events: memory grows by at most 64 KiB each and 32 MiB."""
    hub = Hub(MemoryHistory(max_events=20_000))
    async with serving(hub) as (_server, port):
        cursor = await hub.publish("start", topics=[TOPIC])
        for _ in range(100):
            await hub.publish_all(["x" * 100] * 100, topics=[TOPIC])
        end = hub.last_event_id
        clients = [Client(port) for _ in range(1000)]
        gc.collect()
        before, peak = resident(), 0
        finished = 0

        async def replay(client: Client) -> None:
            nonlocal finished
            client.last_event_id = cursor
            await client.connect()
            assert client.stream is not None
            tail = b""
            while end.encode() not in tail:
                tail = tail[-200:] + await client.stream.receive_some(65536)
            finished += 1

        async def watch() -> None:
            nonlocal peak
            while finished < len(clients):
                peak = max(peak, resident())
                await trio.sleep(0.02)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                for client in clients:
                    nursery.start_soon(replay, client)
        assert peak - before < 1000 * 64 * 1024 + 32 * 2**20
        for client in clients:
            client.close()
