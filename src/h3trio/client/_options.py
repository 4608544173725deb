"""`Limits`: the limits and times of an event source, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, TypedDict, final

from h3trio._limits import check_limit
from h3trio._wire.parser import DEFAULT_MAX_EVENT_SIZE

from ._policy import MAX_BACKOFF, OUTAGE_STATUSES, RECONNECT_DELAY, RETRY_STATUSES

if TYPE_CHECKING:
    from collections.abc import Container

# Of the others zero is refused.
_LEAST: Final = {
    "reconnect_delay": 0,
    "max_backoff": 0,
    "max_event_bytes": 1,
    "buffer_events": 0,
    "max_redirects": 0,
}


class LimitKeywords(TypedDict, total=False):
    """The keywords of `EventSource` that are limits and times: see `Limits`."""

    connect_timeout: float
    read_timeout: float
    reconnect_delay: float
    max_backoff: float
    max_event_bytes: int
    buffer_events: int
    max_redirects: int
    retry_statuses: Container[int]
    outage_statuses: Container[int]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits and times of one event source. Times are seconds, sizes are bytes.

    Raises:
        TypeError: a value is not a number.
        ValueError: a number is negative, zero where that means nothing, or NaN.
    """

    connect_timeout: float = 10.0
    """Seconds to a connection: name, TCP, TLS, and a free place in the client's pool. Three
    SYNs that were lost (1 + 2 + 4 s) fit."""

    read_timeout: float = 45.0
    """Seconds of the longest silence, and a comment breaks it: then the stream is lost. Three
    heartbeats of 15 s, which WHATWG HTML, 9.2.7, recommends: one may be late, one lost."""

    reconnect_delay: float = RECONNECT_DELAY
    """Seconds between two attempts, until the server names a time by `retry`."""

    max_backoff: float = MAX_BACKOFF
    """Seconds that repeated failures add to that at most."""

    max_event_bytes: int = DEFAULT_MAX_EVENT_SIZE
    """Bytes of the largest line, and of the largest data of one event; as `SSEParser` takes
    them by default."""

    buffer_events: int = 64
    """Events that wait to be taken; then nothing is read, and the server waits. Enough
    for one read of a chatty stream, little enough to be current."""

    max_redirects: int = 20
    """Redirects in a row. The number of the Fetch standard, section 4.4."""

    retry_statuses: Container[int] = RETRY_STATUSES
    """Statuses after which to come back, by `Retry-After` if there is one."""

    outage_statuses: Container[int] = OUTAGE_STATUSES
    """The same once a stream was open: 5xx, as proxies say while the server behind them restarts.
    Before, such an answer is an error, most likely in the URL."""

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value, whole = field.name, getattr(self, field.name), field.type == "int"
            if not name.endswith("_statuses"):
                check_limit(name, value, whole=whole, least=_LEAST.get(name), finite=False)
