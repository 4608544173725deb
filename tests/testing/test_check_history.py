"""`check_history`: good histories pass, and each kind of bad one is found out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hub_helpers import WrappedHistory
from tables import table

from h3trio import SSEEvent
from h3trio.hub import MemoryHistory, Update
from h3trio.hub._history.record import Appended, Page
from h3trio.hub._history.selection import Selection
from h3trio.testing import check_history

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from h3trio.hub import Record


class TouchesLog(WrappedHistory):
    """Puts records into the log itself."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append, and log."""
        appended = await super().append(updates)
        for _id, record, *_rest in appended:
            if record is not None:
                self.log.append(record)
        return appended


class Unordered(WrappedHistory):
    """Answers in another order."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append backwards."""
        return (await super().append(updates[::-1]))[::-1]


class NoDedup(WrappedHistory):
    """Doesn't know repeated keys."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append each alone, as something new."""
        return [(await self.inner.append([update]))[0] for update in map(self.changed, updates)]

    def changed(self, update: Update) -> Update:
        """Take a good key off."""
        if update.dedup != "k":
            return update
        return Update(update.event, update.topics, private=update.private)


class CutsKeys(WrappedHistory):
    """Knows no long keys."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append, without keys that are long."""
        return await super().append([self.changed(update) for update in updates])

    def changed(self, update: Update) -> Update:
        """Take a long key off."""
        if len(update.dedup or "") < 100:
            return update
        return Update(update.event, update.topics, private=update.private)


class EndsEarly(WrappedHistory):
    """Says that there is nothing more when there is."""

    async def read(self, after: int, **options: Any) -> Page:  # noqa: ANN401 - handed on
        """Read one page only."""
        return (await super().read(after, **options))._replace(more=False)


class Repeats(WrappedHistory):
    """Gives the cursor's own record again."""

    async def read(self, after: int, **options: Any) -> Page:  # noqa: ANN401 - handed on
        """Read from one too early."""
        return await super().read(max(after - 1, 0), **options)


class IgnoresBytes(WrappedHistory):
    """Gives pages of any size."""

    async def read(self, after: int, **options: Any) -> Page:  # noqa: ANN401 - handed on
        """Read without the bound."""
        options["max_bytes"] = 10**9
        return await super().read(after, **options)


class FindsOldest(WrappedHistory):
    """Finds the first record with an id, not the last."""

    async def find(self, id: str, *, selection: Selection, allow: Selection) -> int | None:
        """Search from the start."""
        found = (r for r in self.log if r.id == id and selection.matches(r.topics))
        return next((r.position for r in found if not r.private or allow.matches(r.topics)), None)


class FindsElsewhere(WrappedHistory):
    """Finds ids in all topics."""

    async def find(self, id: str, *, selection: Selection, allow: Selection) -> int | None:
        """Search everything for those who selected something."""
        everything = Selection(["*"]) if selection else selection
        return await super().find(id, selection=everything, allow=allow)


class TellsSecrets(WrappedHistory):
    """Finds ids of private events for everybody."""

    async def find(self, id: str, *, selection: Selection, allow: Selection) -> int | None:
        """Search as if all were allowed."""
        assert allow is not None
        return await super().find(id, selection=selection, allow=Selection(["*"]))


class CountsSecrets(WrappedHistory):
    """Counts private events for everybody."""

    async def position_before_last(
        self, count: int, *, selection: Selection, allow: Selection
    ) -> int:
        """Count as if all were allowed."""
        assert allow is not None
        return await super().position_before_last(
            count, selection=selection, allow=Selection(["*"])
        )


class OneKeySpace(WrappedHistory):
    """Knows a key in whatever topic it comes again."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, str] = {}

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Answer by the key alone."""
        answers: list[Appended] = []
        for update in updates:
            key = update.dedup
            if key is not None and key in self.keys:
                answers.append(Appended(self.keys[key], None))
                continue
            answers += await super().append([update])
            if key is not None:
                self.keys[key] = answers[-1].id
        return answers


class TakesAnyRepetition(WrappedHistory):
    """Takes another event with a key for the same."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Turn refusals into repetitions."""
        answers = await super().append(updates)
        return [Appended("x", None) if answer.error else answer for answer in answers]


class NeverCloses(WrappedHistory):
    """Stores closing records, and knows of no closed topic."""

    async def are_closed(self, topics: Collection[str], *, allow: Selection) -> bool:
        """Say no."""
        assert topics is not None
        assert allow is not None
        return False


