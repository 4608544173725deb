"""`Selection`: the topics that a subscriber means, as exact names, by matchers, or all of them.

A selection is a value: two subscribers with equal selections and equal rights share one feed.
The rule for a topic's name is here too, as every part of a hub needs it, and `Turn`, which counts
what matching costs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sized
from typing import TYPE_CHECKING, Final, Protocol, final, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EVERYTHING: Final = "*"

MAX_SCAN: Final = 2000
"""Records that are looked at between two checkpoints."""

MATCH_COST: Final = 40
"""Records that could be looked at while one pattern is asked about one topic."""

FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""What neither a topic nor an id may hold: control characters (C0, DEL, C1) and surrogates."""


def check_topic(topic: str) -> None:
    """Check a topic's name, whatever its length: that is the limit of a hub.

    Raises:
        ValueError: it is empty, or holds a control character or a surrogate.
    """
    if not topic:
        raise ValueError("a topic may not be empty")
    if FORBIDDEN.search(topic):
        raise ValueError(f"a topic may not hold control characters or surrogates: {topic!r}")


def check_several(topics: object) -> None:
    """Raise `TypeError` for a string in place of topics: each of its letters would be one."""
    if isinstance(topics, str):
        raise TypeError(f"topics must be several, not the string {topics!r}")


def _check_matcher(matcher: object) -> None:
    matches: object = getattr(matcher, "matches", None)
    if not callable(matches):
        raise TypeError(f"{matcher!r} is neither a topic nor has it a `matches(topic)`")
    if inspect.iscoroutinefunction(matches):
        # What it returns isn't awaited, and would count as yes for each topic.
        raise TypeError(f"{matcher!r}: `matches` is a `def`, as nobody waits for it")


@runtime_checkable
class TopicMatcher(Protocol):
    """A pattern over topics. Hashable, and equal to matchers that match alike.

    One that stands for several patterns tells by `__len__` how many: a hub bounds how many it asks
    before others run.
    """

    def matches(self, topic: str, /) -> bool:
        """Whether the topic is meant; pure, so its answer may be cached."""
        ...

    def __hash__(self) -> int: ...


@final
class Selection:
    """A set of topics.

    Args:
        topics: exact topics, `"*"` for every topic, and matchers.

    Raises:
        TypeError: a single string instead of several; what is neither a topic nor a matcher.
    """

    __slots__ = ("_hash", "everything", "is_exact", "matchers", "patterns", "topics")

    def __init__(self, topics: Iterable[str | TopicMatcher] = ()) -> None:
        check_several(topics)
        found = set(topics)
        self.everything: bool = EVERYTHING in found
        """Whether `"*"` is among them; then nothing else is needed."""
        exact = () if self.everything else (t for t in found if isinstance(t, str))
        self.topics: frozenset[str] = frozenset(exact)
        """The exact topics."""
        matchers = () if self.everything else (t for t in found if not isinstance(t, str))
        self.matchers: frozenset[TopicMatcher] = frozenset(matchers)
        """Patterns and templates that decide beside the exact topics."""
        for matcher in self.matchers:
            _check_matcher(matcher)
        self.is_exact: bool = not self.everything and not self.matchers
        """Whether an index of topics is enough to find its updates."""
        self.patterns: int = sum(len(m) if isinstance(m, Sized) else 1 for m in self.matchers)
        """The number of patterns in its matchers."""
        self._hash = hash((self.everything, self.topics, self.matchers))

    def __repr__(self) -> str:
        names = ["*"] if self.everything else [*sorted(self.topics), *map(repr, self.matchers)]
        return f"<Selection: {', '.join(names) or 'nothing'}>"

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Selection):
            return NotImplemented
        same = self.topics == other.topics and self.matchers == other.matchers
        return same and self.everything == other.everything

    def __bool__(self) -> bool:
        return self.everything or bool(self.topics) or bool(self.matchers)

    def cost(self, topics: int) -> int:
        """Return what `matches` may cost for so many topics, for `Turn.spend`."""
        return topics * self.patterns * MATCH_COST

    def matches_topic(self, topic: str) -> bool:
        """Whether one topic is selected."""
        if self.everything or topic in self.topics:
            return True
        return any(matcher.matches(topic) for matcher in self.matchers)

    def matches(self, topics: Sequence[str]) -> bool:
        """Whether one of an update's topics is selected."""
        return any(map(self.matches_topic, topics))


NOTHING: Final = Selection()
ALL: Final = Selection([EVERYTHING])


@final
class Turn:
    """The work of one task between two checkpoints, where input decides how much there is."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_SCAN

    def spend(self, cost: int = 0) -> bool:
        """Count a record that is looked at next, and what it costs besides.

        Returns:
            Whether this is too much for the turn: then let others run, or end here. It is the
            first of the next turn.
        """
        self._left -= 1 + cost
        if self._left >= 0:
            return False
        self._left = MAX_SCAN - 1 - cost
        return True
