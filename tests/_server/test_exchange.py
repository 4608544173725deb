"""How a handler's ending becomes the end of an answer: statuses, farewells, reasons, hooks."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
import trio
from fakes import FakeTransport
from helpers import connect, connection_of, event_source, post, request
from tables import table
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from h3trio import (
    CloseReason,
    Closing,
    HTTPError,
    Response,
    ResponseStateError,
    Settings,
)
from h3trio._http.http1 import Http1
from h3trio._server.exchange import Exchange
from h3trio._server.peer import Peer
from h3trio._server.state import ServerState

if TYPE_CHECKING:
    from trio.testing import MockClock

    from h3trio import H3Event, SSEWriter
    from h3trio._server.event import Handler
    from h3trio._server.responder import SSEStream


async def ask(handler: Handler, *lines: str, method: str = "GET") -> tuple[int, bytes]:
    """Send one request; return the status and all bytes behind the head until EOF."""
    async with trio.open_nursery() as nursery:
        client = connect(nursery, handler)
        await client.send(request("/", "Connection: close", *lines, method=method))
        head = await client.head()
        rest = await client.rest()
        nursery.cancel_scope.cancel()
    return head.status, rest


async def test_a_stream_that_is_not_entered_says_how() -> None:
    """A stream taken for its writer, and data that JSON is made of, are errors that say how."""

    async def handler(event: H3Event) -> None:
        stream: Any = event.start_sse()
        with pytest.raises(AttributeError, match=r"`async with event.start_sse\(\) as writer`"):
            await stream.send("x")
        async with stream as writer:
            with pytest.raises(TypeError, match="data must be str, not dict; send_json sends JSON"):
                await writer.send({"a": 1})

    status, _rest = await ask(handler)
    assert status == 200


# -- the end of a drain


@table(
    "method, accept, status",
    [
        ("GET", "*/*", 503),
        ("POST", "text/event-stream", 503),
        ("GET", "text/event-stream", 200),
    ],
)
async def test_what_the_end_of_a_drain_cuts_off_is_answered(
    nursery: trio.Nursery, method: str, accept: str, status: int
) -> None:
    """Who has no head yet when the drain cancels its connection is told, if that needs no wait."""

    async def never(event: H3Event) -> None:
        event.on_close(closings.append)
        await trio.sleep_forever()

    closings: list[Closing] = []
    transport = FakeTransport()
    state = ServerState(Settings())
    connection = connection_of(transport, never, state)
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await connection.run()

    nursery.start_soon(run)
    length = ["Content-Length: 0"] if method == "POST" else []
    await transport.client_sends(request("/", f"Accept: {accept}", *length, method=method))
    await wait_all_tasks_blocked()
    state.draining.set()
    scope.cancel()
    await wait_all_tasks_blocked()
    head = transport.sent.decode().lower()
    assert head.startswith(f"http/1.1 {status} ")
    assert "connection: close\r\n" in head
    assert ("retry-after: " in head) is (status == 503)
    assert [(each.reason, each.status) for each in closings] == [(CloseReason.DRAINING, status)]
    assert closings[0].bytes_sent == len(transport.sent)


async def test_a_cancelled_server_says_nothing(nursery: trio.Nursery) -> None:
    """Without a drain a connection that is cancelled ends without a word, as it ever did."""
    transport, scope = FakeTransport(), trio.CancelScope()
    connection = connection_of(transport, sleeps, ServerState(Settings()))

    async def run() -> None:
        with scope:
            await connection.run()

    nursery.start_soon(run)
    await transport.client_sends(request("/"))
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    assert not transport.sent


async def sleeps(_event: H3Event) -> None:
    """Never answer."""
    await trio.sleep_forever()


# -- failures before the head


class Group:
    """Raises a group, as a nursery does."""

    def __init__(self, *errors: BaseException) -> None:
        self.error = BaseExceptionGroup("in a nursery", errors)

    async def __call__(self, _event: H3Event) -> None:
        """Fail."""
        raise self.error


async def test_http_error() -> None:
    """An HTTPError is its status, its detail as text, and its headers."""

    async def handler(_event: H3Event) -> None:
        raise HTTPError(429, "slower", headers={"X-Limit": "3"})

    async with trio.open_nursery() as nursery:
        client = connect(nursery, handler)
        for _ in range(2):
            await client.send(request("/"))
            head, body = await client.response()
            assert (head.status, head.headers["x-limit"], body) == (429, "3", b"slower\n")
        await wait_all_tasks_blocked()
        assert client.state.counts.closings == {CloseReason.COMPLETED: 2}
        nursery.cancel_scope.cancel()


@table(
    "handler, status",
    [
        (Group(HTTPError(403)), 403),
        (Group(ExceptionGroup("deeper", [HTTPError(403)])), 403),
        (Group(HTTPError(403), HTTPError(403)), 403),
        (Group(HTTPError(403), HTTPError(404)), 404),
        (Group(HTTPError(404), ExceptionGroup("deeper", [HTTPError(403)])), 404),
        (Group(HTTPError(503), HTTPError(404)), 503),
        (Group(HTTPError(403), KeyError("x")), 500),
        (Group(HTTPError(403), BaseExceptionGroup("deeper", [SystemExit(1)])), 500),
    ],
)
async def test_group_of_http_errors(handler: Group, status: int) -> None:
    """A group of HTTPErrors counts as that with the highest status; others are a 500."""
    assert (await ask(handler))[0] == status


@table("name", ["X-A", "X-B"])
async def test_group_of_http_errors_in_any_order(name: str) -> None:
    """Which of the errors of one status is the answer, their order in the group doesn't decide."""
    errors = [HTTPError(403, "a"), HTTPError(403, "b"), HTTPError(403, "b", headers={name: "1"})]
    answers = {await ask(Group(*order)) for order in itertools.permutations(errors)}
    assert answers == {(403, b"b\n")}


