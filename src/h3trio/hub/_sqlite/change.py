"""What one transaction changes, gathered first and written at its end.

Removals are written before additions, so that on a full disk the new records find
the pages of the old. Sums per topic and in all are kept along, so that a limit
is checked without counting. A change is thrown away if its transaction fails: the
sums it worked on are a copy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    import sqlite3

    from h3trio.hub._history.record import Record

_FOLDED_AT_ONCE: Final = 1000
"""Marks given up in one transaction, where a limit became much lower."""


@final
@dataclass(slots=True, kw_only=True)
class Sums:
    """What is known of the whole database without asking it."""

    last: int
    """The last position given."""
    events: int
    bytes: int
    floor: int
    """Below it, something of a topic that is no longer known may have been removed."""
    trims: int
    """Transactions that removed something: tells whether a snapshot is ahead of the marks."""
    topics: int
    """Topics with records."""
    empty_topics: int
    """Topics that are kept for their mark."""
    oldest: int
    """The first kept position, 0 if none."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What one or more transactions removed, for `log` and `marks`."""

    positions: list[int] = field(default_factory=list[int])
    marks: dict[str, int] = field(default_factory=dict[str, int])
    """The newest removed position of each topic."""


@final
@dataclass(slots=True)
class Topic:
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
        max_empty_topics: topics without records whose marks are kept.
    """

    __slots__ = ("_added", "_by_name", "_by_number", "_db", "_max_empty", "_removed", "sums")

    def __init__(self, db: sqlite3.Connection, sums: Sums, *, max_empty_topics: int) -> None:
        self._db = db
        self.sums = replace(sums)
        self._max_empty = max_empty_topics
        self._by_name: dict[str, Topic] = {}
        self._by_number: dict[int, Topic] = {}
        self._added: list[tuple[Record, str | None, list[int]]] = []
        self._removed: dict[int, list[int]] = {}

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

    def remove(self, position: int, topics: str, size: int) -> None:
        """Remove a record; `topics` as they stand in its row."""
        if position in self._removed:
            return
        numbers = [int(number) for number in topics.split()]
        for number in numbers:
            topic = self._numbered(number)
            topic.events -= 1
            topic.bytes -= size
            topic.trimmed = max(topic.trimmed, position)
        self._removed[position] = numbers
        self.sums.events -= 1
        self.sums.bytes -= size

    def added_topics(self) -> list[Topic]:
        """List each topic that gets a record, in the order in which they do."""
        added = dict.fromkeys(n for _record, _dedup, numbers in self._added for n in numbers)
        return [self._by_number[number] for number in added]

    def number_of(self, name: str) -> int | None:
        """Return a topic's number, if it is known."""
        row = self._db.execute("SELECT number FROM topics WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    def removed(self) -> Removed:
        """Return what is removed."""
        marks = {
            self._by_number[number].name: self._by_number[number].trimmed
            for numbers in self._removed.values()
            for number in numbers
        }
        return Removed(positions=sorted(self._removed), marks=marks)

    def _named(self, name: str) -> Topic:
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

    def _numbered(self, number: int) -> Topic:
        topic = self._by_number.get(number)
        if topic is not None:
            return topic
        query = "SELECT number, name, events, bytes, trimmed FROM topics WHERE number = ?"
        return self._known(self._db.execute(query, (number,)).fetchone())

    def _known(self, row: tuple[int, str, int, int, int]) -> Topic:
        topic = Topic(*row, was_empty=row[2] == 0)
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
            "INSERT INTO placed (topic, position) VALUES (?, ?)",
            ((n, record.position) for record, _dedup, numbers in self._added for n in numbers),
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
        """Forget the oldest marks of topics without records: they become the floor."""
        excess = self.sums.empty_topics - self._max_empty
        if excess <= 0:
            return
        query = "SELECT number, trimmed FROM topics WHERE events = 0 ORDER BY trimmed LIMIT ?"
        rows = self._db.execute(query, (min(excess, _FOLDED_AT_ONCE),)).fetchall()
        self._db.executemany("DELETE FROM topics WHERE number = ?", ((n,) for n, _ in rows))
        self.sums.floor = max(self.sums.floor, rows[-1][1])
        self.sums.empty_topics -= len(rows)


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
