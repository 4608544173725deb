"""`H3Event`: what it tells of a request, and what it allows of a response, and when."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

import pytest
import trio
from helpers import LargestStep
from tables import table

from h3trio import Closing, H3Event, HTTPError, Response, ResponseStateError, Settings
from h3trio._http.content import STEP_BYTES
from h3trio._http.headers import Headers
from h3trio._http.request import split_target
from h3trio._server.body import BodyBuffer
from h3trio._server.event import response_from
from h3trio._server.responder import Draft, ResponseState
from h3trio._server.state import ServerState

if TYPE_CHECKING:
    from h3trio import SSEWriter

SETTINGS = Settings(max_body_bytes=10, max_event_bytes=20, reconnect_delay=3)


def make(
    target: bytes = b"/",
    *headers: tuple[bytes, bytes],
    body: bytes = b"",
    draft: Draft | None = None,
    state: ServerState | None = None,
) -> H3Event:
    """Make the event of a request whose body is complete, and whose connection is gone."""
    buffer = BodyBuffer(100)
    buffer.feed(body)
    buffer.feed_eof()
    return H3Event(
        method="POST",
        target=split_target(target),
        headers=Headers(headers),
        http_version="1.1",
        client="192.0.2.1",
        body=buffer,
        draft=draft or Draft(),
        responder=None,
        server=state or ServerState(SETTINGS),
    )


def test_request() -> None:
    """An event has the parts of its request."""
    event = make(b"/a%20b%2Fc?x=1&x=2&y", (b"host", b"here:1"), (b"x-a", b"1"))
    assert (event.method, event.http_version, event.client) == ("POST", "1.1", "192.0.2.1")
    assert (event.path, event.raw_path) == ("/a b/c", b"/a%20b%2Fc")
    assert event.query.get_list("x") == ["1", "2"]
    assert event.query is event.query
    assert event.headers["X-A"] == "1"
    assert event.authority == "here:1"
    assert event.params == {}
    assert repr(event) == "<H3Event: POST '/a b/c' from 192.0.2.1, new>"


def test_authority() -> None:
    """The authority of an absolute target takes the place of `Host`; there may be neither."""
    assert make(b"http://there/", (b"host", b"here")).authority == "there"
    assert make(b"/").authority == ""


@table(
    "target, headers, expected",
    [
        (b"/", [(b"last-event-id", b"1")], "1"),
        (b"/?last_event_id=2", [(b"last-event-id", b"1")], "1"),
        (b"/?lastEventID=2", [], "2"),
        (b"/?lastEventId=2", [(b"last-event-id", b"")], "2"),
        (b"/", [], None),
    ],
)
def test_last_event_id(
    target: bytes, headers: list[tuple[bytes, bytes]], expected: str | None
) -> None:
    """Where a client stands comes from the header, then from the query."""
    assert make(target, *headers).last_event_id == expected


async def test_body() -> None:
    """The body is read once, and given again at each call."""
    event = make(body=b"0123456789")
    assert await event.body() == b"0123456789"
    assert await event.body() == b"0123456789"


@table("declared", [False, True])
@table("limit, fits", [(None, False), (11, True), (10, False)])
async def test_body_limit(limit: int | None, *, fits: bool, declared: bool) -> None:
    """A body above the limit, the server's or the call's, is a 413 that tells it."""
    headers = [(b"content-length", b"11")] if declared else []
    event = make(b"/", *headers, body=b"0123456789X")
    if fits:
        assert await event.body(max_bytes=limit) == b"0123456789X"
    else:
        with pytest.raises(HTTPError, match="10 bytes") as caught:
            await event.body(max_bytes=limit)
        assert caught.value.status == 413


async def test_json() -> None:
    """A JSON body is parsed; what isn't JSON is a 400 that says where."""
    assert await make(body=b'{"a": 1}').json() == {"a": 1}
    with pytest.raises(HTTPError, match=r"400.*line 1, column 2"):
        await make(body=b"{a: 1}").json()


