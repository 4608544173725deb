"""`check_file`, `connect`, `prepare`: the schema, and the check that a file is a history's.

A file that isn't ours, is newer than this code or is damaged is refused, and left as it was: its
first 100 bytes are looked at before SQLite gets to open it, as opening already writes.

The schema is a table of steps. Step `n` brings a database from version `n` to `n + 1` in one
transaction; an empty file is version 0. Released steps never change.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from h3trio.hub._history.errors import HistoryError
from h3trio.hub._history.retention import MIB

from .files import owner_note

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from h3trio.hub._history.history import Durability

APPLICATION_ID: Final = int.from_bytes(b"H3TR", "big")

BUSY_SECONDS: Final = 5.0
"""Seconds to wait for somebody else's lock, such as that of a backup made with `sqlite3`."""

MAX_CHECKED_BYTES: Final = 256 * MIB
"""Databases up to this size are searched for damage at each start. In larger ones damage is found
when it is met."""

CHECKPOINT_PAGES: Final = 512
"""Pages of the write-ahead log after which they go into the database: 2 MiB."""

_MAGIC: Final = b"SQLite format 3\0"
_HEADER_SIZE: Final = 100
_JOURNAL_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        # One row: the last position given, sums over `records`, the floor of `Gaps`, and the
        # number of transactions that removed something.
        """CREATE TABLE state (
            last INTEGER NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
            floor INTEGER NOT NULL, trims INTEGER NOT NULL
        )""",
        "INSERT INTO state VALUES (0, 0, 0, 0, 0)",
        """CREATE TABLE epochs (
            number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, first INTEGER NOT NULL
        )""",
        # `trimmed` is the newest position removed. A topic without records stays for its sake.
        """CREATE TABLE topics (
            number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
            events INTEGER NOT NULL, bytes INTEGER NOT NULL, trimmed INTEGER NOT NULL
        )""",
        "CREATE INDEX empty_topics ON topics (trimmed) WHERE events = 0",
        # `topics` are their numbers, the canonical one first, with spaces between. `own`:
        # whether the publisher chose the id.
        """CREATE TABLE records (
            position INTEGER PRIMARY KEY, id TEXT NOT NULL, own INTEGER NOT NULL,
            dedup TEXT, private INTEGER NOT NULL, published REAL NOT NULL,
            topics TEXT NOT NULL, frame BLOB NOT NULL
        )""",
        "CREATE INDEX own_ids ON records (id, position) WHERE own = 1",
        "CREATE UNIQUE INDEX dedup_keys ON records (dedup) WHERE dedup IS NOT NULL",
        """CREATE TABLE placed (
            topic INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (topic, position)
        ) WITHOUT ROWID""",
    ),
    (
        # Ids and keys belong to topics. `placed.id` is the record's, where its publisher chose it.
        "ALTER TABLE placed ADD COLUMN id TEXT",
        """UPDATE placed SET id = (SELECT id FROM records WHERE position = placed.position)
            WHERE position IN (SELECT position FROM records WHERE own = 1)""",
        "CREATE INDEX placed_ids ON placed (id, topic, position) WHERE id IS NOT NULL",
        "DROP INDEX own_ids",
        # `dedup` is the numbers of the topics, ascending with spaces between, a line feed, which
        # no key has, and the key.
        """UPDATE records SET dedup = (
            SELECT group_concat(value, ' ') FROM (
                SELECT value FROM json_each('[' || replace(topics, ' ', ',') || ']')
                ORDER BY value
            )
        ) || char(10) || dedup WHERE dedup IS NOT NULL""",
    ),
    (
        # `trimmed_public` is the newest public position removed, as `trimmed` counts private ones
        # too; of those before, nobody knows any more. `removed_private` has the newest private
        # position removed of each combination of topics, by their numbers as in `records`.
        "ALTER TABLE topics ADD COLUMN trimmed_public INTEGER NOT NULL DEFAULT 0",
        "UPDATE topics SET trimmed_public = trimmed",
        "ALTER TABLE state ADD COLUMN private_floor INTEGER NOT NULL DEFAULT 0",
        """CREATE TABLE removed_private (
            topics TEXT PRIMARY KEY, position INTEGER NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX removed_private_positions ON removed_private (position)",
    ),
    (
        # `last`: whether the record closes its topics. `closed`: the position of the record that
        # closed the topic, 0 while it is open. A record without an event has an empty frame.
        "ALTER TABLE records ADD COLUMN last INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE topics ADD COLUMN closed INTEGER NOT NULL DEFAULT 0",
        # A row of `placed` is a span: `position` is its last record's, and `earlier` the number of
        # those directly in front, which it stands for too.
        "ALTER TABLE placed ADD COLUMN earlier INTEGER NOT NULL DEFAULT 0",
    ),
)
SCHEMA_VERSION: Final = len(MIGRATIONS)


def check_file(path: Path) -> None:
    """Check that a file is a history's, or doesn't exist, or is empty.

    Raises:
        HistoryError: it is something else, or was written by a newer version.
    """
    try:
        if not path.exists():
            return
        if not path.is_file():
            raise HistoryError(f"{path} is no file")
        with path.open("rb") as file:
            header = file.read(_HEADER_SIZE)
    except OSError as exc:
        problem = f"can't be read: {exc.strerror}{owner_note(path)}"
        raise HistoryError(f"{path} {problem}") from exc
    if not header or (not header.startswith(_MAGIC) and _is_half_made(path)):
        return
    # Offsets from "The SQLite Database Header", section 1.3 of SQLite's file format.
    application, version = header[68:72], header[60:64]
    if not header.startswith(_MAGIC) or int.from_bytes(application, "big") != APPLICATION_ID:
        raise HistoryError(f"{path} is no history of h3trio; it was left as it is")
    _check_version(path, int.from_bytes(version, "big"), SCHEMA_VERSION)


def _is_half_made(path: Path) -> bool:
    """Whether the power failed while the file was being made: then SQLite will empty it.

    The journal beside it says so. By "The Rollback Journal", section 3 of SQLite's file format,
    bytes 16 to 19 of its header are the pages that the database had before.
    """
    journal = path.with_name(f"{path.name}-journal")
    if not journal.is_file():
        return False
    with journal.open("rb") as file:
        header = file.read(20)
    return header.startswith(_JOURNAL_MAGIC) and header[16:] == bytes(4)


def _check_version(path: Path, version: int, known: int) -> None:
    if version > known:
        problem = f"was written by a newer h3trio (schema {version}, known is {known})"
        raise HistoryError(f"{path} {problem}; it was left as it is")


def connect(path: Path, *, mode: str) -> sqlite3.Connection:
    """Open the database for one thread at a time, without implicit transactions.

    Args:
        path: the database's.
        mode: `"rwc"` for the writer, `"ro"` for readers.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    # A temporary file is the last thing that a full disk needs.
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def prepare(
    path: Path,
    connection: sqlite3.Connection,
    *,
    durability: Durability,
    migrations: Sequence[Sequence[str]] = MIGRATIONS,
) -> None:
    """Check the database once more, bring its schema up to date, and set it up for writing.

    Raises:
        HistoryError: it is not ours after all, or newer, or damaged.
    """
    # Again, as the header may be in the write-ahead log.
    version = _pragma(connection, "user_version")
    if _pragma(connection, "page_count") and version:
        if _pragma(connection, "application_id") != APPLICATION_ID:
            raise HistoryError(f"{path} is no history of h3trio; it was left as it is")
        _check_version(path, version, len(migrations))
        if path.stat().st_size <= MAX_CHECKED_BYTES:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise HistoryError(f"{path} is damaged: {found}; it was left as it is")
    _migrate(connection, version, migrations)
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise HistoryError(f"{path} is on a file system where SQLite can't use WAL mode")
    synchronous = "FULL" if durability == "durable" else "NORMAL"
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    # Some distributions build SQLite to write zeros over all it frees: removing would take as
    # much of the write-ahead log as adding did, which a full disk has no room for.
    connection.execute("PRAGMA secure_delete = FAST")


def _migrate(
    connection: sqlite3.Connection, version: int, migrations: Sequence[Sequence[str]]
) -> None:
    for number, step in enumerate(migrations[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in step:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
