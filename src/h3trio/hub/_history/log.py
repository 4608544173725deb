"""`Log`: the newest part of a hub's log, in memory; it is appended, read and bounded at once.

A dictionary holds the records by position. Beside it, one index of ascending positions for the
whole log and one for each topic answer "what comes after?" by bisection. When a record goes, its
indexes keep its position for the time being, and reading skips it; an index that is more than half
gone is written anew. So appending, reading and removing anywhere cost constant time per record,
and the memory stays in proportion to the records, however they are spread over topics.

A log is *whole* if no store stands behind it: a record that falls out of it is gone, and `forget`
is told. Otherwise the store still has it; then the log is complete only above `floor`.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from heapq import merge
from sys import getsizeof
from typing import TYPE_CHECKING, Final, final

import trio

from .pins import PinnedRecords
from .record import page_of
from .retention import KIB, MIB
from .selection import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .pins import PinnedTopics
    from .record import Page, Record
    from .retention import Retention
    from .selection import Selection

MIN_TOPIC_BYTES: Final = 16 * MIB
RECORD_TOPIC_BYTES: Final = 2 * KIB
"""Memory of the topics of all records, as a record may have many: so much for each record that may
be kept, or the least. Beyond it the oldest go."""

_INDEX_BYTES: Final = 450
_PLACE_BYTES: Final = 40
"""Memory of an index, and of a place in it, without the topic's name."""

_SPARE: Final = 8
"""Gone positions for which no index is written anew."""


@dataclass(slots=True, eq=False)
class _PositionIndex:
    """Positions in ascending order; some of their records may be gone."""

    positions: list[int] = field(default_factory=list[int])
    start: int = 0
    """Before this place in the list, all are gone."""
    live: int = 0
    """Records that are there."""
    bytes: int = 0
    """Bytes of their frames."""


