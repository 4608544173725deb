"""A history, used as a hub does: helpers of the rules that `check_history` holds it against.

Records that `append` returns are put into `log` at once. If several hubs share the store, its
follower runs, what it delivers is put into `log`, and publishing waits for that. Every page that is
read is held against the rules of pages.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._nursery import OwnedNursery
from h3trio._wire.event import SSEEvent
from h3trio.hub._history.history import History
from h3trio.hub._history.record import Appended, Update
from h3trio.hub._history.selection import EVERYTHING, Selection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Sequence

    from h3trio.hub._history.epochs import Epochs
    from h3trio.hub._history.gaps import Gaps
    from h3trio.hub._history.history import HistoryStatistics
    from h3trio.hub._history.log import Log
    from h3trio.hub._history.record import Page, Record

_PATIENCE: Final = 10.0
"""Seconds for which a follower is waited for."""

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


@final
class Followed(History):
    """A history that several hubs share, with its follower, as if it were of one hub."""

    is_shared = True

    def __init__(self, shared: History) -> None:
        self.shared = shared
        self.durability = shared.durability
        self.max_age = shared.max_age
        self._delivered: dict[str, Record] = {}
        self._moved = trio.lowlevel.ParkingLot()

    @property
    def log(self) -> Log:  # type: ignore[override]  # opening may make another
        return self.shared.log

    @property
    def gaps(self) -> Gaps:  # type: ignore[override]  # as above
        return self.shared.gaps

    @property
    def epochs(self) -> Epochs:  # type: ignore[override]  # as above
        return self.shared.epochs

    async def open(self) -> None:
        await self.shared.open()

    async def aclose(self) -> None:
        await self.shared.aclose()

    async def run(self) -> None:
        """Follow until cancelled."""
        await self.shared.follow(self._deliver, self._lose)

    def _deliver(self, records: Sequence[Record], head: int) -> None:
        for record in records:
            expect(record.position > self.log.head, "the log is followed in order", record)
            self.log.append(record)
            self._delivered[self.epochs.format(record.position)] = record
        expect(head >= self.log.head, "records are not beyond the head that comes with them", head)
        self.log.head = head
        self._moved.unpark_all()

    def _lose(self, position: int) -> None:
        raise AssertionError(f"nothing was lost; seen: the past ends at {position}")

    async def wait_for(self, cursor: str) -> None:
        """Wait until the follower has passed a cursor."""
        with trio.move_on_after(_PATIENCE) as scope:
            while self.epochs.resolve(cursor, self.log.head) is None:
                await self._moved.park()
        in_time = not scope.cancelled_caught
        expect(in_time, f"what is stored is followed within {_PATIENCE} s", cursor)

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append, and wait for the records."""
        answers: list[Appended] = []
        for answer in await self.shared.append(updates):
            expect(answer.record is None, "`append` answers ids only, if it is shared", answer)
            known = bool(answer.cursor) == (answer.error is None)
            expect(known, "what is stored has a cursor, what is refused has none", answer)
            if answer.cursor:
                await self.wait_for(answer.cursor)
            # A repetition's cursor may be anybody's, but its id is that of the first.
            record = self._delivered.pop(answer.cursor, None)
            same = record is not None and record.id == answer.id
            answers.append(Appended(answer.id, record if same else None, answer.error))
        return answers

    async def read(
        self, after: int, *, selection: Selection, max_records: int, max_bytes: int
    ) -> Page:
        return await self.shared.read(
            after, selection=selection, max_records=max_records, max_bytes=max_bytes
        )

    async def find(self, id: str, *, selection: Selection, allow: Selection) -> int | None:
        return await self.shared.find(id, selection=selection, allow=allow)

    async def position_before_last(
        self, count: int, *, selection: Selection, allow: Selection
    ) -> int:
        return await self.shared.position_before_last(count, selection=selection, allow=allow)

    async def are_closed(self, topics: Collection[str], *, allow: Selection) -> bool:
        return await self.shared.are_closed(topics, allow=allow)

    def pin(self, topic: str) -> None:
        self.shared.pin(topic)

    def unpin(self, topic: str) -> None:
        self.shared.unpin(topic)

    async def purge(self, topic: str) -> int:
        removed = await self.shared.purge(topic)
        await self.wait_for(await self.shared.head())
        return removed

    async def trim(self) -> int:
        return await self.shared.trim()

    async def head(self) -> str:
        return await self.shared.head()

    def statistics(self) -> HistoryStatistics:
        return self.shared.statistics()


@asynccontextmanager
async def driven(history: History) -> AsyncGenerator[History]:
    """Open a history; if it is shared, follow it for as long as it is used."""
    if not history.is_shared:
        async with history:
            yield history
        return
    followed = Followed(history)
    async with followed, OwnedNursery() as nursery:
        nursery.start_soon(followed.run, name="h3trio check_history follower")
        yield followed


async def publish(history: History, *updates: Update) -> list[Appended]:
    """Append as a hub does."""
    appended = await history.append(updates)
    if isinstance(history, Followed):
        return appended
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
