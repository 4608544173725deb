"""`Store`: the writer of a history's database, which loads, appends and removes. It blocks.

One thread at a time runs it; `SQLiteHistory` sees to that. Each append is one transaction, however
many updates it holds, and retention removes in the same one. The number of its removals is
bounded, so an append stays short after limits were lowered too; `trim` does the rest.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from h3trio.hub._history.damage import DamagedError
from h3trio.hub._history.epochs import Epochs
from h3trio.hub._history.errors import HistoryError
from h3trio.hub._history.gaps import MAX_TOPICS, Gaps
from h3trio.hub._history.log import Log
from h3trio.hub._history.pins import PinnedRecords
from h3trio.hub._history.record import Appended, Record, answer_repetition, refuse_closed
from h3trio.hub._history.selection import check_topic

from . import pages
from .change import Change, is_older
from .db import translated
from .rows import reading, record_of, text, whole
from .sums import Removed, Sums

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Generator, Sequence

    from h3trio.hub._history.record import Update
    from h3trio.hub._history.retention import Retention

    from .db import Database


@final
class Store:
    """The contents of a database. Making one begins a new epoch.

    Args:
        database: opened for writing; `close` closes it.
        retention: the limits of the log.
        max_empty_topics: topics without records that are kept for their newest removed position.

    Raises:
        HistoryError: the database can't be used, or has no room.
    """

    def __init__(
        self, database: Database, *, retention: Retention, max_empty_topics: int = MAX_TOPICS
    ) -> None:
        self._database = database
        self._retention = retention
        self._max_empty_topics = max_empty_topics
        self.pinned: frozenset[str] = frozenset()
        """The topics that are to be pinned from the next transaction on."""
        self.pins = PinnedRecords(retention)
        """The records of pinned topics, as of the last transaction."""
        self._known_pinned: frozenset[str] = frozenset()
        with translated(database.path):
            self.sums = self._load_sums()
        self.epochs = database.despite_full(self._begin_epoch)

    def _load_sums(self) -> Sums:
        db = self._database.connection
        query = "SELECT last, events, bytes, floor, trims, private_floor FROM state"
        row: tuple[int, int, int, int, int, int] | None = db.execute(query).fetchone()
        if row is None:
            raise HistoryError(f"{self._database.path} is damaged: it has no state")
        (topics,) = db.execute("SELECT count(*) FROM topics WHERE events > 0").fetchone()
        (empty,) = db.execute("SELECT count(*) FROM topics WHERE events = 0").fetchone()
        (closed,) = db.execute("SELECT count(*) FROM topics WHERE closed > 0").fetchone()
        (oldest,) = db.execute("SELECT min(position) FROM records").fetchone()
        (newest,) = db.execute("SELECT max(position) FROM records").fetchone()
        (marks,) = db.execute("SELECT count(*) FROM removed_private").fetchone()
        last, events, size, floor, trims, private = map(whole, row)
        counts = topics, empty, oldest or 0, private, marks, closed
        sums = Sums(last, events, size, floor, trims, *counts)
        if max(whole(newest or 0), sums.floor, sums.private_floor) > sums.last:
            raise DamagedError(f"it has positions above {sums.last}, its last")
        return sums

    def _begin_epoch(self) -> Epochs:
        with self._database.transaction() as db:
            known = db.execute("SELECT name, first FROM epochs ORDER BY number").fetchall()
            epochs = Epochs([(text(name), whole(first)) for name, first in known])
            epochs.begin(self.sums.last + 1)
            # All of them anew, as the table may have forgotten some.
            db.execute("DELETE FROM epochs")
            db.executemany("INSERT INTO epochs (name, first) VALUES (?, ?)", epochs)
        return epochs

    def load_log(self, tail: Retention) -> Log:
        """Make the log in memory, with the newest records within some limits."""
        head = self.sums.last
        with translated(self._database.path):
            db = self._database.connection
            records = pages.newest(db, head=head, limits=tail)
            first = records[0].position if records else head + 1
            query = "SELECT max(position) FROM records WHERE position < ?"
            floor = db.execute(query, (first,)).fetchone()[0] or 0
        log = Log(tail, floor=floor, head=first - 1)
        for record in records:
            log.append(record)
        log.head = head
        return log

    def load_gaps(self) -> Gaps:
        """Make the table of the newest removed positions."""
        query = (
            "SELECT name, trimmed FROM (SELECT name, trimmed_public AS trimmed FROM topics"
            " WHERE trimmed_public > 0 ORDER BY trimmed_public DESC LIMIT ?) ORDER BY trimmed"
        )
        private = "SELECT topics, position FROM removed_private ORDER BY position"
        most = self.sums.last
        gaps = Gaps(floor=self.sums.floor, private_floor=self.sums.private_floor)
        with translated(self._database.path):
            db = self._database.connection
            # With one more than there is room for, the table raises its floor.
            for topic, position in db.execute(query, (MAX_TOPICS + 1,)):
                check_topic(topic)
                gaps.note(topic, whole(position, most=most))
            for topics, position in pages.with_names(db, db.execute(private)):
                gaps.note_private(topics, whole(position, most=most))
        return gaps

    def close(self) -> None:
        """Close the database and let go of it; may be called more than once."""
        self._database.close()

    # -- appending

    def append(self, updates: Sequence[Update], published: float) -> tuple[list[Appended], Removed]:
        """Store updates in one transaction; return the outcomes and the removals.

        Raises the errors of `Database.transaction`.
        """
        with self._change() as change:
            before = self.sums.last + 1
            appended = self._add(change, updates, published)
            if change.sums.last >= before:
                # None of the additions: the log gets them yet.
                change.remove_excess(self._retention, before=before)
                change.write()
        self._database.bound_wal()
        return appended, change.removed()

    def _add(self, change: Change, updates: Sequence[Update], published: float) -> list[Appended]:
        appended: list[Appended] = []
        added: dict[str, Record] = {}
        for update in updates:
            try:
                appended.append(self._add_one(change, update, published, added))
            except DamagedError as exc:
                # Of its topics, or of the first with its key: no concern of the others.
                appended.append(Appended("", None, exc))
        return appended

    def _add_one(
        self, change: Change, update: Update, published: float, added: dict[str, Record]
    ) -> Appended:
        """Add one update, unless it is known or refused; `added` are those with new keys."""
        key = update.dedup and change.scoped_key(update.dedup, update.topics)
        first = None if key is None else added.get(key) or self._first_with(key, update)
        if first is not None:
            return answer_repetition(first, update)
        if (closed := change.closed_topic(update.topics)) is not None:
            return refuse_closed(closed)
        if (refusal := self.pins.refusal(update, self._known_pinned)) is not None:
            return Appended("", None, refusal)
        record = Record.from_update(
            update,
            position=change.sums.last + 1,
            epoch=self.epochs.current,
            published=published,
        )
        change.add(record, key)
        if key is not None:
            added[key] = record
        return Appended(record.id, record)

    def _first_with(self, key: str, update: Update) -> Record | None:
        query = "SELECT position, id, private, published, frame, last FROM records WHERE dedup = ?"
        row = self._database.connection.execute(query, (key,)).fetchone()
        if row is None:
            return None
        with reading(row[0]):
            return record_of(row[0], (*row[1:4], "-", *row[4:]), lambda _: update.topics)

    # -- removing

    def trim(self, *, before: int, published_before: float | None) -> tuple[bool, Removed]:
        """Remove some of the records beyond the limits or too old, oldest first.

        Args:
            before: the first position that stays.
            published_before: Unix time in seconds before which a record is too old.

        Returns:
            Whether more may be due, and the removals.
        """
        if not self._is_due(published_before):
            return False, Removed()
        return self._remove(
            lambda change: change.remove_oldest(
                self._retention, before=before, published_before=published_before
            )
        )

    def _is_due(self, published_before: float | None) -> bool:
        sums, pins = self.sums, self.pins
        if self.pinned is not self._known_pinned:
            return True  # what is pinned is known to a transaction alone
        if self._retention.is_exceeded(sums.events - pins.events, sums.bytes - pins.bytes):
            return True
        with translated(self._database.path):
            query = (
                "SELECT CAST(published AS REAL) FROM records"
                " WHERE position > ? ORDER BY position LIMIT 1"
            )
            oldest = self._database.connection.execute(query, (sums.passed,)).fetchone()
        return oldest is not None and is_older(oldest[0], published_before)

    def purge(self, topic: str, *, before: int) -> tuple[bool, Removed]:
        """Remove some of a topic's records, oldest first; returns the same as `trim`."""
        return self._remove(lambda change: change.remove_topic(topic, before=before))

    def check_files(self) -> None:
        """Check that the files are those that were opened; see `Database.check_files`."""
        self._database.check_files()

    def try_out(self) -> tuple[None, Removed]:
        """Raise the error that storing an update would raise now, as far as can be told."""
        self._database.try_out()
        return None, Removed()

    def make_room(self, *, before: int, published_before: float | None) -> tuple[bool, Removed]:
        """Trim, and make the write-ahead log's space usable again, on a full disk."""
        self._database.checkpoint()
        return self.trim(before=before, published_before=published_before)

    def _remove(self, choose: Callable[[Change], bool]) -> tuple[bool, Removed]:
        def work() -> tuple[bool, Removed]:
            with self._change() as change:
                more = choose(change)
                change.write()
            return more, change.removed()

        return self._database.despite_full(work)

    @contextmanager
    def _change(self) -> Generator[Change]:
        with self._database.transaction() as db:
            if self.pinned is not self._known_pinned:
                self._change_pins(db, self.pinned)
            change = Change(
                db,
                self.sums,
                pins=self.pins,
                pinned=self._known_pinned,
                max_empty_topics=self._max_empty_topics,
            )
            yield change
        self.sums = change.sums
        change.note_pins()

    def _change_pins(self, db: sqlite3.Connection, pinned: frozenset[str]) -> None:
        """Find the records of topics that are newly pinned, and count those of others again."""
        for topic in pinned - self._known_pinned:
            for position, size in self._of_topic(db, topic):
                self.pins.pin(position, size)
        for topic in self._known_pinned - pinned:
            for position, _size in self._of_topic(db, topic):
                self.pins.unpin(position)
                self.sums.passed = min(self.sums.passed, position - 1)
            # Some of them may be why others are spared.
            self.sums.passed = self.pins.unspare_all(self.sums.passed)
        self._known_pinned = pinned

    def _of_topic(self, db: sqlite3.Connection, topic: str) -> list[tuple[int, int]]:
        """List a topic's records, whatever damage they have, and the bytes of their frames."""
        query = (
            "SELECT records.position, coalesce(length(frame), 0)"
            " FROM topics JOIN placed ON topic = number JOIN records"
            " ON records.position BETWEEN placed.position - earlier AND placed.position"
            " WHERE name = ?"
        )
        return db.execute(query, (topic,)).fetchall()
