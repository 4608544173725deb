"""Whatever is cut short, at whichever step, leaves nothing behind.

Each scenario runs once undisturbed to count its task steps, N. Then it runs N times more, and after
its first, second, ... step something happens: all of it is cancelled, or the client leaves, or the
server ends every exchange. Where a task stands after a step, there is one of its checkpoints, so
each of them has its turn; Trio shuffles the tasks, so each run differs a little besides.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio
from fakes import FakeTransport
from helpers import Client, connect, event_source, post, request
from trio.testing import memory_stream_pair

from h3trio import CloseReason, Closing, H3Event, Settings, SSEWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock


@dataclass(kw_only=True)
class Scenario:
    """What a handler and its client do, and over what."""

    handler: Callable[[H3Event], Awaitable[object]]
    client: Callable[[Client], Awaitable[None]]
    reasons: dict[CloseReason, int]
    room: int | None = None
    streams: bool = False
    """Over memory streams, which can't try a send, instead of a fake transport."""
    settings: Settings = field(default_factory=Settings)


class Run:
    """One run of a scenario; `act` is called after some step, and may cut it short."""

    def __init__(self, scenario: Scenario, act: Callable[[Run], None], step: int) -> None:
        self.scenario = scenario
        self.act = act
        self.step = step
        self.steps = 0
        self.events: list[H3Event] = []
        self.unwound = 0
        self.closings: list[Closing] = []
        self.client_scope = trio.CancelScope()

    async def handler(self, event: H3Event) -> object:
        """Take notes around the scenario's handler."""
        self.events.append(event)
        event.on_close(self.closings.append)
        try:
            return await self.scenario.handler(event)
        finally:
            self.unwound += 1

    async def main(self) -> None:
        """Run client and server to their end, and look at what is left."""
        before = trio.lowlevel.current_statistics().tasks_living
        steps = _Steps(self)
        ours, theirs = memory_stream_pair()
        transport = None if self.scenario.streams else FakeTransport(room=self.scenario.room)
        async with trio.open_nursery() as self.nursery:
            self.client = connect(
                self.nursery,
                self.handler,
                settings=self.scenario.settings,
                transport=transport,
                pair=lambda: (ours, theirs),
            )
            trio.lowlevel.add_instrument(steps)
            try:
                with self.client_scope:
                    await self.scenario.client(self.client)
            except (EOFError, ValueError, AssertionError):
                # What the client gets of an answer that was cut short isn't what it expects.
                assert 0 < self.step <= self.steps
            if transport is None:
                await theirs.aclose()
            else:
                transport.change(broken=True)
            await self.client.finished.wait()
            trio.lowlevel.remove_instrument(steps)
            self.nursery.cancel_scope.cancel()
        with contextlib.suppress(KeyError):
            trio.lowlevel.remove_instrument(steps)
        if transport is None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.send_all(b"")
        else:
            assert transport.closed
        assert trio.lowlevel.current_statistics().tasks_living == before
        self.check()

    def check(self) -> None:
        """Every exchange that began has ended, and is counted and told once."""
        counts = self.client.state.counts
        assert len(self.events) == self.unwound == len(self.closings) == counts.requests
        assert sum(counts.closings.values()) == counts.requests
        assert counts.bytes_sent == sum(closing.bytes_sent for closing in self.closings)
        assert len(self.client.state.heartbeat) == 0


class _Steps(trio.abc.Instrument):
    def __init__(self, run: Run) -> None:
        self.run = run

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        self.run.steps += 1
        if self.run.steps == self.run.step:
            self.run.act(self.run)


def cancel(run: Run) -> None:
    """Cancel all of it, as the end of a server does."""
    run.nursery.cancel_scope.cancel()


def leave(run: Run) -> None:
    """Let the client vanish."""
    run.client_scope.cancel()


def end(run: Run) -> None:
    """End whatever is under way, as a drain does."""
    for event in run.events:
        event.end(CloseReason.DRAINING)


# -- scenarios


async def plain(event: H3Event) -> str:
    """Answer after a moment."""
    await trio.sleep(1)
    return event.path


async def gets(client: Client) -> None:
    """Ask several times on one connection."""
    for path in ("/a", "/b", "/c"):
        await client.send(request(path))
        assert (await client.response())[1] == path.encode()


async def echo(event: H3Event) -> bytes:
    """Answer with the body, after a moment."""
    await trio.sleep(1)
    return await event.body()


async def posts(client: Client) -> None:
    """Send a body in pieces, another after `100 Continue`, and one that ends the connection."""
    await client.send(post(b"abc")[:-2])
    await client.send(b"bc")
    assert (await client.response())[1] == b"abc"
    lines = ("Content-Length: 3", "Expect: 100-continue")
    await client.send(request("/", *lines, method="POST"))
    assert (await client.head()).status == 100
    await client.send(b"def")
    assert (await client.response())[1] == b"def"
    await client.send(post(b"ghi", "/", "Connection: close"))
    assert (await client.response())[1] == b"ghi"
    assert await client.rest() == b""


async def source() -> AsyncIterator[str]:
    """Give some values, taking time."""
    for number in range(5):
        yield str(number)
        await trio.sleep(0.1)


async def sends(event: H3Event) -> None:
    """Send in every way, from several tasks."""
    async with event.start_sse() as writer:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(writer.send, "from a task")
            nursery.start_soon(writer.send_from, source())
        writer.send_nowait("now")
        await writer.send_json({"a": 1})
        await writer.flush()
        await trio.sleep(15)


