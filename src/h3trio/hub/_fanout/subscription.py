"""`Start`, `Subscription`, `EndReason` and `Policy`: a subscription as users of a hub see it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from h3trio.hub._history.selection import Selection

Policy = Literal["resync", "disconnect"]
"""The consequence for a subscriber that fell out of the history: it is told by `reset` and goes
on, or its subscription ends."""


@final
class EndReason(enum.StrEnum):
    """Why a subscription ended, as `Hub.subscribe` returns it."""

    COMPLETE = "complete"
    """All of its topics are closed, and it was given everything."""
    KICKED = "kicked"
    """`Hub.kick` or `Hub.kick_where` chose it."""
    LAGGED = "lagged"
    """It fell out of the history, under the policy `disconnect`."""
    CLOSED = "closed"
    """The hub was closed."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The place in the log where a stream begins: found by `Hub.locate`, for `Hub.subscribe`.

    It is found before the head of an answer goes out, which tells it::

        start = await hub.locate(["news"], last_event_id=event.last_event_id)
        event.response_headers.update(start.headers)
        if start.complete:
            return  # 204: a browser doesn't come back
        async with event.start_sse() as writer:
            await hub.subscribe(writer, start)
    """

    cursor: str
    """The id behind which the stream begins: good for `last_event_id` of the next one."""
    truncated: bool
    """Whether it begins later than `first` asked for, as the beginning was removed: for
    `"oldest"` something of these topics, for a number so many that fewer are left."""
    closed: bool
    """Whether all topics are closed: the stream ends behind what is left of them. Patterns and `*`
    never are."""
    complete: bool
    """Whether there is nothing to send and never will be: they are closed, and no event stands
    behind the cursor. Answer 204, or a browser's `EventSource` comes back for ever."""
    topics: Selection
    """The topics that were asked for."""
    allow: Selection
    """The topics whose private updates may be seen."""
    position: int
    """The position of `cursor` in the log."""
    last_event_id: str | None
    """The id that was asked for."""
    first: int | str | None
    """A number or `"oldest"` where the stream begins there; `None` where an id or the next event
    decided."""
    unknown: bool
    """Whether the id that was asked for isn't known: the stream begins with a `reset`."""
    lost: bool
    """Whether the id that was asked for is of an event that the store has lost: the stream begins
    behind what is left in front of it, with a `reset`."""
    gap_seen: int
    """The newest removed position that isn't told, as nobody asked for what was before it."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers for the stream: `Last-Event-ID`, and `History-Truncated: ?1` if it is so.

        The second is a boolean of RFC 9651, and left out where it isn't true.
        """
        headers = {"Last-Event-ID": self.cursor}
        return {**headers, "History-Truncated": "?1"} if self.truncated else headers


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A snapshot of one subscription."""

    topics: Selection
    """The topics it asked for."""
    allow: Selection
    """The topics whose private updates it may see."""
    info: Mapping[str, object]
    """The description that its handler gave to `Hub.subscribe`."""
    cursor: str
    """The id up to which it was given everything."""
    truncated: bool
    """Whether it began later than its `first` asked for; see `Start.truncated`."""
    ready: bool
    """Whether it is fed live; otherwise it is catching up."""
    since: float
    """Unix time in seconds at which it began."""
    behind: int
    """Events published since its cursor, whatever their topics; 0 while the id that its client
    came with is looked up."""
