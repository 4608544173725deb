"""Signals while a thousand clients have stopped reading, and a shortage of descriptors."""

from __future__ import annotations

import os
import resource
import signal
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import pytest
import trio
from e2e.process import PATIENCE, Connection, ServeProcess, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CLIENTS: Final = 1000

APP = """
import logging
import trio
from h3trio import App

app = App()
full = [0]

@app.get("/")
async def chatty(event):
    async with event.start_sse() as writer:
        with trio.move_on_after(0.1):
            for _ in range(100):
                await writer.send("x" * 100_000)
        full[0] += 1
        if full[0] == 1000:
            logging.getLogger("app").info("all are stuck")
        while True:
            await writer.send("x" * 100_000)
"""


@pytest.fixture
async def stuck(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[ServeProcess]:
    """A server each of whose thousand clients has a zero window."""
    (tmp_path / "app.py").write_text(APP)
    # A write timeout and a farewell far longer than the drain, and phases that may be short.
    timing = ("--write-timeout", "1000", "--farewell-timeout", "1000", "--drain-hard", "1")
    arguments = ("app:app", "--no-access-log", "--drain-soft", "1", *timing)
    served = await ServeProcess.start(nursery, *arguments, folder=tmp_path)
    async with AsyncExitStack() as stack:
        for _ in range(CLIENTS):
            sock = trio.socket.socket()
            stack.enter_context(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            await sock.connect(("127.0.0.1", served.port))
            await sock.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await served.wait_line("all are stuck")
        yield served


@pytest.mark.slow
@pytest.mark.alone
async def test_the_second_signal_ends_at_once(stuck: ServeProcess) -> None:
    """A second signal doesn't wait for anybody, nor need it be of the same kind."""
    stuck.send_signal(signal.SIGTERM)
    await stuck.wait_line("draining; once more to exit at once")
    assert await stuck.stop(signal.SIGINT) == 128 + signal.SIGINT
    assert "cancelling" not in "".join(stuck.log)


@pytest.mark.slow
@pytest.mark.alone
async def test_one_signal_drains(stuck: ServeProcess) -> None:
    """One signal drains by the hard deadline, and the status is 0."""
    start = trio.current_time()
    assert await stuck.stop() == 0
    assert 1.5 < trio.current_time() - start < 20
    assert f"drain: cancelling {CLIENTS} connections" in "".join(stuck.log)


def cpu_seconds(pid: int) -> float:
    """Return how long a process has run on a processor."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - no path, a window
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_shortage_under_load(nursery: trio.Nursery) -> None:
    """Out of descriptors it doesn't spin, streams go on, and those who wait are served later."""
    served = await ServeProcess.start(nursery, "--no-access-log", "--heartbeat", "0.5")
    async with AsyncExitStack() as stack:
        stream = await stack.enter_async_context(await connect(served.port))
        await stream.ask(target="/events/news")
        publisher = await stack.enter_async_context(await connect(served.port))
        assert (await publisher.ask("POST", "/events/news", body=b"one")).status_code == 200
        await stream.until(b"data: one\n\n")
        await publisher.rest()
        _soft, hard = resource.prlimit(served.pid, resource.RLIMIT_NOFILE)
        # Room for some more, and not for all.
        resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (25, hard))
        others: list[Connection] = [
            await stack.enter_async_context(await connect(served.port)) for _ in range(30)
        ]
        await served.wait_line("can't accept connections for now: Too many open files")
        before = cpu_seconds(served.pid)
        for _ in range(2):
            await stream.until(b":\n")
        assert cpu_seconds(served.pid) - before < 0.3
        assert (await publisher.ask("POST", "/events/news", body=b"two")).status_code == 200
        await stream.until(b"data: two\n\n")
        # Those who were served leave; the others get their places, and nobody was forgotten.
        for connection in others:
            with trio.fail_after(PATIENCE):
                assert (await connection.ask()).status_code == 200
            await connection.aclose()
    assert await served.stop() == 0
    assert len([line for line in served.log if "can't accept" in line]) == 1
