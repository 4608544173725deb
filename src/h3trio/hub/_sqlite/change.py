"""`Change`: the additions and removals of one transaction, gathered first and written at its end.

Records to remove are looked for in order, and the search stops at the first that isn't due, or when
the change has its fill of them: no transaction gets long, and it has a place in the write-ahead log
even on a full disk. Removals are written before additions, so that on a full disk the new records
find the pages of the old.

Sums per topic and in all are kept along, so that a limit is checked without counting. A change is
thrown away if its transaction fails: it works on a copy of the sums.
"""

from __future__ import annotations

import logging
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, final

from h3trio.hub._history.damage import DamagedError
from h3trio.hub._history.retention import MIB

from .rows import reading, text, whole
from .spans import OF_TOPIC, Spans
from .sums import PinChange, Removed, Sums

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Generator

    from h3trio.hub._history.pins import PinnedRecords
    from h3trio.hub._history.record import Record
    from h3trio.hub._history.retention import Retention

logger = logging.getLogger("h3trio.hub")

MAX_REMOVED_RECORDS: Final = 500
"""Records that one change removes, beyond as many as it adds; one counts in each of its topics."""

MAX_REMOVED_BYTES: Final = 16 * MIB
"""Bytes of frames that one change removes, beyond as many as it adds."""

_FOLDED_AT_ONCE: Final = 1000
"""Empty topics that one change forgets, if a limit became much lower."""

# Values that can be fetched, whatever a damaged column has in it.
_COLUMNS: Final = (
    "records.position, CAST(records.topics AS BLOB), length(frame), CAST(published AS REAL),"
    " CAST(private AS INTEGER)"
)
_TOPIC: Final = "number, name, events, bytes, trimmed, trimmed_public, closed"
_IN_ORDER: Final = (
    f"SELECT {_COLUMNS} FROM records WHERE position >= ? AND position < ? ORDER BY position"  # noqa: S608 - a constant
)


class _Row(NamedTuple):
    position: int
    topics: bytes
    """Their numbers, as they stand in the record's row."""
    size: int
    published: float
    private: int


@final
@dataclass(slots=True)
class _Topic:
    """A topic's row, with its sums as they will be."""

    number: int
    name: str
    events: int
    bytes: int
    trimmed: int
    """The newest removed position; a topic without records is forgotten by it."""
    trimmed_public: int
    """The newest public one."""
    closed: int
    """The position of the record that closed it, 0 while it is open."""
    was_empty: bool
    was_closed: bool
    silent: int = 0
    """Records without an event that this change adds."""


class _Topics(NamedTuple):
    """The topics of a record."""

    topics: list[_Topic]
    numbers: list[int]
    column: str
    """The numbers, as they stand in the record's row."""