async def test_form() -> None:
    """A form is parsed; another type is a 415, a malformed one a 400."""
    form = (b"content-type", b"application/x-www-form-urlencoded")
    assert dict(await make(b"/", form, body=b"a=1&b=%20").form()) == {"a": "1", "b": " "}
    with pytest.raises(HTTPError, match="415"):
        await make(body=b"a=1").form()
    with pytest.raises(HTTPError, match="400"):
        await make(b"/", form, body=b"a=%zz").form()


async def test_stream() -> None:
    """The body can be taken as a stream, without a limit."""
    event = make(body=b"0123456789 and more")
    assert b"".join([bytes(piece) async for piece in event.stream()]) == b"0123456789 and more"


GZIP = (b"content-encoding", b"gzip")
FORM = (b"content-type", b"application/x-www-form-urlencoded")


async def test_what_reads_a_body_undoes_its_coding() -> None:
    """`json`, `form` and `text` give what the bytes stand for."""
    assert await make(b"/", GZIP, body=gzip.compress(b'{"a": 1}')).json() == {"a": 1}
    assert dict(await make(b"/", GZIP, FORM, body=gzip.compress(b"a=1")).form()) == {"a": "1"}
    deflate = (b"content-encoding", b"deflate")
    event = make(b"/", deflate, body=zlib.compress("é".encode()))
    assert await event.text() == "é"
    with pytest.raises(HTTPError, match=r"400.*Content-Encoding"):
        await make(b"/", GZIP, body=b'{"a": 1}').json()
    with pytest.raises(HTTPError, match="415"):
        await make(b"/", (b"content-encoding", b"br"), body=b"{}").json()


async def test_text() -> None:
    """Text is UTF-8: other bytes are a 400, another charset is a 415 for all that read text."""
    assert await make(body="\ufeffé".encode()).text() == "\ufeffé"
    with pytest.raises(HTTPError, match=r"400.*byte 1 is not UTF-8"):
        await make(body=b"a\xff").text()
    latin = (b"content-type", b"application/x-www-form-urlencoded; charset=latin-1")
    event = make(b"/", latin, body=b"{}")
    for read in (event.text, event.json, event.form):
        with pytest.raises(HTTPError, match=r"415.*charset"):
            await read()


async def test_body_and_stream_give_what_was_sent() -> None:
    """A proxy gets the bytes as they came, and decoded only if it asks; in either order."""
    coded = gzip.compress(b"0123")
    settings = Settings(max_body_bytes=100)
    for order in ((False, True), (True, False, True)):
        event = make(b"/", GZIP, body=coded, state=ServerState(settings))
        for decode in order:
            assert await event.body(decode=decode) == (b"0123" if decode else coded)
    for decode in (False, True):
        stream = make(b"/", GZIP, body=coded).stream(decode=decode)
        pieces = [bytes(piece) async for piece in stream]
        assert b"".join(pieces) == (b"0123" if decode else coded)
    with pytest.raises(HTTPError, match="415"):
        make(b"/", GZIP, GZIP).stream(decode=True)


async def test_the_bound_counts_what_comes_out() -> None:
    """A body may decode to the limit, whatever was sent; one byte more is a 413."""
    for size, fits in ((10, True), (11, False)):
        coded = gzip.compress(bytes(range(size)))
        assert len(coded) > 20
        state = ServerState(SETTINGS)
        event = make(b"/", GZIP, (b"content-length", b"%d" % len(coded)), body=coded, state=state)
        if fits:
            assert await event.body(decode=True) == bytes(range(size))
        else:
            with pytest.raises(HTTPError, match=r"413.*10 bytes"):
                await event.body(decode=True)
        assert state.counts.limits["max_body_bytes"] == (not fits)


async def test_unpacking_leaves_others_their_turn() -> None:
    """Between two checkpoints 64 KiB are unpacked at most, and not many more than the limit."""
    body = gzip.compress(bytes(64 * STEP_BYTES))
    unpacked = 0
    with LargestStep(lambda: unpacked) as step:
        async for piece in make(b"/", GZIP, body=body).stream(decode=True):
            unpacked += len(piece)
        await trio.lowlevel.checkpoint()
    assert unpacked == 64 * STEP_BYTES
    assert step.most == STEP_BYTES
    state = ServerState(Settings(max_body_bytes=2 * STEP_BYTES))
    turns = 0

    def count() -> int:
        nonlocal turns
        turns += 1
        return turns

    with LargestStep(count), pytest.raises(HTTPError, match="413"):
        await make(b"/", GZIP, body=body, state=state).json()
    assert turns < 20


