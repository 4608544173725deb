"""`serve` over memory streams: taking connections, refusing them, and ending everything in time."""

from __future__ import annotations

import contextlib
import logging
import re
import resource
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, final

import pytest
import trio
from helpers import MemoryListener, event_source
from tables import table
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from h3trio import CloseReason, H3Event, Server, Settings, serve
from h3trio._server.serve import raise_open_file_limit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from trio.testing import MockClock

    from h3trio._server.event import Handler

GET: Final = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
# Nothing random in when a stream is ended, and no reading on after the last response.
PLAIN: Final = Settings(drain_soft=10, drain_hard=5, linger_timeout=0)


@final
class Running:
    """A server in a nursery, and clients for it."""

    def __init__(
        self, nursery: trio.Nursery, make: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]
    ) -> None:
        self._nursery = nursery
        self._listener = MemoryListener(make)
        self.connect = self._listener.connect
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.server: Server

    async def start(self, handler: Handler, settings: Settings) -> None:
        """Return once it serves."""
        serving = partial(serve, handler, listeners=[self._listener], settings=settings)
        self.server = await self._nursery.start(self._run, serving)

    async def _run(
        self,
        serving: Callable[..., object],
        *,
        task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with self.scope:
            await serving(task_status=task_status)  # type: ignore[misc]  # a partial of `serve`
        self.ended.set()

    async def request(self, data: bytes = GET) -> trio.abc.Stream:
        """Send a request on a connection of its own."""
        stream = await self.connect()
        await stream.send_all(data)
        return stream

    async def answer(self, data: bytes = GET) -> str:
        """Return the whole answer to a request, up to the end of its connection."""
        return await rest(await self.request(data))


@pytest.fixture
def running(nursery: trio.Nursery) -> Running:
    """A server that isn't started yet, over memory streams."""
    return Running(nursery, memory_stream_pair)


@pytest.fixture
def lockstep(nursery: trio.Nursery) -> Running:
    """A server that isn't started yet, over streams that hold nothing: a client takes or blocks."""
    return Running(nursery, lockstep_stream_pair)


async def rest(stream: trio.abc.Stream) -> str:
    """Read up to the end, and close."""
    data = b"".join([bytes(piece) async for piece in stream])
    await stream.aclose()
    return data.decode()


async def head(stream: trio.abc.Stream) -> str:
    """Read what there is first."""
    return bytes(await stream.receive_some()).decode()


async def hello(event: H3Event) -> str:
    """Answer at once."""
    return f"hello {event.client}"


async def endless(event: H3Event) -> None:
    """Stream until ended."""
    async with event.start_sse():
        await trio.sleep_forever()


# -- taking connections


async def test_started_means_listening(running: Running) -> None:
    """`nursery.start` returns when the server takes connections, with the addresses."""
    await running.start(hello, PLAIN)
    assert running.server.addresses == ("<MemoryListener>",)
    assert (await running.answer(b"GET / HTTP/1.0\r\n\r\n")).endswith("\r\n\r\nhello memory")
    running.scope.cancel()


async def test_several_listeners(nursery: trio.Nursery) -> None:
    """One server takes connections from all its listeners."""
    listeners = [MemoryListener(memory_stream_pair) for _ in range(3)]
    server: Server = await nursery.start(partial(serve, hello, listeners=listeners))
    streams = [await listener.connect() for listener in listeners]
    for stream in streams:
        await stream.send_all(GET)
        assert (await head(stream)).startswith("HTTP/1.1 200 OK\r\n")
    assert len(server.addresses) == server.statistics().accepted == 3
    nursery.cancel_scope.cancel()


async def test_statistics(running: Running) -> None:
    """Statistics count what is open now, and in total what was."""
    await running.start(endless, PLAIN)
    first, _second = await running.request(), await running.request()
    await head(first)
    now = running.server.statistics()
    assert (now.connections, now.streams, now.accepted, now.requests) == (2, 2, 2, 0)
    await first.aclose()
    await wait_all_tasks_blocked()
    now = running.server.statistics()
    assert (now.connections, now.streams, now.accepted, now.requests) == (1, 1, 2, 1)
    assert now.closings == {CloseReason.CLIENT_CLOSED: 1}
    assert now.bytes_sent > 0
    assert (now.refused, now.draining) == (0, False)
    assert repr(running.server) == "<Server: <MemoryListener>, 1 connections>"
    running.scope.cancel()


async def test_refusals_are_counted_by_status(running: Running) -> None:
    """Requests that broke HTTP are counted by the status that they were answered with."""
    await running.start(hello, PLAIN)
    for sent in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n"):
        await running.answer(sent)
    await running.answer(b"GET / HTTP/1.0\r\n\r\n")
    assert running.server.statistics().refusals == {400: 2, 505: 1}
    running.scope.cancel()


async def test_a_second_server_has_its_own_counts(nursery: trio.Nursery) -> None:
    """Servers in one program share nothing."""
    busy, idle = Running(nursery, memory_stream_pair), Running(nursery, memory_stream_pair)
    await busy.start(hello, PLAIN)
    await idle.start(hello, PLAIN)
    await busy.answer(b"GET / HTTP/1.0\r\n\r\n")
    assert (busy.server.statistics().requests, idle.server.statistics().requests) == (1, 0)
    nursery.cancel_scope.cancel()


@final
class _Faulty(trio.abc.Stream):
    """A stream whose every use is an error that nobody expects."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise RuntimeError(f"bug in sending {len(data)} bytes")

    async def wait_send_all_might_not_block(self) -> None:
        raise RuntimeError("bug")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise RuntimeError(f"bug in receiving {max_bytes} bytes")

    async def aclose(self) -> None:
        raise RuntimeError("bug in aclose")


@pytest.mark.parametrize("limit", [1000, 1], ids=["served", "refused"])
async def test_an_internal_error_hurts_no_other(
    running: Running, caplog: pytest.LogCaptureFixture, limit: int
) -> None:
    """An error inside one connection, served or refused, is logged and ends only that one."""
    await running.start(hello, Settings(max_connections=limit))
    stream = await running.request()
    await head(stream)
    for _ in range(3):
        await running.connect(_Faulty())
    await wait_all_tasks_blocked()
    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if text.endswith("internal error")]) == 3
    await stream.send_all(GET)
    assert (await head(stream)).startswith("HTTP/1.1 200 OK\r\n")
    assert running.server.statistics().connections == 1
    running.scope.cancel()


async def test_idle_streams_get_heartbeats(running: Running, autojump_clock: MockClock) -> None:
    """The server keeps silent streams alive."""
    await running.start(endless, PLAIN)
    stream = await running.request()
    await head(stream)
    assert await head(stream) == "2\r\n:\n\r\n"
    assert 10 <= autojump_clock.current_time() <= 15
    running.scope.cancel()


# -- the limit


async def test_at_the_limit_and_above(running: Running) -> None:
    """The last connection within the limit is served, the next one gets 503 and when to return."""
    await running.start(endless, Settings(max_connections=2))
    within = [await running.request() for _ in range(2)]
    for stream in within:
        assert (await head(stream)).startswith("HTTP/1.1 200 ")
    refused = await rest(await running.connect())
    assert refused.startswith("HTTP/1.1 503 Service Unavailable\r\n")
    assert re.search(r"\r\nRetry-After: [1-3]\r\n", refused)
    assert "\r\nConnection: close\r\n" in refused
    now = running.server.statistics()
    assert (now.connections, now.accepted, now.refused) == (2, 3, 1)
    running.scope.cancel()


async def test_room_again(running: Running) -> None:
    """A connection that leaves makes room for the next."""
    await running.start(endless, Settings(max_connections=1))
    first = await running.request()
    await head(first)
    await first.aclose()
    await wait_all_tasks_blocked()
    assert (await head(await running.request())).startswith("HTTP/1.1 200 ")
    running.scope.cancel()


async def test_a_burst_above_the_limit(running: Running) -> None:
    """The limit holds too when all come at once, and clients are told different times."""
    await running.start(endless, Settings(max_connections=3, reconnect_delay=30))
    streams = [await running.connect() for _ in range(50)]
    await wait_all_tasks_blocked()
    assert running.server.statistics().connections == 3
    answers = [await rest(stream) for stream in streams[3:]]
    assert all(answer.startswith("HTTP/1.1 503 ") for answer in answers)
    after = {int(re.findall(r"Retry-After: (\d+)", answer)[0]) for answer in answers}
    assert len(after) > 5
    assert min(after) >= 15
    assert max(after) <= 45
    running.scope.cancel()


@final
class _Burst(trio.abc.Listener[trio.abc.Stream]):
    """A listener that has all its connections at once."""

    def __init__(self, streams: Sequence[trio.abc.Stream]) -> None:
        self._streams = list(streams)

    async def accept(self) -> trio.abc.Stream:
        if not self._streams:
            await trio.sleep_forever()
        return self._streams.pop(0)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_burst_without_a_pause(nursery: trio.Nursery) -> None:
    """Connections count from the moment they are accepted, before their tasks have begun."""
    pairs = [memory_stream_pair() for _ in range(5)]
    listener = _Burst([theirs for _, theirs in pairs])
    settings = Settings(max_connections=2)
    server: Server = await nursery.start(
        partial(serve, hello, listeners=[listener], settings=settings)
    )
    await wait_all_tasks_blocked()
    now = server.statistics()
    assert (now.connections, now.accepted, now.refused) == (2, 5, 3)
    nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_too_many_to_be_told(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Refusing has a bound as well: beyond it a connection is closed without a word."""
    await running.start(endless, Settings(max_connections=1))
    await head(await running.request())
    refused = [await running.connect() for _ in range(101)]
    await wait_all_tasks_blocked()
    assert await refused[100].receive_some() == b""
    assert (await head(refused[99])).startswith("HTTP/1.1 503 ")
    await running.connect(_Faulty())
    await wait_all_tasks_blocked()
    assert running.server.statistics().refused == 102
    assert "bug in aclose" in caplog.text
    running.scope.cancel()


@pytest.mark.parametrize(("connections", "warned"), [(1, False), (10**9, True)])
def test_open_files(caplog: pytest.LogCaptureFixture, connections: int, *, warned: bool) -> None:
    """The limit of open files is raised as far as it may; too few for the connections is said."""
    _soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 1000), most))
    raise_open_file_limit(connections)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard == most
    assert bool(caplog.records) is warned


