"""What the connections of one server share: times that are spread, a clock, and counts."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime

import trio

from h3trio import CloseReason, Closing, H3Event, Settings
from h3trio._server.state import Counts, ServerState


async def handler(_event: H3Event) -> None:
    """Do nothing."""
    await trio.lowlevel.checkpoint()


async def test_date() -> None:
    """The date is the present second, as HTTP writes it."""
    state = ServerState(Settings())
    date = state.date()
    told = parsedate_to_datetime(date.decode())
    assert abs(told.timestamp() - time.time()) < 5
    assert date.endswith(b" GMT")


async def test_jitter() -> None:
    """Times for clients are spread around their middle, so that none come back in step."""
    state = ServerState(Settings(reconnect_delay=10, lease=100, lease_jitter=0.2))
    retries = {state.reconnect_milliseconds() for _ in range(100)}
    assert 5_000 <= min(retries) < max(retries) <= 15_000
    assert len(retries) > 50
    afters = {state.retry_after() for _ in range(100)}
    assert 5 <= min(afters) < max(afters) <= 15
    leases = {state.lease() for _ in range(100)}
    assert 80 <= min(leases) < max(leases) <= 120


async def test_no_lease() -> None:
    """Without a lease a stream has no end, and `Retry-After` is at least a second."""
    state = ServerState(Settings(reconnect_delay=0.1))
    assert state.lease() == math.inf
    assert {state.retry_after() for _ in range(10)} == {1}


def test_counts() -> None:
    """Each ending adds to the totals and to its reason."""
    counts = Counts()
    for reason in (CloseReason.COMPLETED, CloseReason.SLOW, CloseReason.SLOW):
        counts.add(Closing(reason=reason, status=200, duration=1, events=2, bytes_sent=10))
    assert (counts.requests, counts.events, counts.bytes_sent) == (3, 6, 30)
    assert counts.closings == {CloseReason.COMPLETED: 1, CloseReason.SLOW: 2}
