"""`read_page` and its kin: reading a database by position, topic or publisher's id.

Every function opens a snapshot, fetches what it needs and ends it: a read that stays open keeps
the write-ahead log from being emptied. Nothing behind `head` is seen, as the database may be ahead
of the log in memory: a record that was committed but isn't in the log yet comes to subscribers by
the log.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self, final

from h3trio.hub._history.errors import DamagedError
from h3trio.hub._history.log import MAX_SCAN, distinct
from h3trio.hub._history.record import page_of
from h3trio.hub._history.selection import EVERYTHING, Selection, check_topic

from .rows import reading, record_of, whole

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
_OF_TOPIC: Final = "SELECT position FROM placed WHERE topic = ? AND "

_MAX_SEARCH: Final = 20 * MAX_SCAN
"""Records that are looked at to find the last so many that match."""


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
        query = "SELECT id, private, published, topics, frame FROM records WHERE position = ?"
        with reading(position):
            row = self._db.execute(query, (position,)).fetchone()
            return record_of(position, row, self._topics)

    def after(self, after: int, head: int, selection: Selection) -> tuple[Iterator[int], int]:
        """List selected positions lazily, and say up to which position the list answers."""
        if selection.is_exact:
            return self._of_topics(selection, _AFTER, after, head), head
        if selection.everything:
            return (row[0] for row in self._rows(_POSITIONS + _AFTER, after, head)), head
        scanned = list(islice(self._rows(_SCAN + _AFTER, after, head), MAX_SCAN))
        end = scanned[-1][0] if len(scanned) == MAX_SCAN else head
        return self._matching(scanned, selection), end

    def backward(self, head: int, selection: Selection) -> Iterator[int]:
        """List selected positions lazily, the newest first."""
        if selection.is_exact:
            return self._of_topics(selection, _BACKWARD, head)
        if selection.everything:
            return (row[0] for row in self._rows(_POSITIONS + _BACKWARD, head))
        scanned = islice(self._rows(_SCAN + _BACKWARD, head), _MAX_SEARCH)
        return self._matching(scanned, selection)

    def _of_topics(self, selection: Selection, where: str, *bounds: int) -> Iterator[int]:
        """Merge the positions of several topics, one under more than one of them once."""
        known = "SELECT number FROM topics WHERE name = ? AND events > 0"
        found = (self._db.execute(known, (name,)).fetchone() for name in selection.topics)
        rows = [self._rows(_OF_TOPIC + where, number, *bounds) for (number,) in filter(None, found)]
        # It is closed before its cursors: an error that is kept keeps it too.
        merged = self._cursors.enter_context(closing(merge(*rows, reverse=where is _BACKWARD)))
        return distinct(row[0] for row in merged)

    def _matching(self, rows: Iterable[Any], selection: Selection) -> Iterator[int]:
        known: dict[str, bool] = {}
        for position, numbers in rows:
            matches = known.get(numbers)
            if matches is None:
                matches = known[numbers] = selection.matches(self._topics(numbers))
            if matches:
                yield position

    def _rows(self, query: str, *values: int) -> Iterator[Any]:
        return iter(self._cursors.enter_context(closing(self._db.execute(query, values))))

    def _topics(self, numbers: str) -> tuple[str, ...]:
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


def find(db: sqlite3.Connection, *, id: str, head: int) -> int | None:
    """Return the position of the newest record with a publisher's id."""
    query = "SELECT max(position) FROM records WHERE own = 1 AND id = ? AND position <= ?"
    (position,) = db.execute(query, (id, head)).fetchone()
    return None if position is None else int(position)


def position_before_last(
    db: sqlite3.Connection, *, count: int, head: int, selection: Selection
) -> int:
    """Return the position behind which the last `count` selected records stand.

    With matchers, no more than the newest 40,000 records are looked at.
    """
    with _Snapshot(db) as snapshot:
        nth = next(islice(snapshot.backward(head, selection), count - 1, None), None)
    return 0 if nth is None else nth - 1


def newest(db: sqlite3.Connection, *, head: int, limits: Retention) -> list[Record]:
    """Return the newest records within some limits, in order: at least one if there is one."""
    with _Snapshot(db) as snapshot:
        page = page_of(
            map(snapshot.record, snapshot.backward(head, Selection([EVERYTHING]))),
            end=0,
            head=head,
            max_records=limits.max_events,
            max_bytes=limits.max_bytes,
        )
    return list(page.records)[::-1]
