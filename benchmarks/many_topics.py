"""`many_topics`: 1,000 connections that subscribe to 100 topics each, one of them in common.

A hundred thousand selections of topics more than one feed has. Publishing to the common topic is
compared with the same where it is all that anyone subscribed to; the memory that the other 99
topics of each connection take is divided by their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from . import servers
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench
    from .report import Round

_CONNECTIONS: Final = 1000
_TOPICS: Final = 100
_SHARED: Final = "/events/shared"
_MANY: Final = "/events?topic=shared" + "".join(f"&topic=%d-{n}" for n in range(_TOPICS - 1))
_RATE: Final = 20
_SECONDS: Final = 5.0
_MOST_CPU: Final = 1.2
_LEAST_CPU: Final = 0.8
_MOST_KIB: Final = 2.0
# The request is longer than what a head may have by default.
_FLAGS: Final = ("--max-head-bytes", "32768")


async def run(bench: Bench) -> Report:
    """Measure."""
    count = bench.options.scaled(_CONNECTIONS)
    report = Report(
        plotted="cpu",
        title=f"{count:,} connections, each to one topic, and each to {_TOPICS}",
        columns={
            "rate": "events/s",
            "cpu": "CPU µs/delivery",
            "per_send": "events/send",
            "p99": "p99 ms",
            "kib": "KiB/connection",
            "complete": "complete",
        },
    )
    for this in bench.rounds(report):
        await bench.begin(this)
        await _one(bench, this, "one topic", _SHARED, count=count)
        await _one(bench, this, f"{_TOPICS} topics", _MANY, count=count)
    _judge(report)
    return report


def _judge(report: Report) -> None:
    many, one = f"{_TOPICS} topics", "one topic"
    ratios = report.ratios("cpu", many, one)
    report.check(f"CPU/delivery, {many} ÷ {one}", ratios, most=_MOST_CPU)
    report.check(f"CPU/delivery, {many} ÷ {one}", ratios, least=_LEAST_CPU)
    held = zip(report.values(many, "kib"), report.values(one, "kib"), strict=True)
    each = [(theirs - single) / (_TOPICS - 1) for theirs, single in held]
    report.check("KiB a topic", each, most=_MOST_KIB)


async def _one(bench: Bench, this: Round, subject: str, path: str, *, count: int) -> None:
    async with bench.servers.start(servers.hub(*_FLAGS)) as server:
        async with bench.load.subscribers(server.port, _SHARED, 20):
            await trio.sleep(0.2)
        before = server.resident_bytes()
        async with bench.load.subscribers(server.port, path, count) as group:
            await trio.sleep(1)
            held = server.resident_bytes() - before
            seconds = bench.options.seconds(_SECONDS)
            await bench.load.publish(server.port, _SHARED, rate=_RATE, seconds=1)
            await trio.sleep(0.5)
            done = await bench.measure(server, group, _SHARED, rate=_RATE, seconds=seconds)
    this.add(
        subject,
        rate=done.published.rate,
        cpu=done.cpu_per_delivery,
        per_send=done.received.events_per_send,
        p99=done.received.latency.p99,
        kib=held / count / 1024,
        complete=done.received.complete,
    )
