"""`own_topic`: 10,000 subscribers with a topic of their own each and one in common.

The usual shape of an application: news for all, messages for one. Publishing to the shared topic is
compared with the same on a hub where all 10,000 have nothing but the shared topic. What must not
happen is that ten thousand selections turn into ten thousand queues.

Both hubs are up during the whole round, idle while the other is measured. Two rates: at the low one
a send carries one event, at the high one some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import servers
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench
    from .load import Subscribers
    from .report import Round
    from .servers import Server

_SUBSCRIBERS: Final = 10_000
_SHARED: Final = "/events/shared"
_OWN_AND_SHARED: Final = "/events?topic=own-%d&topic=shared"
_RATES: Final = (4, 20)
_SECONDS: Final = 5.0
_MOST_RATIO: Final = 2.0


async def run(bench: Bench) -> Report:
    """Measure."""
    count = bench.options.scaled(_SUBSCRIBERS)
    report = Report(
        plotted="cpu",
        title=f"{count:,} subscribers: the shared topic alone, and each with one of its own",
        columns={
            "rate": "events/s",
            "cpu": "CPU µs/delivery",
            "per_send": "events/send",
            "p99": "p99 ms",
            "complete": "complete",
        },
    )
    for this in bench.rounds(report):
        await bench.begin(this)
        await _round(bench, this, count)
    for rate in _RATES:
        subject, other = f"own + shared, {rate}/s", f"shared alone, {rate}/s"
        ratios = report.ratios("cpu", subject, other)
        report.check(f"CPU/delivery at {rate}/s, own + shared ÷ shared", ratios, most=_MOST_RATIO)
    return report


async def _round(bench: Bench, this: Round, count: int) -> None:
    recipe = servers.hub()
    async with (
        bench.subscribed(recipe, _SHARED, count) as (one, one_group),
        bench.subscribed(recipe, _OWN_AND_SHARED, count, topic=_SHARED) as (many, many_group),
    ):
        for rate in _RATES:
            this.add(f"shared alone, {rate}/s", **await _measure(bench, one, one_group, rate))
            this.add(f"own + shared, {rate}/s", **await _measure(bench, many, many_group, rate))


async def _measure(bench: Bench, server: Server, group: Subscribers, rate: int) -> dict[str, float]:
    seconds = bench.options.seconds(_SECONDS)
    done = await bench.measure(server, group, _SHARED, rate=rate, seconds=seconds, grace=20)
    return {
        "rate": done.published.rate,
        "cpu": done.cpu_per_delivery,
        "per_send": done.received.events_per_send,
        "p99": done.received.latency.p99,
        "complete": done.received.complete,
    }
