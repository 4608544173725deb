"""The newest part of the log, in memory: appended, read and bounded without waiting.

A dictionary holds the records by position. Beside it, one *line* of ascending
positions for the whole log and one for each topic answer "what comes after?" by
bisection. When a record goes, its lines keep its position for the time being,
and reading skips it; a line that is more than half gone is written anew. So
appending, reading and removing anywhere cost constant time per record, and what
is kept stays in proportion to the records, however they are spread over topics.

A log is *whole* if no store stands behind it: what falls out of it is gone, and
`forget` is told. Otherwise the store still has it; then the log is complete only
above `floor`.
"""

from __future__ import annotations

from bisect import bisect_right
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Final, final

from .record import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .record import Record
    from .selection import Selection

MAX_SCAN: Final = 2000
"""Records that one read with matchers looks at: at most about 5 ms, if each has a topic of its
own. Then the page ends, even if it is empty, and says that there is more."""

_SPARE: Final = 8
"""Gone positions that no line is written anew for."""


class _Line:
    """Positions in ascending order; some of their records may be gone."""

    __slots__ = ("bytes", "live", "positions", "start")

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.start = 0
        """Before this index, all are gone."""
        self.live = 0
        self.bytes = 0


@final
class Log:
    """Records in memory, by position and by topic.

    Args:
        max_events: records kept; the newest one always is.
        max_bytes: bytes of their frames.
        max_topic_events: records kept of one topic. For whole logs only.
        max_topic_bytes: bytes of the frames of one topic. For whole logs only.
        forget: is told of each record that goes. If there is none, a store has the rest.
        floor: the last position that is not in here. For logs with a store.
        head: the last position given.
    """

    __slots__ = (
        "_forget",
        "_line",
        "_max_bytes",
        "_max_events",
        "_max_topic_bytes",
        "_max_topic_events",
        "_own_ids",
        "_records",
        "_topics",
        "floor",
        "head",
    )

    def __init__(
        self,
        *,
        max_events: int,
        max_bytes: int,
        max_topic_events: int | None = None,
        max_topic_bytes: int | None = None,
        forget: Callable[[Record], None] | None = None,
        floor: int = 0,
        head: int = 0,
    ) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_topic_events = max_topic_events
        self._max_topic_bytes = max_topic_bytes
        self._forget = forget
        self.floor: int = floor
        """Of what is kept at all, everything behind this position is in here."""
        self.head: int = head
        """The last position that was given, whether its record is still here or not."""
        self._records: dict[int, Record] = {}
        self._line = _Line()
        self._topics: dict[str, _Line] = {}
        # Publishers may use an id again: a list where they did.
        self._own_ids: dict[str, int | list[int]] = {}

    def __repr__(self) -> str:
        return f"<Log: {len(self)} records of {self.topics} topics, {self.floor} to {self.head}>"

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return (self._records[position] for position in self._after(self._line, 0))

    @property
    def bytes(self) -> int:
        """Bytes of all frames."""
        return self._line.bytes

    @property
    def topics(self) -> int:
        """How many topics have a record."""
        return len(self._topics)

    @property
    def oldest(self) -> Record | None:
        """The first record, if there is one."""
        return self._records[self._first(self._line)] if self._records else None

    # -- writing

    def append(self, record: Record) -> None:
        """Add the next record, and let go of what is beyond the limits."""
        position = record.position
        assert position > self.head, "the log has one order"
        size = len(record.frame)
        self.head = position
        self._records[position] = record
        line = self._line
        line.positions.append(position)
        line.live += 1
        line.bytes += size
        for topic in record.topics:
            of_topic = self._topics.get(topic)
            if of_topic is None:
                of_topic = self._topics[topic] = _Line()
            of_topic.positions.append(position)
            of_topic.live += 1
            of_topic.bytes += size
        if record.has_own_id:
            self._add_own_id(record.id, position)
        while line.live > 1 and (line.live > self._max_events or line.bytes > self._max_bytes):
            self._evict()
        if self._max_topic_events is not None or self._max_topic_bytes is not None:
            self._limit_topics(record.topics)

    def remove(self, position: int) -> bool:
        """Take a record out, wherever it stands; whether it was there."""
        record = self._records.pop(position, None)
        if record is None:
            return False
        self._leave_lines(record)
        if self._forget is not None:
            self._forget(record)
        return True

    def _evict(self) -> None:
        """Let go of the oldest: a full log does so for each record it takes."""
        position = self._first(self._line)
        record = self._records.pop(position)
        self._leave_lines(record)
        if self._forget is None:
            self.floor = position
        else:
            self._forget(record)

    def _limit_topics(self, topics: Iterable[str]) -> None:
        events, size = self._max_topic_events, self._max_topic_bytes
        for topic in topics:
            # Each still has its newest record, the one just appended.
            line = self._topics[topic]
            while line.live > 1 and (
                (events is not None and line.live > events)
                or (size is not None and line.bytes > size)
            ):
                self.remove(self._first(line))

    def _leave_lines(self, record: Record) -> None:
        size = len(record.frame)
        topics = self._topics
        for topic in record.topics:
            line = topics[topic]
            if line.live == 1:
                del topics[topic]
            else:
                self._leave(line, size)
        self._leave(self._line, size)
        if record.has_own_id:
            self._remove_own_id(record.id, record.position)

    def _leave(self, line: _Line, size: int) -> None:
        line.live -= 1
        line.bytes -= size
        if len(line.positions) > 2 * line.live + _SPARE:
            line.positions = list(self._after(line, 0))
            line.start = 0

    # -- reading

    def read(
        self, after: int, *, selection: Selection, max_records: int, max_bytes: int
    ) -> Page | None:
        """Read selected records behind a position; `None` if that is below `floor`.

        A page has at least one record if there is one, except that a long search for
        what matchers match ends with an empty page that says there is more.
        """
        if after < self.floor:
            return None
        found, end = self._search(after, selection)
        records: list[Record] = []
        size = 0
        for position in found:
            record = self._records[position]
            size += len(record.frame)
            if records and (len(records) >= max_records or size > max_bytes):
                return Page(records, records[-1].position, more=True)
            records.append(record)
        return Page(records, end, more=end < self.head)

    def find(self, id: str) -> int | None:
        """Return the position of the newest record here with a publisher's id."""
        found = self._own_ids.get(id)
        return found[-1] if isinstance(found, list) else found

    def positions(self, topic: str) -> list[int]:
        """Return the positions of a topic's records, in order."""
        line = self._topics.get(topic)
        return [] if line is None else list(self._after(line, 0))

    def position_before_last(self, count: int, *, selection: Selection) -> int | None:
        """Return the position behind which the last `count` selected records stand.

        Where there are fewer: 0 if this log is whole, `None` if a store may have more.
        """
        if count <= 0:
            return self.head
        found = next(islice(self._backward(selection), count - 1, None), None)
        if found is not None:
            return found - 1
        return None if self.floor else 0

    def _search(self, after: int, selection: Selection) -> tuple[Iterable[int], int]:
        """List selected positions, and say up to which position the list answers."""
        if after >= self.head:
            return (), after
        if selection.everything:
            return self._after(self._line, after), self.head
        if selection.matchers:
            return self._scan(after, selection)
        lines = [line for topic in selection.topics if (line := self._topics.get(topic))]
        if len(lines) == 1:
            return self._after(lines[0], after), self.head
        # Lines that end before the cursor are most of them, where many topics are selected.
        ahead = [self._after(line, after) for line in lines if line.positions[-1] > after]
        return _without_repetition(merge(*ahead)), self.head

    def _scan(self, after: int, selection: Selection) -> tuple[Iterable[int], int]:
        positions = list(islice(self._after(self._line, after), MAX_SCAN))
        end = positions[-1] if len(positions) == MAX_SCAN else self.head
        return self._matching(positions, selection), end

    def _matching(self, positions: Iterable[int], selection: Selection) -> Iterator[int]:
        known: dict[tuple[str, ...], bool] = {}
        for position in positions:
            topics = self._records[position].topics
            matches = known.get(topics)
            if matches is None:
                matches = known[topics] = selection.matches(topics)
            if matches:
                yield position

    def _backward(self, selection: Selection) -> Iterator[int]:
        """List selected positions, the newest first."""
        if not selection.is_exact:
            backward = self._before(self._line)
            return backward if selection.everything else self._matching(backward, selection)
        lines = [line for topic in selection.topics if (line := self._topics.get(topic))]
        return _without_repetition(merge(*map(self._before, lines), reverse=True))

    def _after(self, line: _Line, after: int) -> Iterator[int]:
        positions, records = line.positions, self._records
        for index in range(bisect_right(positions, after, line.start), len(positions)):
            if positions[index] in records:
                yield positions[index]

    def _before(self, line: _Line) -> Iterator[int]:
        return (position for position in reversed(line.positions) if position in self._records)

    def _first(self, line: _Line) -> int:
        while line.positions[line.start] not in self._records:
            line.start += 1
        return line.positions[line.start]

    # -- publishers' own ids

    def _add_own_id(self, id: str, position: int) -> None:
        known = self._own_ids.get(id)
        if known is None:
            self._own_ids[id] = position
        elif isinstance(known, list):
            known.append(position)
        else:
            self._own_ids[id] = [known, position]

    def _remove_own_id(self, id: str, position: int) -> None:
        known = self._own_ids[id]
        if isinstance(known, list):
            known.remove(position)
            if len(known) == 1:
                self._own_ids[id] = known[0]
        else:
            del self._own_ids[id]


def _without_repetition(positions: Iterator[int]) -> Iterator[int]:
    """Name a record under several selected topics once."""
    last = 0
    for position in positions:
        if position != last:
            yield position
            last = position