def test_a_drain() -> None:
    """An event knows whether the server goes away, and whether it takes nothing new any more."""
    state = ServerState(SETTINGS)
    event = make(state=state)
    assert event.draining is state.draining
    assert not event.is_closing
    state.is_closing = True
    assert event.is_closing


@table("status", [199, 600, True, "200", 200.0, None])
def test_bad_status(status: object) -> None:
    """A status is a number from 200 to 599."""
    event = make()
    with pytest.raises(ValueError, match="200 to 599"):
        event.status = status  # type: ignore[assignment]  # because the error is the point
    assert event.status == 200


def test_response_from() -> None:
    """A result becomes a response with the event's status; a `Response` has its own."""
    event = make()
    event.status = 201
    for result in ("text", b"bytes", {"a": 1}, [1]):
        response = response_from(event, result)
        assert response is not None
        assert response.status == 201
    response = response_from(event, {"a": 1})
    assert response is not None
    assert response.body == b'{"a":1}'
    assert response_from(event, own := Response("x")) is own
    empty = response_from(make(), None)
    assert empty is not None
    assert empty.status == 204
    with pytest.raises(TypeError):
        response_from(event, 3)


def test_response_headers() -> None:
    """Headers can be set until the head takes them."""
    draft = Draft()
    event = make(draft=draft)
    assert list(draft.take_fields()) == []
    event.response_headers["X-A"] = "1"
    assert draft.take_fields() == [(b"X-A", b"1")]
    with pytest.raises(ResponseStateError):
        event.response_headers["X-B"] = "2"


@pytest.mark.parametrize(
    "state", [ResponseState.STREAMING, ResponseState.RESPONDED, ResponseState.CLOSED]
)
def test_after_the_head(state: ResponseState) -> None:
    """Once the head is out nothing about it changes, and no stream starts."""
    draft = Draft()
    draft.state = state
    event = make(draft=draft)
    assert event.head_sent
    with pytest.raises(ResponseStateError, match="status"):
        event.status = 201
    with pytest.raises(ResponseStateError):
        event.response_headers["X"] = "y"
    with pytest.raises(ResponseStateError, match=state.value):
        event.start_sse()
    with pytest.raises(ResponseStateError):
        event.set_stream_callback(_never)
    assert response_from(event, "text") is None


async def _never(_writer: SSEWriter) -> None:
    await trio.sleep_forever()


def test_start_twice() -> None:
    """A stream is started once."""
    event = make()
    event.start_sse()
    assert not event.head_sent
    event.status = 201
    with pytest.raises(ResponseStateError, match="stream started already"):
        event.start_sse()


def test_callback_without_a_start() -> None:
    """A callback needs `start_sse` before it."""
    draft = Draft()
    event = make(draft=draft)
    with pytest.raises(ResponseStateError, match="start_sse"):
        event.set_stream_callback(_never)
    event.start_sse()
    event.set_stream_callback(_never)
    assert draft.stream_callback is _never


async def test_entering_too_late() -> None:
    """A stream can't be entered when its exchange is over."""
    with pytest.raises(ResponseStateError, match="closed already"):
        async with make().start_sse():
            pytest.fail("not entered")


def test_on_close() -> None:
    """Hooks are kept in order."""
    draft = Draft()
    event = make(draft=draft)
    closings: list[Closing] = []
    event.on_close(closings.append)
    event.on_close(print)
    assert draft.close_hooks == (closings.append, print)


def test_limits() -> None:
    """A handler can read the bound of an event, count its own limits, and draw a time."""
    state = ServerState(SETTINGS)
    event = make(state=state)
    assert event.max_event_bytes == 20
    assert 1 <= event.retry_after() <= 5
    event.count_limit("mine")
    assert event.server_statistics().limits == {"mine": 1}
