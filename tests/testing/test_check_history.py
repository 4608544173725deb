"""`check_history`: good histories pass, and each kind of bad one is found out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tables import table

from h3trio.hub import History, MemoryHistory
from h3trio.hub._history.record import Appended, Page
from h3trio.testing import check_history

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h3trio.hub import HistoryStatistics, Record, Selection, Update


class Wrapped(History):
    """A history of somebody else, good unless a subclass breaks it."""

    def __init__(self, max_events: int = 1000) -> None:
        self.inner = MemoryHistory(max_events=max_events)
        self.durability = "memory"
        self.max_age = None

    async def open(self) -> None:
        """Open the one inside."""
        await self.inner.open()
        self.log = self.inner.log
        self.marks = self.inner.marks
        self.epochs = self.inner.epochs

    async def aclose(self) -> None:
        """Close it."""
        await self.inner.aclose()

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append."""
        return await self.inner.append(updates)

    async def read(
        self, after: int, *, selection: Selection, max_records: int, max_bytes: int
    ) -> Page:
        """Read."""
        return await self.inner.read(
            after, selection=selection, max_records=max_records, max_bytes=max_bytes
        )

    async def find(self, id: str) -> int | None:
        """Find."""
        return await self.inner.find(id)

    async def position_before_last(self, count: int, *, selection: Selection) -> int:
        """Look back."""
        return await self.inner.position_before_last(count, selection=selection)

    async def purge(self, topic: str) -> int:
        """Purge."""
        return await self.inner.purge(topic)

    async def trim(self) -> int:
        """Trim."""
        return await self.inner.trim()

    def statistics(self) -> HistoryStatistics:
        """Count."""
        return self.inner.statistics()


class TouchesLog(Wrapped):
    """Puts records into the log itself."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append, and log."""
        appended = await super().append(updates)
        for _id, record in appended:
            if record is not None:
                self.log.append(record)
        return appended


class Unordered(Wrapped):
    """Answers in another order."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append backwards."""
        return (await super().append(updates[::-1]))[::-1]


class NoDedup(Wrapped):
    """Doesn't know repeated keys."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append each alone, as something new."""
        return [(await self.inner.append([update]))[0] for update in map(self.changed, updates)]

    def changed(self, update: Update) -> Update:
        """Take a good key off."""
        return update._replace(dedup=None) if update.dedup == "k" else update


class NotAtomic(Wrapped):
    """Stores what comes before a bad update."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append one by one."""
        appended: list[Appended] = []
        try:
            for update in updates:
                appended += await super().append([update])
        except ValueError:
            for record in (record for _id, record in appended if record is not None):
                self.log.append(record)
            raise
        return appended


class EndsEarly(Wrapped):
    """Says that there is nothing more when there is."""

    async def read(self, after: int, **options: Any) -> Page:  # noqa: ANN401 - handed on
        """Read one page only."""
        return (await super().read(after, **options))._replace(more=False)


class Repeats(Wrapped):
    """Gives the cursor's own record again."""

    async def read(self, after: int, **options: Any) -> Page:  # noqa: ANN401 - handed on
        """Read from one too early."""
        return await super().read(max(after - 1, 0), **options)


class IgnoresBytes(Wrapped):
    """Gives pages of any size."""

    async def read(self, after: int, **options: Any) -> Page:  # noqa: ANN401 - handed on
        """Read without the bound."""
        options["max_bytes"] = 10**9
        return await super().read(after, **options)


class FindsOldest(Wrapped):
    """Finds the first record with an id, not the last."""

    async def find(self, id: str) -> int | None:
        """Search from the start."""
        return next((r.position for r in self.log if r.id == id), None)


class PurgesQuietly(Wrapped):
    """Leaves no mark when it purges."""

    async def purge(self, topic: str) -> int:
        """Forget the marks."""
        count = await super().purge(topic)
        self.marks = MemoryHistory().marks
        return count


class MarksAll(Wrapped):
    """Marks one topic's removals in another too."""

    async def purge(self, topic: str) -> int:
        """Mark more than was purged."""
        self.marks.note("c", 1)
        return await super().purge(topic)


class Miscounts(Wrapped):
    """Says that there are more than there are."""

    async def position_before_last(self, count: int, *, selection: Selection) -> int:
        """Count everything, not what is selected."""
        assert selection is not None
        return max(self.log.head - count, 0)


class TakesAnything(Wrapped):
    """Takes updates when it is closed."""

    async def aclose(self) -> None:
        """Stay open."""


class ForgetsTopics(Wrapped):
    """Keeps the first topic only."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append, and cut."""
        return [
            Appended(id, record and self.cut(record))
            for id, record in await super().append(updates)
        ]

    def cut(self, record: Record) -> Record:
        """Change the record, once it is in nobody's log."""
        record.topics = record.topics[:1]
        return record


async def test_a_good_history_of_somebody_else_passes() -> None:
    """The suite asks for the interface only."""
    await check_history(Wrapped, make_small=Wrapped, reopen=lambda history: history)


@table(
    "broken, rule",
    [
        (TouchesLog, "one order"),
        (Unordered, "one order"),
        (NoDedup, "a repeated key gives the first id"),
        (NotAtomic, "all updates are stored or none|nothing was stored"),
        (EndsEarly, "the last page reaches the log's head|small pages together"),
        (Repeats, "lie behind `after`"),
        (IgnoresBytes, "keeps to `max_bytes`"),
        (FindsOldest, "the newest is found"),
        (PurgesQuietly, "has a gap"),
        (MarksAll, "who wanted something else has none"),
        (Miscounts, "the last . of"),
        (TakesAnything, "raises ClosedResourceError|is open already"),
        (ForgetsTopics, "topics keep their order"),
    ],
)
async def test_a_broken_history_is_found_out(broken: type[Wrapped], rule: str) -> None:
    """The error names the rule that was broken."""
    with pytest.raises(AssertionError, match=rule):
        await check_history(broken)


async def test_retention_is_checked() -> None:
    """A history that keeps more than it was told is found out."""
    with pytest.raises(AssertionError, match="the newest are kept"):
        await check_history(Wrapped, make_small=lambda count: Wrapped(count + 1))


async def test_reopening_is_checked() -> None:
    """A history that comes back empty is found out."""
    with pytest.raises(AssertionError, match="the head is where it was"):
        await check_history(Wrapped, reopen=lambda _history: Wrapped())
