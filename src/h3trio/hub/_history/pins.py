"""`PinnedTopics` and `PinnedRecords`: what the limits in all pass over, with bounds of its own.

A record is pinned while one of its topics is. It counts for neither the number nor the bytes nor
the age that bound a log in all, so that noise elsewhere doesn't take the beginning of what is still
going on; and as nothing makes room for it, a record for which there is none is refused. Limits of
one topic hold for pinned topics too.

A record that closes its topic is never refused: there is one for each, and without it those who
wait for the end would wait for ever. It is to go last of its topic, so it is *spared* for another
one there that is pinned, under a second topic: it counts as pinned too, as long as there is room.

Positions and not records are kept here, as a store may have the records elsewhere.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, final

from .errors import PinnedFullError

if TYPE_CHECKING:
    from collections.abc import KeysView
    from collections.abc import Set as AbstractSet

    from .record import Update
    from .retention import Retention


@final
class PinnedTopics:
    """The topics that are pinned; one may be pinned several times.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._times = Counter[str]()
        self._names: frozenset[str] | None = None

    @property
    def topics(self) -> KeysView[str]:
        """All of them, as they are now."""
        return self._times.keys()

    @property
    def names(self) -> frozenset[str]:
        """All of them as a value, which a store's thread may hold on to; made once for a change."""
        if self._names is None:
            self._names = frozenset(self._times)
        return self._names

    def pin(self, topic: str) -> bool:
        """Pin a topic once; return whether it wasn't pinned.

        Raises:
            PinnedFullError: there are too many.
        """
        is_new = topic not in self._times
        if is_new and len(self._times) >= self._most:
            problem = f"{self._most} topics are pinned, and no more may be"
            raise PinnedFullError(problem, limit="max_pinned_events")
        self._times[topic] += 1
        if is_new:
            self._names = None
        return is_new

    def unpin(self, topic: str) -> bool:
        """Undo one `pin`; return whether it isn't pinned any more."""
        self._times[topic] -= 1
        if self._times[topic] > 0:
            return False
        del self._times[topic]
        self._names = None
        return True


class _Pinned(NamedTuple):
    topics: int
    """How many of its topics are pinned; 0 if it is spared."""
    size: int
    """Bytes of its frame."""
    places: int
    """Bytes of memory besides, if it is in memory."""


@final
class PinnedRecords:
    """The records of pinned topics, by position, and their sums."""

    __slots__ = ("_records", "_retention", "_spared", "bytes", "events", "places")

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._records: dict[int, _Pinned] = {}
        self._spared: set[int] = set()
        self.events: int = 0
        """How many there are."""
        self.bytes: int = 0
        """Bytes of their frames."""
        self.places: int = 0
        """Bytes of memory of their topics and indexes, where they are in memory."""

    def __contains__(self, position: int) -> bool:
        return position in self._records

    def pin(self, position: int, size: int, *, topics: int = 1, places: int = 0) -> None:
        """Count so many topics more of a record that are pinned."""
        known = self._records.get(position)
        if known is None:
            self.events += 1
            self.bytes += size
            self.places += places
        else:
            topics += known.topics
        self._records[position] = _Pinned(topics, size, places)
        if topics:
            self._spared.discard(position)
        else:
            self._spared.add(position)

    def unpin(self, position: int) -> None:
        """Count a topic less of a record that is pinned."""
        known = self._records.get(position)
        if known is not None and known.topics > 1:
            self._records[position] = known._replace(topics=known.topics - 1)
        else:
            self.remove(position)

    def remove(self, position: int) -> None:
        """Forget a record."""
        known = self._records.pop(position, None)
        if known is not None:
            self.events -= 1
            self.bytes -= known.size
            self.places -= known.places
            self._spared.discard(position)

    def spared(self, position: int) -> int | None:
        """Return the bytes of a record's frame if it is spared, and not pinned itself."""
        return self._records[position].size if position in self._spared else None

    def unspare(self, position: int) -> None:
        """Forget a record if it is only spared."""
        if position in self._spared:
            self.remove(position)

    def unspare_all(self, passed: int) -> int:
        """Forget all that are only spared; return the position up to which all is passed then."""
        for position in list(self._spared):
            self.remove(position)
            passed = min(passed, position - 1)
        return passed

    def full_limit(self, events: int, size: int) -> str | None:
        """Return the limit that so many events, with so many bytes of frames, have reached."""
        if events >= self._retention.max_pinned_events:
            return "max_pinned_events"
        if size + self.places >= self._retention.max_pinned_bytes:
            return "max_pinned_bytes"
        return None

    def refusal(self, update: Update, pinned: AbstractSet[str]) -> PinnedFullError | None:
        """Return the reason for which an update isn't taken, if it is for a pinned topic.

        The answer is the same for all updates of one append, so that of several that were published
        in one step none is stored, or all: what they are too many or too large for is the next one.
        """
        if update.last or pinned.isdisjoint(update.topics):
            return None
        limit = self.full_limit(self.events, self.bytes)
        if limit is None:
            return None
        if limit == "max_pinned_events":
            most = self._retention.max_pinned_events
            problem = f"{most} events of pinned topics are kept, and no more may be"
        else:
            most = self._retention.max_pinned_bytes
            problem = f"events of pinned topics have {most} bytes, and no more may have them"
        return PinnedFullError(problem, limit=limit)
