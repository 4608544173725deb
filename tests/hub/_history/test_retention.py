"""`Retention`: limits are checked when they are given, not when they are met."""

from __future__ import annotations

import math
from typing import Any

import pytest

from h3trio.hub._history.retention import Retention

BAD_NUMBERS: list[tuple[str, Any]] = [
    ("max_events", 0),
    ("max_bytes", -1),
    ("max_age", 0),
    ("max_age", math.nan),
    ("max_age", math.inf),
    ("max_topic_events", 0),
    ("max_topic_bytes", -5),
]
BAD_TYPES: list[tuple[str, Any]] = [
    ("max_events", None),
    ("max_events", 1.5),
    ("max_bytes", True),
    ("max_age", "1"),
]


def test_a_limit_must_be_positive(subtests: pytest.Subtests) -> None:
    """Zero, negative numbers and NaN are refused by name."""
    for name, value in BAD_NUMBERS:
        problem = f"{name} must be positive"
        with subtests.test(name, value=value), pytest.raises(ValueError, match=problem):
            Retention(**{"max_events": 1, "max_bytes": 1, name: value})


def test_a_limit_must_be_a_number(subtests: pytest.Subtests) -> None:
    """Of another type it is refused by name; the two that bound memory can't be off."""
    for name, value in BAD_TYPES:
        problem = f"{name} must be"
        with subtests.test(name, value=value), pytest.raises(TypeError, match=problem):
            Retention(**{"max_events": 1, "max_bytes": 1, name: value})


def test_the_newest_record_stays() -> None:
    """One record is never too much, however large."""
    retention = Retention(max_events=2, max_bytes=10, max_topic_events=1, max_topic_bytes=10)
    assert not retention.is_exceeded(1, 1000)
    assert not retention.is_topic_exceeded(1, 1000)


def test_events_and_bytes_are_limits_each() -> None:
    """Either one exceeded is too much; at the limit is not."""
    retention = Retention(max_events=3, max_bytes=10, max_topic_events=2, max_topic_bytes=5)
    assert [retention.is_exceeded(*n) for n in ((3, 10), (4, 10), (3, 11))] == [False, True, True]
    seen = [retention.is_topic_exceeded(*n) for n in ((2, 5), (3, 5), (2, 6))]
    assert seen == [False, True, True]


def test_topics_have_no_limit_unless_given() -> None:
    """By default only the totals count."""
    assert not Retention(max_events=1, max_bytes=1).is_topic_exceeded(10**9, 10**9)
