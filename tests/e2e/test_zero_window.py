"""A thousand clients that read nothing: the end of the server is bounded all the same."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest
import trio
from e2e.process import PATIENCE, ServeProcess
from e2e.vitals import complaints, vitals

from h3trio._server.serve import raise_open_file_limit

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS: Final = 1000
SOFT: Final = 1.0
HARD: Final = 1.0
# What is between the deadline and the end of the process: Python's own end, on a busy machine.
SLACK: Final = 5.0

APP: Final = """
import trio
from h3trio import App

app = App()

@app.get("/events")
async def events(event):
    # Each holds what one may: a full queue, and one that waits for room.
    async with event.start_sse() as writer:
        while True:
            await writer.send("x" * 16_000)

@app.get("/tasks")
async def tasks(event):
    return str(trio.lowlevel.current_statistics().tasks_living)
"""


def stop_reading(port: int) -> socket.socket:
    """Ask for a stream, with a receive buffer as small as there is, and never read it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sock.connect(("127.0.0.1", port))
    sock.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return sock


@pytest.mark.slow
@pytest.mark.alone
async def test_a_thousand_clients_that_read_nothing(nursery: trio.Nursery, tmp_path: Path) -> None:
    """SIGTERM ends the process by the hard deadline with 0, though no farewell can be sent."""
    raise_open_file_limit(CLIENTS)
    (tmp_path / "app.py").write_text(APP)
    # A farewell that would wait far longer than the drain.
    limits = ("--drain-soft", str(SOFT), "--drain-hard", str(HARD), "--farewell-timeout", "1000")
    options = ("app:app", "--no-access-log", *limits)
    served = await ServeProcess.start(nursery, *options, folder=tmp_path)
    with ExitStack() as stack:
        for number in range(CLIENTS):
            stack.enter_context(stop_reading(served.port))
            if number % 100 == 0:
                await trio.lowlevel.checkpoint()
        with trio.fail_after(PATIENCE):
            # Two tasks for a connection, and one that waits for its socket.
            while (await vitals(served)).tasks < 3 * CLIENTS:  # noqa: ASYNC110 - another process: nothing tells
                await trio.sleep(0.05)
        start = trio.current_time()
        assert await served.stop() == 0
        assert SOFT <= trio.current_time() - start < SOFT + HARD + SLACK
    assert not complaints(served)
    assert any(f"cancelling {CLIENTS} connections" in line for line in served.log)