@final
class Change:
    """Additions and removals of one transaction.

    Args:
        db: the writer's connection, in the transaction.
        sums: the current ones; left alone.
        pins: the records of pinned topics; left alone.
        pinned: the topics that are pinned.
        max_empty_topics: topics without records that are kept for their newest removed position.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        sums: Sums,
        *,
        pins: PinnedRecords,
        pinned: frozenset[str],
        max_empty_topics: int,
    ) -> None:
        self._db = db
        self.sums = replace(sums)
        self._pins = PinChange(pins)
        self._pinned = pinned
        self._max_empty = max_empty_topics
        self._by_name: dict[str, _Topic] = {}
        self._by_number: dict[int, _Topic] = {}
        self._by_names: dict[tuple[str, ...], _Topics] = {}
        self._added: list[tuple[object, ...]] = []
        """The rows of added records."""
        self._spans = Spans()
        self._removed: dict[int, list[int]] = {}
        self._private: dict[str, int] = {}
        self._damaged: list[int] = []
        self._records_left = MAX_REMOVED_RECORDS
        self._bytes_left = MAX_REMOVED_BYTES

    # -- gathering

    def add(self, record: Record, dedup: str | None) -> None:
        """Add a record, at the next position."""
        size = len(record.frame)
        # All of them first: one may be damaged.
        topics, numbers, column = self._topics_of(record.topics)
        for topic in topics:
            topic.events += 1
            topic.bytes += size
            topic.silent += not size
            if record.last:
                topic.closed = record.position
        # Numbers for what is true or not: Python's module takes `bool` a slower way.
        self._added.append(
            (
                record.position,
                record.id,
                1 if record.has_own_id else 0,
                dedup,
                1 if record.private else 0,
                record.published,
                column,
                record.frame,
                1 if record.last else 0,
            )
        )
        self._spans.add(record, numbers)
        if self._pinned and (pinned := len(self._pinned.intersection(record.topics))):
            self._pins.add(record.position, size, topics=pinned)
        self.sums.last = record.position
        self.sums.events += 1
        self.sums.bytes += size
        self._records_left += len(topics)
        self._bytes_left += size

    def note_pins(self) -> None:
        """Bring the records of pinned topics up to date, once all of this is in the database."""
        pins = self._pins.write(removed=self._removed)
        self.sums.pinned_events, self.sums.pinned_bytes = pins.events, pins.bytes

    def scoped_key(self, key: str, topics: tuple[str, ...]) -> str:
        """Return a `dedup` key as it stands in the database: with the topics that it belongs to."""
        numbers = sorted(self._topics_of(topics).numbers)
        return f"{' '.join(map(str, numbers))}\n{key}"

    def closed_topic(self, topics: tuple[str, ...]) -> str | None:
        """Return the first of some topics that is closed, if one is."""
        for topic in self._topics_of(topics).topics:
            if topic.closed:
                return topic.name
        return None

    def remove_excess(self, retention: Retention, *, before: int) -> None:
        """Remove records beyond the limits, of the topics that are added to and in all.

        Args:
            retention: the limits.
            before: the first position that stays, as in the methods below.
        """
        if retention.limits_topics:
            for topic in [self._by_number[number] for number in self._spans.topics]:
                is_due = partial(_is_exceeded, retention, topic)
                self._remove(self._of_topic(topic.number, before), is_due)
        self.remove_oldest(retention, before=before)

    def remove_oldest(
        self, retention: Retention, *, before: int, published_before: float | None = None
    ) -> bool:
        """Remove records beyond the limits in all, or too old; return whether more may be due."""
        sums = self.sums

        def is_due(row: _Row) -> bool:
            if is_older(row.published, published_before):
                return True
            events, size = sums.events - self._pins.events, sums.bytes - self._pins.bytes
            return retention.is_exceeded(events, size)

        return self._remove(self._in_order(sums.passed + 1, before), is_due, in_all=True)

    def remove_topic(self, name: str, *, before: int) -> bool:
        """Remove the records of a topic; return whether more may be due."""
        query = "SELECT number FROM topics WHERE name = ?"
        row = self._db.execute(query, (name,)).fetchone()
        if row is None:
            return False
        more = self._remove(self._of_topic(row[0], before), lambda _row: True)
        with suppress(DamagedError):
            topic = self._numbered(row[0])
            if not more and topic.closed < before:
                topic.closed = 0  # also if damage took the record that closed it
        return more

    def _of_topic(self, number: int, before: int) -> Generator[_Row]:
        """List a topic's records in order."""
        with closing(self._db.execute(OF_TOPIC, (number,))) as spans:
            for first, end in spans:
                yield from self._in_order(first, min(end, before))

    def _in_order(self, first: int, before: int) -> Generator[_Row]:
        with closing(self._db.execute(_IN_ORDER, (first, before))) as rows:
            yield from map(_Row._make, rows)

    def _remove(
        self, found: Generator[_Row], is_due: Callable[[_Row], bool], *, in_all: bool = False
    ) -> bool:
        """Remove found records in order while they are due; return whether more may be.

        By limits `in_all`, those of pinned topics are passed over, now and the next time.
        """
        with closing(found):
            for row in found:
                if in_all and self._pins.events and self._is_kept(row):
                    self.sums.passed = row.position
                    continue
                if not is_due(row):
                    break
                if self._records_left <= 0 or self._bytes_left <= 0:
                    return True
                self._remove_record(row)
        return False

    def _is_kept(self, row: _Row) -> bool:
        """Whether it is pinned, or to be spared: it closes a topic that has a pinned record."""
        if row.position in self._pins:
            return True
        if self._pins.is_full:
            return False
        with suppress(DamagedError), reading(row.position):
            topics = [self._numbered(int(number)) for number in row.topics.decode().split()]
            if any(t.closed == row.position and t.events > 1 for t in topics):
                self._pins.add(row.position, whole(row.size), topics=0)
                return True
        return False

    def _remove_record(self, row: _Row) -> None:
        position, is_public = row.position, row.private == 0
        if position in self._removed:
            self._records_left -= max(len(self._removed[position]), 1)
            return
        is_missed = True
        try:
            with reading(position):
                numbers = text(row.topics.decode().strip())
                topics = [self._numbered(int(number)) for number in numbers.split()]
                size = whole(row.size)
                is_missed = size > 0  # without an event nobody misses anything
        except DamagedError as exc:
            # It would be in the way of every removal, and is of no use to anybody.
            logger.error("%s; it is removed", exc)  # noqa: TRY400 - it says all there is
            numbers, topics, size, is_public = "", self._placed_in(position), 0, True
            self._damaged.append(position)
        self._records_left -= max(len(topics), 1)
        self._bytes_left -= size
        for topic in topics:
            # Not below 0: a damaged record may have had another size.
            topic.events = max(topic.events - 1, 0)
            topic.bytes = max(topic.bytes - size, 0) if topic.events else 0
            if topic.closed == position:
                topic.closed = 0
            elif topic.closed:
                # This may be why that was spared.
                self._pins.unspare(topic.closed)
                self.sums.passed = min(self.sums.passed, topic.closed - 1)
            if is_missed:
                topic.trimmed = max(topic.trimmed, position)
            if is_missed and is_public:
                topic.trimmed_public = max(topic.trimmed_public, position)
        if is_missed and not is_public:
            self._private[numbers] = max(self._private.get(numbers, 0), position)
        self._removed[position] = [topic.number for topic in topics]
        self.sums.events = max(self.sums.events - 1, 0)
        self.sums.bytes = max(self.sums.bytes - size, 0) if self.sums.events else 0
        self._pins.remove(position, size)

    def _placed_in(self, position: int) -> list[_Topic]:
        """Look for the topics of a record whose row doesn't tell them: through all of `placed`."""
        query = "SELECT topic FROM placed WHERE ? BETWEEN position - earlier AND position"
        rows = self._db.execute(query, (position,))
        found: list[_Topic] = []
        for (number,) in rows.fetchall():
            with suppress(DamagedError), reading(position):
                found.append(self._numbered(number))
        return found

    def removed(self) -> Removed:
        """Return the removals."""
        topics = (self._by_number[n] for numbers in self._removed.values() for n in numbers)
        private = {
            tuple(self._by_number[int(n)].name for n in numbers.split()): position
            for numbers, position in self._private.items()
        }
        return Removed(
            positions=sorted(self._removed),
            newest={t.name: t.trimmed_public for t in topics if t.trimmed_public},
            private=private,
            floor=max(self._damaged, default=0),
        )

    def _topics_of(self, names: tuple[str, ...]) -> _Topics:
        known = self._by_names.get(names)
        if known is None:
            topics = [self._named(name) for name in names]
            numbers = [topic.number for topic in topics]
            known = _Topics(topics, numbers, " ".join(map(str, numbers)))
            self._by_names[names] = known
        return known

    def _named(self, name: str) -> _Topic:
        topic = self._by_name.get(name)
        if topic is not None:
            return topic
        query = f"SELECT {_TOPIC} FROM topics WHERE name = ?"  # noqa: S608 - a constant
        row = self._db.execute(query, (name,)).fetchone()
        if row is None:
            insert = "INSERT INTO topics (name, events, bytes, trimmed) VALUES (?, 0, 0, 0)"
            number = self._db.execute(insert, (name,)).lastrowid
            assert number is not None, "SQLite has numbered the row"
            row = (number, name, 0, 0, 0, 0, 0)
            self.sums.empty_topics += 1
        return self._known(row)

    def _numbered(self, number: int) -> _Topic:
        topic = self._by_number.get(number)
        if topic is not None:
            return topic
        query = f"SELECT {_TOPIC} FROM topics WHERE number = ?"  # noqa: S608 - a constant
        return self._known(self._db.execute(query, (number,)).fetchone())

    def _known(self, row: tuple[int, str, int, int, int, int, int]) -> _Topic:
        number, name, events, size, trimmed, trimmed_public, closed = row
        topic = _Topic(
            number=whole(number),
            name=text(name),
            events=whole(events),
            bytes=whole(size),
            trimmed=whole(trimmed, most=self.sums.last),
            trimmed_public=whole(trimmed_public, most=self.sums.last),
            closed=whole(closed, most=self.sums.last),
            was_empty=events == 0,
            was_closed=closed > 0,
        )
        self._by_name[topic.name] = self._by_number[topic.number] = topic
        return topic

    # -- writing

    def write(self) -> None:
        """Write everything gathered; the transaction stays open."""
        self._write_removals()
        self._write_additions()
        self._write_topics()
        self._write_private_marks()
        self._fold_empty_topics()
        sums = self.sums
        sums.floor = max(sums.floor, *self._damaged, 0)
        (oldest,) = self._db.execute("SELECT min(position) FROM records").fetchone()
        sums.oldest = oldest or 0
        sums.trims += bool(self._removed)
        self._db.execute(
            "UPDATE state SET last = ?, events = ?, bytes = ?, floor = ?, trims = ?,"
            " private_floor = ?",
            (sums.last, sums.events, sums.bytes, sums.floor, sums.trims, sums.private_floor),
        )

    def _write_removals(self) -> None:
        self._db.executemany(
            "DELETE FROM placed WHERE topic = ? AND position = ?",
            ((n, position) for position, numbers in self._removed.items() for n in numbers),
        )
        self._db.executemany(
            "DELETE FROM records WHERE position = ?",
            ((position,) for position in self._removed),
        )
        # Through all of `placed`: what the rows of damaged records don't tell of it is there.
        self._db.executemany(
            "DELETE FROM placed WHERE position = ?", ((position,) for position in self._damaged)
        )

    def _write_additions(self) -> None:
        self._db.executemany(
            "INSERT INTO records (position, id, own, dedup, private, published, topics, frame,"
            " last) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self._added,
        )
        self._spans.write(self._db)

    def _write_topics(self) -> None:
        topics = self._by_number.values()
        self._db.executemany(
            "UPDATE topics SET events = ?, bytes = ?, trimmed = ?, trimmed_public = ?,"
            " closed = ? WHERE number = ?",
            ((t.events, t.bytes, t.trimmed, t.trimmed_public, t.closed, t.number) for t in topics),
        )
        filled = sum(t.was_empty and t.events > 0 for t in topics)
        emptied = sum(not t.was_empty and t.events == 0 for t in topics)
        self.sums.topics += filled - emptied
        self.sums.empty_topics += emptied - filled
        self.sums.closed += sum((t.closed > 0) - t.was_closed for t in topics)

    def _write_private_marks(self) -> None:
        marks = [(position, numbers) for numbers, position in self._private.items()]
        if not marks:
            return
        sums = self.sums
        sums.private_marks += self._db.executemany(
            "INSERT OR IGNORE INTO removed_private (position, topics) VALUES (?, ?)", marks
        ).rowcount
        self._db.executemany(
            "UPDATE removed_private SET position = max(position, ?) WHERE topics = ?", marks
        )
        excess = sums.private_marks - self._max_empty
        if excess > 0:
            query = "SELECT position FROM removed_private ORDER BY position LIMIT ?"
            rows = self._db.execute(query, (min(excess, _FOLDED_AT_ONCE),)).fetchall()
            self._fold_private(rows[-1][0])

    def _fold_private(self, up_to: int) -> None:
        """Forget what was removed of private records up to a position, which becomes the floor."""
        gone = self._db.execute("DELETE FROM removed_private WHERE position <= ?", (up_to,))
        if gone.rowcount:
            self.sums.private_floor = max(self.sums.private_floor, up_to)
            self.sums.private_marks -= gone.rowcount

    def _fold_empty_topics(self) -> None:
        """Forget the topics without records that lost one longest ago: that becomes the floor."""
        excess = self.sums.empty_topics - self._max_empty
        if excess <= 0:
            return
        query = (
            "SELECT number, trimmed, trimmed_public FROM topics WHERE events = 0"
            " ORDER BY trimmed LIMIT ?"
        )
        rows = self._db.execute(query, (min(excess, _FOLDED_AT_ONCE),)).fetchall()
        self._db.executemany("DELETE FROM topics WHERE number = ?", ((row[0],) for row in rows))
        self.sums.floor = max(self.sums.floor, *(row[2] for row in rows))
        self.sums.empty_topics -= len(rows)
        # Their numbers mean nothing from now on, and no mark with one is newer.
        self._fold_private(rows[-1][1])


def is_older(published: float, than: float | None) -> bool:
    """Whether a record is older than a time; a time that is damaged counts as old."""
    return than is not None and not than <= published < inf


def _is_exceeded(retention: Retention, topic: _Topic, _row: _Row) -> bool:
    # One without an event takes no event's place.
    return retention.is_topic_exceeded(topic.events - topic.silent, topic.bytes)
