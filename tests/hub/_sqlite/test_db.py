"""`Database`: errors and what is sure after them, and the size of the files."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from h3trio.hub import Durability, HistoryError, HistoryFullError, OutcomeUnknownError
from h3trio.hub._sqlite.db import MAX_WAL_BYTES, Database, translated
from h3trio.hub._sqlite.schema import connect

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024


def open_database(path: Path, durability: Durability = "fast", **options: Any) -> Database:  # noqa: ANN401 - handed on
    """Open one without limits, unless given."""
    options = {"max_bytes": None, "reserve_bytes": 0, **options}
    return Database(path, durability=durability, **options)


def add(database: Database, position: int, size: int = 10) -> None:
    """Store a row of some bytes."""
    with database.transaction() as db:
        insert = "INSERT INTO records VALUES (?, 'x', 0, NULL, 0, 0.0, '1', ?, 0)"
        db.execute(insert, (position, b"x" * size))


def count(database: Database) -> int:
    """Count the rows."""
    return int(database.connection.execute("SELECT count(*) FROM records").fetchone()[0])


class FailingConnection:
    """A connection whose next commit fails as a broken disk would."""

    def __init__(self, inner: sqlite3.Connection, code: int) -> None:
        self.inner = inner
        self.code = code

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the other has
        return getattr(self.inner, name)

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Run a statement, unless it is the commit."""
        if statement == "COMMIT" and self.code:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode, self.code = self.code, 0
            raise error
        return self.inner.execute(statement, values)


def break_commit(database: Database, code: int) -> None:
    """Let the next commit fail."""
    failing: Any = FailingConnection(database.connection, code)
    database.connection = failing


@pytest.mark.parametrize(("durability", "setting"), [("durable", 2), ("fast", 1)])
def test_durable_syncs_each_commit(tmp_path: Path, durability: Durability, setting: int) -> None:
    """`durable` is `synchronous=FULL`, `fast` is `NORMAL`; the journal is written ahead."""
    with closing(open_database(tmp_path / "x.db", durability)) as database:
        pragmas = [
            database.connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode")
        ]
    assert pragmas == [setting, "wal"]


def add_twice(database: Database) -> None:
    """Store a row and then, in the same transaction, another in its place."""
    with database.transaction() as db:
        insert = "INSERT INTO records VALUES (1, 'x', 0, NULL, 0, 0.0, '1', 'x', 0)"
        db.execute(insert)
        db.execute(insert)


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    """An error inside takes everything back, and the next one goes well."""
    with closing(open_database(tmp_path / "x.db")) as database:
        with pytest.raises(HistoryError, match="UNIQUE"):
            add_twice(database)
        assert count(database) == 0
        add(database, 1)
        assert count(database) == 1


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR])
def test_a_failed_sync_is_an_unknown_outcome(tmp_path: Path, code: int) -> None:
    """Nobody knows what is on the disk: nothing more is written until it is opened again."""
    with closing(open_database(tmp_path / "x.db")) as database:
        break_commit(database, code)
        with pytest.raises(OutcomeUnknownError, match=r"x\.db failed while storing"):
            add(database, 1)
        with pytest.raises(HistoryError, match="until a restart") as caught:
            add(database, 2)
        assert caught.type is HistoryError
    with closing(open_database(tmp_path / "x.db")) as database:
        add(database, 3)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (sqlite3.SQLITE_IOERR_WRITE, HistoryError),
        (sqlite3.SQLITE_BUSY, HistoryError),
        (sqlite3.SQLITE_FULL, HistoryFullError),
        (sqlite3.SQLITE_IOERR_SHMSIZE, HistoryFullError),
    ],
)
def test_a_failed_write_is_not_stored(tmp_path: Path, code: int, error: type[Exception]) -> None:
    """It is said so, nothing is left of it, and the next transaction may go well."""
    with closing(open_database(tmp_path / "x.db")) as database:
        break_commit(database, code)
        with pytest.raises(HistoryError) as caught:
            add(database, 1)
        assert caught.type is error
        assert count(database) == 0
        add(database, 1)


def test_errors_name_the_file(tmp_path: Path) -> None:
    """SQLite's own words follow the path."""
    with (
        pytest.raises(HistoryError, match=r"x\.db: no such table: absent"),
        translated(tmp_path / "x.db"),
        closing(sqlite3.connect(":memory:")) as db,
    ):
        db.execute("SELECT * FROM absent")


def fill(database: Database, first: int = 1) -> int:
    """Add rows until there is no room; return how many."""
    for number in range(3000):
        try:
            add(database, first + number, 1000)
        except HistoryFullError:
            return number
    pytest.fail("there was always room")


def remove(database: Database, rows: int) -> None:
    """Remove the first rows."""
    with database.transaction() as db:
        db.execute("DELETE FROM records WHERE position <= ?", (rows,))


