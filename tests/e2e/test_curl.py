"""What the README promises, with the program it names: curl."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, final

import trio
from e2e.process import PATIENCE, ServeProcess, connect
from tools import require_tool

from h3trio import SSEEvent, SSEParser

if TYPE_CHECKING:
    from collections.abc import Sequence

COUNTER = Path(__file__).parents[2] / "examples" / "sse_counter.py"


@final
class Curl:
    """A `curl -N`, and the events of the stream that it prints."""

    def __init__(self) -> None:
        self._parser = SSEParser()
        self._changed = trio.Event()
        self.events: list[SSEEvent] = []
        self.times: list[float] = []
        self.is_connected = False

    async def run(self, *args: str) -> None:
        """Run it until cancelled."""
        command = [require_tool("curl"), "-sSN", *args]
        run = partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(run)
            assert process.stdout is not None
            async for data in process.stdout:
                self.is_connected = True
                new = self._parser.feed(bytes(data))
                self.events += new
                self.times += [trio.current_time()] * len(new)
                self._changed.set()
                self._changed = trio.Event()

    async def wait_connected(self) -> None:
        """Wait until the first bytes came."""
        with trio.fail_after(PATIENCE):
            while not self.is_connected:
                await self._changed.wait()

    async def wait_events(self, count: int) -> Sequence[SSEEvent]:
        """Wait until it has printed so many."""
        with trio.fail_after(PATIENCE):
            while len(self.events) < count:
                await self._changed.wait()
        return self.events


async def curl(*args: str) -> str:
    """Run a curl to its end; return what it printed."""
    command = [require_tool("curl"), "-sS", *args]
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(command, capture_stdout=True)
    return result.stdout.decode()


async def test_two_curls(nursery: trio.Nursery) -> None:
    """`curl -N …/events/news` shows what `curl -d hi …/events/news` sends, and nothing else."""
    served = await ServeProcess.start(nursery)
    url = f"{served.url}/events/news"
    listener = Curl()
    nursery.start_soon(listener.run, url)
    await listener.wait_connected()
    answers = [json.loads(await curl("-d", text, url)) for text in ("hi", "two\nlines", "")]
    await curl("-d", "other", f"{served.url}/events/sport")
    answers.append(json.loads(await curl("-d", "é", f"{url}?event=note&id=mine")))
    events = await listener.wait_events(4)
    assert [(event.event, event.data) for event in events] == [
        ("message", "hi"),
        ("message", "two\nlines"),
        ("message", ""),
        ("note", "é"),
    ]
    assert [event.id for event in events] == [answer["id"] for answer in answers]
    assert events[3].id == "mine"
    assert await served.stop() == 0


async def test_everything_public(nursery: trio.Nursery) -> None:
    """`/events` shows every topic, and several can be named in its query."""
    served = await ServeProcess.start(nursery)
    everything, two = Curl(), Curl()
    nursery.start_soon(everything.run, f"{served.url}/events")
    nursery.start_soon(two.run, f"{served.url}/events?topic=a&topic=b/c")
    await everything.wait_connected()
    await two.wait_connected()
    for topic in ("a", "b/c", "d", "b%2Fc", "a"):
        await curl("-d", topic, f"{served.url}/events/{topic}")
    assert [event.data for event in await everything.wait_events(5)] == [
        *("a", "b/c", "d", "b%2Fc", "a")
    ]
    assert [event.data for event in await two.wait_events(4)] == ["a", "b/c", "b%2Fc", "a"]


async def test_a_hundred_curls_count(nursery: trio.Nursery) -> None:
    """One event a second reaches 100 curls at once, while another request is answered between."""
    served = await ServeProcess.start(nursery, f"{COUNTER}:app", "--no-access-log")
    curls = [Curl() for _ in range(100)]
    for listener in curls:
        nursery.start_soon(listener.run, f"{served.url}/events")
    for listener in curls:
        await listener.wait_events(1)
    seen = [len(listener.events) for listener in curls]
    async with await connect(served.port) as connection:
        assert (await connection.ask()).status_code == 200
        await connection.until(b"</html>")
    # A measure of order, not of time: it is answered long before their streams are over.
    assert all(len(listener.events) - n <= 5 for listener, n in zip(curls, seen, strict=True))
    for listener in curls:
        events = await listener.wait_events(4)
        numbers = [int(event.data or "") for event in events]
        assert numbers == list(range(1, 1 + len(numbers)))
        # Four events are three seconds, give or take what a busy machine takes.
        assert 1 <= listener.times[3] - listener.times[0] <= 30
    nursery.cancel_scope.cancel()
