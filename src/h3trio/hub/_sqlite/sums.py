"""`Sums` and `Removed`: what a transaction makes of the whole database, and what it took out.

The writer's thread makes them, and gives them to the history's task: neither waits for the other
to know how much there is, or what is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final


@final
@dataclass(slots=True)
class Sums:
    """Sums over the whole database, known without asking it; first those of its table `state`."""

    last: int = 0
    """The last position given."""
    events: int = 0
    """Records."""
    bytes: int = 0
    """Bytes of their frames."""
    floor: int = 0
    """Below it, something public of a topic that is no longer known may have been removed."""
    trims: int = 0
    """Transactions that removed something: tells whether a snapshot is ahead of `gaps`."""
    topics: int = 0
    """Topics with records."""
    empty_topics: int = 0
    """Topics that are kept for their newest removed position."""
    oldest: int = 0
    """The first kept position, 0 if none."""
    private_floor: int = 0
    """As `floor`, of what was private."""
    private_marks: int = 0
    """Combinations of topics of which something private was removed."""
    closed: int = 0
    """Topics that are closed."""
    passed: int = 0
    """Up to this position, all that is kept is passed over by the limits in all."""
    pinned_events: int = 0
    """Records of pinned topics."""
    pinned_bytes: int = 0
    """Bytes of their frames."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The removals of one transaction, for `log` and `gaps`."""

    positions: list[int] = field(default_factory=list[int])
    newest: dict[str, int] = field(default_factory=dict[str, int])
    """The newest removed public position of each topic."""
    private: dict[tuple[str, ...], int] = field(default_factory=dict[tuple[str, ...], int])
    """The newest removed private position of each combination of topics."""
    floor: int = 0
    """The newest position of those removed of which nobody knows the topics."""
