"""Streams of bytes of any type, with the bounds and promises of event streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
import trio
from fakes import FakeTransport
from helpers import connect, event_source, post, request
from tables import table
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from h3trio import CloseReason, H3Event, Settings, StreamWriter
from h3trio._http.closing import ENDED_BY_SERVER

if TYPE_CHECKING:
    from trio.testing import MockClock

NDJSON = "application/x-ndjson"
# Nothing is read on after the last response.
HURRIED = Settings(linger_timeout=0)


async def endless(event: H3Event) -> None:
    """Send a line, and think."""
    async with event.start_stream(NDJSON) as writer:
        await writer.send_json({"n": 1})
        await trio.sleep_forever()


async def test_what_is_sent_goes_out_as_it_is(nursery: trio.Nursery) -> None:
    """Text, bytes and lines of JSON, and nothing else: no comment, no blank line."""

    async def handler(event: H3Event) -> None:
        async with event.start_stream("text/csv; charset=utf-8") as writer:
            with assert_checkpoints():
                await writer.send("é,")
            await writer.send(b"\x00\xff\r\n")
            with assert_checkpoints():
                await writer.send("")
            writer.send_nowait(b"")
            await writer.send_json({"t": "a\u2028b ✅"})
            writer.send_nowait("end")
            assert writer.is_active
            assert repr(writer).startswith("<StreamWriter: ")
            await writer.flush()
            assert writer.statistics().events_sent == 4
        with pytest.raises(trio.ClosedResourceError):
            await writer.send("late")

    client = connect(nursery, handler)
    await client.send(post(b"") + request("/"))
    head, body = await client.response()
    assert (head.status, head.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert head.headers["cache-control"] == "no-cache, no-transform"
    assert head.headers["x-accel-buffering"] == "no"
    assert body == "é,".encode() + b'\x00\xff\r\n{"t":"a\\u2028b ' + "✅".encode() + b'"}\nend'
    assert (await client.head()).status == 200  # the connection lasts


async def test_nothing_is_sent_into_a_silence(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """There are no heartbeats: they would be part of what is read."""

    async def handler(event: H3Event) -> None:
        async with event.start_stream(NDJSON) as writer:
            await trio.sleep(1000)
            await writer.send("1\n")

    client = connect(nursery, handler)
    await client.send(request("/"))
    assert (await client.response())[1] == b"1\n"
    assert autojump_clock.current_time() == 1000


@table("asked", [post(b""), request("/"), event_source(), event_source(version="1.0")])
@table("reason", ENDED_BY_SERVER)
async def test_the_server_cuts_it_off(
    nursery: trio.Nursery, asked: bytes, reason: CloseReason
) -> None:
    """Whoever asked and whatever it is ended for, there is neither `retry:` nor an end."""
    transport = FakeTransport()
    client = connect(nursery, endless, settings=HURRIED, transport=transport)
    await client.send(asked)
    await wait_all_tasks_blocked()
    client.end_stream(reason)
    await client.finished.wait()
    assert transport.sent.partition(b"\r\n\r\n")[2].strip().endswith(b'{"n":1}')
    assert transport.resets == (b"HTTP/1.0" in asked)
    assert client.state.counts.stream_closings == {reason: 1}


@table("asked", [post(b""), request("/"), event_source()])
async def test_none_is_begun_while_the_server_drains(nursery: trio.Nursery, asked: bytes) -> None:
    """It would be cut off: so the client is told when to come again."""
    client = connect(nursery, endless)
    client.state.draining.set()
    await client.send(asked)
    head = await client.head()
    is_event_source = b"event-stream" in asked
    assert head.status == (200 if is_event_source else 503)
    assert ("retry-after" in head.headers) != is_event_source


async def test_it_bounds_what_waits(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Pieces wait up to the bounds of a queue, and a client that takes nothing is `slow`."""
    writers: list[StreamWriter] = []

    async def handler(event: H3Event) -> None:
        async with event.start_stream(NDJSON) as writer:
            writers.append(writer)
            while True:
                await writer.send("x" * 100)

    transport = FakeTransport(room=300)
    settings = Settings(queue_events=2, queue_bytes=150, write_timeout=20)
    client = connect(nursery, handler, settings=settings, transport=transport)
    await client.send(post(b""))
    await wait_all_tasks_blocked()
    assert writers[0].statistics().queued_bytes == 100
    with pytest.raises(trio.WouldBlock):
        writers[0].send_nowait("x" * 100)
    await client.finished.wait()
    assert autojump_clock.current_time() == pytest.approx(20)
    assert client.state.counts.stream_closings == {CloseReason.SLOW: 1}
    with pytest.raises(trio.BrokenResourceError):
        await writers[0].send("late")


