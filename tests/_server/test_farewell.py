"""What an event stream ends with; test_exchange.py plays each over a connection."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import trio
from fakes import FakeTransport
from helpers import STREAM_TYPE, connect, event_source, post, request
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import App, CloseReason, H3Event, HTTPError, Settings
from h3trio._http.closing import ENDED_BY_SERVER

if TYPE_CHECKING:
    from trio.testing import MockClock


async def overloaded(event: H3Event) -> None:
    """Be out of everything, and allow other origins to know."""
    event.response_headers["Access-Control-Allow-Origin"] = "*"
    await trio.lowlevel.checkpoint()
    raise HTTPError(503, "no room")


async def endless(event: H3Event) -> None:
    """Stream nothing, for ever."""
    async with event.start_sse():
        await trio.sleep_forever()


async def test_an_event_source_is_never_told_503_by_a_drain(nursery: trio.Nursery) -> None:
    """While the server drains, a 503 for an EventSource is a stream that is over at once."""
    client = connect(nursery, overloaded)
    client.state.draining.set()
    await client.send(event_source())
    head, body = await client.response()
    assert (head.status, head.headers["content-type"]) == (200, STREAM_TYPE)
    assert head.headers["access-control-allow-origin"] == "*"
    assert head.headers["connection"] == "close"
    assert (found := re.fullmatch(rb"retry: (\d+)\n", body))
    assert 1000 <= int(found[1]) <= 3000
    assert await client.rest() == b""
    assert client.state.counts.closings == {CloseReason.DRAINING: 1}


@pytest.mark.parametrize(
    ("method", "accept", "draining"),
    [
        ("GET", "*/*", True),
        ("POST", "text/event-stream", True),
        ("GET", "text/event-stream", False),
    ],
)
async def test_others_are_told_503(
    nursery: trio.Nursery, method: str, accept: str, *, draining: bool
) -> None:
    """Who isn't an EventSource gets the 503, as does one whose server stays."""
    client = connect(nursery, overloaded)
    if draining:
        client.state.draining.set()
    await client.send(request("/", f"Accept: {accept}", method=method))
    head, body = await client.response()
    assert (head.status, body) == (503, b"no room\n")
    assert ("connection" in head.headers) == draining


# Those that don't open a stream again by themselves, as they ask.
OTHERS = (
    post(b"{}", "/", "Accept: text/event-stream"),
    request("/"),
    request("/", "Accept: */*"),
    request("/", "Accept: application/json, text/*"),
)
# Nothing is read on after the last response.
HURRIED = Settings(linger_timeout=0)


async def tokens(event: H3Event) -> None:
    """Stream half of an answer, and think."""
    async with event.start_sse() as writer:
        await writer.send("half")
        await trio.sleep_forever()


@table("asked", OTHERS)
@table("reason", ENDED_BY_SERVER)
async def test_an_answer_that_is_cut_short_shows_it(asked: bytes, reason: CloseReason) -> None:
    """Whatever the server ends a stream for, who wouldn't come back for the rest gets no end."""
    async with trio.open_nursery() as nursery:
        client = connect(nursery, tokens, settings=HURRIED)
        await client.send(asked)
        await client.head()
        assert await client.chunk() == b":\n"
        assert await client.chunk() == b"data: half\n\n"
        await wait_all_tasks_blocked()
        client.end_stream(reason)
        assert await client.rest() == b""
        await client.finished.wait()
        assert client.state.counts.closings == {reason: 1}
        nursery.cancel_scope.cancel()


