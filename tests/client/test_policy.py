"""The types of streams, and the time that the client waits before it comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from h3trio.client._policy import (
    MAX_BACKOFF,
    MAX_DELAY,
    MIN_DELAY,
    is_event_stream,
    reconnect_delay,
    retry_after,
)

if TYPE_CHECKING:
    import pytest


def test_types_of_streams() -> None:
    """The type of a stream may have parameters, and letters of either case."""
    assert is_event_stream("text/event-stream")
    assert is_event_stream("Text/Event-Stream ; charset=utf-8")
    assert not is_event_stream("text/html")
    assert not is_event_stream("")


def test_delays_double_up_to_a_limit() -> None:
    """The time beyond the server's delay doubles with each failure, up to half a minute."""
    longest = [reconnect_delay(1, failures, lambda: 1.0) for failures in range(7)]
    assert longest == [2, 3, 5, 9, 17, 31, 31]
    assert [reconnect_delay(1, failures, lambda: 0.0) for failures in range(7)] == [1] * 7
    assert reconnect_delay(1, 9, lambda: 1.0, max_backoff=0) == 1


@given(st.floats(0, 1e13), st.integers(0, 10_000), st.floats(0, 1))
def test_delays_keep_their_bounds(asked: float, failures: int, drawn: float) -> None:
    """The wait is never shorter than asked for, within reason, never nothing, never too long."""
    delay = reconnect_delay(asked, failures, lambda: drawn)
    least = min(max(asked, MIN_DELAY), MAX_DELAY)
    assert least <= delay <= least + MAX_BACKOFF
    assert delay <= reconnect_delay(asked, failures + 1, lambda: 1.0)


NOW = 1_000_000_000  # Sun, 09 Sep 2001 01:46:40 GMT


HEADERS: list[tuple[str, float | None]] = [
    ("7", 7),
    (" 0 ", 0),
    ("3600", 3600),
    ("3601", 3600),
    ("9" * 5000, 3600),
    ("Sun, 09 Sep 2001 01:47:10 GMT", 30),
    ("Sun, 09 Sep 2001 01:46:00 GMT", 0),
    ("Sun, 09 Sep 2091 01:46:00 GMT", 3600),
    ("", None),
    ("-1", None),
    ("1.5", None),
    ("\u0664", None),
    ("Fri, 31", None),
]


def test_retry_after(subtests: pytest.Subtests) -> None:
    """Seconds and dates are taken, up to an hour; anything else counts for nothing."""
    for value, seconds in HEADERS:
        with subtests.test(value=value, seconds=seconds):
            assert retry_after(value, NOW) == seconds


@given(st.text(st.characters(codec="ascii")))
def test_retry_after_of_anything(value: str) -> None:
    """Whatever a server says, it is a bounded time or none."""
    seconds = retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= MAX_DELAY
