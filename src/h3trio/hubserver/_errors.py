"""`hub_errors`: the one place where an error of the hub becomes a status.

Every route that asks the hub for something does so inside of it, so all answer alike, and tell the
client what to do next: a 503 gets its `Retry-After` when it is sent.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from h3trio import EventTooLargeError, HTTPError
from h3trio.hub import (
    HistoryError,
    KeyReusedError,
    OutcomeUnknownError,
    OverloadedError,
    PinnedFullError,
    TopicClosedError,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from h3trio import H3Event

HUB_ERRORS: Final = (ValueError, HistoryError, OverloadedError)
"""What a hub raises to whoever asks it for something."""


@contextmanager
def hub_errors(event: H3Event) -> Generator[None]:
    """Raise `HTTPError` for what the hub raises.

    Raises:
        HTTPError: 400, 409, 413, 422, 500 or 503, as `http_error` says.
    """
    try:
        yield
    except HUB_ERRORS as exc:
        raise http_error(event, exc) from exc


def http_error(event: H3Event, error: Exception) -> HTTPError:
    """Return the answer to one of `HUB_ERRORS`, which tells the client what to do next."""
    if isinstance(error, EventTooLargeError):
        event.count_limit("max_event_bytes")
        return HTTPError(413, str(error))
    if isinstance(error, KeyReusedError):
        return HTTPError(422, str(error))
    if isinstance(error, TopicClosedError):
        return HTTPError(409, str(error))
    if isinstance(error, ValueError):
        return HTTPError(400, str(error))
    if isinstance(error, OutcomeUnknownError):
        is_safe = event.method != "POST"  # a purge done twice is a purge
        advice = "repeat it" if is_safe else "repeat it with an Idempotency-Key"
        return HTTPError(500, f"{error}; it may be done: {advice}")
    if isinstance(error, (OverloadedError, PinnedFullError)):
        event.count_limit(error.limit)
    return HTTPError(503, str(error))
