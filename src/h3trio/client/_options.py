"""Limits and times of an event source, on one page, each with its reason.

One frozen value, checked when it is made: a bad one fails where it was written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypedDict, final

from h3trio._wire.parser import DEFAULT_MAX_EVENT_SIZE

from ._policy import MAX_BACKOFF, RECONNECT_DELAY, RETRY_STATUSES

if TYPE_CHECKING:
    from collections.abc import Container

_TIMES: Final = ("connect_timeout", "read_timeout", "reconnect_delay", "max_backoff")
_COUNTS: Final = {"max_event_bytes": 1, "buffer_events": 0, "max_redirects": 0}


class Options(TypedDict, total=False):
    """The keywords of `EventSource` that are limits and times: see `Limits`."""

    connect_timeout: float
    read_timeout: float
    reconnect_delay: float
    max_backoff: float
    max_event_bytes: int
    buffer_events: int
    max_redirects: int
    retry_statuses: Container[int]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits and times of one event source. Times are seconds, sizes are bytes.

    Raises:
        TypeError: a value is not a number.
        ValueError: a number is negative, zero where that means nothing, or NaN.
    """

    connect_timeout: float = 10.0
    """To a connection: name, TCP, TLS, and a free place in the client's pool. Three SYNs
    that were lost (1 + 2 + 4 s) fit."""

    read_timeout: float = 45.0
    """Longest silence, comments count as sound: then the stream is lost. Three heartbeats
    of 15 s, which WHATWG HTML, 9.2.7, recommends to servers: one may be late, one lost."""

    reconnect_delay: float = RECONNECT_DELAY
    """Between two attempts, until the server names a time by `retry`."""

    max_backoff: float = MAX_BACKOFF
    """Bound of what repeated failures add to that."""

    max_event_bytes: int = DEFAULT_MAX_EVENT_SIZE
    """Largest line, and largest data of one event; what `SSEParser` takes by default."""

    buffer_events: int = 64
    """Events that wait to be taken; then nothing is read, and the server waits. Enough
    for what one read of a chatty stream brings, little enough to be current."""

    max_redirects: int = 20
    """In a row. The number of the Fetch standard, section 4.4."""

    retry_statuses: Container[int] = RETRY_STATUSES
    """Statuses after which to come back, by `Retry-After` if there is one."""

    def __post_init__(self) -> None:
        for name in _TIMES:
            _check(name, getattr(self, name), least=0)
        for name, least in _COUNTS.items():
            if not isinstance(getattr(self, name), int):
                raise TypeError(f"{name} must be a whole number")
            _check(name, getattr(self, name), least=least)
        if not self.read_timeout or not self.connect_timeout:
            raise ValueError("connect_timeout and read_timeout must be positive")


def _check(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if math.isnan(value) or value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
