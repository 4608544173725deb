"""The rules of coming back: after which statuses, and how long to wait first. Pure.

WHATWG HTML, 9.2.3: a stream that ends or breaks is asked for again after the reconnection time, and
then "optionally, wait some more"; an answer that is no stream fails the connection for good.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MIME_TYPE: Final = "text/event-stream"

RETRY_STATUSES: Final = frozenset({429, 503})
"""Statuses that say "not now". Browsers give up on them; who waits for events wants them."""

OUTAGE_STATUSES: Final = range(500, 600)
"""Statuses of a server, or of a proxy in front of it, that was well before and may be again."""

RECONNECT_DELAY: Final = 3.0  # "probably in the region of a few seconds" (9.2.3)
MIN_DELAY: Final = 0.1  # "retry: 0" with a server that ends each stream at once
MAX_BACKOFF: Final = 30.0  # a server that is back is found within a minute
MAX_DELAY: Final = 3600.0  # what a server may ask for: a typing error of it isn't for ever
_MAX_DOUBLINGS: Final = 16
_MAX_DIGITS: Final = 9


def is_event_stream(content_type: str) -> bool:
    """Tell whether an answer's type is that of streams; its parameters don't count (9.2.5)."""
    return content_type.partition(";")[0].strip().lower() == MIME_TYPE


def reconnect_delay(
    asked: float, failures: int, draw: Callable[[], float], *, max_backoff: float = MAX_BACKOFF
) -> float:
    """Return how long to wait, in seconds, before the next attempt.

    Never less than the server asked for, and on top of that "full jitter": evenly drawn between
    nothing and a bound, which begins with what was asked for and doubles with each failure. So
    clients that lost the same server don't come back in step, the first time either.

    Args:
        asked: seconds that the server asked for; at most `MAX_DELAY` count.
        failures: attempts in a row that brought nothing.
        draw: gives a number from 0 to 1.
        max_backoff: the bound's own, in seconds.
    """
    asked = min(max(asked, MIN_DELAY), MAX_DELAY)
    return asked + draw() * min(asked * 2.0 ** min(failures, _MAX_DOUBLINGS), max_backoff)


def retry_after(value: str, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks for (RFC 9110 section 10.2.3).

    Args:
        value: the header's value: seconds, or a date.
        now: Unix time, to which a date is compared.

    Returns:
        From 0 to `MAX_DELAY`; `None` for what is neither.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        # Python refuses to read very long numbers: they mean an hour too.
        return min(float(int(text)), MAX_DELAY) if len(text) <= _MAX_DIGITS else MAX_DELAY
    try:
        asked = parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(asked, 0.0), MAX_DELAY)
