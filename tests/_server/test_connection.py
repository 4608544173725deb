"""One connection from first byte to last: order, bounds, timeouts, and every kind of end."""

from __future__ import annotations

import contextvars
import decimal
import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from fakes import FakeTransport
from helpers import MemoryListener, connect, connection_of, event_source, post, request
from tables import table
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from h3trio import App, CloseReason, Closing, HTTPError, Settings, serve
from h3trio._server.state import ServerState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from trio.testing import MockClock

    from h3trio import H3Event, SSEWriter
    from h3trio._app.app import Next
    from h3trio._server.event import Handler


@pytest.fixture(params=["stream", "socket"])
def transport(request: pytest.FixtureRequest) -> FakeTransport | None:
    """Give both kinds of transport: one that can only wait, and one that can try a send."""
    return FakeTransport() if request.param == "socket" else None


async def echo(event: H3Event) -> object:
    """Answer with what was asked, and a body's bytes; stream for /stream."""
    if event.path == "/stream":
        async with event.start_sse() as writer:
            await writer.send("one", id="1")
            await writer.send("two", id="2")
        return None
    return f"{event.method} {event.path} {(await event.body()).decode()}"


async def endless(event: H3Event) -> None:
    """Stream nothing, for ever."""
    async with event.start_sse():
        await trio.sleep_forever()


# -- requests, one after the other


async def test_get(nursery: trio.Nursery, transport: FakeTransport | None) -> None:
    """A request gets its answer, with a date and its length."""
    client = connect(nursery, echo, transport=transport)
    await client.send(request("/a"))
    head, body = await client.response()
    assert (head.status, body) == (200, b"GET /a ")
    assert head.headers["content-type"] == "text/plain; charset=utf-8"
    assert "date" in head.headers
    assert "connection" not in head.headers


async def test_keep_alive(nursery: trio.Nursery, transport: FakeTransport | None) -> None:
    """One connection serves plain answers and streams, one after the other."""
    client = connect(nursery, echo, transport=transport)
    for path in ("/a", "/stream", "/b", "/stream"):
        await client.send(request(path))
        head, body = await client.response()
        if path == "/stream":
            assert head.headers["transfer-encoding"] == "chunked"
            assert body == b":\nid: 1\ndata: one\n\nid: 2\ndata: two\n\n"
        else:
            assert body == f"GET {path} ".encode()
    await wait_all_tasks_blocked()
    assert client.state.counts.closings == {CloseReason.COMPLETED: 4}
    assert len(client.state.heartbeat) == 0


PIPELINE = request("/1") + post(b"two", "/2") + request("/stream") + post(b"", "/3") + request("/4")


@pytest.mark.parametrize("size", [1, 7, len(PIPELINE)])
async def test_pipelining(
    nursery: trio.Nursery, transport: FakeTransport | None, size: int
) -> None:
    """Pipelined requests are answered in order, however their bytes arrive."""
    client = connect(nursery, echo, transport=transport)
    for start in range(0, len(PIPELINE), size):
        await client.send(PIPELINE[start : start + size])
    bodies = [(await client.response())[1] for _ in range(5)]
    assert bodies[:2] == [b"GET /1 ", b"POST /2 two"]
    assert bodies[2].endswith(b"data: two\n\n")
    assert bodies[3:] == [b"POST /3 ", b"GET /4 "]


async def test_one_request_at_a_time(nursery: trio.Nursery) -> None:
    """A pipelined request waits until the one before it is answered."""
    begun, go = list[str](), trio.Event()

    async def handler(event: H3Event) -> str:
        begun.append(event.path)
        await go.wait()
        return event.path

    client = connect(nursery, handler)
    await client.send(request("/1") + request("/2"))
    await wait_all_tasks_blocked()
    assert begun == ["/1"]
    go.set()
    assert [(await client.response())[1] for _ in range(2)] == [b"/1", b"/2"]


async def test_pipelining_is_fair(nursery: trio.Nursery) -> None:
    """A client that pipelines many requests doesn't keep the loop from others."""
    order: list[str] = []

    async def handler(event: H3Event) -> str:
        order.append(event.path)
        return ""

    clients = [connect(nursery, handler, transport=FakeTransport()) for _ in range(2)]
    for number, client in enumerate(clients):
        await client.send(request(f"/{number}") * 50)
    await wait_all_tasks_blocked()
    assert len(order) == 100
    assert "/1" in order[:10]
    assert "/0" in order[-60:]


async def test_chunked_request(nursery: trio.Nursery) -> None:
    """A chunked request body arrives as one, and the connection goes on behind it."""
    client = connect(nursery, echo)
    head = request("/c", "Transfer-Encoding: chunked", method="POST")
    await client.send(
        head + b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: t\r\n\r\n" + request("/d")
    )
    assert (await client.response())[1] == b"POST /c abcdefg"
    assert (await client.response())[1] == b"GET /d "


async def test_http_1_0_closes(nursery: trio.Nursery, transport: FakeTransport | None) -> None:
    """HTTP/1.0 gets its answer with a length, and then EOF."""
    client = connect(nursery, echo, transport=transport)
    await client.send(request("/a", "Connection: keep-alive", version="1.0"))
    head, body = await client.response()
    assert (head.headers["connection"], body) == ("close", b"GET /a ")
    assert await client.rest() == b""


async def test_http_1_0_stream_ends_with_the_connection(
    nursery: trio.Nursery, transport: FakeTransport | None
) -> None:
    """A stream over HTTP/1.0 has no chunks; its end is that of the connection."""
    client = connect(nursery, echo, transport=transport)
    await client.send(request("/stream", version="1.0"))
    assert "transfer-encoding" not in (await client.head()).headers
    assert await client.rest() == b":\nid: 1\ndata: one\n\nid: 2\ndata: two\n\n"