# -- the drain


async def test_drain_without_connections(running: Running, autojump_clock: MockClock) -> None:
    """With nothing open a drain takes no time, and `serve` returns."""
    await running.start(hello, PLAIN)
    await running.server.drain()
    await running.ended.wait()
    assert autojump_clock.current_time() == 0


async def test_drain_closes_idle_connections(running: Running, autojump_clock: MockClock) -> None:
    """A connection that waits for a request is closed at once."""
    await running.start(hello, PLAIN)
    fresh, used = await running.connect(), await running.request()
    await head(used)
    await running.server.drain()
    assert (await rest(fresh), await rest(used)) == ("", "")
    assert autojump_clock.current_time() == 0


async def test_drain_waits_for_nobody_who_says_nothing(
    running: Running, autojump_clock: MockClock
) -> None:
    """A connection made while streams are ended doesn't hold the drain to its hard deadline."""

    async def slow(_event: H3Event) -> str:
        await trio.sleep(12)
        return "done"

    await running.start(slow, PLAIN)
    stream = await running.request()
    await wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.server.drain)
        await trio.sleep(1)
        silent = await running.connect()
    assert (await rest(stream)).endswith("done")
    assert await rest(silent) == ""
    assert running.server.statistics().limits == {}
    assert autojump_clock.current_time() == pytest.approx(12)


