"""The first and the last words of a stream, by the reason it ends for.

What the client gets last tells it what happened. A client that comes back by itself for the rest
(`comes_back`) gets a farewell `retry:` and an orderly end where the server ends its stream. For any
other client an orderly end would say that this was all: half of a model's answer would pass for the
whole. So it gets what was accepted, and no final chunk, as after the handler's error; after a
client's leaving, nothing. However that goes, a client that takes nothing has `farewell_timeout` and
no more.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from h3trio._http.closing import ENDED_BY_SERVER, CloseReason
from h3trio._http.response import Response
from h3trio._wire.event import SSEEvent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from h3trio._http.headers import Headers

    from .send_queue import SendQueue
    from .state import ServerState

EVENT_STREAM: Final = "text/event-stream"
# Not to be held up on the way, nor changed, compressed for instance, which holds it up too.
AT_ONCE: Final = (
    (b"Cache-Control", b"no-cache, no-transform"),
    (b"X-Accel-Buffering", b"no"),
)
STREAM_HEADERS: Final = (
    # WHATWG HTML section 9.2.5 has UTF-8 always. But RFC 2616 section 3.7.1 had ISO-8859-1 for text
    # without a charset, and clients still read it so: then a byte 0x85 ends a line.
    (b"Content-Type", b"text/event-stream; charset=utf-8"),
    *AT_ONCE,
)


def comes_back(method: str, headers: Headers) -> bool:
    """Whether a client asks as one that opens the stream again by itself when it ends.

    That is a GET whose `Accept` names `text/event-stream`, as browsers' EventSource sends it
    (WHATWG HTML section 9.2.2) and the clients for event streams in other languages. A wildcard is
    no such sign: `fetch`, curl and HTTP libraries send it with every request, and take an orderly
    end for the end of the answer.
    """
    accept = headers.get("accept") if method == "GET" else None
    if accept is None:
        return False
    named = (part.partition(";")[0].strip().lower() for part in accept.split(","))
    return EVENT_STREAM in named


_BROKEN_OFF: Final = frozenset(
    {CloseReason.HANDLER_ERROR, CloseReason.PROTOCOL_ERROR, CloseReason.TIMEOUT}
)
"""Endings behind which the client may still read what was accepted, without the final chunk."""


async def say_last(queue: SendQueue, reason: CloseReason | None, state: ServerState) -> None:
    """Send what a stream ends with; whether all of it went out, `queue.finished` tells.

    `reason` is `None` where the handler returned and nobody ended the stream.
    """
    if reason in ENDED_BY_SERVER and queue.comes_back:
        await _in_time(partial(queue.finish, farewell(state)), state)
    elif reason in ENDED_BY_SERVER and queue.is_closing:
        # The handler had left the block: it has said all, and only sending was left.
        await _in_time(queue.finish, state)
    elif reason in ENDED_BY_SERVER or reason in _BROKEN_OFF:
        await _in_time(queue.flush, state)
    elif reason is None and not queue.finished:
        # A timeout of the handler's own ended the block, and it returned as usual.
        await _in_time(queue.finish, state)


def farewell(state: ServerState) -> bytes:
    """A jittered `retry:`, so that the clients of one server don't come back in step."""
    return SSEEvent(retry=state.reconnect_milliseconds()).encode()


def ended_stream(state: ServerState) -> Response:
    """A stream that is over at once: an EventSource comes back after it, and never after a 503.

    WHATWG HTML section 9.2.3: any status but 200 must "fail the connection".
    """
    headers = [(name.decode("ascii"), value.decode("ascii")) for name, value in STREAM_HEADERS]
    return Response(farewell(state), headers=headers)


async def _in_time(step: Callable[[], Awaitable[None]], state: ServerState) -> None:
    """Let the client have what was accepted, if it takes it in time."""
    over = (trio.BrokenResourceError, trio.ClosedResourceError)
    timeout = state.settings.farewell_timeout
    with trio.move_on_after(timeout) as scope, contextlib.suppress(*over):
        await step()
    if scope.cancelled_caught:
        state.count_limit("farewell_timeout")
