"""What the generator's processes tell each other."""

from __future__ import annotations

import json
import socket
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from h3trio._cli.bench.histogram import delays
from h3trio._cli.bench.job import (
    Published,
    PublishJob,
    Received,
    SubscribeJob,
    Target,
    job_from,
    published_from,
    received_from,
    to_json,
)

if TYPE_CHECKING:
    from h3trio.hub._fanout.latency import Histogram

TARGET = Target(
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


@pytest.mark.parametrize(
    "job",
    [
        SubscribeJob(target=TARGET, connections=3, ramp=0.5, timeout=10.0),
        PublishJob(target=TARGET, rate=7.5, size=100, connections=2),
    ],
)
def test_jobs_travel_as_one_line(job: SubscribeJob | PublishJob) -> None:
    """A job is the same on the other side."""
    line = to_json(job)
    assert "\n" not in line
    assert job_from(line) == job


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
        total.add(received_from(json.loads(to_json(part))))
    assert (total.asked, total.opened, total.events) == (3, 3, 13)
    assert (total.least, total.most, total.seconds, total.busy) == (3, 6, 2.0, 0.2)
    assert total.lost == Counter(a=2, b=1)
    assert total.bounded
    assert sum(total.latencies.counts) == 2
    assert total.latencies.max == 0.5


def test_what_was_published_travels() -> None:
    """A publisher's outcome is the same on the other side."""
    found = Published(sent=3, acked=2, failed=Counter({"status 503": 1}), latencies=histogram(1.0))
    again = published_from(json.loads(to_json(found)))
    assert (again.sent, again.acked, again.failed) == (3, 2, Counter({"status 503": 1}))
    assert again.latencies.max == 1.0
