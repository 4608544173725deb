"""The test kit's client: against the real connection code, and under a clock that jumps."""

# ruff: noqa: ARG001 - tests ask for the clock so that time jumps, not to look at it

from __future__ import annotations

import importlib
import re
import tomllib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from tables import table

import h3trio.testing
from h3trio import App, CloseReason, H3Event, HTTPError, Response, Settings, SSEEvent
from h3trio._http.http1 import ResponseReader
from h3trio.hub import Hub
from h3trio.hubserver import create_app
from h3trio.testing import Ending, FramingError, connect
from h3trio.testing._pipe import pipe_pair

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock

pytest_plugins = ("pytester",)

PUBLIC = {
    *("Client", "Ending", "FramingError", "SharedMemoryHistory", "SharedMemoryStore"),
    *("check_history", "connect"),
}

app = App()


@app.get("/count")
async def count(event: H3Event) -> None:
    """One event a second, on from the last id."""
    n = int(event.last_event_id or 0)
    async with event.start_sse() as writer:
        while True:
            n += 1
            await writer.send(str(n), id=str(n), retry=7)
            await trio.sleep(1)


@app.get("/flood")
async def flood(event: H3Event) -> None:
    """Events without a rest."""
    async with event.start_sse() as writer:
        while True:
            await writer.send("x" * 1000)


@app.get("/three")
async def three(event: H3Event) -> None:
    """Three events, a comment, and the end."""
    async with event.start_sse() as writer:
        for n in range(3):
            await writer.send(str(n))
        await writer.send_comment("that was\nall")


@app.get("/broken")
async def broken(event: H3Event) -> None:
    """A stream that fails."""
    async with event.start_sse() as writer:
        await writer.send("before")
        raise RuntimeError("broken")


@app.post("/echo")
async def echo(event: H3Event) -> Response:
    """The body and a header."""
    return Response(await event.body(), status=201, headers={"X-Said": event.headers["x-say"]})


@app.get("/no")
async def no(event: H3Event) -> None:
    """A refusal."""
    raise HTTPError(403, "no")


def test_public_names() -> None:
    """Exactly the frozen list of names is public, each says where it lives, and what it is."""
    names = {name for name in vars(h3trio.testing) if not name.startswith(("_", "@"))}
    assert names == PUBLIC
    for name in PUBLIC:
        value = getattr(h3trio.testing, name)
        assert (value.__module__, value.__qualname__) == ("h3trio.testing", name)
        assert value.__doc__


# -- answers


async def test_plain_answers() -> None:
    """Status, headers and body of a plain answer are there, and its end."""
    headers = {"X-Say": "hi", "Host": "other"}
    async with connect(app, "/echo", method="POST", headers=headers, content="é") as client:
        assert (client.status, client.headers["x-said"]) == (201, "hi")
        assert await client.body() == "é".encode()
        assert (client.closed, client.ending) == (True, Ending.COMPLETE)
        with pytest.raises(trio.EndOfChannel, match="status 201; the response ended: complete"):
            await client.next_event()
    assert client.closing is not None
    assert client.closing.reason is CloseReason.COMPLETED
    async with connect(app, "/no") as client:
        assert (client.status, await client.body()) == (403, b"no\n")
    async with connect(app, "/three", method="HEAD") as client:
        assert (client.status, await client.body()) == (200, b"")