@pytest.mark.slow
def test_a_full_file_has_headroom_for_removing(tmp_path: Path) -> None:
    """The file keeps to its size, removing included, and what was removed is room."""
    with closing(open_database(tmp_path / "x.db", max_bytes=MIB)) as database:
        rows = fill(database)
        assert 400 < rows < 1000
        database.despite_full(lambda: add(database, 5000, 100_000))
        assert fill(database, 6000) < 5
        database.despite_full(lambda: remove(database, rows // 2))
        assert fill(database, 7000) > rows // 4
    assert (tmp_path / "x.db").stat().st_size <= MIB


def test_work_that_finds_no_room_gets_the_reserve(tmp_path: Path) -> None:
    """Space held back is given up for it, and taken again afterwards."""
    reserve = tmp_path / "x.db-reserve"
    with closing(open_database(tmp_path / "x.db", reserve_bytes=8192)) as database:
        assert reserve.stat().st_size == 8192
        seen: list[bool] = []

        def work() -> str:
            seen.append(reserve.exists())
            if len(seen) == 1:
                raise HistoryFullError("no room")
            return "done"

        assert database.despite_full(work) == "done"
        assert seen == [True, False]
        assert reserve.stat().st_size == 8192


@pytest.mark.slow
def test_the_write_ahead_log_is_bounded(tmp_path: Path) -> None:
    """It grows while a reader holds it and is cut afterwards; writers don't wait long."""
    path, wal = tmp_path / "x.db", tmp_path / "x.db-wal"
    with (
        closing(open_database(path)) as database,
        closing(connect(path, mode="ro")) as reader,
    ):
        add(database, 1)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        for number in range(2, 15):
            add(database, number, MIB)
            database.bound_wal()
        assert wal.stat().st_size > MAX_WAL_BYTES
        reader.execute("ROLLBACK")
        for number in range(15, 130):
            add(database, number)
            database.bound_wal()
        assert wal.stat().st_size <= MAX_WAL_BYTES


# -- what errors say


def test_damage_is_named_once(tmp_path: Path) -> None:
    """However many blocks an error passes, the file and its damage are said once."""
    path = tmp_path / "x.db"
    path.write_bytes(b"SQLite format 3\0" + bytes(1000))
    with (
        pytest.raises(HistoryError, match="is damaged") as caught,
        translated(path),
        translated(path),
        translated(path),
        closing(sqlite3.connect(path)) as connection,
    ):
        connection.execute("SELECT * FROM sqlite_master")
    assert str(caught.value).count("is damaged") == 1


# -- whether it can store


def test_a_database_that_is_missing_is_no_silent_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where only the files beside it are there, the log says that an empty one begins."""
    path = tmp_path / "x.db"
    open_database(path).close()
    assert caplog.text == ""
    path.unlink()
    (tmp_path / "x.db-reserve").touch()
    open_database(path).close()
    assert "x.db is missing, though it was there: an empty one begins" in caplog.text


def test_nothing_is_written_to_a_file_that_is_gone(tmp_path: Path) -> None:
    """The error comes before the transaction, and goes when the file is back."""
    path, away = tmp_path / "x.db", tmp_path / "away"
    with closing(open_database(path)) as database:
        add(database, 1)
        path.rename(away)
        with pytest.raises(HistoryError, match=r"x\.db was removed while in use") as caught:
            add(database, 2)
        assert caught.type is HistoryError
        away.rename(path)
        add(database, 2)
        assert count(database) == 2


def test_a_file_that_goes_during_a_transaction_is_an_unknown_outcome(tmp_path: Path) -> None:
    """What was written is lost or not: nothing more is stored until it is opened again."""
    path = tmp_path / "x.db"

    def remove_meanwhile(database: Database) -> None:
        with database.transaction():
            path.unlink()

    with closing(open_database(path)) as database:
        with pytest.raises(OutcomeUnknownError, match=r"removed while in use.*until a restart"):
            remove_meanwhile(database)
        with pytest.raises(HistoryError, match="until a restart"):
            database.try_out()


def test_trying_out_leaves_nothing(tmp_path: Path) -> None:
    """It writes pages, more than a small event does, and no row."""
    path, wal = tmp_path / "x.db", tmp_path / "x.db-wal"
    with closing(open_database(path)) as database:
        for _ in range(3):
            database.checkpoint("TRUNCATE")
            database.try_out()
            assert wal.stat().st_size > 4 * 4096
        assert count(database) == 0
        assert database.connection.execute("SELECT count(*) FROM epochs").fetchone() == (0,)


def test_trying_out_waits_for_nobody_for_long(tmp_path: Path) -> None:
    """While another process holds the lock it fails at once; the usual patience comes back."""
    path = tmp_path / "x.db"
    with (
        closing(open_database(path)) as database,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(HistoryError, match="locked"):
            database.try_out()
        other.execute("ROLLBACK")
        assert database.connection.execute("PRAGMA busy_timeout").fetchone() == (5000,)
        database.try_out()


def test_a_log_that_cant_be_looked_at_is_no_error_of_what_was_stored(tmp_path: Path) -> None:
    """Bounding it comes behind the commit."""
    with closing(open_database(tmp_path / "x.db")) as database:
        add(database, 1)
        (tmp_path / "x.db-wal").unlink()
        database.bound_wal()


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal", ".lock"])
def test_a_link_beside_it_is_refused(tmp_path: Path, suffix: str) -> None:
    """The file that it names stays as it was."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / f"x.db{suffix}").symlink_to(victim)
    with pytest.raises(HistoryError, match=rf"x\.db{suffix} is a symbolic link"):
        open_database(tmp_path / "x.db")
    assert victim.read_bytes() == b"precious"
