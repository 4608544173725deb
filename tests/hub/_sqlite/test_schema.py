"""The database's schema: made, brought up to date, and left alone where it isn't ours."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from h3trio.hub import HistoryError
from h3trio.hub._sqlite.schema import (
    APPLICATION_ID,
    MIGRATIONS,
    SCHEMA_VERSION,
    check_file,
    connect,
    prepare,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SECOND = "ALTER TABLE records ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'"
THIRD = "CREATE INDEX colours ON records (colour)"


def migrated(path: Path, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> sqlite3.Connection:
    """Open a database with some steps of migration."""
    connection = connect(path, mode="rwc")
    try:
        prepare(path, connection, durability="fast", migrations=migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def pragma(connection: sqlite3.Connection, name: str) -> object:
    """Return a setting."""
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_a_new_file_gets_the_whole_schema(tmp_path: Path) -> None:
    """It is marked as ours, with the version."""
    with closing(migrated(tmp_path / "x.db")) as connection:
        assert pragma(connection, "application_id") == APPLICATION_ID
        assert pragma(connection, "user_version") == SCHEMA_VERSION
    check_file(tmp_path / "x.db")


def test_the_mark_is_in_the_file_itself(tmp_path: Path) -> None:
    """A process that is killed right after the first start leaves a file known as ours."""
    with closing(migrated(tmp_path / "x.db")):
        header = (tmp_path / "x.db").read_bytes()[:100]
    assert header[68:72] == b"H3TR"


def half_make(path: Path, *, of: str) -> None:
    """Leave a database as the end of power does that comes while it is changed."""
    with closing(sqlite3.connect(path.with_name("other.db"), isolation_level=None)) as connection:
        if of == "something":
            connection.execute("CREATE TABLE there (content)")
        connection.execute("PRAGMA cache_size = 10")  # what is over goes to the disk at once
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE large (content)")
        connection.execute("INSERT INTO large VALUES (zeroblob(1000000))")
        content = path.with_name("other.db").read_bytes()
        journal = path.with_name("other.db-journal").read_bytes()
    # The first sector didn't make it.
    path.write_bytes(bytes(512) + content[512:])
    path.with_name(f"{path.name}-journal").write_bytes(journal)


def test_a_file_that_was_being_made_is_made_anew(tmp_path: Path) -> None:
    """A first start that power cut short doesn't keep the next one from starting."""
    half_make(tmp_path / "x.db", of="nothing")
    check_file(tmp_path / "x.db")
    with closing(migrated(tmp_path / "x.db")) as connection:
        assert pragma(connection, "user_version") == SCHEMA_VERSION
        assert pragma(connection, "quick_check") == "ok"


def test_a_foreign_file_with_a_journal_is_left_alone(tmp_path: Path) -> None:
    """Only a journal that empties the file says that nothing is lost with it."""
    half_make(tmp_path / "x.db", of="something")
    with pytest.raises(HistoryError, match="is no history of h3trio"):
        check_file(tmp_path / "x.db")
    (tmp_path / "x.db-journal").write_bytes(b"notes of somebody")
    with pytest.raises(HistoryError, match="is no history of h3trio"):
        check_file(tmp_path / "x.db")


def test_an_older_file_is_brought_up_to_date(tmp_path: Path) -> None:
    """Every step behind the file's version runs, once, and what is in there stays."""
    path = tmp_path / "x.db"
    with closing(migrated(path)) as connection:
        connection.execute("INSERT INTO records VALUES (1, 'x', 0, NULL, 0, 0.0, '1', 'x', 0)")
    later = (*MIGRATIONS, (SECOND,), (THIRD,))
    for _ in range(2):
        with closing(migrated(path, later)) as connection:
            assert pragma(connection, "user_version") == SCHEMA_VERSION + 2
            assert connection.execute("SELECT colour FROM records").fetchall() == [("red",)]


def test_a_failed_step_leaves_the_version_before(tmp_path: Path) -> None:
    """A step is whole or not there, and those before it stay."""
    path = tmp_path / "x.db"
    broken = (*MIGRATIONS, (SECOND,), (THIRD, "no SQL"))
    with pytest.raises(sqlite3.OperationalError, match="syntax"):
        migrated(path, broken)
    with closing(migrated(path, broken[:-1])) as connection:
        assert pragma(connection, "user_version") == SCHEMA_VERSION + 1
        indexes = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")
        assert ("colours",) not in indexes.fetchall()


def test_a_version_that_only_the_write_ahead_log_tells_is_seen(tmp_path: Path) -> None:
    """The header of a file that wasn't closed may be old."""
    path = tmp_path / "x.db"
    migrated(path).close()
    newer = connect(path, mode="rwc")
    with closing(newer), closing(connect(path, mode="rwc")) as connection:
        newer.execute("PRAGMA user_version = 99")
        check_file(path)
        with pytest.raises(HistoryError, match="schema 99"):
            prepare(path, connection, durability="fast")


@pytest.mark.parametrize(
    "content",
    [
        b"\0",
        b"SQLite format 3\0",
        b"SQLite format 3\0" + bytes(84),
        b"H3TR" * 100,
        b"SQLite format 2\0" + bytes(52) + b"H3TR" + bytes(100),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever doesn't start as one of our databases is somebody else's."""
    path = tmp_path / "x.db"
    path.write_bytes(content)
    with pytest.raises(HistoryError, match="is no history of h3trio; it was left as it is"):
        check_file(path)


def test_missing_and_empty_files_are_new(tmp_path: Path) -> None:
    """There is nothing in them to lose."""
    check_file(tmp_path / "x.db")
    (tmp_path / "x.db").touch()
    check_file(tmp_path / "x.db")


def test_odd_names_are_names(tmp_path: Path) -> None:
    """Characters that mean something in a URI are part of the file's name here."""
    path = tmp_path / "a?mode=memory&x#y%20z.db"
    migrated(path).close()
    assert path.stat().st_size > 0
