"""The first and the last words of a stream, by the reason it ends for.

What the client gets last tells it what happened: after an end of the server's own a
farewell `retry:` and the final chunk; after the handler's error what was accepted and
no final chunk; after a client's leaving nothing. However that goes, a client that
takes nothing has `farewell_timeout` and no more.
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

    from .context import Context
    from .event import H3Event
    from .send_queue import SendQueue

STREAM_HEADERS: Final = (
    (b"Content-Type", b"text/event-stream"),
    (b"Cache-Control", b"no-cache, no-transform"),
    (b"X-Accel-Buffering", b"no"),
)


async def say_last(queue: SendQueue, reason: CloseReason | None, context: Context) -> None:
    """Send what a stream ends with; whether all of it went out, `queue.finished` tells.

    `reason` is `None` where the handler returned and nobody ended the stream.
    """
    if reason in ENDED_BY_SERVER:
        await _in_time(partial(queue.finish, farewell(context)), context)
    elif reason is CloseReason.HANDLER_ERROR:
        await _in_time(queue.flush, context)
    elif reason is None and not queue.finished:
        # A timeout of the handler's own ended the block, and it returned as usual.
        await _in_time(queue.finish, context)


def farewell(context: Context) -> bytes:
    """A jittered `retry:`, so that the clients of one server don't come back in step."""
    return SSEEvent(retry=context.reconnect_milliseconds()).encode()


def comes_back(event: H3Event, status: int) -> bool:
    """Whether a request is an EventSource's, as browsers send it, and refused by a drain."""
    if status != 503 or not event.draining.is_set() or event.method != "GET":  # noqa: PLR2004 - Service Unavailable
        return False
    return "text/event-stream" in event.headers.get("accept", "").lower()


def ended_stream(context: Context) -> Response:
    """A stream that is over at once: an EventSource comes back after it, and never after a 503.

    WHATWG HTML section 9.2.3: any status but 200 must "fail the connection".
    """
    headers = [(name.decode("ascii"), value.decode("ascii")) for name, value in STREAM_HEADERS]
    return Response(farewell(context), headers=headers)


async def _in_time(step: Callable[[], Awaitable[None]], context: Context) -> None:
    """Let the client have what was accepted, if it takes it in time."""
    over = (trio.BrokenResourceError, trio.ClosedResourceError)
    timeout = context.settings.farewell_timeout
    with trio.move_on_after(timeout) as scope, contextlib.suppress(*over):
        await step()
    if scope.cancelled_caught:
        context.met("farewell_timeout")
