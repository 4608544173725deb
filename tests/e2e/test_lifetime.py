"""Lifetimes against real sockets: clients that leave, break off, or stop reading."""

from __future__ import annotations

import gc
import os
import random
import socket
import struct
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import trio
from e2e.process import PATIENCE, Connection, ServeProcess, connect
from trio.testing import wait_all_tasks_blocked

from h3trio import CloseReason, Closing, H3Event, Server, Settings, serve

if TYPE_CHECKING:
    from pathlib import Path

GET: Final = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
# SO_LINGER on, for no time: closing sends RST instead of FIN.
RESET: Final = struct.pack("ii", 1, 0)

APP = """
import logging
import trio
from h3trio import App

app = App()
log = logging.getLogger("app").info

@app.get("/events")
async def events(event):
    event.on_close(lambda closing: log("closed: %s", closing.reason))
    async with event.start_sse() as writer:
        try:
            while True:
                await writer.send("tick")
                await trio.sleep(float(event.query["pause"]))
        finally:
            log("cleaning up")
            with trio.CancelScope(shield=True):
                await trio.sleep(0.1)
            log("cleaned up")
"""


def port_of(server: Server) -> int:
    """Return the port of a server."""
    return int(server.addresses[0].rpartition(":")[2])


@pytest.mark.parametrize(
    ("leave", "pause", "reasons"),
    [
        ("close", "1000", ["client_closed"]),
        ("half-close", "1000", ["client_closed"]),
        ("reset", "1000", ["connection_lost"]),
        # In the middle of sending it may be the write that fails.
        ("close", "0", ["client_closed", "connection_lost"]),
        ("reset", "0", ["connection_lost"]),
    ],
)
async def test_a_disconnect_runs_finally_to_its_end(
    nursery: trio.Nursery, tmp_path: Path, *, leave: str, pause: str, reasons: list[str]
) -> None:
    """Idle or sending, a handler whose client leaves unwinds to the end, and then it is closed."""
    (tmp_path / "app.py").write_text(APP)
    served = await ServeProcess.start(nursery, "app:app", folder=tmp_path)
    async with await trio.open_tcp_stream("127.0.0.1", served.port) as stream:
        connection = Connection(stream)
        await connection.ask(target=f"/events?pause={pause}")
        await connection.until(b"data: tick\n\n")
        if leave == "half-close":
            await stream.send_eof()
            await served.wait_line("closed: ")
        elif leave == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    closed = await served.wait_line("closed: ")
    assert closed.rpartition("closed: ")[2] in reasons
    order = [line.partition(" app: ")[2] for line in served.log if " app: " in line]
    assert order[:2] == ["cleaning up", "cleaned up"]
    assert order[2].startswith("closed: ")
    assert await served.stop() == 0


async def chatter(event: H3Event) -> None:
    """Send without end."""
    async with event.start_sse() as writer:
        while True:
            await writer.send("x" * 4096)


async def stop_reading(port: int) -> trio.SocketStream:
    """Ask for a stream, with a receive buffer as small as there is, and never read it."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    await sock.connect(("127.0.0.1", port))
    stream = trio.SocketStream(sock)
    await stream.send_all(GET)
    return stream


async def test_clients_that_stopped_reading_do_not_delay_a_drain(nursery: trio.Nursery) -> None:
    """With 100 clients of zero window a drain ends by its hard deadline, farewells or not."""
    # A farewell that would wait far longer than the drain.
    settings = Settings(drain_soft=0.5, drain_hard=0.5, farewell_timeout=1000)
    server: Server = await nursery.start(partial(serve, chatter, port=0, settings=settings))
    async with AsyncExitStack() as stack:
        for _ in range(100):
            await stack.enter_async_context(await stop_reading(port_of(server)))
        await wait_all_tasks_blocked(0.1)
        assert server.statistics().streams == 100
        # Without the hard deadline it would last for the farewell, a thousand seconds.
        with trio.fail_after(PATIENCE):
            await server.drain()
        assert server.statistics().closings == {CloseReason.DRAINING: 100}


async def test_a_slow_client_costs_nobody_anything(nursery: trio.Nursery) -> None:
    """While 100 clients stand still, another one gets every event at once."""

    async def either(event: H3Event) -> str | None:
        if event.path != "/":
            return "at once"
        await chatter(event)
        return None

    server: Server = await nursery.start(partial(serve, either, port=0))
    async with AsyncExitStack() as stack:
        for _ in range(100):
            await stack.enter_async_context(await stop_reading(port_of(server)))
        await wait_all_tasks_blocked(0.1)
        connection = await stack.enter_async_context(await connect(port_of(server)))
        for _ in range(10):
            await connection.ask(target="/other")
            assert await connection.piece() == b"at once"
        assert server.statistics().streams == 100
    nursery.cancel_scope.cancel()


def living() -> tuple[int, int]:
    """Count tasks and open descriptors."""
    return trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - pathlib's opens a descriptor while it lists


async def test_a_thousand_resets_leave_nothing_behind(nursery: trio.Nursery) -> None:
    """Clients that reset at a random moment leave tasks and descriptors at their baseline."""
    closings: list[Closing] = []

    async def ticking(event: H3Event) -> None:
        event.on_close(closings.append)
        if event.path == "/body":
            await event.body()
        async with event.start_sse() as writer:
            for _ in range(20):
                await writer.send("x" * 10_000)
                await trio.lowlevel.checkpoint()
            await trio.sleep_forever()

    server: Server = await nursery.start(partial(serve, ticking, port=0))
    await wait_all_tasks_blocked(0.05)
    gc.collect()  # what other tests left
    baseline = living()
    # The same choices each time; what they meet is a matter of timing all the same.
    rng = random.Random(1)  # noqa: S311 - it picks moments

    async def reset() -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(server))
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        request = rng.choice([GET, GET.replace(b"/ ", b"/body ", 1) + b"x" * 10, GET * 3])
        request = request.replace(b"\r\n\r\n", b"\r\nContent-Length: 20\r\n\r\n", 1)
        await stream.send_all(request[: rng.randrange(len(request) + 1)])
        for _ in range(rng.choice([0, 1, 3, 10])):
            await trio.lowlevel.checkpoint()
        with trio.move_on_after(rng.choice([0, 0, 0.01])):
            await stream.receive_some(rng.choice([1, 1000, 100_000]))
        await stream.aclose()

    for _ in range(10):
        async with trio.open_nursery() as clients:
            for _ in range(100):
                clients.start_soon(reset)
    with trio.fail_after(PATIENCE):
        while server.statistics().connections:
            await wait_all_tasks_blocked(0.05)
    await wait_all_tasks_blocked(0.05)
    assert living() == baseline
    now = server.statistics()
    assert (now.accepted, now.streams) == (1000, 0)
    assert now.requests == len(closings) > 100
    # And it works on.
    async with await connect(port_of(server)) as connection:
        assert (await connection.ask()).status_code == 200
    nursery.cancel_scope.cancel()
