"""`Selection`: a value that says which updates are meant."""

from __future__ import annotations

from typing import Any

import pytest
from hub_helpers import Matcher
from tables import table

from h3trio.hub._history.selection import (
    EVERYTHING,
    MATCH_COST,
    MAX_SCAN,
    NOTHING,
    Selection,
    TopicMatcher,
    Turn,
)


class Prefix:
    """Matches topics by their start."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def matches(self, topic: str, /) -> bool:
        """Whether the topic starts so."""
        return topic.startswith(self.prefix)

    def __hash__(self) -> int:
        return hash(self.prefix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefix) and other.prefix == self.prefix

    def __repr__(self) -> str:
        return f"{self.prefix}…"


class Late:
    """Matches topics once somebody waits for it."""

    async def matches(self, _topic: str, /) -> bool:
        """Whether there is none."""
        return False


@table("topic", [3, None, b"a", object(), Late()])
def test_what_is_no_matcher(topic: Any) -> None:  # noqa: ANN401 - of any shape
    """It is refused at once; what an async matcher returns would count as yes for each topic."""
    with pytest.raises(TypeError):
        Selection(["a", topic])


def test_exact_topics_match_themselves() -> None:
    """Nothing in an exact topic is a pattern, an update's second topic counts too."""
    selection = Selection(["a", "b.*"])
    assert selection.matches(("a",))
    assert selection.matches(("x", "b.*"))
    assert not selection.matches(("b.c",))
    assert selection.is_exact


def test_the_star_means_everything() -> None:
    """Beside it, other topics and matchers say nothing."""
    selection = Selection(["a", EVERYTHING, Prefix("x")])
    assert selection.matches(("whatever",))
    assert selection.everything
    assert not selection.topics
    assert not selection.matchers
    assert not selection.is_exact
    assert selection == Selection([EVERYTHING])


def test_matchers_are_asked() -> None:
    """A matcher selects what it matches, beside exact topics."""
    selection = Selection([Prefix("x/"), "a"])
    assert isinstance(Prefix("x/"), TopicMatcher)
    assert [selection.matches_topic(topic) for topic in ("a", "x/1", "b")] == [True, True, False]
    assert not selection.is_exact


def test_equal_selections_are_one_key() -> None:
    """Order and repetition don't matter, equal matchers are one: such subscribers share a feed."""
    one = Selection(["a", "b", Prefix("x")])
    same = Selection([Prefix("x"), "b", "a", "a"])
    assert (one, hash(one)) == (same, hash(same))
    assert one != Selection(["a", "b"])
    assert one != Selection(["a", "b", Prefix("y")])
    assert one != "a"


def test_nothing_is_false() -> None:
    """An empty selection selects nothing and is false."""
    assert not NOTHING
    assert not NOTHING.matches(("a",))
    assert all([Selection(["a"]), Selection([EVERYTHING]), Selection([Prefix("")])])


def test_a_single_string_is_refused() -> None:
    """One topic is given in a list: a string would be a topic per character."""
    with pytest.raises(TypeError, match="must be several, not the string 'news'"):
        Selection("news")


def test_a_selection_shows_its_topics() -> None:
    """Its repr names them in order."""
    assert repr(Selection(["b", "a", Prefix("x")])) == "<Selection: a, b, x…>"
    assert repr(Selection(["*", "a"])) == "<Selection: *>"
    assert repr(NOTHING) == "<Selection: nothing>"


def test_a_matcher_costs_as_its_patterns_do() -> None:
    """One that says how many patterns it stands for counts as so many."""

    class Several(Matcher):
        def __len__(self) -> int:
            return 5

    one, both = Selection([Matcher("a")]), Selection(["x", Matcher("a"), Several("b")])
    assert [one.cost(3), both.cost(3), Selection(["x"]).cost(3)] == [
        3 * MATCH_COST,
        3 * 6 * MATCH_COST,
        0,
    ]


def test_a_turn_ends_before_it_is_too_much() -> None:
    """What ends it is the first of the next; nothing is too much for a turn of its own."""
    turn = Turn()
    assert [turn.spend() for _ in range(MAX_SCAN)] == [False] * MAX_SCAN
    assert turn.spend(MAX_SCAN - 2)
    assert not turn.spend()
    assert turn.spend(10 * MAX_SCAN)
    assert turn.spend()
