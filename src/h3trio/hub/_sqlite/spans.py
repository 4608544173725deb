"""`Spans`: the index of records by topic, in which records of one topic may share a row.

A row of `placed` is a span: records of its topic alone, without ids of their publishers, that one
transaction stored one after the other. It has the position of the last, and how many stand in front
of it. Every other record has a row for each of its topics, a span of one. So an event of a stream
costs one row, its own, and not two.

Nothing is written to a span when its first records go: the row goes with the last of them. By then
the others are gone, as limits, age and purges take the records of a topic in order, and a pinned
topic is pinned with all of them, damaged ones too. Who reads looks for the first that is left; one
that is missing behind it is damage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from .rows import reading, whole

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from h3trio.hub._history.record import Record

MAX_SPAN: Final = 256
"""Records of a span: twice as many as a group commit has of a publisher that streams."""

OF_TOPIC: Final = (
    "SELECT position - earlier, position + 1 FROM placed WHERE topic = ? ORDER BY position"
)
"""The first positions of a topic's spans, and those behind their last."""

_LEFT: Final = (
    "SELECT position, coalesce((SELECT min(records.position) FROM records"
    " WHERE records.position BETWEEN placed.position - earlier AND placed.position), position)"
    " FROM placed WHERE topic = ? AND position > ? AND position < ? ORDER BY position"
)
"""The last position of each span, and the first that is left of it."""


@final
@dataclass(slots=True)
class _Span:
    topic: int
    position: int
    """Of its last record."""
    earlier: int = 0
    """Records in front of that one."""
    id: str | None = None
    """The record's, where its publisher chose it."""


@final
class Spans:
    """The spans that one transaction adds."""

    def __init__(self) -> None:
        self._spans: list[_Span] = []
        self._open: _Span | None = None
        """The one that the next record may belong to."""

    def add(self, record: Record, topics: list[int]) -> None:
        """Add a record, at the position behind the one added before, by the topics' numbers."""
        position, span = record.position, self._open
        if len(topics) > 1 or record.has_own_id:
            id = record.id if record.has_own_id else None
            self._spans += (_Span(topic, position, id=id) for topic in topics)
            self._open = None
        elif span is None or span.topic != topics[0] or span.earlier + 1 >= MAX_SPAN:
            self._open = _Span(topics[0], position)
            self._spans.append(self._open)
        else:
            span.position = position
            span.earlier += 1

    @property
    def topics(self) -> Iterable[int]:
        """The numbers of their topics, each once, in order."""
        return dict.fromkeys(span.topic for span in self._spans)

    def write(self, db: sqlite3.Connection) -> None:
        """Write their rows."""
        db.executemany(
            "INSERT INTO placed (topic, position, earlier, id) VALUES (?, ?, ?, ?)",
            ((s.topic, s.position, s.earlier, s.id) for s in self._spans),
        )


def query(after: int, head: int, *, backward: bool) -> tuple[str, tuple[int, int]]:
    """Return the query for `positions`, and what is bound behind the topic's number."""
    # The last span may end behind the head.
    return (_LEFT + " DESC" if backward else _LEFT), (after, head + MAX_SPAN)


def positions(
    spans: Iterator[tuple[int, int]], after: int, head: int, *, backward: bool
) -> Iterator[int]:
    """List the positions of the spans that `query` has found, from `after` to `head`, lazily."""
    for last, first in spans:
        with reading(last):
            least = whole(first, least=last - MAX_SPAN + 1, most=last)
        found = range(max(least, after + 1), min(last, head) + 1)
        yield from reversed(found) if backward else found
