"""`Gaps`: a table of the newest removed position of each topic, by which a gap is found.

A subscriber has a gap if something it selected was removed behind its cursor. This is asked per
topic, so that busy topics never cause a quiet one's subscribers to be told of a gap that they
don't have.

The table is bounded. If there are more topics, those in which nothing was removed for the longest
time are folded into one floor that counts for every topic. So a gap is never missed; a false one
is possible for cursors older than the floor only.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import takewhile
from sys import getsizeof
from typing import TYPE_CHECKING, Final, TypeAlias, final

import trio

from .selection import Turn

if TYPE_CHECKING:
    from .selection import Selection

MAX_TOPICS: Final = 65_536
"""Topics with a position of their own."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""Memory of those topics: names may be long."""

_TOPIC_BYTES: Final = 230
"""Memory of a topic's place in the table, without its name."""

MAX_ANSWERED: Final = 10_000
"""Patterns of the selections whose last answer is kept."""


# A position, and the count of notes when it was noted: it tells whether an answer knows of it.
_Noted: TypeAlias = tuple[int, int]


@final
class Gaps:
    """The newest removed position of each topic.

    Args:
        floor: below it, something of any topic may have been removed.
        max_topics: the number of topics that have a position of their own.
        max_bytes: the memory that these take.
    """

    def __init__(
        self, *, floor: int = 0, max_topics: int = MAX_TOPICS, max_bytes: int = MAX_BYTES
    ) -> None:
        self.floor: int = floor
        """Cursors below it count as having a gap, whatever they select."""
        self._max_topics = max_topics
        self._max_bytes = max_bytes
        self._bytes = 0
        self._newest = floor
        # In the order of the last note, oldest first. `OrderedDict`, as it gives up its
        # first item in constant time, which a dict does not.
        self._removed: OrderedDict[str, _Noted] = OrderedDict()
        self._serial = 0
        self._answers: OrderedDict[Selection, _Noted] = OrderedDict()
        self._answered = 0

    def __repr__(self) -> str:
        return f"<Gaps: {len(self._removed)} topics, floor {self.floor}, newest {self._newest}>"

    def note(self, topic: str, position: int) -> None:
        """Note that a topic's record was removed."""
        removed = self._removed
        known = removed.get(topic)
        if known is not None:
            if known[0] > position:
                return
            removed.move_to_end(topic)
        else:
            self._bytes += _TOPIC_BYTES + getsizeof(topic)
        self._serial += 1
        removed[topic] = (position, self._serial)
        if position > self._newest:  # noqa: PLR1730 - `max` is a call for each event that goes
            self._newest = position
        while len(removed) > self._max_topics or self._bytes > self._max_bytes:
            gone, (oldest, _serial) = removed.popitem(last=False)
            self._bytes -= _TOPIC_BYTES + getsizeof(gone)
            self.floor = max(self.floor, oldest)

    def raise_floor(self, position: int) -> None:
        """Note that something up to a position was lost, of topics that nobody knows."""
        self.floor = max(self.floor, position)
        self._newest = max(self._newest, position)

    def newest(self, selection: Selection) -> int:
        """Return the newest removed position of the selected topics, 0 if there is none."""
        if selection.everything:
            return self._newest
        if not selection:
            return 0
        newest = self.floor
        for topic in selection.topics:
            noted = self._removed.get(topic)
            if noted is not None and noted[0] > newest:
                newest = noted[0]
        return max(newest, self._newest_match(selection)) if selection.matchers else newest

    def has_gap(self, selection: Selection, after: int) -> bool:
        """Whether something selected was removed behind a cursor."""
        return self._newest > after and self.newest(selection) > after

    async def learn(self, selection: Selection) -> None:
        """Ask the matchers of a selection about every topic, so that `newest` asks of few.

        Checkpoints only where that takes more than a turn: there may be many topics.
        """
        if not selection.matchers:
            return
        newest, answered = self._answers.get(selection, (0, 0))
        now, turn = self._serial, Turn()
        unknown = takewhile(lambda item: item[1][1] > answered, reversed(self._removed.items()))
        for topic, (position, _serial) in list(unknown):
            if position > newest:
                if turn.spend(selection.cost(1)):
                    await trio.lowlevel.checkpoint()
                if selection.matches_topic(topic):
                    newest = position
        self._answer(selection, newest, now)

    def _newest_match(self, selection: Selection) -> int:
        """Find the newest position of a topic that matches: the last answer, and newer notes."""
        newest, answered = self._answers.get(selection, (0, 0))
        for topic, (position, serial) in reversed(self._removed.items()):
            if serial <= answered:
                break
            if position > newest and selection.matches_topic(topic):
                newest = position
        self._answer(selection, newest, self._serial)
        return newest

    def _answer(self, selection: Selection, newest: int, serial: int) -> None:
        known = self._answers.pop(selection, None)
        if known is None:
            self._answered += selection.patterns
        else:
            newest, serial = max(newest, known[0]), max(serial, known[1])
        self._answers[selection] = newest, serial
        while self._answered > MAX_ANSWERED and len(self._answers) > 1:
            oldest, _answer = self._answers.popitem(last=False)
            self._answered -= oldest.patterns
