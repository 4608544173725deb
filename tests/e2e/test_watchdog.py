"""A blocked loop is noticed while it is blocked, by a real thread with a real clock."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest
import trio
from e2e.process import ServeProcess, fetch

from h3trio._server.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trio.testing import MockClock

APP = """
import time

async def app(event):
    if event.path == "/block":
        time.sleep(2)
    return "done"
"""


def threads() -> list[str]:
    """Name the watchdogs that run."""
    return [thread.name for thread in threading.enumerate() if "watchdog" in thread.name]


@pytest.fixture
async def watchdog() -> AsyncGenerator[Watchdog]:
    """A watchdog with little patience."""
    watchdog = Watchdog(0.1)
    watchdog.start()
    yield watchdog
    watchdog.stop()
    assert threads() == []


async def culprit() -> None:
    """Do what no task should."""
    guilty_line()


def guilty_line() -> None:
    """Block the loop until it has been noticed for sure."""
    time.sleep(0.5)


@pytest.mark.alone
async def test_the_task_is_named_while_it_blocks(
    watchdog: Watchdog, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning has the task's name and the innermost line, and comes once."""
    nursery.start_soon(culprit, name='the "culprit"\n')
    await trio.sleep(0.2)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "the event loop is blocked for 0.1 s by the task 'the \\x22culprit\\x22\\x0a'"
    )
    lines = (record.stack_info or "").splitlines()
    assert "in culprit" in lines[1]
    assert "time.sleep(0.5)" in lines[-1]
    assert watchdog.blocked == 1


@pytest.mark.alone
async def test_warnings_are_paced_and_all_are_counted(
    watchdog: Watchdog, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that blocks again and again fills no log."""
    for _ in range(2):
        nursery.start_soon(culprit)
        await trio.sleep(0.15)
    assert (len(caplog.records), watchdog.blocked) == (1, 2)


@pytest.mark.alone
async def test_a_block_outside_of_tasks(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    """What runs between the tasks is shown by its stack."""
    trio.lowlevel.current_trio_token().run_sync_soon(guilty_line)
    await trio.sleep(0.2)
    (record,) = caplog.records
    # Trio runs these in a task of its own.
    assert "guilty_line" in (record.stack_info or "")
    assert watchdog.blocked == 1


@pytest.mark.alone
async def test_an_idle_or_busy_loop_is_not_blocked(watchdog: Watchdog) -> None:
    """Waiting for long, and working in small steps, are fine."""
    await trio.sleep(0.4)
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        await trio.lowlevel.checkpoint()
    assert watchdog.blocked == 0


@pytest.mark.alone
async def test_a_mock_clock_is_not_a_blocked_loop(
    mock_clock: MockClock, watchdog: Watchdog
) -> None:
    """Where Trio's time stands still, the loop answers all the same."""
    del mock_clock
    with trio.move_on_after(1):
        await trio.to_thread.run_sync(time.sleep, 0.4)
    assert watchdog.blocked == 0


@pytest.mark.alone
async def test_serve_names_the_handler(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A handler that sleeps is in the log of `serve`, and off with `none`."""
    (tmp_path / "app.py").write_text(APP)
    target = f"{tmp_path}/app.py:app"
    for flags, noticed in (([], True), (["--blocked-loop-warning", "none"], False)):
        served = await ServeProcess.start(nursery, target, *flags)
        assert (await fetch(served.port, "GET", "/block")).body == b"done"
        assert await served.stop() == 0
        warned = "blocked for 1 s by the task 'h3trio handler for 127.0.0.1'" in "\n".join(
            served.log
        )
        assert warned is noticed
        assert (
            any(line.startswith("  ") and "time.sleep(2)" in line for line in served.log) is noticed
        )