class TellsCloses(WrappedHistory):
    """Tells everybody of private closes."""

    async def are_closed(self, topics: Collection[str], *, allow: Selection) -> bool:
        """Ask as if all were allowed."""
        assert allow is not None
        return await super().are_closed(topics, allow=Selection(["*"]))


class TakesLateUpdates(WrappedHistory):
    """Marks closing records, and stores what comes behind them."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append all as if none were the last."""
        plain = [
            Update(u.event or SSEEvent(""), u.topics, private=u.private, dedup=u.dedup)
            for u in updates
        ]
        answers = await super().append(plain)
        for update, answer in zip(updates, answers, strict=True):
            if answer.record is not None and update.last:
                answer.record.last = True
        return answers


class NotesCloses(WrappedHistory):
    """Leaves a gap behind a close without an event."""

    async def purge(self, topic: str) -> int:
        """Note the head."""
        self.gaps.note(topic, self.log.head)
        return await super().purge(topic)


class PurgesQuietly(WrappedHistory):
    """Leaves no gap when it purges."""

    async def purge(self, topic: str) -> int:
        """Forget the gaps."""
        count = await super().purge(topic)
        self.gaps = MemoryHistory().gaps
        return count


class NotesAll(WrappedHistory):
    """Notes one topic's removals in another too."""

    async def purge(self, topic: str) -> int:
        """Note more than was purged."""
        self.gaps.note("c", 1)
        return await super().purge(topic)


class TellsWhatSecretsWent(WrappedHistory):
    """Notes private removals as it notes public ones."""

    async def purge(self, topic: str) -> int:
        """Note them for everybody."""
        for record in list(self.log):
            if topic in record.topics and record.frame:
                for each in record.topics:
                    self.gaps.note(each, record.position)
        return await super().purge(topic)


class Miscounts(WrappedHistory):
    """Says that there are more than there are."""

    async def position_before_last(
        self, count: int, *, selection: Selection, allow: Selection
    ) -> int:
        """Count everything, not what is selected."""
        assert selection is not None
        assert allow is not None
        return max(self.log.head - count, 0)


class TakesAnything(WrappedHistory):
    """Takes updates when it is closed."""

    async def aclose(self) -> None:
        """Stay open."""


class ForgetsTopics(WrappedHistory):
    """Keeps the first topic only."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append, and cut."""
        return [
            Appended(id, record and self.cut(record))
            for id, record, *_rest in await super().append(updates)
        ]

    def cut(self, record: Record) -> Record:
        """Change the record, once it is in nobody's log."""
        record.topics = record.topics[:1]
        return record


async def test_a_good_history_of_somebody_else_passes() -> None:
    """The suite asks for the interface only."""
    await check_history(WrappedHistory, make_small=WrappedHistory, reopen=lambda history: history)


@table(
    "broken, rule",
    [
        (TouchesLog, "one order"),
        (Unordered, "one order"),
        (NoDedup, "a repeated key gives the first id"),
        (CutsKeys, "a key of 255 characters is known again"),
        (EndsEarly, "the last page reaches the log's head|small pages together"),
        (Repeats, "lie behind `after`"),
        (IgnoresBytes, "keeps to `max_bytes`"),
        (FindsOldest, "the newest is found"),
        (FindsElsewhere, "is found in its topics"),
        (TellsSecrets, "is found in its topics"),
        (CountsSecrets, "count if they are allowed"),
        (OneKeySpace, "with other topics a key is another publish"),
        (TakesAnyRepetition, "another event is refused"),
        (NeverCloses, "closes the topics that it names"),
        (TellsCloses, "seen by right only"),
        (TakesLateUpdates, "a closed topic is refused at once"),
        (NotesCloses, "leaves no gap"),
        (PurgesQuietly, "has a gap"),
        (NotesAll, "who wanted something else has none"),
        (TellsWhatSecretsWent, "of a private removals are told by"),
        (Miscounts, "the last . of"),
        (TakesAnything, "raises ClosedResourceError|is open already"),
        (ForgetsTopics, "topics keep their order"),
    ],
)
async def test_a_broken_history_is_found_out(broken: type[WrappedHistory], rule: str) -> None:
    """The error names the rule that was broken."""
    with pytest.raises(AssertionError, match=rule):
        await check_history(broken)


async def test_retention_is_checked() -> None:
    """A history that keeps more than it was told is found out."""
    with pytest.raises(AssertionError, match="the newest are kept"):
        await check_history(WrappedHistory, make_small=lambda count: WrappedHistory(count + 1))


async def test_reopening_is_checked() -> None:
    """A history that comes back empty is found out."""
    with pytest.raises(AssertionError, match="the head is where it was"):
        await check_history(WrappedHistory, reopen=lambda _history: WrappedHistory())