async def reads(client: Client) -> None:
    """Read a stream to its end."""
    await client.send(request())
    await client.head()
    assert len(await client.events()) == 10


async def floods(event: H3Event) -> None:
    """Send more than anybody takes."""
    async with event.start_sse() as writer, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(flood, writer)


async def flood(writer: SSEWriter) -> None:
    """Send some large events."""
    for _ in range(2):
        await writer.send("x" * 100)


async def reads_slowly(client: Client) -> None:
    """Read a little at a time, with pauses."""
    await client.send(request())
    for _ in range(4):
        await trio.sleep(1)
        give_room(client, 250)
    await client.head()
    assert len(await client.events()) == 4


def give_room(client: Client, size: int) -> None:
    """Let the client's transport take more."""
    transport = client.connection._transport  # noqa: SLF001 - the fake that the test gave it
    assert isinstance(transport, FakeTransport)
    transport.change(room=(transport.room or 0) + size)


async def any_of_them(event: H3Event) -> object:
    """Do what the path says."""
    if event.path == "/stream":
        await calls_back(event)
        return None
    return await (echo(event) if event.path == "/echo" else plain(event))


async def pipelines(client: Client) -> None:
    """Ask for everything in one go, and say that this was all."""
    await client.send(
        request("/a")
        + post(b"abc", "/echo")
        + request("/stream")
        + request("/stream", method="HEAD")
    )
    await client.send(request("/b"))
    assert (await client.response())[1] == b"/a"
    assert (await client.response())[1] == b"abc"
    await client.head()
    assert len(await client.events()) == 3
    await client.head()
    assert (await client.response())[1] == b"/b"
    await client.send(b"")
    assert await client.rest() == b""


async def calls_back(event: H3Event) -> None:
    """Stream from a callback."""
    event.start_sse()
    event.set_stream_callback(callback)
    await trio.sleep(1)


async def callback(writer: SSEWriter) -> None:
    """Send some events, taking time."""
    await writer.send("one")
    await trio.sleep(1)
    await writer.send("two")
    await trio.sleep(1)
    await writer.send("three")


async def reads_callback(client: Client) -> None:
    """Read the callback's events."""
    await client.send(request())
    await client.head()
    assert [event.data for event in await client.events()] == ["one", "two", "three"]


async def waits(event: H3Event) -> None:
    """Stream until something else ends it."""
    async with event.start_sse() as writer:
        await writer.send("one")
        await trio.sleep(1)
        await writer.send("two")
        await trio.sleep_forever()


async def outlives_a_lease(client: Client) -> None:
    """Read until the lease is over."""
    await client.send(event_source())
    await client.head()
    assert len(await client.events()) == 2


SLOW = pytest.mark.slow
DONE = CloseReason.COMPLETED
SCENARIOS = {
    "plain": Scenario(handler=plain, client=gets, reasons={DONE: 3}),
    "bodies": Scenario(handler=echo, client=posts, reasons={DONE: 3}),
    "stream": Scenario(handler=sends, client=reads, reasons={DONE: 1}),
    "bodies over streams": Scenario(handler=echo, client=posts, reasons={DONE: 3}, streams=True),
    "stream over streams": Scenario(handler=sends, client=reads, reasons={DONE: 1}, streams=True),
    "stalled": Scenario(
        handler=floods,
        client=reads_slowly,
        reasons={DONE: 1},
        room=50,
        settings=Settings(queue_bytes=100),
    ),
    "pipelined": Scenario(handler=any_of_them, client=pipelines, reasons={DONE: 5}),
    "callback": Scenario(handler=calls_back, client=reads_callback, reasons={DONE: 1}),
    "lease": Scenario(
        handler=waits,
        client=outlives_a_lease,
        reasons={CloseReason.LEASE: 1},
        settings=Settings(lease=30),
    ),
}


async def run_once(scenario: Scenario, act: Callable[[Run], None], step: int) -> Run:
    """Run a scenario."""
    run = Run(scenario, act, step)
    await run.main()
    return run


# Two of them say at once that something is wrong, all of them what.
QUICK = {("stream", cancel), ("stalled", cancel)}
EACH = [
    pytest.param(name, act, marks=() if (name, act) in QUICK else SLOW, id=f"{name}-{act.__name__}")
    for name in SCENARIOS
    for act in (cancel, leave, end)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "act"), EACH)
async def test_cut_short_at_each_step(
    name: str,
    act: Callable[[Run], None],
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    """A scenario that is cut short after any of its steps leaves nothing, and logs no error."""
    caplog.set_level(logging.WARNING, "h3trio")
    undisturbed = await run_once(SCENARIOS[name], act, 0)
    assert undisturbed.client.state.counts.closings == SCENARIOS[name].reasons
    step = 1
    while (await run_once(SCENARIOS[name], act, step)).steps >= step:
        step += 1
    print(f"{name}: N = {undisturbed.steps} steps, {act.__name__} after each")  # noqa: T201 - because N is asked for
    assert undisturbed.steps > 20
    assert step > 20
    assert caplog.records == []
    assert autojump_clock.current_time() > 1
    if act is cancel:
        # What was dropped without being closed would warn now, and a warning is an error.
        gc.collect()