async def test_an_error_cuts_it_off(nursery: trio.Nursery) -> None:
    """What the handler sent before it raised arrives, and no end."""

    async def handler(event: H3Event) -> None:
        async with event.start_stream(NDJSON) as writer:
            await writer.send("1\n")
            raise ArithmeticError

    client = connect(nursery, handler, settings=HURRIED)
    await client.send(request("/"))
    await client.head()
    assert await client.chunk() == b"1\n"
    assert await client.rest() == b""


@table(
    "content_type, message",
    [
        ("text/event-stream", "use start_sse"),
        ("Text/Event-Stream ; charset=utf-8", "use start_sse"),
        ("ndjson", "no content type"),
        ("", "no content type"),
        ("a/b/c", "no content type"),
        ("text/plain; a=\r\nX: y", "CR, LF"),
    ],
)
async def test_what_is_no_type_is_refused(
    nursery: trio.Nursery, content_type: str, message: str
) -> None:
    """An event stream has its own way, and what is no media type can't be sent."""
    errors: list[str] = []

    async def handler(event: H3Event) -> None:
        try:
            event.start_stream(content_type)
        except ValueError as exc:
            errors.append(str(exc))

    client = connect(nursery, handler)
    await client.send(request("/"))
    assert (await client.response())[0].status == 204
    assert message in errors[0]


@table(
    "given, is_sse, taken",
    [
        ("text/event-stream", True, True),
        ("Text/Event-Stream; charset=UTF-8", True, True),
        ("application/x-ndjson", True, False),
        ("text/plain", True, False),
        ("application/x-ndjson; charset=utf-8", False, True),
        ("text/event-stream", False, False),
        ("text/plain", False, False),
    ],
)
async def test_the_header_is_the_stream_s_type(
    nursery: trio.Nursery, given: str, *, is_sse: bool, taken: bool
) -> None:
    """A `Content-Type` that the handler sets may say more of the stream's type, but no other."""
    errors: list[str] = []

    async def handler(event: H3Event) -> object:
        event.response_headers["Content-Type"] = given
        stream = event.start_sse() if is_sse else event.start_stream(NDJSON)
        try:
            async with stream:
                return None
        except ValueError as exc:
            errors.append(str(exc))
            raise

    client = connect(nursery, handler)
    await client.send(request("/"))
    head, _ = await client.response()
    assert head.status == (200 if taken else 500)
    assert (head.headers["content-type"] == given.lower()) == taken
    assert all("start_stream" in error for error in errors)
    await wait_all_tasks_blocked()
    assert client.state.counts.stream_closings.total() == taken


async def never(_writer: object) -> None:
    """Be no callback."""
    pytest.fail("must not be called")


async def test_it_has_no_callback(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    """A callback is for an event stream; a stream that nobody enters is an error."""

    async def handler(event: H3Event) -> None:
        event.start_stream(NDJSON)
        event.set_stream_callback(never)

    client = connect(nursery, handler)
    await client.send(request("/"))
    assert (await client.response())[0].status == 500
    assert "call start_sse() first" in caplog.text


@table(
    "method, drain, finishes",
    [("POST", None, True), ("POST", "end", False), ("GET", None, False), ("GET", "finish", True)],
)
async def test_it_finishes_while_the_server_drains_as_others_do(
    nursery: trio.Nursery, method: str, drain: Literal["end", "finish"] | None, *, finishes: bool
) -> None:
    """Which streams a drain lets finish doesn't depend on their type."""

    async def handler(event: H3Event) -> None:
        async with event.start_stream(NDJSON, drain=drain):
            await trio.sleep_forever()

    client = connect(nursery, handler)
    await client.send(request("/", method=method))
    await wait_all_tasks_blocked()
    assert [queue.finishes for queue in client.state.heartbeat.streams()] == [finishes]


async def test_a_piece_is_text_or_bytes(nursery: trio.Nursery) -> None:
    """Anything else is an error where it is sent, as is a text that UTF-8 can't carry."""

    async def handler(event: H3Event) -> None:
        async with event.start_stream(NDJSON) as writer:
            with pytest.raises(TypeError, match="str or bytes, not dict"):
                await writer.send({})  # type: ignore[arg-type]  # what is refused
            with pytest.raises(UnicodeEncodeError):
                writer.send_nowait("\ud800")
            with pytest.raises(TypeError):
                await writer.send_json(object())
            with pytest.raises(ValueError, match="JSON"):
                await writer.send_json(float("nan"))

    client = connect(nursery, handler)
    await client.send(request("/"))
    assert (await client.response())[1] == b""
