"""`Selection`: a value that says which updates are meant."""

from __future__ import annotations

import pytest

from h3trio.hub._history.selection import EVERYTHING, NOTHING, Selection, TopicMatcher


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
