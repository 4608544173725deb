"""Messages between the processes of the generator."""

from __future__ import annotations

import pickle
import socket
from collections import Counter
from typing import TYPE_CHECKING

from h3trio._cli.bench.histogram import delays
from h3trio._cli.bench.job import Endpoint, Received

if TYPE_CHECKING:
    from h3trio.hub._fanout.latency import Histogram

TARGET = Endpoint(
    family=int(socket.AF_INET),
    address="127.0.0.1",
    port=3000,
    host="h:3000",
    path="/events?topic=a",
    headers=("Authorization: Bearer x",),
)


def histogram(*seconds: float) -> Histogram:
    """Count some delays."""
    made = delays()
    for delay in seconds:
        made.add(delay)
    return made


def test_head_of_a_request() -> None:
    """Host first, then what the request needs, then what the user gave."""
    assert TARGET.head("GET", "Accept: x") == (
        b"GET /events?topic=a HTTP/1.1\r\nHost: h:3000\r\nAccept: x\r\nAuthorization: Bearer x\r\n"
    )


def test_outcomes_travel_and_add_up() -> None:
    """Sums are summed, extremes are extremes, reasons and delays are merged."""
    one = Received(
        asked=2, opened=2, events=10, least=4, most=6, seconds=1.0, busy=0.2,
        lost=Counter(a=1), latencies=histogram(0.001), bounded=False,
    )  # fmt: skip
    other = Received(
        asked=1, opened=1, events=3, least=3, most=3, seconds=2.0, busy=0.1,
        lost=Counter(a=1, b=1), latencies=histogram(0.5), bounded=True,
    )  # fmt: skip
    total = Received()
    for part in (one, other):
        total.add(pickle.loads(pickle.dumps(part)))  # noqa: S301 - as pipes between processes do it
    assert (total.asked, total.opened, total.events) == (3, 3, 13)
    assert (total.least, total.most, total.seconds, total.busy) == (3, 6, 2.0, 0.2)
    assert total.lost == Counter(a=2, b=1)
    assert total.bounded
    assert sum(total.latencies.counts) == 2
    assert total.latencies.max == 0.5
