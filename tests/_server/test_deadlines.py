"""How long a connection's reader waits, and by whose limit."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import pytest
import trio

from h3trio import Settings
from h3trio._server.deadlines import Deadlines

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_head(mock_clock: MockClock) -> None:
    """A head counts from its first byte, however often one looks; between two, idling counts."""
    deadlines, start = Deadlines(Settings()), trio.current_time()
    mock_clock.jump(4)
    deadlines.head_begins()
    assert (deadlines.for_head() - start, deadlines.limit) == (10, "head_timeout")
    deadlines.head_ends()
    assert (deadlines.for_head() - start, deadlines.limit) == (4 + 75, "keepalive_timeout")
    deadlines.head_begins()
    assert (deadlines.for_head() - start, deadlines.limit) == (4 + 10, "head_timeout")


async def test_body(mock_clock: MockClock) -> None:
    """A silence counts from now; the whole from the start, longer for each byte that came."""
    deadlines, start = Deadlines(Settings(min_body_rate=100)), trio.current_time()
    assert (deadlines.for_body(received=0, is_streamed=False) - start, deadlines.limit) == (
        30,
        "body_timeout",
    )
    mock_clock.jump(20)
    assert deadlines.for_body(received=100, is_streamed=False) - start == pytest.approx(31)
    assert deadlines.limit == "min_body_rate"
    assert deadlines.for_body(received=10_000, is_streamed=False) - start == 50
    assert deadlines.limit == "body_timeout"
    deadlines.head_ends()
    assert deadlines.for_body(received=0, is_streamed=False) - start == 50


async def test_a_pause_is_not_the_clients(mock_clock: MockClock) -> None:
    """While nobody reads, a body can't be late."""
    deadlines, start = Deadlines(Settings(min_body_rate=100)), trio.current_time()
    deadlines.for_body(received=0, is_streamed=False)
    mock_clock.jump(100)
    deadlines.paused(start)
    assert deadlines.for_body(received=100, is_streamed=False) - start == 130
    deadlines.head_ends()
    deadlines.paused(start)


async def test_a_pause_from_before_the_body_buys_nothing(mock_clock: MockClock) -> None:
    """Of a pause that began with the request before, a body gets only what is behind its start."""
    deadlines, start = Deadlines(Settings(min_body_rate=100)), trio.current_time()
    mock_clock.jump(100)
    deadlines.for_body(received=0, is_streamed=False)
    mock_clock.jump(1)
    deadlines.paused(start)
    mock_clock.jump(20)
    assert deadlines.for_body(received=0, is_streamed=False) - start == 101 + 30
    assert deadlines.limit == "min_body_rate"


@pytest.mark.parametrize("streamed", [False, True])
async def test_no_rate(mock_clock: MockClock, *, streamed: bool) -> None:
    """Without a rate, or where the handler takes a stream, only silences count."""
    settings = Settings() if streamed else Settings(min_body_rate=None)
    deadlines, start = Deadlines(settings), trio.current_time()
    deadlines.for_body(received=0, is_streamed=False)
    mock_clock.jump(20)
    due = deadlines.for_body(received=1, is_streamed=streamed)
    assert (due - start, deadlines.limit) == (50, "body_timeout")


async def test_a_later_deadline_is_not_told(mock_clock: MockClock) -> None:
    """What is due later than before lets the reader wake up too early, and wait on."""
    deadlines, start = Deadlines(Settings()), trio.current_time()
    deadlines.wait_until(start + 10)
    deadlines.wait_until(start + 75)
    assert deadlines.scope.deadline == start + 10
    mock_clock.jump(10)
    assert not deadlines.is_over()
    assert deadlines.scope.deadline == start + 75
    mock_clock.jump(65)
    assert deadlines.is_over()
    assert deadlines.scope.deadline == inf


async def test_an_earlier_deadline_is_told() -> None:
    """What is due earlier than before wakes the reader then."""
    deadlines, start = Deadlines(Settings()), trio.current_time()
    deadlines.wait_until(start + 75)
    deadlines.wait_until(start + 10)
    assert deadlines.scope.deadline == start + 10


async def test_nothing_is_due(mock_clock: MockClock) -> None:
    """Where nothing is due, the reader isn't late, and is woken once at the most."""
    deadlines = Deadlines(Settings())
    deadlines.wait_until(trio.current_time() + 10)
    deadlines.wait_until(inf)
    mock_clock.jump(20)
    assert not deadlines.is_over()
    assert deadlines.scope.deadline == inf


async def test_settled() -> None:
    """A deadline that is settled is told even if it is later, so that nobody is woken for less."""
    deadlines = Deadlines(Settings())
    deadlines.wait_until(trio.current_time() + 10)
    deadlines.wait_until(inf)
    deadlines.settle()
    assert deadlines.scope.deadline == inf