async def test_connection_close_is_honoured(nursery: trio.Nursery) -> None:
    """A client that says `Connection: close` gets EOF after its answer."""
    client = connect(nursery, echo)
    await client.send(request("/a", "Connection: close") + request("/never"))
    assert (await client.response())[0].headers["connection"] == "close"
    assert await client.rest() == b""


async def test_absolute_form(nursery: trio.Nursery) -> None:
    """An absolute target names the path, and the authority in place of `Host`."""

    async def handler(event: H3Event) -> str:
        return f"{event.authority} {event.path}"

    client = connect(nursery, handler)
    await client.send(request("http://else:1/p%20q?x=1"))
    assert (await client.response())[1] == b"else:1 /p q"


async def test_upgrade_is_ignored(nursery: trio.Nursery) -> None:
    """A request to upgrade is answered as if it hadn't asked, and the next one too."""
    client = connect(nursery, echo)
    await client.send(request("/a", "Connection: upgrade", "Upgrade: websocket") + request("/b"))
    assert [(await client.response())[1] for _ in range(2)] == [b"GET /a ", b"GET /b "]


# -- bodies


async def test_body_as_a_stream(nursery: trio.Nursery) -> None:
    """A body can be taken piece by piece, as it arrives."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            async for piece in event.stream():
                await writer.send(piece.decode())

    client = connect(nursery, handler)
    await client.send(request("/", "Content-Length: 6", method="POST") + b"abc")
    await client.head()
    assert (await client.event()).data == "abc"
    await client.send(b"def")
    assert (await client.event()).data == "def"
    assert await client.events() == []


async def test_body_that_nobody_reads_yet_is_bounded(nursery: trio.Nursery) -> None:
    """Beyond `body_buffer_bytes` the server stops reading until the handler does."""
    go = trio.Event()

    async def handler(event: H3Event) -> str:
        await go.wait()
        return str(len(await event.body()))

    transport = FakeTransport()
    settings = Settings(body_buffer_bytes=1000)
    client = connect(nursery, handler, settings=settings, transport=transport)
    await client.send(request("/", "Content-Length: 5000", method="POST"))
    for _ in range(10):
        await client.send(bytes(500))
    await wait_all_tasks_blocked()
    assert len(transport.incoming) == 8
    go.set()
    assert (await client.response())[1] == b"5000"


@pytest.mark.parametrize("limit", [3, 4])
async def test_413_for_a_declared_length(nursery: trio.Nursery, limit: int) -> None:
    """A body that says it is above `max_body_bytes` is refused, at the bound it isn't."""
    client = connect(nursery, echo, settings=Settings(max_body_bytes=limit))
    await client.send(post(b"four", "/") + request("/next"))
    head, body = await client.response()
    assert head.status == (413 if limit == 3 else 200)
    assert (b"3 bytes" in body) == (limit == 3)
    assert (await client.response())[1] == b"GET /next "


