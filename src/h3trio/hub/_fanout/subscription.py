"""`Subscription`, `EndReason` and `Policy`: a subscription as users of a hub see it."""

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

    KICKED = "kicked"
    """`Hub.kick` chose it."""
    LAGGED = "lagged"
    """It fell out of the history, under the policy `disconnect`."""
    CLOSED = "closed"
    """The hub was closed."""


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
    ready: bool
    """Whether it is fed live; otherwise it is catching up."""
    since: float
    """Unix time in seconds at which it began."""
    behind: int
    """Events published since its cursor, whatever their topics; 0 while the id that its client
    came with is looked up."""
