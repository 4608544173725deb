"""Topic selectors: exact, all, and templates."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from tables import table

import h3trio
from h3trio.hub import Selection
from h3trio.hubserver import Grant, selection_of
from h3trio.hubserver._access.grant import members
from h3trio.hubserver._access.uri_template import MAX_ANSWERS, MAX_EXPRESSIONS, Template

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    import pytest

FOLDER = str(Path(h3trio.__file__).parent)

MATCHES = [
    ("*", "anything/at all", True),
    ("news", "news", True),
    ("news", "news/", False),
    ("news", "New", False),
    ("users/{id}", "users/7", True),
    ("users/{id}", "users/", False),
    ("users/{id}", "users/7/mail", False),
    ("users/{id}", "users/7?x", False),
    ("users/{id}", "users/a%2Fb", True),
    ("users/{id}", "users/é", True),
    ("users/{id}", "Users/7", False),
    ("users/{id}", "xusers/7", False),
    ("users/{id}", "users/{id}", True),
    ("{a}/{b}", "x/y", True),
    ("{a}/{b}", "x/y/z", False),
    ("{a}{b}", "x", False),
    ("{a}{b}", "xy", True),
    ("a{x}a", "aaa", True),
    ("a{x}a", "aa", False),
    ("https://example.com/{+rest}", "https://example.com/a/b?c", True),
    ("https://example.com/{+rest}", "https://example.com.evil/a", False),
    ("{+a}/end", "x/y/end", True),
    ("{+a}/end", "/end", False),
    # What isn't understood is a topic like any other.
    ("users{/id}", "users/7", False),
    ("users{/id}", "users{/id}", True),
    ("{id", "7", False),
    ("{}", "7", False),
    ("{a}}", "7}", False),
    ("{a,b}", "7,8", False),
    ("{*}", "7", False),
]


def test_what_a_selector_matches(subtests: pytest.Subtests) -> None:
    """A selector matches all, itself, or what the template expands to, and nothing else."""
    for selector, topic, expected in MATCHES:
        with subtests.test(selector=selector, topic=topic, expected=expected):
            assert selection_of([selector]).matches_topic(topic) is expected


def test_templates_are_values() -> None:
    """Equal templates make equal selections, so that subscribers share a feed."""
    one, other = selection_of(["a/{x}", "b"]), selection_of(["b", "a/{x}"])
    assert one == other
    assert hash(one) == hash(other)
    assert one != selection_of(["a/{y}", "b"])
    text: object = "a/{x}"
    assert Template.parse("a/{x}") != text
    assert repr(Template.parse("a/{x}")) == "<Template: a/{x}>"


def test_expressions_have_a_limit() -> None:
    """At the limit it is a template, one above it a text like any other."""
    assert Template.parse("{a}/" * MAX_EXPRESSIONS) is not None
    assert Template.parse("{a}/" * (MAX_EXPRESSIONS + 1)) is None


def test_members_make_the_same_selection() -> None:
    """The list that `Hub.subscribe` is given stands for the same topics."""
    for made in (selection_of(["*", "a"]), selection_of(["a", "b/{x}"]), selection_of([])):
        assert Selection(members(made)) == made


def test_templates_of_a_grant_are_values() -> None:
    """Those of one grant are one matcher, equal to one of the same templates in another order."""
    (one,) = selection_of(["a/{x}", "b/{x}"]).matchers
    (other,) = selection_of(["b/{x}", "a/{x}"]).matchers
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == "<Templates: a/{x}, b/{x}>"
    text: object = "a/{x}"
    assert one != text


def test_a_grant_gives_nothing_by_itself() -> None:
    """A grant without arguments has no right."""
    grant = Grant()
    assert not grant.publish
    assert grant.subscribe is None


@given(st.lists(st.sampled_from(["{a}", "{+a}", "a", "b/", "/"]), max_size=8).map("".join))
def test_matching_many_variables_takes_no_longer(selector: str) -> None:
    """A topic that nearly matches is decided at once, however many ways there are to divide it."""
    topic = "a" * 300 + "!"
    found = selection_of([selector]).matches_topic(topic)
    assert found is (selector.endswith("{+a}") and found)


class Steps:
    """Counts the lines of the package that run: work, whatever the machine is busy with."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Steps | None:
        """Count a line."""
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        self.count += event == "line"
        return self

    def of(self, call: Callable[[], object]) -> int:
        """Return the lines that a call takes."""
        self.count, before = 0, sys.gettrace()
        sys.settrace(self)
        try:
            call()
        finally:
            sys.settrace(before)
        return self.count


PLENTY = [f"users/{number}/{{kind}}/{{+rest}}" for number in range(40)]


def test_an_answer_is_kept() -> None:
    """The second question for a topic asks none of a grant's forty templates, whatever it was."""
    allowed, steps = selection_of(PLENTY), Steps()
    for topic in ("users/7/orders/1", "users/x/orders/1", "other"):
        assert steps.of(partial(allowed.matches_topic, topic)) < 300
        assert steps.of(partial(allowed.matches_topic, topic)) < 10


def test_answers_have_a_limit() -> None:
    """At the limit all are kept, and one more topic forgets them."""
    allowed, steps = selection_of(PLENTY), Steps()
    topics = [f"users/7/orders/{number}" for number in range(MAX_ANSWERS + 1)]
    for topic in topics[:-1]:
        assert allowed.matches_topic(topic)
    assert all(steps.of(partial(allowed.matches_topic, topic)) < 10 for topic in topics[:-1])
    assert allowed.matches_topic(topics[-1])
    assert steps.of(partial(allowed.matches_topic, topics[0])) > 10


@table("kind", ["{a}", "{+a}"])
@table("between", ["", "x", "/"])
def test_matching_is_linear(kind: str, between: str) -> None:
    """A template costs a look at each character, however many ways there are to divide a topic."""
    template, steps = Template.parse((kind + between) * MAX_EXPRESSIONS + "!"), Steps()
    assert template is not None
    taken = [steps.of(partial(template.matches, "x/" * (size // 2))) for size in (250, 500, 1000)]
    assert taken[1] - taken[0] <= 2 * 250
    assert taken[2] - taken[1] <= 2 * 500


SEGMENT = st.text("ab1%é", min_size=1, max_size=4)


@given(SEGMENT, SEGMENT, st.text(st.sampled_from("ab/:?#"), min_size=1, max_size=6))
def test_an_expansion_is_matched(one: str, other: str, rest: str) -> None:
    """A topic that is made by putting values into a template matches it."""
    assert selection_of(["x/{one}-{other}/{+rest}"]).matches_topic(f"x/{one}-{other}/{rest}")
