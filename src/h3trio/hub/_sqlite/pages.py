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

from h3trio.hub._history.log import distinct
from h3trio.hub._history.record import Record, page_of
from h3trio.hub._history.selection import EVERYTHING, MAX_SCAN, Selection

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from h3trio.hub._history.record import Page
    from h3trio.hub._history.retention import Retention

# Every query is put together from constants of this file; values from outside are bound.
_AFTER: Final = "position > ? AND position <= ? ORDER BY position"
_BACKWARD: Final = "position <= ? ORDER BY position DESC"
_POSITIONS: Final = "SELECT position FROM records WHERE "
_SCAN: Final = "SELECT position, topics FROM records WHERE "
_OF_TOPIC: Final = "SELECT position FROM placed WHERE topic = ? AND "

_MAX_SEARCH: Final = 20 * MAX_SCAN
"""Records that are looked at to find the last so many that match, or the one with an id."""


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
        row = self._db.execute(query, (position,)).fetchone()
        wire_id, private, published, topics, frame = row
        return Record(
            position=position,
            id=wire_id,
            topics=self._topics(topics),
            private=bool(private),
            published=published,
            frame=frame,
        )

    def after(self, after: int, head: int, selection: Selection) -> tuple[Iterator[int], int]:
        """List selected positions lazily, and say up to which position the list answers."""
        if selection.is_exact:
            return self._of_topics(selection, _AFTER, after, head), head
        if selection.everything:
            return (row[0] for row in self._rows(_POSITIONS + _AFTER, after, head)), head
        scanned = list(islice(self._rows(_SCAN + _AFTER, after, head), MAX_SCAN))
        end = scanned[-1][0] if len(scanned) == MAX_SCAN else head
        return self._matching(scanned, selection), end

    def backward(self, head: int, selection: Selection, allow: Selection) -> Iterator[int]:
        """List positions of selected and visible records lazily, the newest first."""
        if selection.is_exact:
            found = self._of_topics(selection, _BACKWARD, head)
        elif selection.everything:
            found = (row[0] for row in self._rows(_POSITIONS + _BACKWARD, head))
        else:
            scanned = islice(self._rows(_SCAN + _BACKWARD, head), _MAX_SEARCH)
            found = self._matching(scanned, selection)
        if allow.everything:
            return found
        return (position for position in found if self.is_visible(position, allow))

    def is_visible(self, position: int, allow: Selection) -> bool:
        """Whether a subscriber with these rights may see a record."""
        query = "SELECT private, topics FROM records WHERE position = ?"
        private, topics = self._db.execute(query, (position,)).fetchone()
        return not private or allow.matches(self._topics(topics))

    def newest_with_id(self, id: str, topic: int, head: int) -> int | None:
        """Return the newest position of a topic that has a publisher's id, up to `head`."""
        query = "SELECT max(position) FROM placed WHERE id = ? AND topic = ? AND position <= ?"
        (position,) = self._db.execute(query, (id, topic, head)).fetchone()
        return None if position is None else int(position)

    def topics_with_id(self, id: str, selection: Selection) -> Iterator[tuple[int, bool]]:
        """List topics that may have a publisher's id, and whether they are selected."""
        if selection.is_exact:
            known = "SELECT number FROM topics WHERE name = ? AND events > 0"
            for name in selection.topics:
                yield from ((row[0], True) for row in self._db.execute(known, (name,)).fetchall())
            return
        following = "SELECT min(topic) FROM placed WHERE id = ? AND topic > ?"
        (topic,) = self._db.execute(following, (id, 0)).fetchone()
        while topic is not None:
            yield topic, selection.matches_topic(self._name(topic))
            (topic,) = self._db.execute(following, (id, topic)).fetchone()

    def _of_topics(self, selection: Selection, where: str, *bounds: int) -> Iterator[int]:
        """Merge the positions of several topics, one under more than one of them once."""
        known = "SELECT number FROM topics WHERE name = ? AND events > 0"
        found = (self._db.execute(known, (name,)).fetchone() for name in selection.topics)
        rows = [self._rows(_OF_TOPIC + where, number, *bounds) for (number,) in filter(None, found)]
        return distinct(row[0] for row in merge(*rows, reverse=where is _BACKWARD))

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
            self._names[number] = name
        return name


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
    """
    with _Snapshot(db) as snapshot:
        (trims,) = db.execute("SELECT trims FROM state").fetchone()
        found, end = snapshot.after(after, head, selection)
        page = page_of(
            map(snapshot.record, found),
            end=max(end, after),
            head=head,
            max_records=max_records,
            max_bytes=max_bytes,
        )
    return page, trims


def find(
    db: sqlite3.Connection, *, id: str, head: int, selection: Selection, allow: Selection
) -> int | None:
    """Return the position that a publisher's id stands for, as `History.find` does.

    Given up once 40,000 records were looked at.
    """
    found: list[int] = []
    looks = 0
    with _Snapshot(db) as snapshot:
        for topic, is_selected in snapshot.topics_with_id(id, selection):
            looks += 1
            position = snapshot.newest_with_id(id, topic, head) if is_selected else None
            while position is not None and not snapshot.is_visible(position, allow):
                looks += 1
                if looks > _MAX_SEARCH:
                    return None
                position = snapshot.newest_with_id(id, topic, position - 1)
            found += [] if position is None else [position]
            if looks > _MAX_SEARCH:
                return None
    return min(found, default=None)


def position_before_last(
    db: sqlite3.Connection, *, count: int, head: int, selection: Selection, allow: Selection
) -> int:
    """Return the position behind which the last `count` visible records stand.

    With matchers, no more than the newest 40,000 records are looked at.
    """
    with _Snapshot(db) as snapshot:
        found = snapshot.backward(head, selection, allow)
        nth = next(islice(found, count - 1, None), None)
    return 0 if nth is None else nth - 1


def newest(db: sqlite3.Connection, *, head: int, limits: Retention) -> list[Record]:
    """Return the newest records within some limits, in order: at least one if there is one."""
    everything = Selection([EVERYTHING])
    with _Snapshot(db) as snapshot:
        page = page_of(
            map(snapshot.record, snapshot.backward(head, everything, everything)),
            end=0,
            head=head,
            max_records=limits.max_events,
            max_bytes=limits.max_bytes,
        )
    return list(page.records)[::-1]
