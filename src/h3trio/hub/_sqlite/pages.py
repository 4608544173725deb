"""`read_page` and its kin: reading a database by position, topic or publisher's id.

Every function opens a snapshot, fetches what it needs and ends it: a read that stays open keeps
the write-ahead log from being emptied. Nothing behind `head` is seen, as the database may be ahead
of the log in memory: a record that was committed but isn't in the log yet comes to subscribers by
the log.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from heapq import merge
from typing import TYPE_CHECKING, Any, Final, Self, final

from h3trio.hub._history.damage import DamagedError
from h3trio.hub._history.log import distinct
from h3trio.hub._history.record import page_of
from h3trio.hub._history.selection import EVERYTHING, MAX_SCAN, Selection, Turn, check_topic

from . import spans
from .rows import reading, record_of, text, whole

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from h3trio.hub._history.record import Page, Record
    from h3trio.hub._history.retention import Retention

# Every query is put together from constants of this file; values from outside are bound.
_AFTER: Final = "position > ? AND position <= ? ORDER BY position"
_BACKWARD: Final = "position <= ? ORDER BY position DESC"
_POSITIONS: Final = "SELECT position FROM records WHERE "
_SCAN: Final = "SELECT position, topics FROM records WHERE "

_MAX_SEARCH: Final = 20 * MAX_SCAN
"""The cost of looking for an id, in records that could be looked at."""


@final
class _Snapshot:
    """One state of the database, seen until the block ends."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._cursors = ExitStack()
        self._names: dict[int, str] = {}

    def __enter__(self) -> Self:
        self._db.execute("BEGIN")
        return self

    def __exit__(self, *_exc: object) -> None:
        # A cursor that is open would keep the snapshot beyond its transaction.
        self._cursors.close()
        self._db.execute("ROLLBACK")

    def record(self, position: int) -> Record:
        query = "SELECT id, private, published, topics, frame, last FROM records WHERE position = ?"
        with reading(position):
            row = self._db.execute(query, (position,)).fetchone()
            return record_of(position, row, self.topics)

    def after(self, after: int, head: int, selection: Selection) -> tuple[Iterator[int], int]:
        """List selected positions lazily, and say up to which position the list answers."""
        if selection.is_exact:
            return self._of_topics(selection, after, head), head
        if selection.everything:
            return (row[0] for row in self._rows(_POSITIONS + _AFTER, after, head)), head
        found: list[int] = []
        end, turn, selected = after, Turn(), _Asked(self, selection)
        for position, numbers in self._rows(_SCAN + _AFTER, after, head):
            # At least one, or a reader would stand still.
            if turn.spend(selected.cost(numbers)) and end > after:
                return iter(found), end
            end = position
            if selected.ask(numbers):
                found.append(position)
        return iter(found), head

    def backward(self, head: int, selection: Selection) -> Iterator[int]:
        """List positions lazily, the newest first; with matchers, those that may match."""
        if selection.is_exact:
            return self._of_topics(selection, 0, head, backward=True)
        return (row[0] for row in self._rows(_POSITIONS + _BACKWARD, head))

    def rights(self, position: int) -> tuple[bool, str, bool]:
        """Return whether a record is private, its topics as they stand there, if it has a frame."""
        query = "SELECT private, topics, length(frame) > 0 FROM records WHERE position = ?"
        private, numbers, has_frame = self._db.execute(query, (position,)).fetchone()
        return bool(private), numbers, bool(has_frame)

    def closing(self, topic: str, head: int) -> int | None:
        """Return the position of the record that closed a topic, `None` if it is open."""
        query = "SELECT closed FROM topics WHERE name = ? AND closed > 0 AND closed <= ?"
        row = self._db.execute(query, (topic, head)).fetchone()
        return None if row is None else whole(row[0])

    def with_id(self, id: str, topic: int, head: int) -> Iterator[int]:
        """List a topic's positions that have a publisher's id lazily, the newest first."""
        query = "SELECT max(position) FROM placed WHERE id = ? AND topic = ? AND position <= ?"
        (position,) = self._db.execute(query, (id, topic, head)).fetchone()
        while position is not None:
            yield position
            (position,) = self._db.execute(query, (id, topic, position - 1)).fetchone()

    def topics_with_id(self, id: str, selection: Selection) -> Iterator[tuple[int, str]]:
        """List topics that may have a publisher's id; with matchers, not only selected ones."""
        if selection.is_exact:
            known = "SELECT number FROM topics WHERE name = ? AND events > 0"
            for name in selection.topics:
                yield from ((row[0], name) for row in self._db.execute(known, (name,)).fetchall())
            return
        following = "SELECT min(topic) FROM placed WHERE id = ? AND topic > ?"
        (topic,) = self._db.execute(following, (id, 0)).fetchone()
        while topic is not None:
            yield topic, self._name(topic)
            (topic,) = self._db.execute(following, (id, topic)).fetchone()

    def _of_topics(
        self, selection: Selection, after: int, head: int, *, backward: bool = False
    ) -> Iterator[int]:
        """Merge the positions of several topics, one under more than one of them once."""
        known = "SELECT number FROM topics WHERE name = ? AND events > 0"
        found = (self._db.execute(known, (name,)).fetchone() for name in selection.topics)
        query, bounds = spans.query(after, head, backward=backward)
        rows = [self._rows(query, number, *bounds) for (number,) in filter(None, found)]
        listed = (spans.positions(each, after, head, backward=backward) for each in rows)
        # It is closed before its cursors: an error that is kept keeps it too.
        merged = self._cursors.enter_context(closing(merge(*listed, reverse=backward)))
        return distinct(merged)

    def _rows(self, query: str, *values: int) -> Iterator[Any]:
        return iter(self._cursors.enter_context(closing(self._db.execute(query, values))))

    def topics(self, numbers: str) -> tuple[str, ...]:
        return tuple(self._name(int(number)) for number in numbers.split())

    def _name(self, number: int) -> str:
        name = self._names.get(number)
        if name is None:
            query = "SELECT name FROM topics WHERE number = ?"
            (name,) = self._db.execute(query, (number,)).fetchone()
            check_topic(name)
            self._names[number] = name
        return name


