"""`read_recent`: the newest records of some topics, for who looks on and needn't have every one.

A subscriber gets every event, and is counted. Who looks on, as a page for people does, asks now and
then what is new, and gets the last few: what that costs the hub doesn't grow with what is
published. That records were left out is told, and why.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, final

import trio

from .errors import HistoryError
from .selection import Selection, Turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .history import History
    from .record import Page, Record
    from .selection import TopicMatcher

MAX_PAGE_BYTES: Final = 2**20
"""Bytes of frames that are read out of a store at a time."""

_PAGE_RECORDS: Final = 500
"""Records that are read at a time: others run in between."""

MAX_BYTES: Final = 4 * MAX_PAGE_BYTES
"""Bytes of frames that are given at once; the newest record is, whatever its size."""

MAX_SECONDS: Final = 30.0
"""Seconds that reading takes at most: a search of a large file takes some, and behind a store that
needs longer nobody waits for a page."""

Gap: TypeAlias = Literal["unknown", "trimmed", "skipped"]


@final
class Recent(NamedTuple):
    """The newest records of some topics."""

    records: Sequence[Record]
    """In the order of the log."""
    last_event_id: str
    """The cursor behind them, to ask with the next time."""
    gap: Gap | None
    """Why records between the id that was asked with and the first of these aren't given:
    `unknown` (the history doesn't know that id), `trimmed` (they are no longer kept) or `skipped`
    (they were too many). `None` if there are none, or no id was given."""


async def read_recent(
    history: History,
    topics: Iterable[str | TopicMatcher],
    *,
    count: int,
    last_event_id: str | None = None,
    allow: Iterable[str | TopicMatcher] = (),
) -> Recent:
    """Read the newest records of some topics; with an id, those of them that came behind it.

    Args:
        history: that of a hub which runs.
        topics: as `Hub.subscribe` takes them.
        count: how many at most; 4 MiB of frames at most, too.
        last_event_id: a cursor, or the id of an event.
        allow: topics whose private records may be given.

    Raises:
        ValueError: `count` is below 1.
        HistoryError: the history can't be read, or not within 30 s.
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, not {count}")
    try:
        with trio.fail_after(MAX_SECONDS):
            return await _read_recent(
                history, Selection(topics), count, last_event_id, allowed=Selection(allow)
            )
    except trio.TooSlowError as exc:
        raise HistoryError(f"the newest records can't be read within {MAX_SECONDS:g} s") from exc


async def _read_recent(
    history: History,
    selection: Selection,
    count: int,
    last_event_id: str | None,
    *,
    allowed: Selection,
) -> Recent:
    head = history.log.head
    after = await _find(history, last_event_id, selection, allowed)
    position = after or 0
    if head - position > count:
        # One more than asked for: by it is known that there were more.
        position = max(
            position,
            await history.position_before_last(count + 1, selection=selection, allow=allowed),
        )
    records: deque[Record] = deque()
    size, turn, has_skipped = 0, Turn(), False
    while position < head:
        page = await _read_page(history, position, selection, count)
        position = page.last
        for record in page.records:
            if record.private and turn.spend(allowed.cost(len(record.topics))):
                await trio.lowlevel.checkpoint()
            if not record.frame or (record.private and not allowed.matches(record.topics)):
                continue
            records.append(record)
            size += len(record.frame)
            while len(records) > count or (size > MAX_BYTES and len(records) > 1):
                size -= len(records.popleft().frame)
                has_skipped = True
    cursor = history.epochs.format(position)
    if after is None:
        return Recent(tuple(records), cursor, None if last_event_id is None else "unknown")
    gap = history.gaps.has_gap(selection, after, allowed)
    return Recent(tuple(records), cursor, "trimmed" if gap else "skipped" if has_skipped else None)


async def _find(
    history: History, id: str | None, selection: Selection, allow: Selection
) -> int | None:
    if id is None:
        return None
    position = history.epochs.resolve(id, history.log.head)
    if position is not None:
        return position
    return await history.find(id, selection=selection, allow=allow)


async def _read_page(history: History, after: int, selection: Selection, count: int) -> Page:
    limits = {"max_records": min(count + 1, _PAGE_RECORDS), "max_bytes": MAX_PAGE_BYTES}
    if (page := history.log.read(after, selection=selection, **limits)) is None:
        return await history.read(after, selection=selection, **limits)
    await trio.lowlevel.checkpoint()
    return page
