"""The writer of a history's database: loading, appending, removing. It blocks.

One thread at a time runs it; `SQLiteHistory` sees to that. Each append is one
transaction, however many updates it holds, and what retention takes away goes in
the same one. How much it takes away is bounded, so an append stays short after
limits were lowered too; `trim` does the rest.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, final

from h3trio.hub._history.epochs import Epochs
from h3trio.hub._history.errors import HistoryError
from h3trio.hub._history.gaps import MAX_MARKED_TOPICS
from h3trio.hub._history.placing import place
from h3trio.hub._history.record import Appended
from h3trio.hub._history.retention import MIB

from . import pages, schema, trim
from .change import Change, Removed, Sums
from .db import Database, translated
from .files import OwnerLock

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from h3trio.hub._history.history import Durability
    from h3trio.hub._history.record import Record, Update
    from h3trio.hub._history.retention import Retention


class Loaded(NamedTuple):
    """What an opened store has, for the part in memory."""

    records: list[Record]
    """The newest."""
    floor: int
    """The last position of which the record is not among them."""
    head: int
    marks_floor: int
    marks: list[tuple[str, int]]
    """The newest last."""
    epochs: Epochs


class Written(NamedTuple):
    """What an append did."""

    appended: list[Appended]
    removed: Removed


@final
class Store:
    """A database, opened for writing.

    Args:
        path: the database's file.
        durability: `"durable"` or `"fast"`.
        retention: how much is kept.
        max_db_bytes: size of the file above which updates are refused.
        reserve_bytes: disk space held back for removing on a full disk.
        max_empty_topics: topics without records whose marks are kept.
    """

    def __init__(
        self,
        path: Path,
        *,
        durability: Durability,
        retention: Retention,
        max_db_bytes: int | None = None,
        reserve_bytes: int = 4 * MIB,
        max_empty_topics: int = MAX_MARKED_TOPICS,
    ) -> None:
        self._path = path
        self._durability: Durability = durability
        self._retention = retention
        self._max_db_bytes = max_db_bytes
        self._reserve_bytes = reserve_bytes
        self._max_empty_topics = max_empty_topics
        self._lock = OwnerLock(path)
        self._database: Database | None = None
        self._epoch = ""
        self.sums = Sums(
            last=0, events=0, bytes=0, floor=0, trims=0, topics=0, empty_topics=0, oldest=0
        )

    # -- opening and closing

    def open(self, *, tail_events: int, tail_bytes: int) -> Loaded:
        """Become the owner, bring the file up to date and load its newest part.

        Raises:
            HistoryError: the file can't be used; it is left as it was.
        """
        # A foreign file shall not get a lock file beside it. Without one nobody has it open.
        if not self._lock.is_known:
            schema.check_file(self._path)
        self._lock.acquire()
        try:
            schema.check_file(self._path)
            self._database = Database(
                self._path,
                durability=self._durability,
                max_bytes=self._max_db_bytes,
                reserve_bytes=self._reserve_bytes,
            )
            with translated(self._path):
                self._load_sums()
            epochs = self._database.despite_full(self._begin_epoch)
            with translated(self._path):
                return self._load(epochs, tail_events, tail_bytes)
        except BaseException:
            self.close()
            raise

    def _load_sums(self) -> None:
        db = self._db.connection
        row = db.execute("SELECT last, events, bytes, floor, trims FROM state").fetchone()
        if row is None:
            raise HistoryError(f"{self._path} is damaged: it has no state")
        (topics,) = db.execute("SELECT count(*) FROM topics WHERE events > 0").fetchone()
        (empty,) = db.execute("SELECT count(*) FROM topics WHERE events = 0").fetchone()
        (oldest,) = db.execute("SELECT min(position) FROM records").fetchone()
        last, events, size, floor, trims = row
        self.sums = Sums(
            last=last,
            events=events,
            bytes=size,
            floor=floor,
            trims=trims,
            topics=topics,
            empty_topics=empty,
            oldest=oldest or 0,
        )

    def _begin_epoch(self) -> Epochs:
        with self._db.transaction() as db:
            known = db.execute("SELECT name, first FROM epochs ORDER BY number").fetchall()
            epochs = Epochs(known)
            first = self.sums.last + 1
            self._epoch = epochs.begin(first)
            gone = {name for name, _first in known}.difference(name for name, _first in epochs)
            db.executemany("DELETE FROM epochs WHERE name = ?", ((name,) for name in gone))
            db.execute("INSERT INTO epochs (name, first) VALUES (?, ?)", (self._epoch, first))
        return epochs

    def _load(self, epochs: Epochs, tail_events: int, tail_bytes: int) -> Loaded:
        db = self._db.connection
        records = pages.newest(
            db, head=self.sums.last, max_records=tail_events, max_bytes=tail_bytes
        )
        floor = 0
        if records:
            query = "SELECT max(position) FROM records WHERE position < ?"
            floor = db.execute(query, (records[0].position,)).fetchone()[0] or 0
        query = (
            "SELECT name, trimmed FROM (SELECT name, trimmed FROM topics WHERE trimmed > 0"
            " ORDER BY trimmed DESC LIMIT ?) ORDER BY trimmed"
        )
        return Loaded(
            records=records,
            floor=floor,
            head=self.sums.last,
            marks_floor=self.sums.floor,
            marks=db.execute(query, (MAX_MARKED_TOPICS + 1,)).fetchall(),
            epochs=epochs,
        )

    def close(self) -> None:
        """Close the database and let go of it; may be called more than once."""
        database, self._database = self._database, None
        try:
            if database is not None:
                database.close()
        finally:
            self._lock.release()

    @property
    def _db(self) -> Database:
        assert self._database is not None, "the store is open"
        return self._database

    # -- appending

    def append(self, updates: Sequence[Update], published: float) -> Written:
        """Store updates in one transaction.

        Raises:
            HistoryFullError: there is no room; none was stored.
            HistoryError: none was stored.
            OutcomeUnknownError: the disk failed while they were being stored.
        """
        with self._change() as change:
            before = self.sums.last + 1
            appended = self._place(change, updates, published)
            if change.sums.last >= before:
                self._remove_excess(change, before)
                change.write()
        self._db.bound_wal()
        return Written(appended, change.removed())

    def _place(self, change: Change, updates: Sequence[Update], published: float) -> list[Appended]:
        appended: list[Appended] = []
        keys: dict[str, str] = {}
        for update in updates:
            key = update.dedup
            first = None if key is None else keys.get(key) or self._first_with(key)
            if first is not None:
                appended.append(Appended(first, None))
                continue
            position = change.sums.last + 1
            record = place(update, position=position, epoch=self._epoch, published=published)
            change.add(record, key)
            appended.append(Appended(record.id, record))
            if key is not None:
                keys[key] = record.id
        return appended

    def _first_with(self, key: str) -> str | None:
        row = self._db.connection.execute(
            "SELECT id FROM records WHERE dedup = ?", (key,)
        ).fetchone()
        return None if row is None else str(row[0])

    def _remove_excess(self, change: Change, before: int) -> None:
        """Remove what the additions push out; never one of them, as the log gets them yet."""
        budget = trim.Budget(
            added_records=change.sums.last - self.sums.last,
            added_bytes=max(change.sums.bytes - self.sums.bytes, 0),
        )
        db, retention = self._db.connection, self._retention
        trim.remove_of_added_topics(db, change, budget, retention=retention, before=before)
        trim.remove_oldest(db, change, budget, retention=retention, before=before)

    # -- removing

    def trim(self, *, before: int, published_before: float | None) -> tuple[Removed, bool]:
        """Remove some of what is too much or too old, oldest first.

        Returns:
            What was removed, and whether there may be more.
        """
        return self._db.despite_full(lambda: self._trim(before, published_before))

    def _trim(self, before: int, published_before: float | None) -> tuple[Removed, bool]:
        if not self._is_due(published_before):
            return Removed(), False
        with self._change() as change:
            more = trim.remove_oldest(
                self._db.connection,
                change,
                trim.Budget(),
                retention=self._retention,
                before=before,
                published_before=published_before,
            )
            change.write()
        return change.removed(), more

    def _is_due(self, published_before: float | None) -> bool:
        if self._retention.is_exceeded(self.sums.events, self.sums.bytes):
            return True
        with translated(self._path):
            query = "SELECT published FROM records ORDER BY position LIMIT 1"
            oldest = self._db.connection.execute(query).fetchone()
        return bool(oldest) and published_before is not None and oldest[0] < published_before

    def purge(self, topic: str, *, before: int) -> tuple[Removed, bool]:
        """Remove some of a topic's records, oldest first; returns as `trim`."""
        return self._db.despite_full(lambda: self._purge(topic, before))

    def _purge(self, topic: str, before: int) -> tuple[Removed, bool]:
        more = False
        with self._change() as change:
            number = change.number_of(topic)
            if number is not None:
                more = trim.remove_topic(
                    self._db.connection, change, trim.Budget(), number=number, before=before
                )
                change.write()
        return change.removed(), more

    def make_room(self, *, before: int, published_before: float | None) -> tuple[Removed, bool]:
        """Trim, and make the write-ahead log's space usable again, on a full disk."""
        self._db.checkpoint()
        return self.trim(before=before, published_before=published_before)

    @contextmanager
    def _change(self) -> Generator[Change]:
        with self._db.transaction() as db:
            change = Change(db, self.sums, max_empty_topics=self._max_empty_topics)
            yield change
        self.sums = change.sums
