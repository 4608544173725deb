"""A history, used as a hub does: helpers of the rules that `check_history` holds it against.

Records that `append` returns are put into `log` at once. Every page that is read is held against
the rules of pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final, final

from h3trio._wire.event import SSEEvent
from h3trio.hub._history.record import Update
from h3trio.hub._history.selection import EVERYTHING, Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h3trio.hub._history.history import History
    from h3trio.hub._history.record import Appended, Page, Record

AMPLE: Final = 1_000_000
ALL: Final = Selection([EVERYTHING])


@final
@dataclass(frozen=True, slots=True)
class Suffix:
    """Matches topics by their end."""

    suffix: str

    def matches(self, topic: str, /) -> bool:
        return topic.endswith(self.suffix)


def expect(condition: bool, rule: str, seen: object) -> None:  # noqa: FBT001 - it reads like `assert`
    """Raise unless a rule holds, under `python -O` too."""
    if not condition:
        raise AssertionError(f"{rule}; seen: {seen!r}")


def update(
    data: str,
    *topics: str,
    id: str | None = None,
    dedup: str | None = None,
    private: bool = False,
    last: bool = False,
) -> Update:
    event = SSEEvent(data, event="test", id=id)
    return Update(event, topics or ("a",), private=private, dedup=dedup, last=last)


async def publish(history: History, *updates: Update) -> list[Appended]:
    """Append as a hub does."""
    appended = await history.append(updates)
    for answer in appended:
        if answer.record is not None:
            history.log.append(answer.record)
    return appended


async def fill(history: History, count: int, *topics: str) -> list[Record]:
    """Publish so many updates one by one, the topics in turn."""
    names = topics or ("a",)
    records: list[Record] = []
    for number in range(count):
        (appended,) = await publish(history, update(str(number), names[number % len(names)]))
        expect(appended.record is not None, "an update without a `dedup` key is stored", appended)
        records += [appended.record] if appended.record else []
    return records


def stored(appended: Sequence[Appended]) -> list[Record]:
    return [answer.record for answer in appended if answer.record is not None]


# What has to be the same when a record is read again.
fields_of = attrgetter("position", "id", "topics", "private", "published", "frame", "last")


def positions(records: Sequence[Record]) -> list[int]:
    return [record.position for record in records]


async def read_all(
    history: History,
    selection: Selection = ALL,
    after: int = 0,
    *,
    max_records: int = AMPLE,
    max_bytes: int = AMPLE,
) -> list[Record]:
    """Read page by page to the end, and hold every page against its rules."""
    records: list[Record] = []
    more = True
    while more:
        page = await history.read(
            after, selection=selection, max_records=max_records, max_bytes=max_bytes
        )
        _check_page(page, after, max_records, max_bytes)
        expect(page.last > after or not page.more, "a page with `more` goes forward", page)
        expect(page.last <= max(history.log.head, after), "a page ends at the log's head", page)
        records += page.records
        after, more = page.last, page.more
    expect(after >= history.log.head, "the last page reaches the log's head", after)
    return records


def _check_page(page: Page, after: int, max_records: int, max_bytes: int) -> None:
    records, last = page.records, page.last
    places = positions(records)
    expect(places == sorted(set(places)), "a page is in order, each record once", places)
    inside = all(after < position <= last for position in places)
    expect(inside, "a page's records lie behind `after` and not behind `last`", places)
    expect(len(records) <= max_records, "a page keeps to `max_records`", len(records))
    size = sum(len(record.frame) for record in records)
    fits = size <= max_bytes or len(records) == 1
    expect(fits, "a page keeps to `max_bytes`, or has one record", size)
