"""Which records of a database go: what is beyond the limits, too old, or purged.

Every function goes through records in order, removes what is due and stops at the
first that isn't, or when its budget is spent: no transaction gets long, and what
it changes has a place in the write-ahead log even on a full disk.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, final

from h3trio.hub._history.retention import MIB

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from h3trio.hub._history.retention import Retention

    from .change import Change, Topic

TRIM_RECORDS: Final = 500
"""Records that one transaction removes, beyond as many as it adds."""

TRIM_BYTES: Final = 16 * MIB
"""Bytes of frames that one transaction removes, beyond as many as it adds."""

_COLUMNS: Final = "records.position, records.topics, length(frame), published"


class _Row(NamedTuple):
    position: int
    topics: str
    size: int
    published: float


@final
class Budget:
    """How much one transaction may still remove."""

    __slots__ = ("bytes", "records")

    def __init__(self, *, added_records: int = 0, added_bytes: int = 0) -> None:
        self.records = TRIM_RECORDS + added_records
        self.bytes = TRIM_BYTES + added_bytes

    @property
    def is_spent(self) -> bool:
        """Whether nothing more may be removed."""
        return self.records <= 0 or self.bytes <= 0


def remove_oldest(
    db: sqlite3.Connection,
    change: Change,
    budget: Budget,
    *,
    retention: Retention,
    before: int,
    published_before: float | None = None,
) -> bool:
    """Remove what is too much in all, or too old; return whether the budget ended it."""
    sums = change.sums

    def is_due(row: _Row) -> bool:
        is_old = published_before is not None and row.published < published_before
        return is_old or retention.is_exceeded(sums.events, sums.bytes)

    query = f"SELECT {_COLUMNS} FROM records WHERE position < ? ORDER BY position"  # noqa: S608 - a constant
    with closing(db.execute(query, (before,))) as rows:
        return _remove(change, budget, map(_Row._make, rows), is_due)


def remove_of_added_topics(
    db: sqlite3.Connection, change: Change, budget: Budget, *, retention: Retention, before: int
) -> None:
    """Remove what is too much of each topic that the change adds to."""
    if retention.max_topic_events is None and retention.max_topic_bytes is None:
        return
    for topic in change.added_topics():
        if retention.is_topic_exceeded(topic.events, topic.bytes):
            is_due = partial(_is_too_much, retention, topic)
            _remove_of_topic(db, change, budget, topic.number, before, is_due)


def _is_too_much(retention: Retention, topic: Topic, _row: _Row) -> bool:
    return retention.is_topic_exceeded(topic.events, topic.bytes)


def remove_topic(
    db: sqlite3.Connection, change: Change, budget: Budget, *, number: int, before: int
) -> bool:
    """Remove everything of a topic; return whether the budget ended it."""
    return _remove_of_topic(db, change, budget, number, before, lambda _row: True)


def _remove_of_topic(  # noqa: PLR0917 - what it shares with the two above
    db: sqlite3.Connection,
    change: Change,
    budget: Budget,
    number: int,
    before: int,
    is_due: Callable[[_Row], bool],
) -> bool:
    query = (
        f"SELECT {_COLUMNS} FROM placed JOIN records ON records.position = placed.position"  # noqa: S608 - a constant
        " WHERE topic = ? AND placed.position < ? ORDER BY placed.position"
    )
    with closing(db.execute(query, (number, before))) as rows:
        return _remove(change, budget, map(_Row._make, rows), is_due)


def _remove(
    change: Change, budget: Budget, rows: Iterable[_Row], is_due: Callable[[_Row], bool]
) -> bool:
    for row in rows:
        if not is_due(row):
            return False
        if budget.is_spent:
            return True
        change.remove(row.position, row.topics, row.size)
        budget.records -= 1
        budget.bytes -= row.size
    return False
