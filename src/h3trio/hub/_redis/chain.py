"""`Chain`: takes over what a store tells, message by message, into a hub's `log` and `gaps`.

Messages have numbers. The next one is taken as it comes; one that is known is dropped; where one is
missing the hub asks the store what it hasn't followed, and takes that over in the same way. All of
it may come twice: marks only grow, what is gone stays gone, and records below the head are known.

It does no I/O and has no checkpoint: what one call takes over is one step.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal, TypeAlias, final

from h3trio.hub._history.damage import DamagedError
from h3trio.hub._history.epochs import Epochs
from h3trio.hub._history.gaps import Gaps
from h3trio.hub._history.log import Log

from .codec import EMPTY, record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from h3trio._redis.values import Reply
    from h3trio.hub._history.record import Record
    from h3trio.hub._history.retention import Retention

    from .codec import Change, Header

logger = logging.getLogger("h3trio.hub")

Place: TypeAlias = Literal["next", "known", "missing", "past"]
"""Where a message stands: it is the next, is known, comes behind a missing one, or is of another
epoch."""


@final
class Chain:
    """The log and the gaps of one hub, as far as it has followed the store.

    Args:
        tail: bounds of the newest part that is in memory.
    """

    def __init__(self, tail: Retention) -> None:
        self.log: Log = Log(tail)
        self.gaps: Gaps = Gaps()
        self.epochs: Epochs = Epochs()
        self.header: Header = EMPTY
        """The state of the store as it was last told."""
        self.serial = 0
        """The number of the last message that is taken over."""
        self.note = 0
        """The number of the last mark."""
        self.removed = 0
        """Removals of the store that are done here too."""

    def learn(
        self, header: Header, epochs: Iterable[tuple[str, int]], lost: Callable[[int], None]
    ) -> None:
        """Take over the past of a store that was connected to; tell up to where it is the same."""
        known, self.header = self.header, header
        same = self.epochs.learn(epochs)
        if same is not None and same < self.log.head:
            lost(same)
        if known.epoch == header.epoch:
            return
        # Another server may have told something else under these numbers, or nothing.
        self.serial = self.note = 0
        if header.serial < known.serial or header.removed < self.removed:
            self._forget()

    def _forget(self) -> None:
        """Forget the newest part, as removals were lost: the store may have again what went."""
        for record in list(self.log):
            self.log.remove(record.position)
        self.log.floor = self.log.head
        self.removed = -1

    def place(self, change: Change) -> Place:
        """Say where a message stands.

        Whoever may publish on the channel can send one: what the store can't have told next is
        "missing", and the store is asked.
        """
        header = change.header
        if header.epoch != self.header.epoch:
            # What an earlier epoch told last may come behind the connection in the next.
            return "known" if header.epoch in dict(self.epochs) else "past"
        if header.serial <= self.serial:
            return "known"
        return "next" if self._is_next(change) else "missing"

    def _is_next(self, change: Change) -> bool:
        """Whether a message goes just as far beyond what is known as what it tells."""
        header, names = change.header, [position for _name, position in change.marks]
        # A purge takes a position of its own.
        last = self.log.head + len(change.entries) + len(change.gone) + 1
        return (
            header.serial == self.serial + 1
            and header.last <= last
            and header.note <= self.note + len(names)
            and max([*names, *change.gone], default=0) <= header.last
        )

    def take(self, change: Change) -> list[Record]:
        """Take over the removals of a change; return its records, which the hub has to deliver.

        Those in their order, and behind the head: others are known, or somebody else's.
        """
        self.header = change.header
        for name, position in change.marks:
            self._mark(name[:1], name[1:], position)
        self.gaps.raise_floor(change.header.floor)
        self.gaps.raise_private_floor(change.header.private_floor)
        for position in change.gone:
            self.log.remove(position)
        records: list[Record] = []
        last = self.log.head
        for record in self.records_of(change.entries):
            if last < record.position:
                records.append(record)
                last = record.position
        return records

    def close(self, header: Header) -> None:
        """Note that all is taken over up to a message."""
        self.serial = max(self.serial, header.serial)
        self.note = max(self.note, header.note)
        self.removed = header.removed

    def _mark(self, kind: str, name: str, position: int) -> None:
        if kind == "+":
            self.gaps.note(name, position)
        elif kind == "-":
            self.gaps.note_private(tuple(name.split("\n")), position)
        elif kind == "*":
            self.gaps.note_purge(name, position)

    def records_of(self, entries: Iterable[Reply]) -> list[Record]:
        """Make records of entries, but for those that stand behind the store's head.

        What can't be read is passed over. That is told as a gap, to all who may have wanted it.
        """
        records: list[Record] = []
        damaged: list[DamagedError] = []
        for entry in entries:
            try:
                record = record_of(entry)
            except DamagedError as exc:
                damaged.append(exc)
                self.gaps.raise_floor(min(exc.position or self.log.head, self.header.last))
                continue
            if record.position <= self.header.last:
                records.append(record)
        if damaged:
            logger.error("%d records are passed over, the first: %s", len(damaged), damaged[0])
        return records
