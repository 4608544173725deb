"""Tests of answers that outlive their connections: two tabs, a reload, a stop, a restart.

    pip install pytest pytest-trio
    pytest -o trio_mode=true examples/test_your_runs.py

It takes milliseconds, though the answer takes minutes: `autojump_clock` jumps ahead when all wait.
The hub keeps 10,000 events; each test has one of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from h3trio import App, H3Event, Response
from h3trio.hub import Hub, MemoryHistory
from h3trio.runs import Run, Runs
from h3trio.testing import Ending, connect

if TYPE_CHECKING:
    from trio.testing import MockClock


async def count(run: Run) -> None:
    """Send a number each second."""
    for n in range(600):
        await run.send(str(n))
        await trio.sleep(1)


def make_app(history: MemoryHistory) -> App:
    """Make an app whose answers count."""
    runs = Runs(Hub(history))
    made = App(lifespan=runs.lifespan)

    @made.post("/answers")
    async def start(event: H3Event) -> Response | None:
        run = await runs.start(count)
        return run.reply(event)

    @made.get("/answers/:id")
    async def watch(event: H3Event) -> None:
        await runs.watch(event, event.params["id"])

    @made.delete("/answers/:id")
    async def stop(event: H3Event) -> None:
        await runs.stop(event.params["id"])

    return made


@pytest.fixture
def app() -> App:
    """Make an app with a history of its own."""
    return make_app(MemoryHistory())


async def test_two_tabs(app: App, autojump_clock: MockClock) -> None:
    """One tab leaves, is opened again, and stops the answer: both see all that they should."""
    async with connect(app, "/answers", method="POST") as first:
        path = first.headers["content-location"]
        async with connect(app, path, lifespan=False) as second:
            assert [(await second.next_event()).data for _ in range(3)] == ["0", "1", "2"]
        # The second tab has left. Nothing is cancelled for that, and time goes on.
        await trio.sleep(100)
        async with connect(app, path, lifespan=False) as second:
            assert [(await second.next_event()).data for _ in range(3)] == ["0", "1", "2"]
            second.vanish()
            await second.reconnect()
            assert (await second.next_event()).data == "3"
        async with connect(app, path, method="DELETE", lifespan=False) as stop:
            assert stop.status == 204
        for n in range(103):
            assert (await first.next_event()).data == str(n)
        assert (await first.next_event()).event == "stopped"
        await first.wait_closed()
        assert first.ending is Ending.COMPLETE
    assert autojump_clock.current_time() == 102


async def test_restart(autojump_clock: MockClock) -> None:
    """A second app on the same history stands for a new start over a file."""
    history = MemoryHistory()
    async with connect(make_app(history), "/answers", method="POST") as client:
        path = client.headers["content-location"]
        assert (await client.next_event()).data == "0"
    async with connect(make_app(history), path) as client:
        assert (await client.next_event()).data == "0"
        assert (await client.next_event()).event == "interrupted"
    assert autojump_clock.current_time() == 0
