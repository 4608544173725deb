"""`Gaps`: the newest removed positions, by which a gap is found.

A subscriber has a gap if something it selected was removed behind its cursor. This is asked per
topic, so that busy topics never cause a quiet one's subscribers to be told of a gap that they
don't have.

It tells of no record that the subscriber may not have seen. What was public counts for whoever
selects its topic. What was private is kept apart, by all topics of the record: it counts for those
who select one of them and are allowed one of them, as its record did.

Both tables are bounded. If there are more topics, those in which nothing was removed for the
longest time are folded into a floor that counts for every topic: one of public records, for
everybody, and one of private ones, for those who are allowed any. So a gap is never missed; a false
one is possible for cursors older than the floor only.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import takewhile
from sys import getsizeof
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final

import trio

from .selection import ALL, NOTHING, Selection, Turn

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TOPICS: Final = 65_536
"""Topics with a position of their own, and combinations of topics of private records."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""Memory of either: names may be long, and many."""

MAX_PURGES: Final = 1000
"""Purged topics that are remembered as such; their positions are in the tables too."""

_TOPIC_BYTES: Final = 300
"""Memory of a mark, and of a place in the index, without the names."""

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""Memory of the selections whose last answer is kept, for either table."""

_ANSWER_BYTES: Final = 400
_PATTERN_BYTES: Final = 400
"""Memory of an answer, and of a pattern in it."""

# A position, and the count of notes when it was noted: it tells whether an answer knows of it.
_Noted: TypeAlias = tuple[int, int]

# A topic, or several: of most records there is one, and there may be many marks.
_Topics: TypeAlias = str | tuple[str, ...]


@final
class Mark(NamedTuple):
    """A removal, as one table tells another of it."""

    topics: tuple[str, ...]
    """One that lost public records, or all topics that a private one had."""
    position: int
    """The newest that was removed."""
    private: bool
    """Whether it was private."""


class _Answer(NamedTuple):
    newest: int
    serial: int
    size: int


_NO_ANSWER: Final = _Answer(0, 0, 0)


@final
class Gaps:
    """The newest removed position of each topic.

    Args:
        floor: below it, something public of any topic may have been removed.
        private_floor: the same of private records.
        max_topics: the number of topics that have a position of their own.
        max_bytes: the memory that these take.
    """

    def __init__(
        self,
        *,
        floor: int = 0,
        private_floor: int = 0,
        max_topics: int = MAX_TOPICS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.serial: int = 0
        """The number of notes so far: what came since is told by it."""
        self._public = _Marks(floor, max_topics, max_bytes)
        self._private = _Marks(private_floor, max_topics, max_bytes)
        self._purged: OrderedDict[str, _Noted] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Gaps: {self._public!r}, private {self._private!r}>"

    @property
    def floor(self) -> int:
        """Cursors below it count as having a gap, whatever they select."""
        return self._public.floor

    @property
    def private_floor(self) -> int:
        """The same for those who may see some private records."""
        return self._private.floor

    def note(self, topic: str, position: int) -> None:
        """Note that a topic's public record was removed."""
        self.serial += 1
        self._public.note(topic, position, self.serial)

    def note_private(self, topics: tuple[str, ...], position: int) -> None:
        """Note that a private record was removed; it had these topics."""
        self.serial += 1
        self._private.note(topics[0] if len(topics) == 1 else topics, position, self.serial)

    def note_purge(self, topic: str, position: int) -> None:
        """Note that all records of a topic up to a position were removed, as somebody asked."""
        self.serial += 1
        self._purged[topic] = (position, self.serial)
        self._purged.move_to_end(topic)
        if len(self._purged) > MAX_PURGES:
            self._purged.popitem(last=False)

    def purges_since(self, serial: int) -> list[tuple[str, int]]:
        """Return the topics purged since then, and up to which position: the last 1,000 of them."""
        newer = takewhile(lambda item: item[1][1] > serial, reversed(self._purged.items()))
        return [(topic, position) for topic, (position, _serial) in newer][::-1]

    def marks_since(self, serial: int) -> Iterator[Mark]:
        """Give what was noted since then, of each the newest, public ones first.

        What there is when it is called: it may be read while others are noted.
        """
        tables = (self._public.newer(serial), False), (self._private.newer(serial), True)
        return (
            Mark((topics,) if isinstance(topics, str) else topics, position, private)
            for notes, private in tables
            for topics, (position, _serial) in notes
        )

    def take_over(self, other: Gaps, serial: int) -> None:
        """Note what another table noted since then, and its floors."""
        for mark in other.marks_since(serial):
            if mark.private:
                self.note_private(mark.topics, mark.position)
            else:
                self.note(mark.topics[0], mark.position)
        for topic, position in other.purges_since(serial):
            self.note_purge(topic, position)
        self.raise_floor(other.floor)
        self.raise_private_floor(other.private_floor)

    def cut(self, position: int) -> None:
        """Note that the log ends at a position: what was behind it is of another past.

        A topic of which something behind it was removed may have lost something before it too.
        """
        self._public.cut(position)
        self._private.cut(position)
        for topic, (noted, serial) in list(self._purged.items()):
            self._purged[topic] = (min(noted, position), serial)

    def raise_floor(self, position: int) -> None:
        """Note that something up to a position was lost, of topics that nobody knows."""
        self._public.raise_floor(position)

    def raise_private_floor(self, position: int) -> None:
        """Note that something private up to a position was lost, of topics that nobody knows."""
        self._private.raise_floor(position)

    def newest(self, selection: Selection, allow: Selection = NOTHING) -> int:
        """Return the newest removed position of what was selected, 0 if there is none.

        Args:
            selection: the selected topics.
            allow: topics whose private records may be seen; by default none.
        """
        public, private = self._public, self._private
        if selection.everything:
            newest = public.newest
        elif selection.matchers:
            newest = public.newest_of(selection, ALL)
        else:  # a few look-ups
            newest = public.floor if selection.topics else 0
            for topic in selection.topics:
                mark = public.marks.get(topic)
                if mark is not None and mark[0] > newest:
                    newest = mark[0]
        return max(newest, private.newest_of(selection, allow)) if private.newest else newest

    def has_gap(self, selection: Selection, after: int, allow: Selection = NOTHING) -> bool:
        """Whether something selected was removed behind a cursor."""
        return self.newest(selection, allow) > after

    async def learn(self, selection: Selection, allow: Selection = NOTHING) -> None:
        """Ask the matchers about all that was noted, so that `newest` asks about little.

        Checkpoints only where that takes more than a turn: there may be many topics.
        """
        if selection.matchers:
            await self._public.learn(selection, ALL)
        if self._private.newest:
            await self._private.learn(selection, allow)


