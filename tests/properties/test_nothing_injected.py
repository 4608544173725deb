"""Texts that a program puts into headers, redirects, errors and events stay in their places.

The answer is read back by h11's client side and by an SSE parser, and must be the one head, the
one body and the one event that were meant: either the value arrives as it is, or the program is
told (ValueError), which makes it a 500 that says nothing of the error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h11
import trio
from helpers import connect, request
from hypothesis import given
from hypothesis import strategies as st

from h3trio import HTTPError, Response, SSEEvent, SSEParser

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from h3trio import H3Event
    from h3trio._server.event import Handler

BREAKS = st.sampled_from("\r\n\0\x0b\x0c\x1c\x85\u2028: \t;,é\u010a\u010d😀\x7f")
TEXT = st.text(BREAKS | st.characters(codec="utf-8"), max_size=10)
INJECTION = TEXT | st.sampled_from(
    [
        "\r\nX-Evil: 1",
        "x\r\n\r\nHTTP/1.1 200 OK\r\n",
        "\nX-Evil: 1",
        "\rX-Evil: 1",
        "x\u010aX-Evil: 1",
    ]
)
NAME = INJECTION | st.sampled_from(["X", "Location", "Set-Cookie", "X-Evil: 1\r\nX", "X-Evil "])

OURS = {b"date", b"content-type", b"content-length", b"connection"}


def serve_once(handler: Handler) -> tuple[h11.Response, bytes]:
    """Serve one request in memory; return head and body as a client reads them."""
    received = bytearray()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            client = connect(nursery, handler)
            await client.send(request("/", "Connection: close"))
            received.extend(await client.rest())
            await client.stream.aclose()
            await client.finished.wait()
            nursery.cancel_scope.cancel(reason="answered")

    trio.run(main)
    conn, body = h11.Connection(h11.CLIENT), b""
    conn.send(
        h11.Request(method="GET", target="/", headers=[("Host", "a"), ("Connection", "close")])
    )
    conn.send(h11.EndOfMessage())
    conn.receive_data(bytes(received))
    conn.receive_data(b"")
    head = conn.next_event()
    assert isinstance(head, h11.Response), head
    while isinstance(event := conn.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage), event
    assert isinstance(conn.next_event(), h11.ConnectionClosed)
    return head, body


def check(handler: Handler, name: str, value: str) -> None:
    """See that an answer holds this one header as it was given, or is a 500 without it."""
    head, body = serve_once(handler)
    told = [field for field in head.headers if field[0] not in OURS]
    if head.status_code == 500:
        assert (told, body) == ([], b"Internal Server Error\n")
    else:
        assert body == b"body"
        assert [(n, v) for n, v in head.headers if n == name.lower().encode()] == [
            (name.lower().encode(), value.encode("latin-1"))
        ]
        assert len(told) <= 1


async def in_response(_event: H3Event, name: str, value: str) -> Response:
    """Answer with a header."""
    return Response("body", headers={name: value})


async def in_event(event: H3Event, name: str, value: str) -> str:
    """Set a header of the answer beforehand."""
    event.response_headers[name] = value
    return "body"


@given(st.sampled_from([in_response, in_event]), NAME, INJECTION)
def test_headers(
    handler: Callable[[H3Event, str, str], Awaitable[object]], name: str, value: str
) -> None:
    """A header arrives as it was given, or the answer is a 500 without it."""

    async def with_header(event: H3Event) -> object:
        return await handler(event, name, value)

    if name.lower().encode("utf-8") not in OURS:
        check(with_header, name, value)


@given(INJECTION)
def test_redirects(location: str) -> None:
    """A redirect leads where it was told, or there is none."""

    async def handler(_event: H3Event) -> Response:
        return Response.redirect(location)

    head, _ = serve_once(handler)
    if head.status_code != 500:
        assert [value for name, value in head.headers if name == b"location"] == [location.encode()]
    assert {name for name, _ in head.headers} <= OURS | {b"location"}


@given(INJECTION, NAME, INJECTION)
def test_errors(detail: str, name: str, value: str) -> None:
    """An error's detail stays in the body; its headers can be sent, or it is a 500 without them."""

    async def handler(_event: H3Event) -> str:
        raise HTTPError(418, detail, headers={name: value})

    head, body = serve_once(handler)
    others = [field for field in head.headers if field[0] not in OURS]
    if head.status_code == 500:
        assert (others, body) == ([], b"Internal Server Error\n")
    else:
        assert head.status_code == 418
        assert body == f"{detail}\n".encode()
        assert {field[0] for field in others} <= {name.lower().encode()}


@given(INJECTION)
def test_exceptions_stay_here(message: str) -> None:
    """The text of an exception goes to the log and not to the client."""

    async def handler(_event: H3Event) -> str:
        raise RuntimeError(message)

    head, body = serve_once(handler)
    assert (head.status_code, body) == (500, b"Internal Server Error\n")
    assert {name for name, _ in head.headers} <= OURS


EVENTS = st.fixed_dictionaries(
    {
        "event": st.none() | INJECTION,
        "id": st.none() | INJECTION,
        "data": INJECTION,
        "retry": st.none() | st.integers(-2, 10),
    }
)


@given(EVENTS, INJECTION)
def test_events(fields: dict[str, Any], comment: str) -> None:
    """One event comes out of one event, whatever its fields hold, or none is made."""

    async def handler(scope: H3Event) -> None:
        async with scope.start_sse() as writer:
            try:
                meant = SSEEvent(**fields)
            except ValueError:
                meant = SSEEvent("refused")
            await writer.send_comment(comment)
            await writer.send_event(meant)

    head, body = serve_once(handler)
    assert head.status_code == 200
    parser = SSEParser()
    (seen,) = parser.feed(body)
    event, id_, data, retry = (fields[name] for name in ("event", "id", "data", "retry"))
    if set((event or "") + (id_ or "")) & set("\r\n\0") or (retry or 0) < 0:
        assert (seen.data, parser.retry) == ("refused", None)
    else:
        assert seen.event == (event or "message")
        assert seen.data == data.replace("\r\n", "\n").replace("\r", "\n")
        assert (parser.last_event_id, parser.retry) == (id_ or "", retry)
