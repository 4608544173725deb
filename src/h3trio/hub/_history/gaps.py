"""What is missing: for each topic the newest position that was removed.

A subscriber has a gap if something it selected was removed behind its cursor.
Asked per topic, so that busy topics never cause a quiet one's subscribers to be
told of a gap that they don't have.

The table is bounded. Where there are more topics, those in which nothing was
removed for the longest time are folded into one floor that counts for every
topic. So a gap is never missed; a false one is possible for cursors older than
the floor only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias, final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .selection import Selection

MAX_MARKED_TOPICS: Final = 65_536
"""Topics with a mark of their own: at most about 16 MiB of memory."""

_MAX_ANSWERS: Final = 1000
"""Selections with matchers whose last answer is kept."""


# A position, and the count of notes when it was noted: which marks are newer than an answer.
_Mark: TypeAlias = tuple[int, int]


@final
class Marks:
    """The newest removed position of each topic.

    Args:
        floor: below it, something of any topic may have been removed.
        max_topics: how many topics have a mark of their own.
    """

    __slots__ = ("_answers", "_marks", "_max_topics", "_newest", "_serial", "floor")

    def __init__(self, *, floor: int = 0, max_topics: int = MAX_MARKED_TOPICS) -> None:
        self.floor: int = floor
        """Cursors below it count as having a gap, whatever they select."""
        self._max_topics = max_topics
        self._newest = floor
        # In the order of the last note, oldest first. `OrderedDict`, as it gives up its
        # first item in constant time, which a dict does not.
        self._marks: OrderedDict[str, _Mark] = OrderedDict()
        self._serial = 0
        self._answers: OrderedDict[Selection, _Mark] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Marks: {len(self._marks)} topics, floor {self.floor}, newest {self._newest}>"

    def __len__(self) -> int:
        return len(self._marks)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return ((topic, position) for topic, (position, _serial) in self._marks.items())

    def note(self, topic: str, position: int) -> None:
        """Note that a topic's record was removed."""
        marks = self._marks
        known = marks.get(topic)
        if known is not None:
            if known[0] > position:
                return
            marks.move_to_end(topic)
        self._serial += 1
        marks[topic] = (position, self._serial)
        if position > self._newest:  # noqa: PLR1730 - `max` is a call for each event that goes
            self._newest = position
        if len(marks) > self._max_topics:
            _topic, (oldest, _serial) = marks.popitem(last=False)
            self.floor = max(self.floor, oldest)

    def newest(self, selection: Selection) -> int:
        """Return the newest removed position of what is selected, 0 if there is none."""
        if selection.everything:
            return self._newest
        if not selection:
            return 0
        newest = self.floor
        for topic in selection.topics:
            mark = self._marks.get(topic)
            if mark is not None and mark[0] > newest:
                newest = mark[0]
        return max(newest, self._newest_match(selection)) if selection.matchers else newest

    def gap(self, selection: Selection, after: int) -> bool:
        """Whether something selected was removed behind a cursor."""
        return self._newest > after and self.newest(selection) > after

    def _newest_match(self, selection: Selection) -> int:
        """Find the newest mark of a topic that matches: what was found last, and newer notes."""
        newest, answered = self._answers.pop(selection, (0, 0))
        for topic, (position, serial) in reversed(self._marks.items()):
            if serial <= answered:
                break
            if position > newest and selection.matches_topic(topic):
                newest = position
        self._answers[selection] = (newest, self._serial)
        if len(self._answers) > _MAX_ANSWERS:
            self._answers.popitem(last=False)
        return newest