@pytest.mark.parametrize("limit", [3, 4])
async def test_413_for_a_chunked_body(nursery: trio.Nursery, limit: int) -> None:
    """A chunked body is refused when it goes above `max_body_bytes`, at the bound it isn't."""
    client = connect(nursery, echo, settings=Settings(max_body_bytes=limit))
    head = request("/", "Transfer-Encoding: chunked", method="POST")
    await client.send(head + b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n" + request("/next"))
    assert (await client.response())[0].status == (413 if limit == 3 else 200)
    assert (await client.response())[1] == b"GET /next "


async def ignore(event: H3Event) -> str:
    """Answer without a look at the body."""
    return event.path


@pytest.mark.parametrize(("size", "kept"), [(1000, True), (1001, False)])
async def test_unread_body_is_discarded(nursery: trio.Nursery, size: int, *, kept: bool) -> None:
    """A body nobody reads is thrown away up to `max_discard_bytes`; above, the connection ends."""
    client = connect(nursery, ignore, settings=Settings(max_discard_bytes=1000))
    await client.send(request("/a", "Content-Length: 1002", method="POST") + bytes(size))
    assert (await client.response())[1] == b"/a"
    await wait_all_tasks_blocked()
    await client.send(bytes(1002 - size) + request("/b"))
    if kept:
        assert (await client.response())[1] == b"/b"
    else:
        assert await client.rest() == b""


async def test_unread_body_that_comes_late_is_discarded(nursery: trio.Nursery) -> None:
    """The rest of a body may come after the answer to its request."""
    client = connect(nursery, ignore)
    await client.send(request("/a", "Content-Length: 6", method="POST") + b"abc")
    assert (await client.response())[1] == b"/a"
    await client.send(b"def" + request("/b"))
    assert (await client.response())[1] == b"/b"


async def test_continue_is_sent_when_the_body_is_asked_for(
    nursery: trio.Nursery, transport: FakeTransport | None
) -> None:
    """A client that waits for `100 Continue` gets it as soon as the handler wants the body."""
    client = connect(nursery, echo, transport=transport)
    head = request("/a", "Content-Length: 3", "Expect: 100-continue", method="POST")
    await client.send(head)
    assert (await client.head()).status == 100
    await client.send(b"abc" + request("/b"))
    assert (await client.response())[1] == b"POST /a abc"
    assert (await client.response())[1] == b"GET /b "


async def test_no_continue_for_a_body_nobody_wants(nursery: trio.Nursery) -> None:
    """A client that waits in vain is told so by the answer, and that the connection closes."""
    client = connect(nursery, ignore)
    head = request("/a", "Content-Length: 3", "Expect: 100-continue", method="POST")
    await client.send(head)
    answer, body = await client.response()
    assert (answer.status, answer.headers["connection"], body) == (200, "close", b"/a")
    assert await client.rest() == b""


async def test_no_continue_where_the_body_comes_anyway(nursery: trio.Nursery) -> None:
    """A client that doesn't wait isn't told to go on."""
    client = connect(nursery, echo)
    head = request("/a", "Content-Length: 3", "Expect: 100-continue", method="POST")
    await client.send(head + b"abc")
    assert (await client.response())[0].status == 200


async def test_the_wait_for_continue_has_no_timeout(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A handler that takes its time before it asks for the body isn't the client's fault."""

    async def handler(event: H3Event) -> bytes:
        await trio.sleep(100)
        return await event.body()

    client = connect(nursery, handler)
    head = request("/a", "Content-Length: 3", "Expect: 100-continue", method="POST")
    await client.send(head)
    assert (await client.head()).status == 100
    assert autojump_clock.current_time() == pytest.approx(100)
    await client.send(b"abc")
    assert (await client.response())[1] == b"abc"


# -- what is ahead of its turn


async def test_a_plain_answer_makes_pipelining_wait(nursery: trio.Nursery) -> None:
    """While a handler works, at most a head's worth of later requests is read."""
    go = trio.Event()

    async def handler(event: H3Event) -> str:
        await go.wait()
        return event.path

    transport = FakeTransport()
    client = connect(nursery, handler, settings=Settings(max_head_bytes=200), transport=transport)
    for number in range(20):
        await client.send(request(f"/{number}"))
    await wait_all_tasks_blocked()
    assert len(transport.incoming) == 20 - 1 - 200 // len(request("/1")) - 1
    go.set()
    assert [(await client.response())[1] for _ in range(20)] == [b"/%d" % n for n in range(20)]


async def test_a_stream_ends_if_too_much_comes_behind_it(nursery: trio.Nursery) -> None:
    """A stream's client may send a head's worth of later requests; more closes the connection."""
    client = connect(nursery, endless, settings=Settings(max_head_bytes=200))
    await client.send(request("/") + b"x" * 200)
    await client.head()
    assert await client.chunk() == b":\n"
    await wait_all_tasks_blocked()
    assert not client.finished.is_set()
    await client.send(b"x")
    assert await client.rest() == b""
    assert client.state.counts.closings == {CloseReason.PROTOCOL_ERROR: 1}


async def test_a_paused_reader_wakes_for_a_stream(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A stream that opens with too much behind it doesn't stay unwatched, but closes."""
    go = trio.Event()

    async def handler(event: H3Event) -> None:
        await go.wait()
        await endless(event)

    client = connect(nursery, handler, settings=Settings(max_head_bytes=200))
    await client.send(request("/"))
    await client.send(b"x" * 201)
    await wait_all_tasks_blocked()
    go.set()
    await client.finished.wait()
    assert client.state.counts.closings == {CloseReason.PROTOCOL_ERROR: 1}
    # It lingers, as there was more to read.
    assert autojump_clock.current_time() == Settings().linger_timeout


# -- the client leaves


@pytest.mark.parametrize("sent", [b"", b"GET / HT", request("/")[:-2]])
async def test_eof_before_a_request(nursery: trio.Nursery, sent: bytes) -> None:
    """A client that leaves before its request is complete gets nothing, and is no exchange."""
    client = connect(nursery, echo)
    await client.send(sent)
    await client.stream.send_eof()
    assert await client.rest() == b""
    assert client.state.counts.requests == 0


async def test_eof_between_requests(nursery: trio.Nursery) -> None:
    """A client that leaves an idle connection ends it."""
    client = connect(nursery, echo)
    await client.send(request("/a"))
    await client.response()
    await client.stream.send_eof()
    await client.finished.wait()
    assert client.state.counts.closings == {CloseReason.COMPLETED: 1}


async def test_eof_in_a_body(nursery: trio.Nursery) -> None:
    """A client that leaves in the middle of its body cancels the handler."""
    reasons: list[Closing] = []

    async def handler(event: H3Event) -> str:
        event.on_close(reasons.append)
        await trio.sleep_forever()
        return "never"

    client = connect(nursery, handler)
    await client.send(request("/a", "Content-Length: 3", method="POST") + b"ab")
    await client.stream.send_eof()
    await client.finished.wait()
    assert [closing.reason for closing in reasons] == [CloseReason.CLIENT_CLOSED]


async def test_half_close_after_a_request(
    nursery: trio.Nursery, transport: FakeTransport | None
) -> None:
    """A client that has said all still gets the answers to what it asked, and then EOF."""
    client = connect(nursery, echo, transport=transport)
    await client.send(request("/a") + post(b"b", "/b") + request("/stream"))
    if transport is not None:
        await client.send(b"")
    else:
        await client.stream.send_eof()
    assert (await client.response())[1] == b"GET /a "
    assert (await client.response())[1] == b"POST /b b"
    await client.rest()
    await client.finished.wait()
    assert client.state.counts.closings == {
        CloseReason.COMPLETED: 2,
        CloseReason.CLIENT_CLOSED: 1,
    }


async def test_half_close_ends_a_stream(nursery: trio.Nursery) -> None:
    """EOF from the client ends a stream, without its final chunk."""
    client = connect(nursery, endless)
    await client.send(request("/"))
    await client.head()
    await client.chunk()
    await client.stream.send_eof()
    assert await client.rest() == b""
    assert client.state.counts.closings == {CloseReason.CLIENT_CLOSED: 1}


async def test_half_close_before_a_stream_opens(nursery: trio.Nursery) -> None:
    """A stream that opens after the client's EOF ends at once; nothing waits for ever."""
    go = trio.Event()

    async def handler(event: H3Event) -> None:
        await go.wait()
        await endless(event)

    client = connect(nursery, handler)
    await client.send(request("/"))
    await client.stream.send_eof()
    await wait_all_tasks_blocked()
    go.set()
    await client.finished.wait()
    assert client.state.counts.closings == {CloseReason.CLIENT_CLOSED: 1}


async def test_half_close_gives_a_plain_answer_its_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """After the client's EOF a plain answer may take `write_timeout`, not longer."""

    async def handler(event: H3Event) -> str:
        await trio.sleep(float(event.query["seconds"]))
        return "done"

    for seconds, expected in ((29, b"done"), (31, b"")):
        start = autojump_clock.current_time()
        client = connect(nursery, handler)
        await client.send(request(f"/?seconds={seconds}"))
        await client.stream.send_eof()
        assert (await client.rest())[-4:] == expected
        assert autojump_clock.current_time() - start == pytest.approx(min(seconds, 30))


async def test_half_close_behind_a_pipelined_body_above_the_buffer(nursery: trio.Nursery) -> None:
    """A pipelined body that is here in full is delivered, though the reader has seen EOF."""
    client = connect(nursery, echo, settings=Settings(body_buffer_bytes=10))
    await client.send(request("/a") + post(b"x" * 100, "/b"))
    await client.stream.send_eof()
    assert (await client.response())[1] == b"GET /a "
    assert (await client.response())[1] == b"POST /b " + b"x" * 100


async def sleep(_event: H3Event) -> None:
    """Never answer."""
    await trio.sleep_forever()


LOSSES = [
    (ConnectionResetError(), CloseReason.CONNECTION_LOST),
    (TimeoutError(), CloseReason.SLOW),
]


@table("cause, reason", LOSSES)
@table("handler", [endless, sleep])
async def test_reset_cancels_the_handler(
    nursery: trio.Nursery, handler: Handler, cause: OSError, reason: CloseReason
) -> None:
    """A lost connection cancels the handler, whether it streams or not."""
    transport = FakeTransport()
    transport.cause = cause
    client = connect(nursery, handler, transport=transport)
    await client.send(request("/"))
    await wait_all_tasks_blocked()
    transport.change(broken=True)
    await client.finished.wait()
    assert transport.closed
    assert client.state.counts.closings == {reason: 1}


@pytest.mark.parametrize(("cause", "reason"), LOSSES)
async def test_reset_while_an_answer_is_sent(
    nursery: trio.Nursery, cause: OSError, reason: CloseReason
) -> None:
    """A connection that is lost while its answer waits to be taken ends at once."""
    transport = FakeTransport(room=10)
    transport.cause = cause
    client = connect(nursery, echo, transport=transport)
    await client.send(request("/"))
    await wait_all_tasks_blocked()
    transport.change(broken=True)
    await client.finished.wait()
    assert client.state.counts.closings == {reason: 1}


async def test_reset_while_idle(nursery: trio.Nursery) -> None:
    """A lost connection without a request just ends."""
    transport = FakeTransport()
    client = connect(nursery, echo, transport=transport)
    await client.send(request("/"))
    await client.response()
    transport.change(broken=True)
    await client.finished.wait()
    assert client.state.counts.closings == {CloseReason.COMPLETED: 1}


@pytest.mark.parametrize("eof", [True, False])
async def test_a_body_whose_connection_is_gone_fails(
    nursery: trio.Nursery, autojump_clock: MockClock, *, eof: bool
) -> None:
    """A task outside the exchange that still reads the body hears that the rest won't come."""
    heard: list[HTTPError] = []

    async def read_on(event: H3Event) -> None:
        try:
            await event.body()
        except HTTPError as error:
            heard.append(error)

    async def handler(event: H3Event) -> str:
        nursery.start_soon(read_on, event)
        await wait_all_tasks_blocked()
        raise HTTPError(403, headers={"Connection": "close"})

    client = connect(nursery, handler)
    await client.send(request("/", "Content-Length: 3", method="POST"))
    assert (await client.response())[0].status == 403
    if eof:
        await client.stream.send_eof()
    await client.finished.wait()
    await wait_all_tasks_blocked()
    assert [error.status for error in heard] == [400]
    assert autojump_clock.current_time() == pytest.approx(0 if eof else 2)


# -- timeouts


async def test_head_timeout(
    nursery: trio.Nursery, transport: FakeTransport | None, autojump_clock: MockClock
) -> None:
    """A head that isn't complete in `head_timeout` is answered 408, however it trickles in."""
    client = connect(nursery, echo, transport=transport)
    for _ in range(9):
        await client.send(b"G")
        await trio.sleep(1)
    await client.send(b"ET /")
    head, body = await client.response()
    assert autojump_clock.current_time() == pytest.approx(10, abs=0.1)
    assert (head.status, head.headers["connection"]) == (408, "close")
    assert client.state.counts.refusals == {408: 1}
    assert body == b"the request head took too long\n"
    assert await client.rest() == b""
    await client.finished.wait()
    assert client.state.counts.closings == {CloseReason.PROTOCOL_ERROR: 1}


async def test_head_timeout_of_a_client_that_takes_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A client that doesn't take its 408 is let go after `write_timeout`."""
    transport = FakeTransport(room=0)
    client = connect(nursery, echo, transport=transport)
    await client.send(b"GET")
    await client.finished.wait()
    assert autojump_clock.current_time() == pytest.approx(40)
    assert not transport.eof_sent


async def test_head_timeout_without_a_byte(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A connection on which nothing comes closes after `head_timeout`, in silence."""
    client = connect(nursery, echo)
    assert await client.rest() == b""
    assert autojump_clock.current_time() == pytest.approx(10, abs=0.1)
    assert client.state.counts.requests == 0


async def test_a_stream_has_no_deadline(nursery: trio.Nursery) -> None:
    """A stream that is its connection's first request is woken for no deadline that is over."""
    client = connect(nursery, endless, settings=Settings(heartbeat_interval=100))
    await client.send(request("/"))
    await wait_all_tasks_blocked()
    # The heartbeat's own is the next.
    assert 75 < trio.lowlevel.current_statistics().seconds_to_next_deadline <= 100


async def test_keepalive_timeout(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """An idle connection closes after `keepalive_timeout`, counted from its last answer."""
    client = connect(nursery, echo, settings=Settings(keepalive_timeout=50))
    for _ in range(2):
        await client.send(request("/a"))
        await client.response()
        await trio.sleep(40)
    assert not client.finished.is_set()
    assert await client.rest() == b""
    assert autojump_clock.current_time() == pytest.approx(90, abs=0.1)


@pytest.mark.parametrize(("sent", "seconds"), [(b"\r\n", 75), (b"\r\nG", 10)])
async def test_an_empty_line_begins_no_head(
    nursery: trio.Nursery, autojump_clock: MockClock, sent: bytes, seconds: int
) -> None:
    """An empty line leaves an idle connection idle; a byte behind it is a head's first."""
    client = connect(nursery, echo)
    await client.send(request("/a"))
    await client.response()
    await client.send(sent)
    await client.rest()
    assert autojump_clock.current_time() == pytest.approx(seconds, abs=0.1)
    assert client.state.counts.refusals == ({408: 1} if seconds == 10 else {})


async def test_head_timeout_of_a_head_request(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A HEAD request that comes too slowly is answered with a head alone."""
    client = connect(nursery, echo)
    await client.send(request(method="HEAD")[:-1])
    assert (await client.head()).status == 408
    assert await client.rest() == b""
    assert autojump_clock.current_time() == pytest.approx(10, abs=0.1)


async def test_head_timeout_of_a_later_request(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A later request has `head_timeout` from its own first byte."""
    client = connect(nursery, echo)
    await client.send(request("/a") + b"GET")
    await client.response()
    assert (await client.response())[0].status == 408
    assert autojump_clock.current_time() == pytest.approx(10, abs=0.1)


async def test_body_timeout(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A body that stands still for `body_timeout` is answered 408; while it moves, it may last."""
    client = connect(nursery, echo, settings=Settings(min_body_rate=None))
    await client.send(request("/a", "Content-Length: 9", method="POST"))
    for _ in range(3):
        await trio.sleep(25)
        await client.send(b"x")
    head, body = await client.response()
    assert (head.status, body) == (408, b"the request body stalled\n")
    assert head.headers["connection"] == "close"
    assert client.state.counts.refusals == {408: 1}
    assert autojump_clock.current_time() == pytest.approx(105, abs=0.1)
    await client.stream.send_eof()
    assert await client.rest() == b""


async def test_body_timeout_after_continue(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A client that was told to continue, and doesn't, has `body_timeout` from then on."""
    client = connect(nursery, echo)
    head = request("/a", "Content-Length: 3", "Expect: 100-continue", method="POST")
    await client.send(head)
    assert (await client.head()).status == 100
    assert (await client.response())[0].status == 408
    assert autojump_clock.current_time() == pytest.approx(30)


async def test_body_timeout_while_discarding(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The rest of an unread body that doesn't come ends the connection."""
    client = connect(nursery, ignore)
    await client.send(request("/a", "Content-Length: 9", method="POST"))
    assert (await client.response())[1] == b"/a"
    assert await client.rest() == b""
    assert autojump_clock.current_time() == pytest.approx(30, abs=0.1)


async def test_body_timeout_leaves_a_stream_watched(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A stream whose request body stalls goes on, and still sees its client leave."""
    client = connect(nursery, endless)
    await client.send(request("/", "Content-Length: 9", method="POST"))
    await client.head()
    await trio.sleep(100)
    await client.send(b"late")
    await wait_all_tasks_blocked()
    assert not client.finished.is_set()
    await client.stream.send_eof()
    await client.finished.wait()
    assert client.state.counts.closings == {CloseReason.CLIENT_CLOSED: 1}
    assert autojump_clock.current_time() == pytest.approx(100)


async def test_eof_behind_an_unread_body(nursery: trio.Nursery) -> None:
    """A stream whose client leaves behind a body that nobody reads ends, full buffer or not."""
    settings = Settings(body_buffer_bytes=1000, max_discard_bytes=5000)
    for size in (999, 1000, 5000):
        client = connect(nursery, endless, settings=settings)
        await client.send(request("/", "Content-Length: 9999", method="POST") + bytes(size // 2))
        await client.head()
        await client.send(bytes(size - size // 2))
        await wait_all_tasks_blocked()
        assert not client.finished.is_set()
        await client.stream.send_eof()
        await client.finished.wait()
        assert client.state.counts.closings == {CloseReason.CLIENT_CLOSED: 1}


async def test_eof_behind_a_body_that_was_full_before_the_stream(nursery: trio.Nursery) -> None:
    """A reader that paused for a full buffer looks again when a stream opens."""
    go = trio.Event()

    async def handler(event: H3Event) -> None:
        await go.wait()
        await endless(event)

    client = connect(nursery, handler, settings=Settings(body_buffer_bytes=1000))
    await client.send(post(bytes(2000))[:-1])
    await wait_all_tasks_blocked()
    await client.stream.send_eof()
    go.set()
    await client.finished.wait()
    assert client.state.counts.closings == {CloseReason.CLIENT_CLOSED: 1}


@pytest.mark.parametrize(("size", "open_"), [(5000, True), (5001, False)])
async def test_a_stream_ends_if_its_unread_body_is_too_long(
    nursery: trio.Nursery, size: int, *, open_: bool
) -> None:
    """Under a stream, an unread body is thrown away up to `max_discard_bytes`, and no further."""
    settings = Settings(body_buffer_bytes=1000, max_discard_bytes=5000)
    client = connect(nursery, endless, settings=settings)
    await client.send(request("/", "Content-Length: 9999", method="POST") + bytes(size))
    await wait_all_tasks_blocked()
    assert (not client.state.counts.closings) == open_
    if not open_:
        assert client.state.counts.closings == {CloseReason.PROTOCOL_ERROR: 1}
        assert client.state.counts.limits == {"max_discard_bytes": 1}


async def test_a_body_that_was_asked_for_sets_the_pace(nursery: trio.Nursery) -> None:
    """A handler that streams and reads gets the whole body, however slowly it takes it."""
    go = trio.Event()

    async def handler(event: H3Event) -> None:
        body = event.stream()
        async with event.start_sse() as writer:
            await go.wait()
            size = 0
            async for piece in body:
                size += len(piece)
            await writer.send(str(size))

    settings = Settings(body_buffer_bytes=1000, max_discard_bytes=1000)
    client = connect(nursery, handler, settings=settings)
    await client.send(post(bytes(9000)))
    await client.head()
    await wait_all_tasks_blocked()
    go.set()
    assert (await client.event()).data == "9000"


async def test_a_live_body_has_no_rate(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A body that the handler takes as a stream may come as slowly as it likes, but for silence."""

    async def handler(event: H3Event) -> str:
        return str([len(piece) async for piece in event.stream()])

    client = connect(nursery, handler)
    await client.send(request("/", "Content-Length: 9", method="POST"))
    for _ in range(9):
        await trio.sleep(25)
        await client.send(b"x")
    assert (await client.response())[1] == str([1] * 9).encode()
    assert autojump_clock.current_time() == pytest.approx(225)


async def test_a_handler_has_no_timeout(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Nothing but the client's leaving ends a handler that takes long."""

    async def handler(_event: H3Event) -> str:
        await trio.sleep(10_000)
        return "done"

    client = connect(nursery, handler)
    await client.send(request("/"))
    assert (await client.response())[1] == b"done"
    assert autojump_clock.current_time() == pytest.approx(10_000)


async def test_an_answer_that_is_not_taken(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A client that takes nothing of its answer for `write_timeout` is closed, reason slow."""
    transport = FakeTransport(room=10)
    client = connect(nursery, echo, transport=transport)
    await client.send(request("/a"))
    await trio.sleep(29)
    transport.change(room=10)
    await trio.sleep(29)
    assert not client.finished.is_set()
    await client.finished.wait()
    assert autojump_clock.current_time() == pytest.approx(59, abs=0.1)
    assert client.state.counts.closings == {CloseReason.SLOW: 1}
    assert not transport.eof_sent


# -- requests that aren't


REFUSED = {
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "bad target": (request("/%zz"), 400),
    "bad target with a body": (post(b"body", "/%zz"), 400),
    "other form of target": (request("test:80"), 400),
    "tunnel": (request("/", method="CONNECT"), 501),
    "server-wide GET": (request("*"), 400),
    "HTTP/2.0": (request(version="2.0"), 505),
    "unknown framing": (request("/", "Transfer-Encoding: gzip", method="POST"), 400),
    "unknown coding": (request("/", "Transfer-Encoding: gzip, chunked", method="POST"), 501),
    "expectation": (request("/", "Expect: the-unexpected", method="POST"), 417),
    "long target": (request("/" + "x" * 12 * 1024), 414),
    "many headers": (request("/", *["X: y"] * 100), 431),
    "two framings": (
        request("/", "Content-Length: 5", "Transfer-Encoding: chunked", method="POST")
        + b"0\r\n\r\n",
        400,
    ),
    "chunks in HTTP/1.0": (
        request("/", "Transfer-Encoding: chunked", method="POST", version="1.0") + b"0\r\n\r\n",
        400,
    ),
    "two lengths": (request("/", "Content-Length: 5", "Content-Length: 6"), 400),
    "endless length": (request("/", f"Content-Length: {'9' * 5000}"), 400),
    "large head": (request("/", f"X: {'x' * 20_000}")[:-2], 431),
}


@table("step", [1, 10**6])
@table("case", REFUSED)
async def test_refused(nursery: trio.Nursery, case: str, step: int) -> None:
    """What is not a request we serve is refused and counted; nothing behind it is looked at."""
    sent, status = REFUSED[case]
    # A long one has only its end bytewise.
    start = len(sent) - 100 if step == 1 and len(sent) > 1000 else 0
    client = connect(nursery, echo)
    await client.send(sent[:start])
    for place in range(start, len(sent), step):
        await client.send(sent[place : place + step])
    await client.send(request("/smuggled"))
    head, _ = await client.response()
    assert (head.status, head.headers["connection"]) == (status, "close")
    assert await client.rest() == b""
    await client.stream.send_eof()
    await client.finished.wait()
    assert client.state.counts.closings == {CloseReason.PROTOCOL_ERROR: 1}
    assert client.state.counts.refusals == {status: 1}


@pytest.mark.parametrize("bad", [request("*", method="HEAD"), request("*"), b"nonsense\r\n\r\n"])
async def test_refused_behind_a_head_request(nursery: trio.Nursery, bad: bytes) -> None:
    """A refusal has a body unless it is HEAD that is refused, whatever was answered before."""
    client = connect(nursery, echo)
    await client.send(request("/a", method="HEAD") + bad)
    assert (await client.head()).status == 200
    head = await client.head()
    assert (head.status, head.headers["connection"]) == (400, "close")
    size = 0 if bad.startswith(b"HEAD") else int(head.headers["content-length"])
    assert len(await client.rest()) == size


async def test_refused_behind_a_good_one(nursery: trio.Nursery) -> None:
    """A bad request that was pipelined is refused after the good one is answered."""
    client = connect(nursery, echo)
    await client.send(request("/a") + b"nonsense\r\n\r\n" + request("/b"))
    assert (await client.response())[1] == b"GET /a "
    assert (await client.response())[0].status == 400
    assert await client.rest() == b""


async def test_body_with_broken_framing(nursery: trio.Nursery) -> None:
    """A body whose chunks aren't is a 400 for the handler that reads it; then it's over."""
    client = connect(nursery, echo)
    head = request("/a", "Transfer-Encoding: chunked", method="POST")
    await client.send(head + b"zz\r\n" + request("/smuggled"))
    answer, _ = await client.response()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert client.state.counts.refusals == {400: 1}
    assert await client.rest() == b""


async def test_what_comes_behind_broken_framing_is_dropped(nursery: trio.Nursery) -> None:
    """After a body's framing broke, what its client sends takes no memory."""
    transport = FakeTransport()
    client = connect(nursery, endless, transport=transport)
    await client.send(request("/a", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n")
    for _ in range(100):
        await client.send(bytes(100_000))
    await wait_all_tasks_blocked()
    assert transport.incoming == []
    assert client.connection._http.buffered < 1000  # noqa: SLF001 - nothing else shows it


async def test_refusal_from_the_start(nursery: trio.Nursery) -> None:
    """A connection that the server has no room for is told so, whatever it asks, however early."""
    state = ServerState(Settings())
    error = HTTPError(503, "full", headers={"Retry-After": "3"})
    for _ in range(10):
        transport = FakeTransport()
        await transport.client_sends(request("/"))
        connection = connection_of(transport, echo, state, rejection=error)
        nursery.start_soon(connection.run)
        await wait_all_tasks_blocked()
        assert transport.sent.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nRetry-After: 3\r\n" in transport.sent
        assert transport.eof_sent
    assert state.counts.requests == 0


# -- the context of a request

USER = contextvars.ContextVar("user", default="nobody")


async def remember(event: H3Event) -> object:
    """Set variables, and end in the way that the path says; tell of what was set on `/who`."""
    if event.path == "/who":
        async with trio.open_nursery() as nursery:
            nested: list[str] = []
            nursery.start_soon(tell, nested)
        return f"{USER.get()} {nested[0]} {decimal.getcontext().prec}"
    USER.set("alice")
    decimal.getcontext().prec = 3
    await event.body()
    if event.path == "/error":
        raise HTTPError(403)
    if event.path == "/bug":
        raise KeyError("x")
    if event.path == "/stream":
        async with event.start_sse() as writer:
            await writer.send("x")
        return None
    if event.path == "/callback":
        event.start_sse()
        event.set_stream_callback(change_more)
        return None
    if event.path == "/kicked":
        event.end()
        await trio.sleep_forever()
    return "ok"


async def change_more(writer: SSEWriter) -> None:
    """See what the handler has set, and set it again."""
    assert (USER.get(), decimal.getcontext().prec) == ("alice", 3)
    USER.set("bob")
    decimal.getcontext().prec = 4
    await writer.send("x")


async def tell(nested: list[str]) -> None:
    """Take a note of the user, in a task of its own."""
    await trio.lowlevel.checkpoint()
    nested.append(USER.get())


WAYS = {
    "response": request("/set"),
    "head": request("/set", method="HEAD"),
    "error": request("/error"),
    "bug": request("/bug"),
    "stream": request("/stream"),
    "kicked": request("/kicked"),
    "callback": request("/callback"),
    "body": post(b"abc", "/set"),
    "continue": post(b"abc", "/set", "Expect: 100-continue"),
}


@pytest.fixture
def prec() -> Generator[int]:
    """The precision that the server begins with: its context holds decimal's object."""
    with decimal.localcontext(prec=17) as context:
        yield context.prec


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_variables_stay_with_their_request(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, way: str, prec: int, *, pipelined: bool
) -> None:
    """What a request sets in its context is gone for the next one, however the first ended."""
    caplog.set_level("CRITICAL", "h3trio.server")
    who = request("/who", "Connection: close")
    USER.set("the server's")
    client = connect(nursery, remember)
    await client.send(WAYS[way] + who if pipelined else WAYS[way])
    await wait_all_tasks_blocked()
    if not pipelined:
        await client.send(who)
    assert (await client.rest()).endswith(b"the server's the server's %d" % prec)


async def test_variables_of_a_later_request_stay_with_it(nursery: trio.Nursery, prec: int) -> None:
    """Each request of a connection starts from the same context, the second's follower too."""
    USER.set("the server's")
    client = connect(nursery, remember)
    await client.send(request("/set") * 3 + request("/who", "Connection: close"))
    assert (await client.rest()).endswith(b"the server's the server's %d" % prec)


async def test_connections_share_no_variables(nursery: trio.Nursery, prec: int) -> None:
    """What a request sets in its context isn't there for a request of another connection."""
    USER.set("the server's")
    await connect(nursery, remember).send(request("/set"))
    await wait_all_tasks_blocked()
    client = connect(nursery, remember)
    await client.send(request("/who", "Connection: close"))
    assert (await client.rest()).endswith(b"the server's the server's %d" % prec)


async def test_what_comes_behind_a_handler_sees_its_variables(nursery: trio.Nursery) -> None:
    """A hook that is called when an exchange is over runs in the context of its request."""
    seen: list[str] = []

    async def handler(event: H3Event) -> str:
        USER.set(event.path)
        event.on_close(lambda _closing: seen.append(USER.get()))
        return "ok"

    client = connect(nursery, handler)
    for path in ("/a", "/b"):
        await client.send(request(path))
        await client.response()
    await wait_all_tasks_blocked()
    assert seen == ["/a", "/b"]


async def test_the_access_log_sees_the_variables(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """What adds fields to the access log's line finds those of the request, whoever set them."""
    seen: list[str] = []
    app = App()

    class Fields(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            seen.append(f"{record.getMessage().split()[2]} {USER.get()}")
            return True

    @app.use
    async def middleware(event: H3Event, following: Next) -> object:
        assert USER.get() == "nobody"
        if event.path != "/who":
            USER.set(event.path)
        return await following()

    @app.get("/*")
    async def handler(event: H3Event) -> None:
        if event.path == "/bug":
            raise KeyError("x")
        if event.path == "/stream":
            async with event.start_sse() as writer:
                await writer.send(USER.get())

    caplog.set_level(logging.INFO, "h3trio.access")
    log, fields = logging.getLogger("h3trio.access"), Fields()
    log.addFilter(fields)
    client = connect(nursery, app)
    paths = ["/a", "/stream", "/bug", "/who"]
    try:
        await client.send(b"".join(map(request, paths)))
        await wait_all_tasks_blocked()
    finally:
        log.removeFilter(fields)
    assert seen == ['/a" /a', '/stream" /stream', '/bug" /bug', '/who" nobody']


async def test_variables_of_the_lifespan_are_seen(nursery: trio.Nursery) -> None:
    """What the app's lifespan sets is there for each request of each connection."""

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        USER.set("the lifespan's")
        yield

    app, listener = App(lifespan=lifespan), MemoryListener()
    app.all("/*")(remember)
    await nursery.start(partial(serve, app, listeners=[listener]))
    for _ in range(2):
        stream = await listener.connect()
        await stream.send_all(request("/set") + request("/who", "Connection: close"))
        answer = b"".join([bytes(data) async for data in stream])
        assert b"the lifespan's the lifespan's" in answer
        await stream.aclose()
    nursery.cancel_scope.cancel()


# -- the end


async def test_linger(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """After its last answer the server sends EOF, reads on for `linger_timeout`, then closes."""
    transport = FakeTransport()
    client = connect(nursery, echo, transport=transport)
    await client.send(request("/a", "Connection: close"))
    await client.response()
    for _ in range(3):
        await trio.sleep(0.5)
        await client.send(bytes(100_000))
    assert transport.eof_sent
    assert not transport.closed
    await client.finished.wait()
    assert transport.incoming == []
    assert autojump_clock.current_time() == pytest.approx(2, abs=0.1)


async def test_linger_ends_with_the_client(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The server lingers no longer than its client."""
    client = connect(nursery, echo)
    await client.send(request("/a", "Connection: close"))
    await client.response()
    await client.stream.send_eof()
    await client.finished.wait()
    assert autojump_clock.current_time() < 0.1


async def test_no_linger(nursery: trio.Nursery) -> None:
    """Without a `linger_timeout` the connection closes at once."""
    transport = FakeTransport()
    client = connect(nursery, echo, settings=Settings(linger_timeout=0), transport=transport)
    await client.send(request("/a", "Connection: close"))
    await client.finished.wait()
    assert transport.closed
    assert not transport.eof_sent


async def test_drain_closes_an_idle_connection(nursery: trio.Nursery) -> None:
    """A connection between two requests closes when told to drain."""
    client = connect(nursery, echo)
    await client.send(request("/a"))
    await client.response()
    await wait_all_tasks_blocked()
    client.state.draining.set()
    client.drain()
    assert await client.rest() == b""


async def test_drain_lets_a_plain_answer_finish(nursery: trio.Nursery) -> None:
    """While the server drains, an answer says that the connection closes, and then it does."""
    go = trio.Event()

    async def handler(event: H3Event) -> str:
        await go.wait()
        return event.path

    client = connect(nursery, handler)
    await client.send(request("/a"))
    await wait_all_tasks_blocked()
    client.state.draining.set()
    client.drain()
    client.end_stream(CloseReason.DRAINING)
    go.set()
    head, body = await client.response()
    assert (head.headers["connection"], body) == ("close", b"/a")
    assert await client.rest() == b""


async def test_end_stream(nursery: trio.Nursery) -> None:
    """A running stream can be ended from outside; the connection serves the next request."""
    client = connect(nursery, endless)
    await client.send(event_source())
    await client.head()
    await wait_all_tasks_blocked()
    assert len(client.state.heartbeat) == 1
    client.end_stream(CloseReason.DRAINING)
    assert await client.events() == []
    await wait_all_tasks_blocked()
    assert len(client.state.heartbeat) == 0
    assert not client.finished.is_set()


async def test_drain_of_a_stream_closes_the_connection(nursery: trio.Nursery) -> None:
    """A connection whose stream is ended by a drain closes, though it didn't say so before."""
    client = connect(nursery, endless)
    await client.send(event_source())
    await client.head()
    await wait_all_tasks_blocked()
    client.state.draining.set()
    client.end_stream(CloseReason.DRAINING)
    assert await client.events() == []
    assert await client.rest() == b""


async def test_cancelling_the_server_side() -> None:
    """Cancelling a connection closes its transport at once, and counts what was under way."""
    transport = FakeTransport()
    state = ServerState(Settings())
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            connection = connection_of(transport, endless, state)
            inner.start_soon(connection.run)
            await transport.client_sends(request("/"))
            await wait_all_tasks_blocked()
            scope.cancel()
    assert transport.closed
    assert state.counts.closings == {CloseReason.CANCELLED: 1}


async def test_one_connection_cannot_hurt_another(nursery: trio.Nursery) -> None:
    """A client that breaks in every way leaves others as they are."""
    good = connect(nursery, endless)
    await good.send(request("/"))
    await good.head()
    for number in range(20):
        transport = FakeTransport(room=number * 20)
        bad = connect(nursery, echo, transport=transport)
        await bad.send(request("/stream") * 2)
        await wait_all_tasks_blocked()
        transport.change(broken=True)
        await bad.finished.wait()
    assert not good.finished.is_set()


async def test_many_requests_leak_no_tasks(nursery: trio.Nursery) -> None:
    """Requests, streams and whole connections leave no task behind."""
    client = connect(nursery, echo, pair=lockstep_stream_pair)
    await wait_all_tasks_blocked()
    before = trio.lowlevel.current_statistics().tasks_living
    for _ in range(20):
        for path in ("/a", "/stream"):
            await client.send(request(path))
            await client.response()
    await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before
    await client.stream.aclose()
    await client.finished.wait()
    await wait_all_tasks_blocked()
    # Its reader, which is the connection's own task, and its handler task.
    assert trio.lowlevel.current_statistics().tasks_living == before - 2


def test_repr() -> None:
    """Its repr names the client, and how far request and answer are."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            client = connect(nursery, endless)
            assert repr(client.connection) == "<Connection: memory, reading HEAD, answer DUE>"
            await client.send(request("/a"))
            await client.head()
            assert "reading COMPLETE, answer BEGUN" in repr(client.connection)
            nursery.cancel_scope.cancel()

    trio.run(main)
