"""`Change`: the additions and removals of one transaction, gathered first and written at its end.

Records to remove are looked for in order, and the search stops at the first that isn't due, or when
the change has its fill of them: no transaction gets long, and it has a place in the write-ahead log
even on a full disk. Removals are written before additions, so that on a full disk the new records
find the pages of the old.

Sums per topic and in all are kept along, so that a limit is checked without counting. A change is
thrown away if its transaction fails: it works on a copy of the sums.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, final

from h3trio.hub._history.retention import MIB

from .rows import text, whole

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from h3trio.hub._history.record import Record
    from h3trio.hub._history.retention import Retention

MAX_REMOVED_RECORDS: Final = 500
"""Records that one change removes, beyond as many as it adds; one counts in each of its topics."""

MAX_REMOVED_BYTES: Final = 16 * MIB
"""Bytes of frames that one change removes, beyond as many as it adds."""

_FOLDED_AT_ONCE: Final = 1000
"""Empty topics that one change forgets, if a limit became much lower."""

_COLUMNS: Final = "records.position, records.topics, length(frame), published"
_OLDEST: Final = f"SELECT {_COLUMNS} FROM records WHERE position < ? ORDER BY position"  # noqa: S608 - a constant
_OF_TOPIC: Final = (
    f"SELECT {_COLUMNS} FROM placed JOIN records ON records.position = placed.position"  # noqa: S608 - a constant
    " WHERE topic = ? AND placed.position < ? ORDER BY placed.position"
)


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
    """Below it, something of a topic that is no longer known may have been removed."""
    trims: int = 0
    """Transactions that removed something: tells whether a snapshot is ahead of `gaps`."""
    topics: int = 0
    """Topics with records."""
    empty_topics: int = 0
    """Topics that are kept for their newest removed position."""
    oldest: int = 0
    """The first kept position, 0 if none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The removals of one transaction, for `log` and `gaps`."""

    positions: list[int] = field(default_factory=list[int])
    newest: dict[str, int] = field(default_factory=dict[str, int])
    """The newest removed position of each topic."""


class _Row(NamedTuple):
    position: int
    topics: str
    """Their numbers, as they stand in the record's row."""
    size: int
    published: float


@final
@dataclass(slots=True)
class _Topic:
    """A topic's row, with its sums as they will be."""

    number: int
    name: str
    events: int
    bytes: int
    trimmed: int
    was_empty: bool


