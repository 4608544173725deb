"""`Database`: the writer's connection, with transactions, bounds on its files, and its errors.

Errors of SQLite are translated here. Of a full disk and of most others it is sure that nothing was
stored. Not so if the disk failed while a transaction was being committed: it may be found again
after a restart. Then nothing more is written, as nothing is known of the disk either.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, TypeVar, final

from h3trio.hub._history.errors import HistoryError, HistoryFullError, OutcomeUnknownError
from h3trio.hub._history.retention import MIB

from . import schema
from .files import Identities, Reserve, beside, lock_file, make_private, owned, owner_note
from .rows import damage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from h3trio.hub._history.history import Durability

HEADROOM_PAGES: Final = 64
"""Pages below `max_db_bytes` that only removing may use: an index can grow by it."""

MAX_WAL_BYTES: Final = 8 * MIB
"""Size of the write-ahead log above which the writer waits for readers to empty it."""

_IMPATIENT_MS: Final = 100
"""Milliseconds that the writer waits for that, and for others when it is only tried out."""
_TRIED: Final = "x" * 8192
"""Stands twice in what trying out writes, in a table and an index: in all about as much as an event
of 16 KiB writes. One that is larger may find no room where others do."""
_SHARED: Final = ("-wal", "-shm")
"""SQLite's files beside a database that is open; part of it."""
_WAL_ATTEMPTS: Final = 100
"""Transactions from one such wait to the next."""

logger = logging.getLogger("h3trio.hub")

# The errors of SQLite when there is no room: on the disk, for a page, for its shared index.
_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_DENIED: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})
_NOT_WRITTEN: Final = _FULL | {sqlite3.SQLITE_IOERR_WRITE}

_T = TypeVar("_T")


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Raise SQLite's errors, and those that damaged rows cause, as those of histories."""
    try:
        yield
    except Exception as exc:
        if (damage := damage_of(exc, path)) is not None:
            raise damage from exc
        if not isinstance(exc, sqlite3.Error):
            raise
        if getattr(exc, "sqlite_errorcode", None) in _FULL:
            raise HistoryFullError(f"{path} has no room: {exc}") from exc
        note = owner_note(path) if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _DENIED else ""
        raise HistoryError(f"{path}: {exc}{note}") from exc