async def test_a_handler_that_ends_its_stream_by_reason_cuts_it(nursery: trio.Nursery) -> None:
    """What was accepted before `event.end()` arrives, and no end behind it."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            writer.send_nowait("half")
            event.end()
            await trio.sleep_forever()

    client = connect(nursery, handler, settings=HURRIED)
    await client.send(post(b"{}"))
    await client.head()
    assert (await client.event()).data == "half"
    assert await client.rest() == b""


@table(
    "asked, reason, resets",
    [
        (event_source(version="1.0"), CloseReason.DRAINING, False),
        (request("/", version="1.0"), CloseReason.DRAINING, True),
        (request("/", "Accept: */*", version="1.0"), CloseReason.KICKED, True),
        (event_source(version="1.0"), CloseReason.SLOW, True),
        (request("/"), CloseReason.DRAINING, False),
    ],
)
async def test_a_body_that_ends_with_its_connection_is_reset(
    *, asked: bytes, reason: CloseReason, resets: bool
) -> None:
    """In HTTP/1.0 an orderly close would be the end of the body: if that is cut, it is a reset."""
    transport = FakeTransport()
    async with trio.open_nursery() as nursery:
        client = connect(nursery, tokens, settings=HURRIED, transport=transport)
        await client.send(asked)
        await wait_all_tasks_blocked()
        assert transport.resets == (b"HTTP/1.0" in asked)
        client.end_stream(reason)
        if b"HTTP/1.1" in asked:
            await client.send(b"")  # the connection lasts
        await client.finished.wait()
        assert transport.resets == resets
        assert (b"retry:" in transport.sent) == (not resets and b"HTTP/1.0" in asked)
        nursery.cancel_scope.cancel()


@table("failing", (True, False))
async def test_a_body_in_http_1_0_that_its_handler_ends(*, failing: bool) -> None:
    """A whole one is closed in order, one that an error cuts short is reset."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("half")
            if failing:
                raise ArithmeticError

    transport = FakeTransport()
    async with trio.open_nursery() as nursery:
        client = connect(nursery, handler, settings=HURRIED, transport=transport)
        await client.send(request("/", version="1.0"))
        await client.finished.wait()
        assert transport.resets == failing
        nursery.cancel_scope.cancel()


async def test_a_cancelled_server_resets_bodies_in_http_1_0() -> None:
    """Nor is it an orderly end where all of the server is cancelled."""
    transport = FakeTransport()
    async with trio.open_nursery() as nursery:
        client = connect(nursery, tokens, settings=HURRIED, transport=transport)
        await client.send(event_source(version="1.0"))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (transport.closed, transport.resets, transport.eof_sent) == (True, True, False)


async def test_what_was_said_whole_ends_so(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A drain that comes when only sending is left takes nothing from the answer's end."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("x" * 1000)

    transport = FakeTransport(room=500)
    client = connect(nursery, handler, transport=transport)
    await client.send(post(b"{}"))
    await wait_all_tasks_blocked()
    client.end_stream(CloseReason.DRAINING)
    await wait_all_tasks_blocked()
    transport.change(room=None)
    await client.head()
    (only,) = await client.events()
    assert only.data == "x" * 1000
    assert client.state.counts.limits == {}
    assert autojump_clock.current_time() < 1


@table("asked", OTHERS)
async def test_a_drain_refuses_streams_to_others(asked: bytes) -> None:
    """Who wouldn't come back after an orderly end is told 503, and when to come again."""
    async with trio.open_nursery() as nursery:
        client = connect(nursery, tokens, settings=HURRIED)
        client.state.draining.set()
        await client.send(asked)
        head, body = await client.response()
        assert (head.status, body) == (503, b"the server is going away\n")
        assert 1 <= int(head.headers["retry-after"]) <= 3
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
async def test_no_request_begins_after_the_soft_phase(nursery: trio.Nursery, accept: str) -> None:
    """Late in a drain an app calls no handler: an EventSource gets its end, others a 503."""

    async def never(_event: H3Event) -> None:
        pytest.fail("must not be called")

    app = App()
    app.get("/")(never)
    client = connect(nursery, app)
    client.state.draining.set()
    client.state.is_closing = True
    await client.send(request("/", f"Accept: {accept}"))
    head, _ = await client.response()
    assert head.status == (503 if accept == "*/*" else 200)
    assert client.state.counts.limits == {"drain_soft": 1}


async def test_farewell_in_time(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A farewell that is taken is counted as no limit met."""
    client = connect(nursery, endless, settings=Settings(lease=10, lease_jitter=0))
    await client.send(event_source())
    await client.response()
    assert autojump_clock.current_time() == pytest.approx(10, abs=0.1)
    assert client.state.counts.limits == {"lease": 1}