async def test_drain_lets_requests_finish(running: Running, autojump_clock: MockClock) -> None:
    """A plain request is answered in its own time, and told that the connection closes."""

    async def slow(_event: H3Event) -> str:
        await trio.sleep(12)
        return "done"

    await running.start(slow, PLAIN)
    stream = await running.request()
    await wait_all_tasks_blocked()
    await running.server.drain()
    answer = await rest(stream)
    assert "\r\nConnection: close\r\n" in answer
    assert answer.endswith("done")
    assert autojump_clock.current_time() == pytest.approx(12)


async def test_drain_spreads_the_ends_of_streams(
    running: Running, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Streams end one after the other over the soft phase, each with a `retry:` of its own."""
    await running.start(endless, PLAIN)
    ends: list[float] = []
    bodies: list[str] = []

    async def listen(stream: trio.abc.Stream) -> None:
        bodies.append(await rest(stream))
        ends.append(autojump_clock.current_time())

    for _ in range(20):
        nursery.start_soon(listen, await running.request(event_source()))
    await wait_all_tasks_blocked()
    await running.server.drain()
    await wait_all_tasks_blocked()
    # A tenth of the phase is for handlers that end by themselves.
    assert ends == pytest.approx([1 + 9 * n / 20 for n in range(20)])
    farewells = [re.findall(r"retry: (\d+)\n\r\n0\r\n\r\n$", body) for body in bodies]
    retries = {int(found) for (found,) in farewells}
    assert len(retries) > 15
    assert min(retries) >= 1000
    assert max(retries) <= 3000
    assert running.server.statistics().closings == {CloseReason.DRAINING: 20}


async def test_draining_is_visible(running: Running, autojump_clock: MockClock) -> None:
    """A handler that watches for the drain ends its stream in its own way, and is not cancelled."""

    async def watching(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await event.draining.wait()
            await trio.sleep(0.5)
            await writer.send("bye")

    await running.start(watching, PLAIN)
    stream = await running.request()
    await head(stream)
    assert not running.server.is_draining
    await running.server.drain()
    assert "data: bye\n\n\r\n0\r\n\r\n" in await rest(stream)
    assert running.server.is_draining
    assert running.server.statistics().closings == {CloseReason.COMPLETED: 1}
    assert autojump_clock.current_time() == pytest.approx(0.5)


async def test_new_requests_during_a_drain(
    running: Running, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """New streams get 200, a `retry:` and their end; new plain requests a last answer."""

    async def either(event: H3Event) -> object:
        return await (endless(event) if event.path == "/events" else hello(event))

    await running.start(either, PLAIN)
    keeps_it_up = await running.request(event_source("/events"))
    await head(keeps_it_up)
    nursery.start_soon(running.server.drain)
    await trio.sleep(0.5)
    stream = await running.answer(event_source("/events"))
    assert stream.startswith("HTTP/1.1 200 OK\r\n")
    assert re.search(r"\r\n\r\n.*retry: \d+\n\r\n0\r\n\r\n$", stream, re.DOTALL)
    plain = await running.answer()
    assert plain.startswith("HTTP/1.1 200 OK\r\n")
    assert "\r\nConnection: close\r\n" in plain
    assert autojump_clock.current_time() == 0.5


async def test_the_listeners_close_after_the_soft_phase(
    running: Running, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Connections are taken until the soft phase is over, and none later."""

    async def slow(_event: H3Event) -> None:
        await trio.sleep(100)

    await running.start(slow, PLAIN)
    await running.request()
    nursery.start_soon(running.server.drain)
    await trio.sleep(9.9)
    await running.request()
    await trio.sleep(0.2)
    with pytest.raises(trio.BrokenResourceError):
        await running.connect()
    await running.ended.wait()
    assert autojump_clock.current_time() == pytest.approx(15)
    assert running.server.statistics().accepted == 2


async def test_stalled_clients_do_not_delay_a_drain(
    lockstep: Running, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Clients that take nothing are given the farewell's time, not the drain's."""

    async def chatty(event: H3Event) -> None:
        async with event.start_sse() as writer:
            while True:
                await writer.send("x" * 1000)

    async def send_only(stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(GET)

    await lockstep.start(chatty, PLAIN)
    for _ in range(20):
        nursery.start_soon(send_only, await lockstep.connect())
    await wait_all_tasks_blocked()
    assert lockstep.server.statistics().streams == 20
    await lockstep.server.drain()
    assert autojump_clock.current_time() <= PLAIN.drain_soft + PLAIN.farewell_timeout


async def test_what_is_left_is_cancelled(
    running: Running, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """At the hard deadline what still runs is cancelled, and unwinds before `drain` returns."""
    ended: list[str] = []

    async def slow(_event: H3Event) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("finally")

    await running.start(slow, PLAIN)
    stream = await running.request()
    await wait_all_tasks_blocked()
    await running.server.drain()
    assert ended == ["finally"]
    assert await rest(stream) == ""
    assert autojump_clock.current_time() == pytest.approx(15)
    assert "drain: cancelling 1 connections" in [rec.getMessage() for rec in caplog.records]


async def test_drain_twice(
    running: Running, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Every caller waits for the same end; one that gives up leaves the drain to go on."""
    await running.start(endless, PLAIN)
    await head(await running.request())
    times: list[float] = []

    async def drain() -> None:
        await running.server.drain()
        times.append(autojump_clock.current_time())

    with trio.move_on_after(0.1):
        await running.server.drain()
    assert running.server.is_draining
    nursery.start_soon(drain)
    await trio.sleep(0.1)
    nursery.start_soon(drain)
    await running.ended.wait()
    await drain()
    assert times == pytest.approx([1, 1, 1])


async def test_drain_of_a_server_that_was_cancelled(running: Running) -> None:
    """A server that has ended has drained."""
    await running.start(endless, PLAIN)
    running.scope.cancel()
    await running.ended.wait()
    await running.server.drain()


async def test_a_drain_without_phases(running: Running, autojump_clock: MockClock) -> None:
    """With both phases zero a drain is a cancellation."""
    await running.start(endless, Settings(drain_soft=0, drain_hard=0))
    stream = await running.request()
    await head(stream)
    await running.server.drain()
    await running.ended.wait()
    assert autojump_clock.current_time() == 0


async def test_a_drain_without_a_soft_phase(running: Running, autojump_clock: MockClock) -> None:
    """Streams get their farewell all the same, at once."""
    await running.start(endless, Settings(drain_soft=0, drain_hard=10))
    stream = await running.request(event_source())
    await head(stream)
    await running.server.drain()
    assert (await rest(stream)).endswith("0\r\n\r\n")
    assert autojump_clock.current_time() < 10


# -- streams that are to finish

POST: Final = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"
EVENTS: Final = event_source()


def telling(seconds: float, drain: Literal["end", "finish"] | None = None) -> Handler:
    """Make a handler that streams for so long."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse(drain=drain) as writer:
            await trio.sleep(seconds)
            await writer.send("done")

    return handler


@table(
    "asked, drain, finishes",
    [
        (POST, None, True),
        (POST, "end", False),
        (POST, "finish", True),
        (GET, None, False),
        (GET, "finish", True),
        (EVENTS, None, False),
        (EVENTS, "finish", True),
    ],
)
async def test_what_a_drain_lets_finish(
    nursery: trio.Nursery,
    *,
    asked: bytes,
    drain: Literal["end", "finish"] | None,
    finishes: bool,
    autojump_clock: MockClock,
) -> None:
    """Answers to other methods than GET finish unless told otherwise, as what asks for it does."""
    running = Running(nursery, memory_stream_pair)
    await running.start(telling(20, drain), PLAIN)
    stream = await running.request(asked)
    await head(stream)
    start = autojump_clock.current_time()
    await running.server.drain()
    assert trio.current_time() - start == pytest.approx(20 if finishes else 1)
    assert ("data: done" in await rest(stream)) == finishes
    reason = CloseReason.COMPLETED if finishes else CloseReason.DRAINING
    assert running.server.statistics().closings == {reason: 1}
    assert running.server.statistics().limits == {}


async def test_only_what_finishes_outlasts_the_hard_deadline(
    running: Running, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """While one stream goes on, the others' time is over when it would be without."""
    ended = trio.Event()

    async def either(event: H3Event) -> object:
        if event.method == "POST":
            return await telling(20)(event)
        try:
            await trio.sleep_forever()
        finally:
            assert autojump_clock.current_time() == pytest.approx(15)
            ended.set()

    await running.start(either, PLAIN)
    finishing = await running.request(POST)
    await head(finishing)
    hangs = await running.request()
    nursery.start_soon(running.server.drain)
    await ended.wait()
    assert await rest(hangs) == ""
    assert running.server.statistics().limits == {"drain_hard": 1}
    assert "data: done" in await rest(finishing)
    assert autojump_clock.current_time() == pytest.approx(20)


@table("soft", [10, 100])
async def test_a_stream_that_finishes_too_late_is_cut(
    nursery: trio.Nursery, soft: int, autojump_clock: MockClock
) -> None:
    """After `drain_finish` it is cut off, though the phases of the drain go on."""
    running = Running(nursery, memory_stream_pair)
    settings = Settings(drain_soft=soft, drain_hard=5, drain_finish=18, linger_timeout=0)
    await running.start(telling(20), settings)
    stream = await running.request(POST)
    await head(stream)
    start = autojump_clock.current_time()
    await running.server.drain()
    assert autojump_clock.current_time() - start == pytest.approx(18)
    assert "0\r\n" not in await rest(stream)
    assert running.server.statistics().limits == {"drain_finish": 1}


async def test_a_handler_that_does_not_end_at_drain_finish(
    running: Running, autojump_clock: MockClock
) -> None:
    """It has the time of a farewell, as the others have at the hard deadline."""

    async def shields(event: H3Event) -> None:
        async with event.start_sse():
            with trio.CancelScope(shield=True):
                await trio.sleep(60)

    await running.start(shields, PLAIN)
    await head(await running.request(POST))
    await running.server.drain()
    assert autojump_clock.current_time() == pytest.approx(60)
    assert running.server.statistics().limits == {"drain_finish": 1, "drain_hard": 1}


async def test_how_long_a_drain_may_take(running: Running) -> None:
    """That depends on whether a stream is open that is to finish."""
    await running.start(telling(20), PLAIN)
    await head(await running.request(EVENTS))
    assert running.server.drain_time == 15
    finishing = await running.request(POST)
    await head(finishing)
    assert running.server.drain_time == 26
    await finishing.aclose()
    await wait_all_tasks_blocked()
    assert running.server.drain_time == 15


async def test_a_client_that_leaves_is_not_waited_for(
    running: Running, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What is to finish is for its client: when that leaves, the drain is over."""
    await running.start(telling(20), PLAIN)
    stream = await running.request(POST)
    await head(stream)
    nursery.start_soon(running.server.drain)
    await trio.sleep(2)
    await stream.aclose()
    await running.ended.wait()
    assert autojump_clock.current_time() == 2
    assert running.server.statistics().closings == {CloseReason.CLIENT_CLOSED: 1}


# -- what doesn't end


async def shielded(event: H3Event) -> None:
    """Swallow every cancellation for a minute."""
    event.params["began"] = "yes"
    with trio.CancelScope(shield=True):
        await trio.sleep(60)


async def child_shielded(event: H3Event) -> None:
    """Let a task of its own swallow every cancellation."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shielded, event)


async def stubborn(_event: H3Event) -> None:
    """Catch every cancellation and go on, until a minute has passed."""
    deadline = trio.current_time() + 60
    while trio.current_time() < deadline:
        with contextlib.suppress(trio.Cancelled):
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("handler", [shielded, child_shielded, stubborn])
async def test_a_handler_that_swallows_cancellation_is_named(
    running: Running, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, handler: Handler
) -> None:
    """One second after the hard deadline the log names client, task and line; it waits on."""
    await running.start(handler, Settings(drain_soft=2, drain_hard=3))
    await running.request()
    await wait_all_tasks_blocked()
    drained = running.server.drain
    with trio.move_on_after(5.9):
        await drained()
    assert [rec for rec in caplog.records if rec.levelno == logging.ERROR] == []
    with trio.move_on_after(0.2):
        await drained()
    (error,) = [rec for rec in caplog.records if rec.levelno == logging.ERROR]
    message = error.getMessage()
    assert "h3trio connection from memory was cancelled" in message
    assert re.search(rf"test_serve\.py:\d+, in {stubborn_or_shielded(handler)}", message)
    await drained()
    assert autojump_clock.current_time() == pytest.approx(60, abs=1.1)


def stubborn_or_shielded(handler: Handler) -> str:
    """Name the function that a handler hangs in."""
    return "stubborn" if handler is stubborn else "shielded"


# -- cancelling, and what is around


async def test_cancelling_serve(running: Running, autojump_clock: MockClock) -> None:
    """Cancelled, `serve` ends at once, and not before every handler's `finally` is through."""
    steps: list[str] = []

    async def handler(event: H3Event) -> None:
        try:
            await endless(event)
        finally:
            steps.append("finally")

    await running.start(handler, PLAIN)
    streams = [await running.request() for _ in range(3)]
    await wait_all_tasks_blocked()
    running.scope.cancel()
    await running.ended.wait()
    assert steps == ["finally"] * 3
    assert running.server.statistics().connections == 0
    for stream in streams:
        assert not (await rest(stream)).endswith("0\r\n\r\n")
    with pytest.raises(trio.BrokenResourceError):
        await running.connect()
    assert autojump_clock.current_time() == 0


@final
class _WithLifespan:
    """A handler that notes when things happen around it."""

    def __init__(self, *, fails: bool = False) -> None:
        self.steps: list[str] = []
        self._fails = fails

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        self.steps.append("enter")
        if self._fails:
            raise RuntimeError("no database")
        try:
            yield
        finally:
            self.steps.append("leave")

    async def __call__(self, event: H3Event) -> None:
        self.steps.append("handle")
        try:
            await endless(event)
        finally:
            self.steps.append("finally")


@pytest.mark.parametrize("ending", ["drain", "cancel"])
async def test_lifespan(running: Running, autojump_clock: MockClock, ending: str) -> None:
    """A lifespan is entered before anything is served, and left when the last task is gone."""
    app = _WithLifespan()
    await running.start(app, PLAIN)
    assert app.steps == ["enter"]
    await head(await running.request())
    if ending == "drain":
        await running.server.drain()
    running.scope.cancel()
    await running.ended.wait()
    assert app.steps == ["enter", "handle", "finally", "leave"]
    assert autojump_clock.current_time() == (1 if ending == "drain" else 0)


async def test_a_lifespan_that_fails() -> None:
    """An error of the lifespan comes out of `serve` as it is, before anything listens."""
    listener = MemoryListener(memory_stream_pair)
    with pytest.raises(RuntimeError, match="no database"):
        await serve(_WithLifespan(fails=True), listeners=[listener])


@final
class _BrokenListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener with a fault."""

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("bug in accept")

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_listener_that_fails_ends_the_server_loudly() -> None:
    """A fault of a listener is not hidden: the server ends with it, and closes the others."""
    good = MemoryListener(memory_stream_pair)
    app = _WithLifespan()
    fault = pytest.RaisesExc(RuntimeError, match="bug in accept")
    with pytest.RaisesGroup(fault, flatten_subgroups=True):
        await serve(app, listeners=[good, _BrokenListener()])
    assert app.steps == ["enter", "leave"]
    with pytest.raises(trio.BrokenResourceError):
        await good.connect()
