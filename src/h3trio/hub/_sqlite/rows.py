"""`record_of` and its kin: values of a database's columns, checked as they are read.

SQLite stores any type in any column, and a file can be damaged in ways that SQLite itself doesn't
see. A value that can't stand where it stands is a `DamagedError`, not an error of whoever works
with it later: that would be the hub's sweep, or a subscriber's parser.

What is worked with at once is not checked by hand: an error of our own code, while it reads a
database, is damage too. Errors of matchers are not: they come from the application's code.
"""

from __future__ import annotations

import math
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from h3trio.hub._history.damage import DamagedError
from h3trio.hub._history.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

MAX_POSITION: Final = 10**18 - 1
"""What fits into an id of the hub's own."""

_MISREAD: Final = (
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
)
_OURS: Final = "h3trio.hub."
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def whole(value: object, *, least: int = 0, most: int = MAX_POSITION) -> int:
    """Return a whole number of a column."""
    if not isinstance(value, int) or not least <= value <= most:
        raise DamagedError(f"{value!r} is no number from {least} to {most}")
    return value


def text(value: object) -> str:
    """Return a text of a column: one line, and not empty."""
    if not isinstance(value, str) or not value or any(end in value for end in "\r\n\0"):
        raise DamagedError(f"{value!r} is no text of one line")
    return value


def seconds(value: object) -> float:
    """Return Unix time of a column."""
    if not isinstance(value, float) or not math.isfinite(value):
        raise DamagedError(f"{value!r} is no time")
    return value


def _frame(value: object, *, last: bool) -> bytes:
    is_frame = isinstance(value, bytes) and (value.endswith(b"\n\n") or (last and not value))
    if not isinstance(value, bytes) or not is_frame:
        raise DamagedError(f"{value!r:.40} is no frame")
    value.decode()
    return value


def record_of(position: int, row: Any, topics: Callable[[str], tuple[str, ...]]) -> Record:  # noqa: ANN401 - what a database has in it
    """Make a record of a row.

    Args:
        position: the record's.
        row: id, private, published, topics, frame and last; `None` if there is none.
        topics: gives the names of the topics by their numbers.

    Raises:
        DamagedError, TypeError, ValueError: a column has what it can't have; see `reading`.
    """
    wire_id, private, published, numbers, frame, last = row
    is_last = bool(whole(last, most=1))
    names = topics(text(numbers))
    if not names:
        raise DamagedError("it has no topic")
    return Record(
        position=whole(position, least=1),
        id=text(wire_id),
        topics=names,
        private=bool(whole(private, most=1)),
        published=seconds(published),
        frame=_frame(frame, last=is_last),
        last=is_last,
    )


@contextmanager
def reading(position: int) -> Generator[None]:
    """Raise the errors of reading a record as one that names its position."""
    try:
        yield
    except Exception as exc:
        if (damage := _damage_of(exc)) is None:
            raise
        raise DamagedError(f"record {position}: {damage}", position=position) from exc


def damage_of(error: Exception, path: Path) -> DamagedError | None:
    """Return the damage that an error tells of, with the file's name; `None` if of none."""
    damage = _damage_of(error)
    if damage is None:
        return None
    message, begin = str(damage), f"{path} is damaged: "
    if not message.startswith(begin):  # errors pass here more than once
        message = begin + message
    return DamagedError(message, position=damage.position, page=damage.page)


def _damage_of(error: Exception) -> DamagedError | None:
    if isinstance(error, DamagedError):
        return error
    if isinstance(error, sqlite3.Error):
        # Text that isn't UTF-8 is Python's finding, which has no code of SQLite's.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        is_damage = isinstance(error, sqlite3.DatabaseError) and code & 0xFF in _CORRUPT
        return DamagedError(str(error)) if is_damage else None
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    is_ours = isinstance(error, _MISREAD) and where.startswith(_OURS)
    return DamagedError(repr(error)) if is_ours else None