async def test_handler_error(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    """A handler's failure is a 500 that tells nothing; the log has the traceback; life goes on."""

    async def handler(_event: H3Event) -> None:
        raise KeyError("secret")

    client = connect(nursery, handler)
    for _ in range(2):
        await client.send(request("/"))
        head, body = await client.response()
        assert (head.status, body) == (500, b"Internal Server Error\n")
    await wait_all_tasks_blocked()
    assert client.state.counts.closings == {CloseReason.HANDLER_ERROR: 2}
    assert len(caplog.records) == 2
    record = caplog.records[0]
    assert (record.name, record.levelname) == ("h3trio.server", "ERROR")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)
    assert "raise KeyError" in caplog.text


@pytest.mark.parametrize("headers", [{"X": "a\nb"}, {"Content-Length": "999"}])
async def test_error_with_headers_that_cannot_be_sent(
    headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """An HTTPError whose headers can't be sent is a 500, and logged."""

    async def handler(_event: H3Event) -> None:
        raise HTTPError(404, headers=headers)

    assert (await ask(handler))[0] == 500
    assert "can't be sent" in caplog.text


@pytest.mark.parametrize("result", [3, object(), ("a", 404), {"x": float("nan")}])
async def test_result_of_no_use(result: object, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that returns what is no answer is in error."""

    async def handler(_event: H3Event) -> object:
        return result

    assert (await ask(handler))[0] == 500
    assert "Error" in caplog.text


async def test_start_without_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that calls `start_sse` and neither enters it nor sets a callback is in error."""

    async def handler(event: H3Event) -> None:
        event.start_sse()

    assert (await ask(handler))[0] == 500
    assert "ResponseStateError" in caplog.text


@pytest.mark.parametrize("returned", ["text", Response("text")])
async def test_result_besides_a_callback(
    returned: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that starts a stream and returns an answer is in error; nothing is dropped."""

    async def handler(event: H3Event) -> object:
        event.start_sse()
        event.set_stream_callback(never)
        return returned

    assert (await ask(handler))[0] == 500
    assert "ResponseStateError" in caplog.text


async def never(_writer: SSEWriter) -> None:
    """Fail if called."""
    pytest.fail("must not be called")


async def test_error_before_the_stream_is_entered() -> None:
    """After `start_sse`, but before the block, an HTTPError still has a true status."""

    async def handler(event: H3Event) -> None:
        stream = event.start_sse()
        if event.method == "GET":
            raise HTTPError(403)
        async with stream:
            pass

    assert (await ask(handler))[0] == 403


# -- headers


HEADERS: dict[str, tuple[Response, dict[str, str], dict[str, str | None]]] = {
    "event's are added": (Response("x"), {"X-A": "1"}, {"x-a": "1"}),
    "response's own win": (Response("x", headers={"x-a": "2"}), {"X-A": "1"}, {"x-a": "2"}),
    "a date of one's own": (Response("x", headers={"Date": "then"}), {}, {"date": "then"}),
    "a date of the event's": (Response("x"), {"Date": "then"}, {"date": "then"}),
    "a true length": (Response("x", headers={"Content-Length": "1"}), {}, {"content-length": "1"}),
    "no length of nothing": (Response(status=204), {}, {"content-length": None}),
    "length of a reset": (Response(status=205), {}, {"content-length": "0"}),
    "length of what isn't sent": (
        Response(status=304, headers={"Content-Length": "9"}),
        {},
        {"content-length": "9"},
    ),
}


@table("case", HEADERS)
async def test_response_headers(nursery: trio.Nursery, case: str) -> None:
    """A response's headers are its own, then the event's, then the server's."""
    response, extra, expected = HEADERS[case]

    async def handler(event: H3Event) -> Response:
        event.response_headers.update(extra)
        return response

    client = connect(nursery, handler)
    await client.send(request("/"))
    head = await client.head()
    assert head.status == response.status
    assert {name: head.headers.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("response", "extra"),
    [
        (Response("x", headers={"Content-Length": "2"}), {}),
        (Response("x", headers={"Content-Length": "one"}), {}),
        (Response("x"), {"Content-Length": "2"}),
        (Response(status=204, headers={"Content-Length": "0"}), {}),
        (Response(status=304, headers={"Content-Length": "-"}), {}),
        (Response("x", headers={"Transfer-Encoding": "chunked"}), {}),
        (Response("x"), {"Transfer-Encoding": "gzip"}),
    ],
)
async def test_framing_is_the_servers(
    nursery: trio.Nursery,
    response: Response,
    extra: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Headers that contradict how a response is framed are an error, answered with a 500."""

    async def handler(event: H3Event) -> Response:
        event.response_headers.update(extra)
        return response

    client = connect(nursery, handler)
    for _ in range(2):
        await client.send(request("/"))
        head, body = await client.response()
        assert (head.status, body) == (500, b"Internal Server Error\n")
    assert "ValueError" in caplog.text


async def test_head_tells_the_length(nursery: trio.Nursery) -> None:
    """HEAD has GET's head and no body, also where the handler only knows the length."""

    async def handler(event: H3Event) -> Response:
        if event.path == "/own":
            return Response(headers={"Content-Length": "999"})
        return Response("four")

    client = connect(nursery, handler)
    await client.send(request("/own", method="HEAD") + request("/", method="HEAD") + request("/"))
    assert (await client.head()).headers["content-length"] == "999"
    assert (await client.head()).headers["content-length"] == "4"
    assert (await client.response())[1] == b"four"


async def test_stream_headers(nursery: trio.Nursery) -> None:
    """A stream has the event's status and headers, and the standard ones it doesn't name."""

    async def handler(event: H3Event) -> None:
        event.status = 203
        event.response_headers["cache-control"] = "private"
        event.response_headers.add("Set-Cookie", "a=1")
        event.response_headers.add("Set-Cookie", "b=2")
        async with event.start_sse():
            with pytest.raises(ResponseStateError):
                event.status = 200
            with pytest.raises(ResponseStateError):
                event.response_headers["x"] = "y"

    client = connect(nursery, handler)
    await client.send(request("/"))
    head, body = await client.response()
    assert head.status == 203
    assert head.headers.pop("date")
    assert head.headers == {
        "cache-control": "private",
        "set-cookie": "a=1, b=2",
        "content-type": "text/event-stream; charset=utf-8",
        "x-accel-buffering": "no",
        "transfer-encoding": "chunked",
    }
    assert body == b":\n"


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (204, {}),
        (205, {}),
        (304, {}),
        (200, {"Content-Length": "5"}),
        (200, {"Transfer-Encoding": "x"}),
    ],
)
async def test_stream_that_cannot_be_framed(
    status: int, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """A stream with a status or a header that leaves no room for it is a 500."""

    async def handler(event: H3Event) -> None:
        event.status = status
        event.response_headers.update(headers)
        async with event.start_sse():
            pytest.fail("must not be entered")

    assert (await ask(handler))[0] == 500
    assert "ValueError" in caplog.text


# -- failures after the head


async def test_error_in_a_stream(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    """An error in a stream ends it without its final chunk, behind the events before it."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("before")
            writer.send_nowait("and this")
            raise KeyError("x")

    client = connect(nursery, handler)
    await client.send(request("/"))
    await client.head()
    assert [(await client.event()).data for _ in range(2)] == ["before", "and this"]
    assert await client.rest() == b""
    assert client.state.counts.closings == {CloseReason.HANDLER_ERROR: 1}
    assert "KeyError" in caplog.text


async def test_error_that_is_caught_outside_its_stream(nursery: trio.Nursery) -> None:
    """A stream that an error left has no final chunk, though the handler survives it."""

    async def handler(event: H3Event) -> None:
        with contextlib.suppress(KeyError):
            async with event.start_sse() as writer:
                await writer.send("before")
                raise KeyError("x")

    client = connect(nursery, handler)
    await client.send(request("/"))
    await client.head()
    assert (await client.event()).data == "before"
    assert await client.rest() == b""
    assert client.state.counts.closings == {CloseReason.HANDLER_ERROR: 1}


async def test_http_error_in_a_stream(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Too late for a status, an HTTPError is an error like any other."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse():
            raise HTTPError(403)

    client = connect(nursery, handler)
    await client.send(request("/"))
    assert (await client.head()).status == 200
    assert await client.rest() == b"2\r\n:\n\r\n"
    assert client.state.counts.closings == {CloseReason.HANDLER_ERROR: 1}
    assert "403" in caplog.text


async def test_error_behind_a_stream(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """An error after the stream was closed spoils neither it nor the connection."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("all")
        raise KeyError("x")

    client = connect(nursery, handler)
    for _ in range(2):
        await client.send(request("/"))
        await client.head()
        assert [event.data for event in await client.events()] == ["all"]
    await wait_all_tasks_blocked()
    assert client.state.counts.closings == {CloseReason.HANDLER_ERROR: 2}
    assert "KeyError" in caplog.text


async def test_error_in_the_block_of_a_complete_stream(nursery: trio.Nursery) -> None:
    """A stream that was closed before an error left its block is complete, if that is caught."""

    async def handler(event: H3Event) -> None:
        with contextlib.suppress(KeyError):
            async with event.start_sse() as writer:
                await writer.aclose()
                raise KeyError("x")

    client = connect(nursery, handler)
    await client.send(request("/"))
    await client.head()
    assert await client.events() == []
    await wait_all_tasks_blocked()
    assert client.state.counts.closings == {CloseReason.COMPLETED: 1}


async def test_client_that_leaves_with_the_last_chunk(nursery: trio.Nursery) -> None:
    """EOF behind a complete stream is its client's answer: the handler is cancelled, no more."""
    unwound = trio.Event()

    async def handler(event: H3Event) -> None:
        async with event.start_sse():
            pass
        try:
            await trio.sleep_forever()
        finally:
            unwound.set()

    client = connect(nursery, handler)
    await client.send(request("/"))
    await client.response()
    await client.stream.send_eof()
    await unwound.wait()
    await client.finished.wait()
    assert client.state.counts.closings == {CloseReason.COMPLETED: 1}


async def test_error_before_the_rest_is_taken(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """After an error the client has `farewell_timeout` to take what was accepted."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("x" * 1000)
            raise KeyError("x")

    transport = FakeTransport(room=300)
    client = connect(nursery, handler, transport=transport)
    await client.send(request("/"))
    await client.finished.wait()
    assert autojump_clock.current_time() == pytest.approx(1)
    assert not transport.eof_sent
    assert "KeyError" in caplog.text


# -- streams that are ended


async def endless(event: H3Event) -> None:
    """Send one event and wait for the end."""
    async with event.start_sse() as writer:
        await writer.send("one")
        await trio.sleep_forever()


def retry_of(farewell: bytes) -> int:
    """Return the milliseconds of a farewell: one `retry`, and nothing else."""
    found = re.fullmatch(rb"retry: (\d+)\n", farewell)
    assert found
    return int(found[1])


async def test_lease(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A stream ends when its jittered lease is over, with `retry` and its final chunk."""
    lengths, retries = set[float](), set[int]()
    for _ in range(20):
        client = connect(nursery, endless, settings=Settings(lease=100, heartbeat_interval=1000))
        start = autojump_clock.current_time()
        await client.send(event_source())
        await client.head()
        assert await client.chunk() == b":\n"
        assert (await client.event()).data == "one"
        retries.add(retry_of(await client.chunk()))
        assert await client.chunk() == b""
        lengths.add(autojump_clock.current_time() - start)
        await wait_all_tasks_blocked()
        assert client.state.counts.closings == {CloseReason.LEASE: 1}
    assert 90 <= min(lengths) < max(lengths) <= 110
    assert 1000 <= min(retries) < max(retries) <= 3000


async def test_a_lease_is_over_with_its_stream(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The next exchange of the connection has all the time it wants."""
    del autojump_clock

    async def handler(event: H3Event) -> str | None:
        if event.path == "/slow":
            await trio.sleep(1000)
            return "late"
        async with event.start_sse():
            return None

    client = connect(nursery, handler, settings=Settings(lease=100))
    await client.send(request("/"))
    await client.head()
    while await client.chunk():
        pass
    await client.send(request("/slow"))
    assert (await client.response())[1] == b"late"


@pytest.mark.parametrize("reason", [CloseReason.KICKED, CloseReason.CLIENT_CLOSED])
async def test_before_the_handlers_first_step(
    nursery: trio.Nursery, autojump_clock: MockClock, reason: CloseReason
) -> None:
    """An end that comes before it holds for the handler, and so does the client's EOF."""
    del autojump_clock
    state = ServerState(Settings(write_timeout=5))
    transport = FakeTransport()
    transport.incoming.append(request("/"))
    reader = connection_of(transport, sleep_forever, state)._reader  # noqa: SLF001 - nothing else has the request before its handler runs
    nursery.start_soon(reader.run)
    arrived = await reader.next_request()
    assert arrived is not None
    if reason is CloseReason.KICKED:
        arrived.scope.cancel(reason)
    else:
        arrived.scope.half_close()
    exchange = Exchange(
        arrived,
        sleep_forever,
        http=Http1(state.settings),
        transport=transport,
        nursery=nursery,
        peer=Peer("memory", "http", state),
        state=state,
    )

    async def run() -> None:
        with trio.CancelScope() as scope:
            await exchange.handle(scope)
        await exchange.finish(expired=scope.cancelled_caught)

    nursery.start_soon(run)
    await trio.sleep(6)
    assert state.counts.closings == {reason: 1}
    nursery.cancel_scope.cancel()


async def sleep_forever(_event: H3Event) -> None:
    """Never answer."""
    await trio.sleep_forever()


async def test_kick(nursery: trio.Nursery) -> None:
    """`event.end` cancels the handler; its stream ends with `retry` and its final chunk."""
    events: list[H3Event] = []

    async def handler(event: H3Event) -> None:
        events.append(event)
        await endless(event)

    client = connect(nursery, handler)
    await client.send(event_source() * 2)
    for number in range(2):
        await client.head()
        await client.chunk()
        await client.event()
        await wait_all_tasks_blocked()
        events[number].end()
        retry_of(await client.chunk())
        assert await client.chunk() == b""
    await wait_all_tasks_blocked()
    assert client.state.counts.closings == {CloseReason.KICKED: 2}


async def test_kick_by_the_handler_itself(nursery: trio.Nursery) -> None:
    """A handler may end its own stream, and what it sends first arrives."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            writer.send_nowait("one")
            event.end(CloseReason.LEASE)
            writer.send_nowait("two")
            await writer.send("never")

    client = connect(nursery, handler)
    await client.send(event_source())
    await client.head()
    assert [event.data for event in await client.events()] == ["one", "two"]
    await wait_all_tasks_blocked()
    assert client.state.counts.closings == {CloseReason.LEASE: 1}


@pytest.mark.parametrize("started", [False, True])
async def test_kick_before_the_head(*, started: bool) -> None:
    """Ended before there was an answer, a request gets 503 and when to come again."""

    async def handler(event: H3Event) -> None:
        event.end()
        if started:
            async with event.start_sse():
                pytest.fail("must not be entered")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        client = connect(nursery, handler)
        await client.send(request("/"))
        head, _ = await client.response()
        assert head.status == 503
        assert 1 <= int(head.headers["retry-after"]) <= 3
        await wait_all_tasks_blocked()
        assert client.state.counts.closings == {CloseReason.KICKED: 1}
        nursery.cancel_scope.cancel()


async def test_the_first_reason_counts(nursery: trio.Nursery) -> None:
    """A stream that is ended for two reasons has the first."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse():
            event.end(CloseReason.KICKED)
            event.end(CloseReason.DRAINING)
            await trio.sleep_forever()

    client = connect(nursery, handler)
    await client.send(event_source())
    await client.response()
    await wait_all_tasks_blocked()
    assert client.state.counts.closings == {CloseReason.KICKED: 1}


async def test_stream_while_draining(nursery: trio.Nursery) -> None:
    """A stream that is asked of a server that goes away gets 200, `retry` and its end."""
    client = connect(nursery, endless)
    client.state.draining.set()
    await client.send(event_source())
    head = await client.head()
    assert (head.status, head.headers["connection"]) == (200, "close")
    assert await client.chunk() == b":\n"
    retry_of(await client.chunk())
    assert await client.chunk() == b""
    assert await client.rest() == b""
    assert client.state.counts.closings == {CloseReason.DRAINING: 1}


async def test_handler_sees_the_draining(nursery: trio.Nursery) -> None:
    """A handler can wait for the drain and end in its own way."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await event.draining.wait()
            await writer.send("bye", event="end")

    client = connect(nursery, handler)
    await client.send(request("/"))
    await client.head()
    await wait_all_tasks_blocked()
    client.state.draining.set()
    assert [event.event for event in await client.events()] == ["end"]


async def test_farewell_to_a_client_that_takes_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A stream that can't be ended on a frame's boundary in time is cut, without its end."""
    transport = FakeTransport(room=300)

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("x" * 1000)
            event.end()
            await trio.sleep_forever()

    client = connect(nursery, handler, transport=transport)
    await client.send(request("/"))
    await client.finished.wait()
    assert autojump_clock.current_time() == pytest.approx(1)
    assert not transport.eof_sent
    assert not transport.sent.endswith(b"0\r\n\r\n")
    assert client.state.counts.closings == {CloseReason.KICKED: 1}


async def test_farewell_to_a_client_that_takes_its_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Whoever takes what is queued within `farewell_timeout` gets all of it, and the end."""
    transport = FakeTransport(room=300)

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            for number in range(9):
                await writer.send(f"{number}" * 100)
            event.end()
            await trio.sleep_forever()

    client = connect(nursery, handler, transport=transport)
    await client.send(event_source())
    await trio.sleep(0.9)
    transport.change(room=None)
    await client.head()
    assert [event.data for event in await client.events()] == [f"{n}" * 100 for n in range(9)]
    assert autojump_clock.current_time() < 1


async def test_timeout_of_the_handlers_own(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A handler that limits its stream with a cancel scope ends it in order."""

    async def handler(event: H3Event) -> None:
        with trio.move_on_after(10):
            await endless(event)

    client = connect(nursery, handler)
    await client.send(request("/") * 2)
    for _ in range(2):
        await client.head()
        assert [event.data for event in await client.events()] == ["one"]
    assert autojump_clock.current_time() == pytest.approx(20)
    await wait_all_tasks_blocked()
    assert client.state.counts.closings == {CloseReason.COMPLETED: 2}


async def test_timeout_of_the_handlers_own_with_a_client_that_takes_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """If the rest isn't taken then, the stream is cut, reason slow."""

    async def handler(event: H3Event) -> None:
        with trio.move_on_after(10):
            async with event.start_sse() as writer:
                await writer.send("x" * 1000)
                await writer.flush()

    transport = FakeTransport(room=300)
    client = connect(nursery, handler, transport=transport)
    await client.send(request("/"))
    await client.finished.wait()
    assert autojump_clock.current_time() == pytest.approx(11)
    assert client.state.counts.closings == {CloseReason.SLOW: 1}


# -- HEAD


async def test_head_of_a_stream(nursery: trio.Nursery) -> None:
    """HEAD of a stream gets the head; the block isn't run, and the connection goes on."""
    unwound: list[str] = []

    async def handler(event: H3Event) -> None:
        try:
            async with event.start_sse():
                unwound.append("entered")
        finally:
            unwound.append("unwound")

    client = connect(nursery, handler)
    await client.send(request("/", method="HEAD") + request("/", method="HEAD"))
    for _ in range(2):
        head = await client.head()
        assert head.status == 200
        assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert head.headers["transfer-encoding"] == "chunked"
    await wait_all_tasks_blocked()
    assert unwound == ["unwound", "unwound"]
    assert client.state.counts.closings == {CloseReason.COMPLETED: 2}
    assert len(client.state.heartbeat) == 0


async def test_head_of_a_callback_stream(nursery: trio.Nursery) -> None:
    """HEAD of a stream with a callback doesn't call it."""

    async def handler(event: H3Event) -> None:
        event.start_sse()
        event.set_stream_callback(never)

    client = connect(nursery, handler)
    await client.send(request("/", method="HEAD") * 2)
    assert [(await client.head()).status for _ in range(2)] == [200, 200]


async def test_head_of_a_stream_in_a_shield(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing streams in answer to HEAD, even where the handler can't be cancelled."""

    async def handler(event: H3Event) -> None:
        with trio.CancelScope(shield=True):
            async with event.start_sse():
                pytest.fail("must not be entered")

    client = connect(nursery, handler)
    await client.send(request("/", method="HEAD") * 2)
    assert [(await client.head()).status for _ in range(2)] == [200, 200]
    assert "ResponseStateError" in caplog.text


# -- errors that the server puts into a handler


async def upload(event: H3Event) -> None:
    """Stream, and read the request's body meanwhile, in the way that the path says."""
    with contextlib.suppress(HTTPError if event.path == "/caught" else AssertionError):
        async with event.start_sse() as writer:
            await writer.send("begun")
            if event.path == "/json":
                await event.json()
            elif event.path == "/form":
                await event.form()
            elif event.path == "/nursery":
                async with trio.open_nursery() as nursery:
                    for _ in range(2):
                        nursery.start_soon(event.body)
            else:
                async for _ in event.stream():
                    pass


UPLOAD = "Content-Length: 9"
CHUNKED = "Transfer-Encoding: chunked"
BREAKS = {
    "leaves": (UPLOAD, b"abc", CloseReason.CLIENT_CLOSED),
    "is lost": (UPLOAD, b"abc", CloseReason.CONNECTION_LOST),
    "stalls": (UPLOAD, b"abc", CloseReason.TIMEOUT),
    "breaks a chunk": (CHUNKED, b"3\r\nabc\r\nZZ\r\n", CloseReason.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("path", ["/stream", "/json", "/nursery", "/caught"])
@pytest.mark.parametrize("how", BREAKS)
async def test_an_upload_that_breaks_off_under_a_stream(
    nursery: trio.Nursery,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
    caplog: pytest.LogCaptureFixture,
    *,
    path: str,
    how: str,
) -> None:
    """A client that breaks its upload off is the reason, and no error of the handler's."""
    caplog.set_level(logging.INFO, "h3trio")
    field, body, reason = BREAKS[how]
    transport = FakeTransport() if how == "is lost" else None
    client = connect(nursery, upload, transport=transport)
    await client.send(request(path, field, method="POST") + body)
    await client.head()
    assert (await client.event()).data == "begun"
    if transport is not None:
        transport.change(broken=True)
    elif how == "leaves":
        await client.stream.send_eof()
    else:
        assert b"0\r\n" not in await client.rest()
    await client.finished.wait()
    assert client.state.counts.closings == {reason: 1}
    assert {record.levelno for record in caplog.records} == {logging.INFO}


@pytest.mark.parametrize(("path", "status"), [("/json", 400), ("/form", 415), ("/nursery", 413)])
async def test_a_body_that_is_refused_under_a_stream(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, path: str, status: int
) -> None:
    """A body that the request's methods refuse is the client's fault, and the log says which."""
    caplog.set_level(logging.INFO, "h3trio.server")
    client = connect(nursery, upload, settings=Settings(max_body_bytes=10))
    await client.send(post(b"{" if path != "/nursery" else bytes(11), path))
    await client.head()
    assert (await client.event()).data == "begun"
    assert await client.rest() == b""
    assert client.state.counts.closings == {CloseReason.PROTOCOL_ERROR: 1}
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert f"protocol_error: {status}" in record.getMessage()


async def test_shielded_senders_that_meet_a_lost_client(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Tasks that hear of the lost client by their sends are in no error, however many they are."""
    caplog.set_level(logging.INFO, "h3trio.server")

    async def send(writer: SSEWriter) -> None:
        with trio.CancelScope(shield=True):
            while True:
                await writer.send("x")
                await wait_all_tasks_blocked()

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer, trio.open_nursery() as inner:
            inner.start_soon(send, writer)
            inner.start_soon(send, writer)

    transport = FakeTransport()
    client = connect(nursery, handler, transport=transport)
    await client.send(request("/"))
    await client.head()
    assert (await client.event()).data == "x"
    transport.change(broken=True)
    await client.finished.wait()
    assert client.state.counts.closings == {CloseReason.CONNECTION_LOST: 1}
    assert {record.levelno for record in caplog.records} == {logging.INFO}


async def test_an_error_of_the_handlers_beside_one_of_the_clients(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a handler fails as well as its client, it is the handler that is told of."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse():
            try:
                await event.body()
            except HTTPError as error:
                raise ExceptionGroup("both", [error, HTTPError(error.status, "mine")]) from None

    client = connect(nursery, handler)
    await client.send(request("/", CHUNKED, method="POST") + b"ZZ\r\n")
    await client.rest()
    assert client.state.counts.closings == {CloseReason.HANDLER_ERROR: 1}
    assert "mine" in caplog.text


# -- the callback style


async def test_callback(nursery: trio.Nursery) -> None:
    """A callback runs once the handler has returned, and its end is the stream's end."""
    order: list[str] = []

    async def stream(writer: SSEWriter) -> None:
        order.append("callback")
        await writer.send("Hello!", event="message", id="1")

    async def handler(event: H3Event) -> None:
        event.start_sse()
        event.set_stream_callback(stream)
        await trio.lowlevel.checkpoint()
        order.append("returned")

    client = connect(nursery, handler)
    await client.send(request("/"))
    _, body = await client.response()
    assert body == b":\nevent: message\nid: 1\ndata: Hello!\n\n"
    assert order == ["returned", "callback"]


async def test_callback_that_fails(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    """A callback's failure ends the stream without its final chunk."""

    async def stream(_writer: SSEWriter) -> None:
        raise KeyError("x")

    async def handler(event: H3Event) -> None:
        event.start_sse()
        event.set_stream_callback(stream)

    client = connect(nursery, handler)
    await client.send(request("/"))
    await client.head()
    assert await client.chunk() == b":\n"
    assert await client.rest() == b""
    assert "KeyError" in caplog.text


async def test_callback_and_block(caplog: pytest.LogCaptureFixture) -> None:
    """A stream with a callback can't be entered as well."""

    async def handler(event: H3Event) -> None:
        stream = event.start_sse()
        event.set_stream_callback(never)
        async with stream:
            pytest.fail("must not be entered")

    assert (await ask(handler))[0] == 500
    assert "ResponseStateError" in caplog.text


# -- the client leaves


async def test_finally_runs_to_its_end(nursery: trio.Nursery) -> None:
    """When the client leaves, the handler has unwound, awaits and all, before the hooks run."""
    order: list[str] = []

    async def handler(event: H3Event) -> None:
        event.on_close(lambda closing: order.append(closing.reason))
        try:
            await endless(event)
        finally:
            order.append("finally")
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                await wait_all_tasks_blocked()
            order.append("end of finally")

    client = connect(nursery, handler)
    await client.send(request("/"))
    await client.head()
    await wait_all_tasks_blocked()
    await client.stream.aclose()
    await client.finished.wait()
    assert order == ["finally", "end of finally", "client_closed"]


async def test_cancelled_first(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    """A client's leaving cancels the handler, with the reason; a shielded send then is broken."""
    heard: list[BaseException] = []

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            try:
                while True:
                    await writer.send("x")
            except trio.Cancelled as cancelled:
                heard.append(cancelled)
                with trio.CancelScope(shield=True):
                    await writer.send("still there?")
                raise

    transport = FakeTransport()
    client = connect(nursery, handler, transport=transport)
    await client.send(request("/"))
    await client.head()
    await client.event()
    transport.change(broken=True)
    await client.finished.wait()
    assert isinstance(heard[0], trio.Cancelled)
    assert "connection_lost" in str(heard[0])
    assert not caplog.records
    assert client.state.counts.closings == {CloseReason.CONNECTION_LOST: 1}


async def test_reset_found_by_the_heartbeat(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A lost client that no read tells of is found out by the next write."""

    class Silent(FakeTransport):
        async def receive_some(self) -> bytes:
            if self.incoming:
                return self.incoming.pop(0)
            await trio.sleep_forever()
            raise AssertionError

    transport = Silent()
    transport.incoming.append(request("/"))
    client = connect(nursery, endless, transport=transport)
    await trio.sleep(1)
    transport.change(broken=True)
    await client.finished.wait()
    assert 12 <= autojump_clock.current_time() <= 15
    assert client.state.counts.closings == {CloseReason.CONNECTION_LOST: 1}


async def test_a_send_that_was_cut_is_the_last(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that cancels a send of the server's can't answer any more."""

    async def handler(event: H3Event) -> str:
        with trio.move_on_after(5):
            await event.body()
        return "too late"

    transport = FakeTransport(room=10)
    client = connect(nursery, handler, transport=transport)
    lines = ("Content-Length: 3", "Expect: 100-continue")
    await client.send(request("/", *lines, method="POST"))
    await client.finished.wait()
    assert autojump_clock.current_time() == pytest.approx(5)
    assert transport.sent == b"HTTP/1.1 1"
    assert "ResponseStateError" in caplog.text
    assert client.state.counts.closings == {CloseReason.HANDLER_ERROR: 1}


@pytest.mark.parametrize(("path", "status"), [("/stream", 200), ("/plain", 200), ("/error", 404)])
async def test_an_answer_waits_for_continue(nursery: trio.Nursery, path: str, status: int) -> None:
    """While one task is telling the client to continue, another's answer waits until it is out."""
    go = trio.Event()

    async def read(event: H3Event) -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            await event.body()

    async def handler(event: H3Event) -> str | None:
        nursery.start_soon(read, event)
        await go.wait()
        if event.path == "/error":
            raise HTTPError(404)
        if event.path == "/plain":
            return "plain"
        async with event.start_sse() as writer:
            await writer.send("x")
        return None

    client = connect(nursery, handler, pair=lockstep_stream_pair)
    lines = ("Content-Length: 3", "Expect: 100-continue")
    await client.send(request(path, *lines, method="POST"))
    await wait_all_tasks_blocked()
    go.set()
    await wait_all_tasks_blocked()
    assert (await client.head()).status == 100
    assert (await client.response())[0].status == status
    await client.send(b"abc" + request("/plain"))
    assert (await client.response())[1] == b"plain"


async def test_an_answer_that_waits_for_a_continue_that_fails(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A client that doesn't take its `100 Continue` gets no answer, and nothing is left waiting."""

    async def read(event: H3Event) -> None:
        with contextlib.suppress(HTTPError, trio.ClosedResourceError):
            await event.body()

    async def handler(event: H3Event) -> str:
        nursery.start_soon(read, event)
        await wait_all_tasks_blocked()
        raise HTTPError(404)

    transport = FakeTransport(room=10)
    client = connect(nursery, handler, transport=transport)
    lines = ("Content-Length: 3", "Expect: 100-continue")
    await client.send(request("/", *lines, method="POST"))
    await client.finished.wait()
    assert autojump_clock.current_time() == pytest.approx(Settings().write_timeout)
    assert transport.sent == b"HTTP/1.1 1"
    assert client.state.counts.closings == {CloseReason.SLOW: 1}


# -- what is told about an ending


async def test_closing(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A hook is told reason, status, duration, events and the bytes that went out."""
    closings: list[Closing] = []

    async def handler(event: H3Event) -> str | None:
        event.on_close(closings.append)
        if event.path == "/plain":
            return "plain"
        async with event.start_sse() as writer:
            for _ in range(3):
                await trio.sleep(1)
                await writer.send("x")
        return None

    transport = FakeTransport()
    client = connect(nursery, handler, transport=transport)
    await transport.client_sends(request("/plain") + request("/stream"))
    await trio.sleep(4 - autojump_clock.current_time())
    plain, stream = closings
    assert (plain.reason, plain.status, plain.duration, plain.events) == ("completed", 200, 0, 0)
    assert (stream.reason, stream.status, stream.events) == ("completed", 200, 3)
    assert stream.duration == pytest.approx(3)
    assert plain.bytes_sent + stream.bytes_sent == len(transport.sent)
    counts = client.state.counts
    assert (counts.requests, counts.events, counts.bytes_sent) == (2, 3, len(transport.sent))


async def test_a_hook_that_raises(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    """A hook's failure is logged, and spoils neither the other hooks nor the connection."""
    closings: list[Closing] = []

    def broken(_closing: Closing) -> None:
        raise KeyError("hook")

    async def handler(event: H3Event) -> str:
        event.on_close(broken)
        event.on_close(closings.append)
        return "x"

    client = connect(nursery, handler)
    for _ in range(2):
        await client.send(request("/"))
        assert (await client.response())[1] == b"x"
    await wait_all_tasks_blocked()
    assert len(closings) == 2
    assert caplog.text.count("KeyError: 'hook'") == 2


@pytest.mark.parametrize("error", [RuntimeError("broken"), GeneratorExit(), SystemExit(1)])
async def test_a_log_that_raises(caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    """An exchange that can't be told of ends as others do, and its connection serves on."""
    closings: list[Closing] = []

    async def handler(event: H3Event) -> None:
        event.on_close(closings.append)
        async with event.start_sse():
            pass

    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            assert record.name == "h3trio.access"
            raise error

    log, broken = logging.getLogger("h3trio.access"), Broken()
    state = ServerState(Settings(max_streams_per_address=1, linger_timeout=0))
    transport = FakeTransport()
    transport.incoming.append(request("/") + request("/", "Connection: close"))
    log.addFilter(broken)
    caplog.set_level(logging.INFO, "h3trio.access")
    try:
        await connection_of(transport, handler, state, client="192.0.2.1").run()
    finally:
        log.removeFilter(broken)
    assert len(closings) == 2
    assert not state.addresses.loads
    assert caplog.text.count("the access log raised") == 2


@pytest.mark.parametrize("_again", range(10))  # Trio shuffles the tasks
async def test_cancelled_as_the_client_leaves(_again: int) -> None:
    """An exchange that was cut short from outside is nobody's to watch, whatever comes behind."""
    state = ServerState(Settings())
    transport = FakeTransport()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection_of(transport, sleep_forever, state).run)
        transport.incoming.append(post(b"abc")[:-1])
        await wait_all_tasks_blocked()
        transport.change(broken=True)
        nursery.cancel_scope.cancel()
    assert len(state.cancels) == 0


async def test_log(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    """The access log has one line for each ending, with its reason."""
    caplog.set_level(logging.INFO, "h3trio.access")
    client = connect(nursery, endless)
    await client.send(request("/a"))
    await client.head()
    await wait_all_tasks_blocked()
    await client.stream.aclose()
    await client.finished.wait()
    (record,) = caplog.records
    assert '"GET /a" 200 client_closed' in record.getMessage()


async def test_an_event_is_over_with_its_exchange(nursery: trio.Nursery) -> None:
    """An event that outlives its exchange starts nothing on the connection."""
    events: list[H3Event] = []

    async def handler(event: H3Event) -> str:
        events.append(event)
        return "x"

    client = connect(nursery, handler)
    await client.send(request("/"))
    await client.response()
    await wait_all_tasks_blocked()
    (event,) = events
    assert event.head_sent
    with pytest.raises(ResponseStateError, match="closed"):
        event.start_sse()
    event.end()
    await client.send(request("/"))
    assert (await client.response())[1] == b"x"


async def test_a_reset_behind_the_answer_cancels_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A connection that is lost while it lingers has no handler that could be overdue."""
    del autojump_clock

    async def handler(event: H3Event) -> str:
        return event.path

    transport = FakeTransport()
    client = connect(nursery, handler, transport=transport)
    nursery.start_soon(client.state.cancels.run)
    await client.send(request("/", "Connection: close"))
    await client.response()
    transport.change(broken=True)
    await trio.sleep(60)
    assert client.state.cancels.overdue == 0
    nursery.cancel_scope.cancel()


async def test_a_stream_of_a_cancelled_exchange_stays_shut(nursery: trio.Nursery) -> None:
    """A stream object that outlives its exchange can't be entered."""
    streams: list[SSEStream] = []

    async def handler(event: H3Event) -> None:
        streams.append(event.start_sse())
        raise HTTPError(404)

    client = connect(nursery, handler)
    await client.send(request("/"))
    await client.response()
    await wait_all_tasks_blocked()
    with pytest.raises(ResponseStateError):
        await streams[0].__aenter__()


@table("raised", [False, True])
@table("status, told", [(429, True), (503, True), (500, False)])
async def test_when_to_come_again(
    nursery: trio.Nursery, status: int, *, told: bool, raised: bool
) -> None:
    """A 429 or 503 says when to come again, drawn at random, unless it says so itself."""
    own = {"Retry-After": "77"}

    async def handler(event: H3Event) -> Response:
        headers = own if event.path == "/own" else {}
        if raised:
            raise HTTPError(status, headers=headers)
        return Response(status=status, headers=headers)

    client = connect(nursery, handler, settings=Settings(reconnect_delay=100))
    afters = set[str | None]()
    for _ in range(20):
        await client.send(request("/"))
        afters.add((await client.response())[0].headers.get("retry-after"))
    if told:
        assert len(afters) > 5
        assert all(50 <= int(after or 0) <= 150 for after in afters)
    else:
        assert afters == {None}
    await client.send(request("/own"))
    assert (await client.response())[0].headers["retry-after"] == "77"