@final
class Database:
    """A database opened for writing, by its one owner.

    Args:
        path: the file.
        durability: `"durable"` or `"fast"`.
        max_bytes: size of the file in bytes above which only removing is possible.
        reserve_bytes: disk space held back for removing on a full disk.

    Raises:
        HistoryError: the file isn't ours, or can't be opened; it is left as it was.
    """

    def __init__(
        self,
        path: Path,
        *,
        durability: Durability,
        max_bytes: int | None,
        reserve_bytes: int,
    ) -> None:
        self.path = path
        self._wal = beside(path, "-wal")
        self._wal_overdue = 0
        self._max_bytes = max_bytes
        self._reserve = Reserve(path, reserve_bytes)
        self._failure: str | None = None
        # A foreign file shall not get a lock file beside it. Without one nobody has it open.
        if not lock_file(path).exists():
            schema.check_file(path)
        with ExitStack() as opened:
            opened.enter_context(owned(path))
            schema.check_file(path)
            if not path.exists() and any(
                beside(path, end).exists() for end in ("-wal", "-reserve")
            ):
                logger.warning("%s is missing, though it was there: an empty one begins", path)
            # Before SQLite opens them: closing a descriptor later would drop its locks.
            make_private(path, create=True)
            for suffix in (*_SHARED, "-journal"):
                make_private(beside(path, suffix))
            with translated(path):
                self.connection = schema.connect(path, mode="rwc")
                opened.callback(self.connection.close)
                # A new file's tables need room too.
                self.despite_full(lambda: self._prepare(durability))
            self._opened = opened.pop_all()

    def _prepare(self, durability: Durability) -> None:
        with translated(self.path):
            schema.prepare(self.path, self.connection, durability=durability)
            # Reading opens the files beside it, if nothing else has.
            self.connection.execute("SELECT count(*) FROM state").fetchone()
        shared = (beside(self.path, suffix) for suffix in _SHARED)
        self._files = Identities([self.path, lock_file(self.path), *shared])

    def close(self) -> None:
        """Close the connection, and own the file no more; may be called more than once.

        The last connection empties the write-ahead log and deletes it.
        """
        self._opened.close()

    def check_files(self) -> None:
        """Check that what is stored is stored in the files that the paths name; in any thread.

        Raises:
            HistoryError: they name others, or none, or can't be looked at.
        """
        self._files.check()

    # -- transactions

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """Change the database: all of it, or nothing if the block or the commit fails.

        Raises:
            HistoryFullError: there is no room.
            HistoryError: it could not be written.
            OutcomeUnknownError: the disk failed in the middle of the commit.
        """
        if self._failure is not None:
            raise HistoryError(self._failure)
        # Before as well as behind it: so nearly always nothing is written that would be lost.
        self.check_files()
        db = self.connection
        with translated(self.path):
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                self._commit()
            finally:
                # SQLite itself rolls back after some errors.
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _commit(self) -> None:
        try:
            self.connection.execute("COMMIT")
        except sqlite3.OperationalError as exc:
            # A write that failed left the transaction without its last page, the one that counts:
            # it is not stored. Of a sync that failed nobody knows what is on the disk.
            code = exc.sqlite_errorcode
            if code & 0xFF != sqlite3.SQLITE_IOERR or code in _NOT_WRITTEN:
                raise
            raise self._fail(f"{self.path} failed while storing ({exc})") from exc
        try:
            self.check_files()
        except HistoryError as exc:
            raise self._fail(str(exc)) from exc

    def _fail(self, problem: str) -> OutcomeUnknownError:
        """Store nothing any more, and return the error that says so."""
        self._failure = f"{problem}: nothing is stored until a restart"
        return OutcomeUnknownError(self._failure)

    def try_out(self) -> None:
        """Write as much as an event does, and take it back: whether there is room, and a disk.

        Raises the errors of `transaction`.
        """
        # Who holds the lock for longer makes the hub unready; no probe waits for it.
        with self._impatience(), self.transaction() as db:
            # With a savepoint pages are written although they are free again at the end. Any table
            # would do.
            db.execute("SAVEPOINT tried")
            db.execute("INSERT INTO epochs (number, name, first) VALUES (0, ?, 0)", (_TRIED,))
            db.execute("DELETE FROM epochs WHERE number = 0")

    @contextmanager
    def _impatience(self) -> Generator[None]:
        """Wait for others' locks for a moment only during the block."""
        self.connection.execute(f"PRAGMA busy_timeout = {_IMPATIENT_MS}")
        try:
            yield
        finally:
            usual = round(1000 * schema.BUSY_SECONDS)
            self.connection.execute(f"PRAGMA busy_timeout = {usual}")

    # -- room

    def despite_full(self, work: Callable[[], _T]) -> _T:
        """Do work that makes room, with the room that is held back for it; return its result."""
        with translated(self.path):
            self._limit_size(HEADROOM_PAGES)
            try:
                result = work()
            except HistoryFullError:
                self._reserve.give_up()
                self.checkpoint()
                result = work()
            finally:
                self._limit_size(0)
        if self._reserve.is_wanting:
            self.checkpoint()
            self._reserve.take()
        return result

    def _limit_size(self, headroom: int) -> None:
        if self._max_bytes is not None:
            (page_size,) = self.connection.execute("PRAGMA page_size").fetchone()
            pages = self._max_bytes // page_size - HEADROOM_PAGES + headroom
            self.connection.execute(f"PRAGMA max_page_count = {pages}")

    def checkpoint(self, mode: str = "RESTART") -> bool:
        """Empty the write-ahead log into the database; return whether that worked.

        The next transaction can then use its space from the start.
        """
        try:
            row = self.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error:
            return False
        return not row[0]

    def bound_wal(self) -> None:
        """Cut the write-ahead log down if readers kept it from starting anew.

        No error of its own: what was stored just now is stored.
        """
        try:
            size = self._wal.stat().st_size
        except OSError:
            return
        if size <= MAX_WAL_BYTES:
            return
        self._wal_overdue += 1
        if self._wal_overdue % _WAL_ATTEMPTS != 1:
            return
        # Not the usual patience: somebody's backup may read for minutes, and updates wait.
        with self._impatience():
            if self.checkpoint("TRUNCATE"):
                self._wal_overdue = 0
