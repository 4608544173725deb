"""The states of an event source, the changes between them, and its statistics.

Values only. The states are those of the standard's `readyState` (WHATWG HTML, 9.2.2).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from ._errors import EventSourceError


@final
class State(enum.StrEnum):
    """The state of an event source."""

    CONNECTING = "connecting"
    """There is no stream: an attempt is under way, or the wait before one."""
    OPEN = "open"
    """The server answered with a stream."""
    CLOSED = "closed"
    """There will be no more: the server said so, an error was final, or it was closed here."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """One step of an event source, as `on_state_change` and `reconnect` get it."""

    state: State
    """The state from now on."""
    url: str
    """The URL that is asked, after redirects; without a user's name and password."""
    attempts: int
    """The number of attempts made so far."""
    failures: int
    """Attempts in a row, up to the last one, that brought no event."""
    error: EventSourceError | None = None
    """The error that ended the stream or attempt; `None` if none did, and for an end in order."""
    delay: float | None = None
    """Seconds until the next attempt, if there will be one."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EventSourceStatistics:
    """A snapshot of an event source; the totals count since it was entered."""

    state: State
    """The state now."""
    attempts: int
    """Attempts to get a stream."""
    streams: int
    """Attempts that got one."""
    failures: int
    """Attempts in a row, up to the last one, that brought no event."""
    redirects: int
    """Redirects followed."""
    bytes_received: int
    """Bytes of streams, decompressed."""
    events_received: int
    """Events that came complete."""
    events_delivered: int
    """Events that were handed over."""
    events_over_limit: int
    """Events above `max_event_bytes`, each of which ends the source."""
    silences: int
    """Streams and attempts given up after `read_timeout` seconds of silence."""
