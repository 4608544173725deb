"""`Sums`, `PinChange` and `Removed`: a transaction's effect on sums, on pins, and what it took out.

The writer's thread makes them, and gives them to the history's task: neither waits for the other
to know how much there is, or what is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from h3trio.hub._history.pins import PinnedRecords


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
class PinChange:
    """The records that a transaction pins, spares, or has no more; thrown away if it fails.

    Args:
        pins: as they were; left alone until `write`.
    """

    def __init__(self, pins: PinnedRecords) -> None:
        self._pins = pins
        self.events: int = pins.events
        """Pinned records, with this."""
        self.bytes: int = pins.bytes
        """Bytes of their frames."""
        self._added: dict[int, tuple[int, int]] = {}
        """The bytes of each, and how many of its topics are pinned."""
        self._unspared: set[int] = set()

    def __contains__(self, position: int) -> bool:
        return position in self._added or (
            position in self._pins and position not in self._unspared
        )

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another."""
        return self._pins.full_limit(self.events, self.bytes) is not None

    def add(self, position: int, size: int, *, topics: int) -> None:
        """Pin a record, by so many of its topics; by none to spare it."""
        self._added[position] = size, topics
        self.events += 1
        self.bytes += size

    def unspare(self, position: int) -> None:
        """Forget a record if it is only spared."""
        size = self._pins.spared(position)
        if size is not None and position not in self._unspared:
            self._unspared.add(position)
            self.events -= 1
            self.bytes -= size

    def remove(self, position: int, size: int) -> None:
        """Count a record no more, if it is pinned."""
        if position in self:
            self.events -= 1
            self.bytes -= size

    def write(self, *, removed: Iterable[int]) -> PinnedRecords:
        """Bring the records of pinned topics up to date, and return them."""
        pins = self._pins
        for position in self._unspared:
            pins.unspare(position)
        for position, (size, topics) in self._added.items():
            pins.pin(position, size, topics=topics)
        for position in removed:
            pins.remove(position)
        return pins


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