@final
class Log:
    """Records in memory, by position and by topic.

    Args:
        retention: the limits; those of one topic are for whole logs only, and age is not looked
            at.
        forget: is told of each record that goes. If there is none, a store has the rest.
        pinned: the topics whose records the limits in all pass over. For whole logs.
        floor: the last position that is not in here. For logs with a store.
        head: the last position given.
    """

    def __init__(
        self,
        retention: Retention,
        *,
        forget: Callable[[Record], None] | None = None,
        pinned: PinnedTopics | None = None,
        floor: int = 0,
        head: int = 0,
    ) -> None:
        self._retention = retention
        self._limits_topics = retention.limits_topics
        self._forget = forget
        self._max_topic_bytes = max(MIN_TOPIC_BYTES, RECORD_TOPIC_BYTES * retention.max_events)
        self._pinned = pinned
        self.floor: int = floor
        """All that is kept behind this position is in here."""
        self.head: int = head
        """The last position that was given, whether its record is still here or not."""
        self._clear()

    def _clear(self) -> None:
        self._records: dict[int, Record] = {}
        self._index = _PositionIndex()
        self._place_bytes = 0
        self._topics: dict[str, _PositionIndex] = {}
        self.pins: PinnedRecords = PinnedRecords(self._retention)
        """The records of pinned topics."""
        if self._pinned is not None:
            self.pins.places = _INDEX_BYTES * len(self._pinned.names)
        self._passed = 0
        """Up to this position, all that is here is passed over by the limits in all."""
        self._closing: dict[str, Record] = {}
        """The closing record of each topic that is closed by one in here."""
        # Publishers may use an id again, each in topics of their own.
        self._own_ids: dict[str, dict[str, _PositionIndex]] = {}

    def __repr__(self) -> str:
        return f"<Log: {len(self)} records of {self.topics} topics, {self.floor} to {self.head}>"

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, position: int) -> bool:
        return position in self._records

    def __iter__(self) -> Iterator[Record]:
        return (self._records[position] for position in self._after(self._index, 0))

    @property
    def bytes(self) -> int:
        """Bytes of all frames."""
        return self._index.bytes

    @property
    def topics(self) -> int:
        """The number of topics that have a record."""
        return len(self._topics)

    @property
    def topic_bytes(self) -> int:
        """About the bytes of memory of the topics and indexes by which records are found."""
        return self._place_bytes + _INDEX_BYTES * len(self._topics)

    @property
    def oldest(self) -> Record | None:
        """The first record, if there is one."""
        return self._records[self._first(self._index)] if self._records else None

    @property
    def first_to_go(self) -> Record | None:
        """The first record that isn't pinned, if there is one."""
        if not self.pins.events:
            return self.oldest
        for position in self._after(self._index, self._passed):
            record = self._records[position]
            if position not in self.pins and not self._spare(record):
                self._passed = position - 1
                return record
            self._passed = position
        return None

    # -- writing

    def append(self, record: Record) -> None:
        """Add the next record, and let go of those beyond the limits."""
        position = record.position
        assert position > self.head, "the log has one order"
        size = len(record.frame)
        self.head = position
        self._records[position] = record
        index = self._index
        index.positions.append(position)
        index.live += 1
        index.bytes += size
        _enter_indexes(self._topics, record)
        if record.has_own_id:
            _enter_indexes(self._own_ids.setdefault(record.id, {}), record)
        if record.last:
            self._closing |= dict.fromkeys(record.topics, record)
        self._place_bytes += _size_of_places(record)
        if self._pinned is not None and self._pinned.names:
            self._pin_new(record, self._pinned.names)
        pins = self.pins
        while self._retention.is_exceeded(index.live - pins.events, index.bytes - pins.bytes) or (
            self.topic_bytes - pins.places > self._max_topic_bytes and index.live > pins.events + 1
        ):
            going = self.first_to_go
            if going is None or going is record:
                break  # the rest is pinned, or closes what is
            self.remove(going.position)
            if self._forget is None:
                self.floor = going.position
        if self._limits_topics:
            self._limit_topics(record)

    def remove(self, position: int) -> Record | None:
        """Take a record out, wherever it stands; return it if it was there."""
        record = self._records.pop(position, None)
        if record is not None:
            self._leave_indexes(record)
            if self._forget is not None:
                self._forget(record)
        return record

    def cut(self, position: int) -> None:
        """Let the log end at a position: what is behind it was lost, and is no gap.

        Made anew out of what is left, as the positions behind it will be given again.
        """
        left = [record for record in self if record.position <= position]
        floor, self.head = min(self.floor, position), 0
        self._clear()
        for record in left:
            self.append(record)
        self.floor, self.head = floor, position

    def pin(self, topic: str) -> None:
        """Pass over the records of a topic, which is pinned now."""
        self.pins.places += _INDEX_BYTES
        for position in self.positions(topic):
            record = self._records[position]
            self.pins.pin(position, len(record.frame), places=_size_of_places(record))

    def unpin(self, topic: str) -> None:
        """Count the records of a topic in all again, as far as no other topic is pinned.

        Those that are too many go with the next append.
        """
        self.pins.places -= _INDEX_BYTES
        positions = self.positions(topic)
        for position in positions:
            self.pins.unpin(position)
        if positions:
            # Some of them may be why others are spared.
            self._passed = self.pins.unspare_all(min(self._passed, positions[0] - 1))

    def _pin_new(self, record: Record, names: frozenset[str]) -> None:
        topics = sum(topic in names for topic in record.topics)
        if topics:
            size, places = len(record.frame), _size_of_places(record)
            self.pins.pin(record.position, size, topics=topics, places=places)

    def _spare(self, record: Record) -> bool:
        """Spare a record that closes a topic with another one, pinned by its others, if it may."""
        if not record.last or all(self._topics[topic].live == 1 for topic in record.topics):
            return False
        pins, size = self.pins, len(record.frame)
        if pins.full_limit(pins.events, pins.bytes) is not None:
            return False
        pins.pin(record.position, size, topics=0, places=_size_of_places(record))
        return True

    def _limit_topics(self, record: Record) -> None:
        # One without an event takes no event's place.
        more = 0 if record.frame else 1
        for topic in record.topics:
            # Each still has its newest record, the one just appended.
            index = self._topics[topic]
            while self._retention.is_topic_exceeded(index.live - more, index.bytes):
                self.remove(self._first(index))

    def _leave_indexes(self, record: Record) -> None:
        self._place_bytes -= _size_of_places(record)
        self._leave_topics(self._topics, record)
        self._leave(self._index, len(record.frame))
        if record.last:
            for topic in record.topics:
                self._closing.pop(topic, None)
        if self.pins.events:
            self.pins.remove(record.position)
            for topic in record.topics:
                if (closing := self._closing.get(topic)) is not None:
                    # This may be why that was spared.
                    self.pins.unspare(closing.position)
                    self._passed = min(self._passed, closing.position - 1)
        if record.has_own_id:
            of_id = self._own_ids[record.id]
            self._leave_topics(of_id, record)
            if not of_id:
                del self._own_ids[record.id]

    def _leave_topics(self, topics: dict[str, _PositionIndex], record: Record) -> None:
        size = len(record.frame)
        for topic in record.topics:
            index = topics[topic]
            if index.live == 1:
                del topics[topic]
            else:
                self._leave(index, size)

    def _leave(self, index: _PositionIndex, size: int) -> None:
        index.live -= 1
        index.bytes -= size
        if len(index.positions) > 2 * index.live + _SPARE:
            index.positions = list(self._after(index, 0))
            index.start = 0

    # -- reading

    def read(
        self, after: int, *, selection: Selection, max_records: int, max_bytes: int
    ) -> Page | None:
        """Read selected records behind a position; `None` if that is below `floor`.

        A page has at least one record if there is one, except that a long search with matchers
        ends with an empty page that says there is more.
        """
        if after < self.floor:
            return None
        found, end = self._search(after, selection)
        records = map(self._records.__getitem__, found)
        return page_of(
            records, end=end, head=self.head, max_records=max_records, max_bytes=max_bytes
        )

    async def find(self, id: str, *, selection: Selection, allow: Selection) -> int | None:
        """Return the position of a publisher's id, as `History.find` does, of the records here."""
        await trio.lowlevel.checkpoint()
        of_id, turn = self._own_ids.get(id, {}), Turn()
        names = selection.topics & of_id.keys() if selection.is_exact else list(of_id)
        newest: list[int] = []
        for topic in names:
            if turn.spend(selection.cost(1)):
                await trio.lowlevel.checkpoint()
            if topic in of_id and selection.matches_topic(topic):
                backward = reversed(of_id[topic].positions)
                found = await self._nth(1, backward, selection=selection, allow=allow, turn=turn)
                newest += [] if found is None else [found]
        return min(newest, default=None)

    def is_closed(self, topic: str, *, allow: Selection) -> bool | None:
        """Whether a topic is closed by a record that may be seen.

        `None` if none of its records is in here, and a store may have some.
        """
        record = self._closing.get(topic)
        if record is not None:
            return record.is_visible(allow)
        return None if self.floor and topic not in self._topics else False

    def positions(self, topic: str) -> list[int]:
        """Return the positions of a topic's records, in order."""
        index = self._topics.get(topic)
        return [] if index is None else list(self._after(index, 0))

    async def position_before_last(
        self, count: int, *, selection: Selection, allow: Selection
    ) -> int | None:
        """Return the position behind which the last `count` selected and visible records stand.

        If there are fewer: 0 if this log is whole, `None` if a store may have more.
        """
        await trio.lowlevel.checkpoint()
        if count <= 0:
            return self.head
        found = await self._nth(
            count, self._backward(selection), selection=selection, allow=allow, turn=Turn()
        )
        if found is not None:
            return found - 1
        return None if self.floor else 0

    async def _nth(
        self,
        count: int,
        positions: Iterable[int],
        *,
        selection: Selection,
        allow: Selection,
        turn: Turn,
    ) -> int | None:
        """Return the nth of some positions whose record is here, selected and visible."""
        left = count
        known: dict[tuple[str, ...], bool] = {}
        for position in positions:
            record = self._records.get(position)
            if record is None or not record.frame:
                continue
            topics = record.topics
            is_new = topics not in known
            cost = selection.cost(len(topics)) if is_new else 0
            if turn.spend(cost + (allow.cost(len(topics)) if record.private else 0)):
                await trio.lowlevel.checkpoint()
            if is_new:
                known[topics] = selection.matches(topics)
            if known[topics] and record.is_visible(allow):
                left -= 1
                if not left:
                    return position
        return None

    def _search(self, after: int, selection: Selection) -> tuple[Iterable[int], int]:
        """List selected positions, and say up to which position the list answers."""
        if after >= self.head:
            return (), after
        if selection.everything:
            return self._after(self._index, after), self.head
        if selection.matchers:
            return self._scan(after, selection)
        indexes = self._of_topics(selection)
        if len(indexes) == 1:
            return self._after(indexes[0], after), self.head
        # Most end before the cursor, if many topics are selected.
        ahead = [self._after(index, after) for index in indexes if index.positions[-1] > after]
        return distinct(merge(*ahead)), self.head

    def _of_topics(self, selection: Selection) -> list[_PositionIndex]:
        return [index for topic in selection.topics if (index := self._topics.get(topic))]

    def _scan(self, after: int, selection: Selection) -> tuple[Iterable[int], int]:
        """Look at one turn's worth of records, as each may have topics of its own."""
        found: list[int] = []
        known: dict[tuple[str, ...], bool] = {}
        turn, end = Turn(), after
        for position in self._after(self._index, after):
            topics = self._records[position].topics
            is_new = topics not in known
            # At least one, or a reader would stand still.
            if turn.spend(selection.cost(len(topics)) if is_new else 0) and end > after:
                return found, end
            end = position
            if is_new:
                known[topics] = selection.matches(topics)
            if known[topics]:
                found.append(position)
        return found, self.head

    def _backward(self, selection: Selection) -> Iterable[int]:
        """List positions that may be selected, the newest first, gone ones too."""
        if not selection.is_exact:
            return reversed(self._index.positions)
        indexes = [reversed(index.positions) for index in self._of_topics(selection)]
        return distinct(merge(*indexes, reverse=True))

    def _after(self, index: _PositionIndex, after: int) -> Iterator[int]:
        positions, records = index.positions, self._records
        for place in range(bisect_right(positions, after, index.start), len(positions)):
            if positions[place] in records:
                yield positions[place]

    def _first(self, index: _PositionIndex) -> int:
        while index.positions[index.start] not in self._records:
            index.start += 1
        return index.positions[index.start]


def _size_of_places(record: Record) -> int:
    """Return what a record's topics cost beside their indexes; an own id has indexes for itself."""
    place = _PLACE_BYTES + (_INDEX_BYTES if record.has_own_id else 0)
    return sum(map(getsizeof, record.topics)) + place * len(record.topics)


def _enter_indexes(topics: dict[str, _PositionIndex], record: Record) -> None:
    size = len(record.frame)
    for topic in record.topics:
        index = topics.get(topic)
        if index is None:
            index = topics[topic] = _PositionIndex()
        index.positions.append(record.position)
        index.live += 1
        index.bytes += size


def distinct(positions: Iterable[int]) -> Iterator[int]:
    """Give each position once, where merged topics share a record."""
    last = 0
    for position in positions:
        if position != last:
            yield position
            last = position