@final
class Change:
    """Additions and removals of one transaction.

    Args:
        db: the writer's connection, in the transaction.
        sums: the current ones; left alone.
        max_empty_topics: topics without records that are kept for their newest removed position.
    """

    def __init__(self, db: sqlite3.Connection, sums: Sums, *, max_empty_topics: int) -> None:
        self._db = db
        self.sums = replace(sums)
        self._max_empty = max_empty_topics
        self._by_name: dict[str, _Topic] = {}
        self._by_number: dict[int, _Topic] = {}
        self._added: list[tuple[Record, str | None, list[int]]] = []
        self._removed: dict[int, list[int]] = {}
        self._records_left = MAX_REMOVED_RECORDS
        self._bytes_left = MAX_REMOVED_BYTES

    # -- gathering

    def add(self, record: Record, dedup: str | None) -> None:
        """Add a record, at the next position."""
        size = len(record.frame)
        numbers: list[int] = []
        for name in record.topics:
            topic = self._named(name)
            topic.events += 1
            topic.bytes += size
            numbers.append(topic.number)
        self._added.append((record, dedup, numbers))
        self.sums.last = record.position
        self.sums.events += 1
        self.sums.bytes += size
        self._records_left += len(numbers)
        self._bytes_left += size

    def scoped_key(self, key: str, topics: Iterable[str]) -> str:
        """Return a `dedup` key as it stands in the database: with the topics that it belongs to."""
        numbers = sorted(self._named(name).number for name in topics)
        return f"{' '.join(map(str, numbers))}\n{key}"

    def remove_excess(self, retention: Retention, *, before: int) -> None:
        """Remove records beyond the limits, of the topics that are added to and in all.

        Args:
            retention: the limits.
            before: the first position that stays, as in the methods below.
        """
        if retention.limits_topics:
            added = dict.fromkeys(n for _record, _dedup, numbers in self._added for n in numbers)
            for topic in [self._by_number[number] for number in added]:
                is_due = partial(_is_exceeded, retention, topic)
                self._remove(_OF_TOPIC, (topic.number, before), is_due)
        self.remove_oldest(retention, before=before)

    def remove_oldest(
        self, retention: Retention, *, before: int, published_before: float | None = None
    ) -> bool:
        """Remove records beyond the limits in all, or too old; return whether more may be due."""
        sums = self.sums

        def is_due(row: _Row) -> bool:
            is_old = published_before is not None and row.published < published_before
            return is_old or retention.is_exceeded(sums.events, sums.bytes)

        return self._remove(_OLDEST, (before,), is_due)

    def remove_topic(self, name: str, *, before: int) -> bool:
        """Remove the records of a topic; return whether more may be due."""
        query = "SELECT number FROM topics WHERE name = ?"
        row = self._db.execute(query, (name,)).fetchone()
        return row is not None and self._remove(_OF_TOPIC, (row[0], before), lambda _row: True)

    def _remove(self, query: str, values: tuple[int, ...], is_due: Callable[[_Row], bool]) -> bool:
        """Remove found records in order while they are due; return whether more may be."""
        with closing(self._db.execute(query, values)) as rows:
            for row in map(_Row._make, rows):
                if not is_due(row):
                    break
                if self._records_left <= 0 or self._bytes_left <= 0:
                    return True
                whole(row.size)
                self._remove_record(row)
        return False

    def _remove_record(self, row: _Row) -> None:
        numbers = [int(number) for number in row.topics.split()]
        self._records_left -= len(numbers)
        self._bytes_left -= row.size
        if row.position in self._removed:
            return
        for number in numbers:
            topic = self._numbered(number)
            topic.events -= 1
            topic.bytes -= row.size
            topic.trimmed = max(topic.trimmed, row.position)
        self._removed[row.position] = numbers
        self.sums.events -= 1
        self.sums.bytes -= row.size

    def removed(self) -> Removed:
        """Return the removals."""
        topics = (self._by_number[n] for numbers in self._removed.values() for n in numbers)
        newest = {topic.name: topic.trimmed for topic in topics}
        return Removed(positions=sorted(self._removed), newest=newest)

    def _named(self, name: str) -> _Topic:
        topic = self._by_name.get(name)
        if topic is not None:
            return topic
        query = "SELECT number, name, events, bytes, trimmed FROM topics WHERE name = ?"
        row = self._db.execute(query, (name,)).fetchone()
        if row is None:
            insert = "INSERT INTO topics (name, events, bytes, trimmed) VALUES (?, 0, 0, 0)"
            number = self._db.execute(insert, (name,)).lastrowid
            assert number is not None, "SQLite has numbered the row"
            row = (number, name, 0, 0, 0)
            self.sums.empty_topics += 1
        return self._known(row)

    def _numbered(self, number: int) -> _Topic:
        topic = self._by_number.get(number)
        if topic is not None:
            return topic
        query = "SELECT number, name, events, bytes, trimmed FROM topics WHERE number = ?"
        return self._known(self._db.execute(query, (number,)).fetchone())

    def _known(self, row: tuple[int, str, int, int, int]) -> _Topic:
        number, name, events, size, trimmed = row
        topic = _Topic(
            number=whole(number),
            name=text(name),
            events=whole(events),
            bytes=whole(size),
            trimmed=whole(trimmed),
            was_empty=events == 0,
        )
        self._by_name[topic.name] = self._by_number[topic.number] = topic
        return topic

    # -- writing

    def write(self) -> None:
        """Write everything gathered; the transaction stays open."""
        self._write_removals()
        self._write_additions()
        self._write_topics()
        self._fold_empty_topics()
        sums = self.sums
        (oldest,) = self._db.execute("SELECT min(position) FROM records").fetchone()
        sums.oldest = oldest or 0
        sums.trims += bool(self._removed)
        self._db.execute(
            "UPDATE state SET last = ?, events = ?, bytes = ?, floor = ?, trims = ?",
            (sums.last, sums.events, sums.bytes, sums.floor, sums.trims),
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

    def _write_additions(self) -> None:
        self._db.executemany(
            "INSERT INTO records (position, id, own, dedup, private, published, topics, frame)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (_row(record, dedup, numbers) for record, dedup, numbers in self._added),
        )
        self._db.executemany(
            "INSERT INTO placed (topic, position, id) VALUES (?, ?, ?)",
            (
                (n, record.position, record.id if record.has_own_id else None)
                for record, _dedup, numbers in self._added
                for n in numbers
            ),
        )

    def _write_topics(self) -> None:
        topics = self._by_number.values()
        self._db.executemany(
            "UPDATE topics SET events = ?, bytes = ?, trimmed = ? WHERE number = ?",
            ((t.events, t.bytes, t.trimmed, t.number) for t in topics),
        )
        filled = sum(t.was_empty and t.events > 0 for t in topics)
        emptied = sum(not t.was_empty and t.events == 0 for t in topics)
        self.sums.topics += filled - emptied
        self.sums.empty_topics += emptied - filled

    def _fold_empty_topics(self) -> None:
        """Forget the topics without records that lost one longest ago: that becomes the floor."""
        excess = self.sums.empty_topics - self._max_empty
        if excess <= 0:
            return
        query = "SELECT number, trimmed FROM topics WHERE events = 0 ORDER BY trimmed LIMIT ?"
        rows = self._db.execute(query, (min(excess, _FOLDED_AT_ONCE),)).fetchall()
        self._db.executemany("DELETE FROM topics WHERE number = ?", ((n,) for n, _ in rows))
        self.sums.floor = max(self.sums.floor, rows[-1][1])
        self.sums.empty_topics -= len(rows)


def _is_exceeded(retention: Retention, topic: _Topic, _row: _Row) -> bool:
    return retention.is_topic_exceeded(topic.events, topic.bytes)


def _row(record: Record, dedup: str | None, numbers: list[int]) -> tuple[object, ...]:
    return (
        record.position,
        record.id,
        record.has_own_id,
        dedup,
        record.private,
        record.published,
        " ".join(map(str, numbers)),
        record.frame,
    )
