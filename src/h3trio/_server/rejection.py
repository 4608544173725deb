"""A request that the connection itself refuses: its last response, and how it is counted.

What can't be parsed, is beyond a limit or comes too late never becomes an exchange.
It is answered once, with the status that says why and `Connection: close`, and it is
counted as a finished request. Its status is counted where it is refused, and so is
the limit that it met.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from h3trio._http.closing import CloseReason, Closing
from h3trio._http.response import error_response

from .logs.redaction import printable

if TYPE_CHECKING:
    from h3trio._http.errors import HTTPError
    from h3trio._http.http1 import Http1

    from .context import Context

logger = logging.getLogger("h3trio.connection")

_NO_ROOM: Final = frozenset({429, 503})

TIMED_OUT: Final = {
    "head_timeout": "the request head took too long",
    "body_timeout": "the request body stalled",
    "min_body_rate": "the request body comes too slowly",
}
"""What a 408 says, by the limit that was met."""


def refuse(error: HTTPError, *, http: Http1, context: Context, client: str, since: float) -> bytes:
    """Count a refusal, log it, and return the bytes of its response.

    Args:
        error: status, detail and headers.
        http: a framing state that can still respond.
        context: where it is counted.
        client: the peer, for the log.
        since: when the request began, on Trio's clock.
    """
    response = error_response(error)
    fields = [(b"Date", context.date()), *response.headers.raw, (b"Connection", b"close")]
    data = http.response(response.status, fields, response.body)
    logger.info("%s: refused with %s", printable(client), printable(str(error)))
    # A connection there was no room for is no request; the server counts it.
    if error.status not in _NO_ROOM:
        context.counts.add(
            Closing(
                reason=CloseReason.PROTOCOL_ERROR,
                status=error.status,
                duration=trio.current_time() - since,
                events=0,
                bytes_sent=len(data),
            )
        )
    return data
