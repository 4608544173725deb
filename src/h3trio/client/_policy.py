"""What an answer means, and how long to wait before the next attempt. Pure.

WHATWG HTML, 9.2.3: a stream is status 200 with the type `text/event-stream`; anything else fails
the connection for good; a stream that ends or breaks is asked for again after the reconnection
time, and then "optionally, wait some more".
"""

from __future__ import annotations

import enum
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Container

MIME_TYPE: Final = "text/event-stream"

RETRY_STATUSES: Final = frozenset({429, 503})
"""Statuses that say "not now". Browsers give up on them; who waits for events wants them."""

RECONNECT_DELAY: Final = 3.0  # "probably in the region of a few seconds" (9.2.3)
MIN_DELAY: Final = 0.1  # "retry: 0" with a server that ends each stream at once
MAX_BACKOFF: Final = 30.0  # a server that is back is found within a minute
MAX_DELAY: Final = 3600.0  # what a server may ask for: a typing error of it isn't for ever
_MAX_DOUBLINGS: Final = 16
_MAX_DIGITS: Final = 9


@final
class Verdict(enum.Enum):
    """What an answer means for a client that wants a stream."""

    STREAM = "here it is"
    OVER = "there is no more, don't come back"
    LATER = "not now"
    REFUSED = "no"
    WRONG_TYPE = "it is something else"


def judge(status: int, content_type: str, retry_statuses: Container[int]) -> Verdict:
    """Tell what an answer means. Parameters of the type don't count: streams are UTF-8."""
    if status == 200:  # noqa: PLR2004 - OK, the only status that a stream has
        is_stream = content_type.partition(";")[0].strip().lower() == MIME_TYPE
        return Verdict.STREAM if is_stream else Verdict.WRONG_TYPE
    if status == 204:  # noqa: PLR2004 - No Content: "a client can be told to stop reconnecting"
        return Verdict.OVER
    return Verdict.LATER if status in retry_statuses else Verdict.REFUSED


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
        # A number that Python won't read is an hour as well.
        return min(float(int(text)), MAX_DELAY) if len(text) <= _MAX_DIGITS else MAX_DELAY
    try:
        asked = parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(asked, 0.0), MAX_DELAY)
