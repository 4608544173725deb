"""A refusal: its last response, and how it is counted."""

from __future__ import annotations

import trio

from h3trio import CloseReason, H3Event, HTTPError, Settings
from h3trio._http.http1 import Http1
from h3trio._server.context import Context
from h3trio._server.rejection import refuse


async def handler(_event: H3Event) -> None:
    """Never be called."""
    await trio.lowlevel.checkpoint()


async def refused(error: HTTPError) -> tuple[bytes, Context]:
    """Refuse what came on a new connection."""
    context, http = Context(handler, Settings()), Http1(Settings())
    since = trio.current_time()
    return refuse(error, http=http, context=context, client="memory", since=since), context


async def test_response_and_counts() -> None:
    """The client gets status, detail and `Connection: close`; it counts as a finished request."""
    data, context = await refused(HTTPError(408, "too late", headers={"X-A": "1"}))
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\nDate: ")
    assert b"\r\nX-A: 1\r\n" in head
    assert b"\r\nConnection: close" in head
    assert body == b"too late\n"
    assert context.counts.closings == {CloseReason.PROTOCOL_ERROR: 1}
    assert context.counts.bytes_sent == len(data)


async def test_no_room_is_no_request() -> None:
    """A connection there was no room for is counted where that was decided, not here."""
    data, context = await refused(HTTPError(503))
    assert data.startswith(b"HTTP/1.1 503 ")
    assert context.counts.requests == 0
    assert not context.counts.refusals