@final
class _Marks:
    """The newest removed position of records with the same topics; of public ones, for each."""

    def __init__(self, floor: int, max_topics: int, max_bytes: int) -> None:
        self.floor = floor
        self.newest = floor
        self._max_topics = max_topics
        self._max_bytes = max_bytes
        self._bytes = 0
        # In the order of the last note, oldest first. `OrderedDict`, as it gives up its
        # first item in constant time, which a dict does not.
        self.marks: OrderedDict[_Topics, _Noted] = OrderedDict()
        self._shared: dict[str, dict[tuple[str, ...], None]] = {}
        """The marks of several topics, by each of these."""
        self._serial = 0
        """That of its newest note."""
        self._answers: OrderedDict[tuple[Selection, Selection], _Answer] = OrderedDict()
        self._answer_bytes = 0

    def __repr__(self) -> str:
        return f"{len(self.marks)} marks, floor {self.floor}, newest {self.newest}"

    def note(self, topics: _Topics, position: int, serial: int) -> None:
        marks = self.marks
        known = marks.get(topics)
        if known is not None:
            if known[0] > position:
                return
            marks.move_to_end(topics)
        else:
            self._bytes += _size(topics)
            if isinstance(topics, tuple):
                for topic in topics:
                    self._shared.setdefault(topic, {})[topics] = None
        self._serial = serial
        marks[topics] = (position, serial)
        if position > self.newest:  # noqa: PLR1730 - `max` is a call for each event that goes
            self.newest = position
        while len(marks) > self._max_topics or self._bytes > self._max_bytes:
            self._fold_oldest()

    def _fold_oldest(self) -> None:
        topics, (position, _serial) = self.marks.popitem(last=False)
        self._bytes -= _size(topics)
        self.floor = max(self.floor, position)
        if isinstance(topics, str):
            return
        for topic in topics:
            shared = self._shared[topic]
            shared.pop(topics, None)
            if not shared:
                del self._shared[topic]

    def newer(self, serial: int) -> list[tuple[_Topics, _Noted]]:
        """List what was noted since then, the oldest note first."""
        if serial == 0:
            return list(self.marks.items())
        newer = takewhile(lambda item: item[1][1] > serial, reversed(self.marks.items()))
        return list(newer)[::-1]

    def cut(self, position: int) -> None:
        self.floor, self.newest = min(self.floor, position), min(self.newest, position)
        for topics, (noted, serial) in list(self.marks.items()):
            self.marks[topics] = (min(noted, position), serial)
        self._answers.clear()
        self._answer_bytes = 0

    def raise_floor(self, position: int) -> None:
        self.floor = max(self.floor, position)
        self.newest = max(self.newest, position)

    def newest_of(self, selection: Selection, allow: Selection) -> int:
        if not selection or not allow:
            return 0
        if selection.everything and allow.everything:
            return self.newest
        known = self._answers.get((selection, allow), _NO_ANSWER)
        newest, answered = max(known.newest, self.floor), known.serial
        for topics, position in self._since(answered, selection):
            if position > newest and selection.matches(topics) and allow.matches(topics):
                newest = position
        self._answer(selection, allow, newest, self._serial)
        return newest

    async def learn(self, selection: Selection, allow: Selection) -> None:
        if not selection or not allow or (selection.everything and allow.everything):
            return
        known = self._answers.get((selection, allow), _NO_ANSWER)
        newest, answered = max(known.newest, self.floor), known.serial
        now, turn = self._serial, Turn()
        for topics, position in list(self._since(answered, selection)):
            if position > newest:
                count = len(topics)
                if turn.spend(count + selection.cost(count) + allow.cost(count)):
                    await trio.lowlevel.checkpoint()
                if selection.matches(topics) and allow.matches(topics):
                    newest = position
        self._answer(selection, allow, newest, now)

    def _since(self, serial: int, selection: Selection) -> Iterator[tuple[tuple[str, ...], int]]:
        """List what was noted since and may be selected."""
        marks = self.marks
        if not selection.is_exact:
            for topics, (position, noted) in reversed(marks.items()):
                if noted <= serial:
                    return
                yield (topics,) if isinstance(topics, str) else topics, position
            return
        for topic in selection.topics:
            for topics in (topic, *self._shared.get(topic, ())):
                mark = marks.get(topics)
                if mark is not None and mark[1] > serial:
                    yield (topics,) if isinstance(topics, str) else topics, mark[0]

    def _answer(self, selection: Selection, allow: Selection, newest: int, serial: int) -> None:
        key = (selection, allow)
        known = self._answers.pop(key, None)
        if known is None:
            size = _ANSWER_BYTES + _size_of(selection) + _size_of(allow)
            self._answer_bytes += size
        else:
            newest, serial = max(newest, known.newest), max(serial, known.serial)
            size = known.size
        self._answers[key] = _Answer(newest, serial, size)
        while self._answer_bytes > MAX_ANSWER_BYTES and len(self._answers) > 1:
            _oldest, answer = self._answers.popitem(last=False)
            self._answer_bytes -= answer.size


def _size(topics: _Topics) -> int:
    """Return the memory of a mark; of several topics, each has a place in an index."""
    if isinstance(topics, str):
        return _TOPIC_BYTES + getsizeof(topics)
    return _TOPIC_BYTES + sum(map(getsizeof, topics)) + 2 * _TOPIC_BYTES * len(topics)


def _size_of(selection: Selection) -> int:
    return sum(map(getsizeof, selection.topics)) + _PATTERN_BYTES * selection.patterns