async def test_a_stream_that_ends() -> None:
    """Events and comments come in order; then the end says what it was."""
    async with connect(app, "/three") as client:
        assert [(await client.next_event()).data for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(trio.EndOfChannel):
            await client.next_event()
        assert client.comments == ("", "that was", "all")
        assert [await client.next_comment() for _ in range(3)] == ["", "that was", "all"]
        with pytest.raises(trio.EndOfChannel):
            await client.next_comment()
        assert client.ending is Ending.COMPLETE
        assert (await client.wait_closed()).events == 4


async def test_what_never_comes_is_an_error(autojump_clock: MockClock) -> None:
    """A wait for what an open stream doesn't bring ends after an hour, and says what came."""

    async def silent(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("the one")
            await trio.sleep_forever()

    async with connect(silent) as client:
        await client.next_event()
        start = autojump_clock.current_time()
        said = "no event for 3600 s; status 200; the response is open; the last event: .*'the one'"
        with pytest.raises(trio.TooSlowError, match=said):
            await client.next_event()
        assert autojump_clock.current_time() - start == pytest.approx(3600)
        with pytest.raises(trio.TooSlowError, match="no end for 60 s"):
            await client.wait_closed(within=60)
        with pytest.raises(trio.TooSlowError, match="no end of the body for 60 s"):
            await client.body(within=60)


async def test_no_comment_and_no_answer_are_errors_too(autojump_clock: MockClock) -> None:
    """So is a comment that doesn't come in its time, and the head of a response."""
    async with connect(app, "/count") as client:
        await client.next_comment()
        with pytest.raises(trio.TooSlowError, match="no comment for 2 s"):
            await client.next_comment(within=2)

    async def never(_event: H3Event) -> None:
        await trio.sleep_forever()

    with pytest.raises(trio.TooSlowError, match="no head of the response for 3600 s; a clock that"):
        async with connect(never):
            pass


async def test_a_stream_that_fails() -> None:
    """A handler that fails leaves a stream that is cut, and the reason on the server's side."""
    async with connect(app, "/broken") as client:
        assert (await client.next_event()).data == "before"
        with pytest.raises(trio.EndOfChannel):
            await client.next_event()
        assert client.ending is Ending.CUT
        assert (await client.wait_closed()).reason is CloseReason.HANDLER_ERROR
        with pytest.raises(trio.BrokenResourceError):
            await client.body()


async def test_what_is_no_request(autojump_clock: MockClock) -> None:
    """A request that can't be sent is an error at once; one that is refused has no closing."""
    for target in ("/a b", "/a\r\nX: y"):
        with pytest.raises(ValueError, match=r"spaces|control"):
            connect(app, target)
    with pytest.raises(ValueError, match="control"):
        connect(app, headers={"X": "a\nb"})
    with pytest.raises(ValueError, match="at least 1"):
        connect(app, buffer_bytes=0)
    client = connect(app)
    with pytest.raises(RuntimeError, match="enter the client first"):
        _ = client.status
    async with connect(app, headers={"Content-Length": "x"}) as client:
        assert client.status == 400
        with pytest.raises(trio.EndOfChannel, match="no handler was called; status 400"):
            await client.wait_closed()
    with pytest.raises(RuntimeError, match="entered once"):
        await client.__aenter__()


async def test_what_is_no_http_is_an_error_of_its_own() -> None:
    """A server that frames a response wrongly fails the test that asked for it."""
    with pytest.raises(FramingError, match="illegal chunk header"):  # noqa: PT012 - as it is left
        async with connect(app, "/count") as client:
            await client.next_event()
            arriving = client._now.stream._in  # noqa: SLF001 - no handler can do that
            arriving.data += b"no size\r\n"
            arriving.change()
            await client.next_event()


# -- what clients do


async def test_time_jumps(autojump_clock: MockClock) -> None:
    """A minute of a stream takes no time, and each event comes exactly when it is due."""
    async with connect(app, "/count") as client:
        for n in range(1, 61):
            assert (await client.next_event()).data == str(n)
        assert autojump_clock.current_time() == pytest.approx(59)
        assert client.retry == 7


async def test_reconnect(autojump_clock: MockClock) -> None:
    """A client that comes back asks with its id; the first handler has finished by then."""
    async with connect(app, "/count", last_event_id="41") as client:
        assert (await client.next_event()).id == "42"
        await client.reconnect()
        assert (await client.next_event()).id == "43"
        client.vanish()
        assert (client.closed, client.ending) == (True, Ending.LEFT)
        assert (await client.wait_closed()).reason is CloseReason.CONNECTION_LOST
        await client.reconnect()
        assert (await client.next_event()).id == "44"
        assert (client.connections, client.last_event_id) == (3, "44")
    assert (await client.wait_closed()).reason is CloseReason.CLIENT_CLOSED


async def test_heartbeats(autojump_clock: MockClock) -> None:
    """Each heartbeat of a silent stream is seen, when it comes."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse():
            await trio.sleep_forever()

    async with connect(handler, settings=Settings(heartbeat_interval=10)) as client:
        await client.next_comment()
        times = []
        for _ in range(5):
            assert await client.next_comment() == ""
            times.append(trio.current_time())
    assert 8 <= times[0] <= 10
    assert times[4] - times[0] == pytest.approx(40, abs=3)


async def test_slow_client_is_evicted(autojump_clock: MockClock) -> None:
    """A client that stalls is closed after `write_timeout`, not before."""
    async with connect(app, "/flood", settings=Settings(write_timeout=20)) as client:
        client.stall()
        await trio.sleep(19)
        assert client.closing is None
        closing = await client.wait_closed()
        assert closing.reason is CloseReason.SLOW
        assert trio.current_time() == pytest.approx(20)
        # What came before the client stalled is there; for the rest it has to read.
        for _ in range(1000):
            try:
                await client.next_event()
            except RuntimeError as exc:
                assert "stalled" in str(exc)  # noqa: PT017 - the loop ends here, or fails below
                break
        else:
            pytest.fail("it never stalled")
        client.resume()
        assert len((await client.next_event()).data or "") == 1000


async def test_stall_and_resume(autojump_clock: MockClock) -> None:
    """A client that stalls for a while loses nothing, and its server waits."""
    sent = 0

    async def handler(event: H3Event) -> None:
        nonlocal sent
        async with event.start_sse() as writer:
            for n in range(500):
                await writer.send(f"{n} {'x' * 100}")
                sent += 1

    async with connect(handler, buffer_bytes=1000) as client:
        client.stall()
        await trio.sleep(10)
        assert 10 < sent < 400
        client.resume()
        for n in range(500):
            assert (await client.next_event()).data == f"{n} {'x' * 100}"


async def test_unread_events_are_bounded(autojump_clock: MockClock) -> None:
    """A handler that never rests has to wait for a test that takes nothing, so time goes on."""
    async with connect(app, "/flood") as client:
        await trio.sleep(10)
        assert client.closing is None
        assert (await client.next_event()).data == "x" * 1000


async def test_half_close(autojump_clock: MockClock) -> None:
    """A client that closes its sending side ends a stream, as EOF does."""
    async with connect(app, "/count") as client:
        await client.half_close()
        assert (await client.wait_closed()).reason is CloseReason.CLIENT_CLOSED


async def test_lifespan() -> None:
    """The app's lifespan is around the client; a second client of the same goes without."""
    steps = []

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        steps.append("open")
        yield
        steps.append("closed")

    own = App(lifespan=lifespan)
    async with connect(own, "/a") as one, connect(own, "/b", lifespan=False) as two:
        assert (one.status, two.status, steps) == (404, 404, ["open"])
    assert steps == ["open", "closed"]


async def test_exceptions_come_out_bare() -> None:
    """An exception of the block comes out as it is, and the handler is gone."""
    with pytest.raises(KeyError, match="mine"):
        async with connect(app, "/count"):
            raise KeyError("mine")


async def test_exceptions_come_out_of_a_lifespan_bare(autojump_clock: MockClock) -> None:
    """Nor is a group made of it by a nursery in the app's lifespan, such as a hub's."""
    silent = App(lifespan=Hub)

    @silent.get("/")
    async def wait(_event: H3Event) -> None:
        await trio.sleep_forever()

    with pytest.raises(KeyError, match="mine"):
        async with connect(silent, "/nowhere"):
            raise KeyError("mine")
    with pytest.raises(trio.TooSlowError):
        await connect(silent).__aenter__()
    assert autojump_clock.current_time() == 3600


async def test_hub_in_memory(autojump_clock: MockClock) -> None:
    """The ready-made hub works with it as any app does: from publish to subscriber, and resume."""
    hub = Hub()
    hub_app = create_app(hub)
    async with connect(hub_app, "/events/news") as client:
        await hub.publish(SSEEvent("hi"), topics=["news"])
        assert (await client.next_event()).data == "hi"
        client.vanish()
        await hub.publish(SSEEvent("missed"), topics=["news"])
        await client.reconnect()
        assert (await client.next_event()).data == "missed"
    async with connect(hub_app, "/events/news") as client:
        assert client.last_event_id == client.headers["last-event-id"] == hub.last_event_id
        client.vanish()
        await hub.publish(SSEEvent("before its first event"), topics=["news"])
        await client.reconnect()
        assert (await client.next_event()).data == "before its first event"


# -- the parts


async def test_pipe_bounds_and_ends(nursery: trio.Nursery) -> None:
    """A pipe takes what there is room for; its ends close, half-close and break as sockets do."""
    one, other = pipe_pair(4)
    nursery.start_soon(one.send_all, b"123456789")
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(trio.BusyResourceError):
        await one.send_all(b"x")
    assert await other.receive_some() == b"1234"
    assert await other.receive_some(2) == b"56"
    await trio.testing.wait_all_tasks_blocked()
    await one.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        await one.send_all(b"x")
    assert await other.receive_some() + await other.receive_some() == b"789"
    assert await other.receive_some() == b""
    await one.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await other.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await one.receive_some()
    one, other = pipe_pair(4)
    await one.send_all(b"lost")
    other.reset()
    for stream in (one, other):
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")


HEAD = b"HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\n"


@table("cut", [1, 7, 10**6])
@table(
    "wire, body",
    [
        (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (HEAD + b"Content-Length: 0\r\n\r\n", b""),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
        (HEAD + b"\r\nhello", b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 1\r\n\r\nx", b"x"),
    ],
)
def test_responses_are_read(wire: bytes, body: bytes, cut: int) -> None:
    """Each framing gives its body, however the bytes come."""
    reader = ResponseReader()
    pieces = [wire[at : at + cut] for at in range(0, len(wire), cut)]
    assert b"".join(map(reader.feed, [*pieces, b""])) == body
    assert reader.is_done
    assert (reader.status, reader.headers["a"]) == (200, "1, 2")


@table(
    "wire",
    [
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
        HEAD + b"Content-Length: 1\r\n\r\nxy",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxyz",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nx",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        HEAD + b"Content-Length: -1\r\n\r\n",
    ],
)
def test_framing_is_strict(wire: bytes) -> None:
    """Wrong framing is an error, and so is a byte behind the response."""
    with pytest.raises(ValueError, match=r"illegal|malformed|behind|conflicting|bad"):
        ResponseReader().feed(wire)


@table(
    "wire",
    [
        b"",
        HEAD,
        HEAD + b"Content-Length: 2\r\n\r\nx",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n",
    ],
)
def test_a_response_that_is_cut_off_is_not_whole(wire: bytes) -> None:
    """A response that ends with the connection, before its framing says so, isn't done."""
    reader = ResponseReader()
    for at in range(len(wire)):
        reader.feed(wire[at : at + 1])
    assert reader.feed(b"") == b""
    assert not reader.is_done


def test_a_head_alone_is_whole() -> None:
    """A response to HEAD ends with its head, whatever length that tells."""
    reader = ResponseReader(is_head=True)
    assert reader.feed(HEAD + b"Content-Length: 5\r\n\r\n") == b""
    assert reader.is_done


# -- the example and the plugin


EXAMPLE = Path(__file__).parents[2] / "examples" / "test_your_app.py"
# By its module, and not by the entry point, which is there only where the package was installed.
PLUGIN = ("-p", "no:h3trio", "-p", "h3trio.testing._pytest_plugin", "-o", "trio_mode=true")


def test_entry_point_names_the_plugin() -> None:
    """The entry point names the module with the fixtures."""
    pyproject = tomllib.loads((EXAMPLE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    plugin = importlib.import_module(pyproject["project"]["entry-points"]["pytest11"]["h3trio"])
    assert {"h3trio_connect", "h3trio_hub"} <= set(vars(plugin))


@pytest.mark.slow
def test_your_app(pytester: pytest.Pytester) -> None:
    """The example's tests pass, in a project of their own, without a sleep."""
    pytester.makepyfile(EXAMPLE.read_text(encoding="utf-8"))
    result = pytester.runpytest_subprocess(*PLUGIN, "--durations=0", "-vv")
    result.assert_outcomes(passed=4)
    calls = re.findall(r"^([\d.]+)s call", result.stdout.str(), re.MULTILINE)
    assert all(float(seconds) < 0.5 for seconds in calls)


@pytest.mark.slow
def test_fixtures(pytester: pytest.Pytester) -> None:
    """The plugin's fixtures give clients that are left at the end, and a running hub."""
    pytester.makepyfile(
        """
        from h3trio import App, SSEEvent

        app, ended = App(), []

        @app.get("/a")
        async def a(event):
            event.on_close(ended.append)
            async with event.start_sse() as writer:
                await writer.send(event.last_event_id or "")
                await event.draining.wait()

        async def test_connect(h3trio_connect):
            one = await h3trio_connect(app, "/a", last_event_id="1")
            two = await h3trio_connect(app, "/a")
            assert (await one.next_event()).data == "1"
            assert (await two.next_event()).data == ""
            assert not ended

        def test_ended():
            assert len(ended) == 2

        async def test_hub(h3trio_hub):
            await h3trio_hub.publish(SSEEvent("x"), topics=["t"])
        """
    )
    pytester.runpytest_subprocess(*PLUGIN, "-W", "error").assert_outcomes(passed=3)