@final
class _Good:
    """Records up to the first that is damaged."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self.damage: DamagedError | None = None

    def __iter__(self) -> Iterator[Record]:
        try:
            yield from self._records
        except DamagedError as exc:
            self.damage = exc


@final
class _Asked:
    """A selection, and its answers for the topics of records, which many have in common."""

    def __init__(self, snapshot: _Snapshot, selection: Selection) -> None:
        self._snapshot = snapshot
        self._selection = selection
        self._known: dict[str, bool] = {}

    def cost(self, numbers: str) -> int:
        """Return what the next answer may cost, for `Turn.spend`."""
        return 0 if numbers in self._known else self._selection.cost(numbers.count(" ") + 1)

    def ask(self, numbers: str) -> bool:
        """Whether one of some topics is meant."""
        if numbers not in self._known:
            self._known[numbers] = self._selection.matches(self._snapshot.topics(numbers))
        return self._known[numbers]


def read_page(
    db: sqlite3.Connection,
    *,
    after: int,
    head: int,
    selection: Selection,
    max_records: int,
    max_bytes: int,
) -> tuple[Page, int]:
    """Read selected records behind `after`, up to `head`.

    Returns:
        The page, and the number of transactions that had removed something when it was read.

    Raises:
        DamagedError: a record can't be read; the error has those in front of it.
    """
    with _Snapshot(db) as snapshot:
        trims = whole(db.execute("SELECT trims FROM state").fetchone()[0])
        found, end = snapshot.after(after, head, selection)
        good = _Good(map(snapshot.record, found))
        page = page_of(
            good,
            end=max(end, after),
            head=head,
            max_records=max_records,
            max_bytes=max_bytes,
        )
        if good.damage is not None:
            if page.records:
                good.damage.page = page._replace(last=page.records[-1].position, more=True)
            raise good.damage
    return page, trims


def with_names(
    db: sqlite3.Connection, rows: Iterable[tuple[str, int]]
) -> Iterator[tuple[tuple[str, ...], int]]:
    """Give the names of topics for their numbers, as they stand in front of a position."""
    with _Snapshot(db) as snapshot:
        for numbers, position in rows:
            yield snapshot.topics(text(numbers)), position


def find(
    db: sqlite3.Connection, *, id: str, head: int, selection: Selection, allow: Selection
) -> int | None:
    """Return the position that a publisher's id stands for, as `History.find` does.

    Given up, with `None`, once it cost as much as 40,000 records to look at.
    """
    newest: list[int] = []
    spent = 0
    with _Snapshot(db) as snapshot:
        visible = _Asked(snapshot, allow)
        for topic, name in snapshot.topics_with_id(id, selection):
            spent += 1 + selection.cost(1)
            if spent > _MAX_SEARCH:
                return None
            positions = snapshot.with_id(id, topic, head) if selection.matches_topic(name) else ()
            for position in positions:
                private, numbers, _has_frame = snapshot.rights(position)
                spent += 1 + (visible.cost(numbers) if private else 0)
                if spent > _MAX_SEARCH:
                    return None
                if not private or visible.ask(numbers):
                    newest.append(position)
                    break
    return min(newest, default=None)


def are_closed(
    db: sqlite3.Connection, *, topics: Iterable[str], head: int, allow: Selection
) -> bool:
    """Whether all of some topics are closed, as `History.are_closed` says."""
    with _Snapshot(db) as snapshot:
        visible = _Asked(snapshot, allow)
        for topic in topics:
            if (position := snapshot.closing(topic, head)) is None:
                return False
            private, numbers, _has_frame = snapshot.rights(position)
            if private and not visible.ask(numbers):
                return False
    return True


def look_back(
    db: sqlite3.Connection, *, count: int, head: int, selection: Selection, allow: Selection
) -> tuple[int, int]:
    """Look for the last `count` visible records up to `head`, for one turn.

    Returns:
        How many are still to be found, and the position up to which to go on: 0 at the end. If none
        are to be found it is the position behind which they stand.
    """
    with _Snapshot(db) as snapshot:
        selected, visible = _Asked(snapshot, selection), _Asked(snapshot, allow)
        turn, end = Turn(), head + 1
        for position in snapshot.backward(head, selection):
            private, numbers, has_frame = snapshot.rights(position)
            cost = selected.cost(numbers) + (visible.cost(numbers) if private else 0)
            if turn.spend(cost) and end <= head:
                return count, end - 1
            end = position
            if has_frame and selected.ask(numbers) and (not private or visible.ask(numbers)):
                count -= 1
                if not count:
                    return 0, position - 1
    return count, 0


def newest(db: sqlite3.Connection, *, head: int, limits: Retention) -> list[Record]:
    """Return the newest records within some limits, in order: at least one if there is one."""
    everything = Selection([EVERYTHING])
    with _Snapshot(db) as snapshot:
        page = page_of(
            map(snapshot.record, snapshot.backward(head, everything)),
            end=0,
            head=head,
            max_records=limits.max_events,
            max_bytes=limits.max_bytes,
        )
    return list(page.records)[::-1]
