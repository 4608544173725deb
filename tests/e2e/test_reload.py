"""`serve --reload` with real files, processes and signals."""

from __future__ import annotations

import os
import re
import signal
import socket
from typing import TYPE_CHECKING, final

import pytest
import trio
from e2e.process import PATIENCE, ServeProcess, connect, fetch

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import os, time
import trio

async def app(event):
    if event.path == "/block":
        time.sleep(1000)
    if event.path == "/stream":
        async with event.start_sse() as writer:
            await writer.send("WORD")
            await trio.sleep_forever()
    return f"WORD {os.getpid()}"
"""


@final
class Edited:
    """An app under edit, and the server that follows it."""

    def __init__(self, nursery: trio.Nursery, folder: Path) -> None:
        self._nursery = nursery
        self.path = folder / "some_app.py"
        self.served: ServeProcess
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])

    async def start(self) -> None:
        """Start the server; return when it listens."""
        self.write("one")
        args = (f"{self.path}:app", "--reload", "--port", str(self.port))
        self.served = await ServeProcess.launch(self._nursery, *args, folder=self.path.parent)
        await self.until("one")

    def write(self, word: str, text: str = APP) -> None:
        """Save another version."""
        self.path.write_text(text.replace("WORD", word))

    async def until(self, word: str) -> int:
        """Wait until this version answers; return the number of its process."""
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    answer = (await fetch(self.port)).body.decode().split()
                except (OSError, trio.BrokenResourceError, AssertionError):
                    answer = []
                if answer and answer[0] == word:
                    return int(answer[1])
                await trio.sleep(0.05)


@pytest.fixture
async def edited(nursery: trio.Nursery, tmp_path: Path) -> Edited:
    """A served app under edit."""
    edited = Edited(nursery, tmp_path)
    await edited.start()
    return edited


async def gone(pid: int) -> None:
    """Wait until a process is no more."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            await trio.sleep(0.05)


async def test_a_change_is_served(edited: Edited) -> None:
    """A saved file is served by another process; an open stream doesn't hold that up."""
    first = await edited.until("one")
    async with await connect(edited.port) as stream:
        await stream.ask("GET", "/stream")
        await stream.until(b"one")
        edited.write("two")
        second = await edited.until("two")
    assert first != second
    await gone(first)
    assert await edited.served.stop(signal.SIGINT) == 0
    await gone(second)


async def test_a_syntax_error_waits_for_the_next_change(edited: Edited) -> None:
    """What can't be loaded is said, and the next change is tried."""
    edited.write("two", "def (")
    await edited.served.wait_line("SyntaxError")
    await edited.served.wait_line("ended with status 2: waiting for a change")
    edited.write("three")
    pid = await edited.until("three")
    assert await edited.served.stop() == 0
    await gone(pid)


async def test_a_blocked_server_is_killed(edited: Edited) -> None:
    """A handler that blocks keeps neither a change nor Ctrl-C."""
    async with await connect(edited.port) as connection:
        await connection.stream.send_all(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(0.2)
        edited.write("two")
        await edited.served.wait_line("SIGKILL")
    pid = await edited.until("two")
    assert await edited.served.stop() == 0
    await gone(pid)


async def test_other_files_change_nothing(edited: Edited) -> None:
    """Only Python files count."""
    pid = await edited.until("one")
    (edited.path.parent / "notes.txt").write_text("x")
    (edited.path.parent / "other.py").write_text("x = 1")
    line = await edited.served.wait_line("changed")
    assert re.search(r"'other\.py' changed: starting again", line)
    await gone(pid)
    assert await edited.served.stop() == 0


async def test_without_watchfiles(nursery: trio.Nursery, tmp_path: Path) -> None:
    """What is missing is named, with the extra that brings it."""
    (tmp_path / "watchfiles.py").write_text("raise ImportError")
    (tmp_path / "some_app.py").write_text(APP)
    python_path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    served = await ServeProcess.launch(
        nursery, "some_app.py:app", "--reload", folder=tmp_path, environ={"PYTHONPATH": python_path}
    )
    assert await served.wait() == 2
    assert served.log == ["h3trio: error: --reload needs watchfiles: pip install '.[dev]'"]
