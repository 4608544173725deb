"""`fanout`: one topic, 1,000 subscribers, one HTTP publisher; h3trio's hub and nchan.

Three questions, as any bare "deliveries a second" grows at will with the events in one send:

1. What is the highest offered rate that is *held*: every event at every subscriber, no request left
   waiting at the end, and p99 at most 50 ms from when the event was due to be published?
2. What does a delivery cost each of them at nchan's own highest rate?
3. And at 10 events a second, where every send carries one event: next to a loop of bare sends?

The search goes up by doubling and then halves the gap. A rate that isn't held is tried once more,
for a machine that has other things to do now and then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import servers
from .load import complain
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench, Measured
    from .load import Subscribers
    from .report import Round
    from .servers import Recipe, Server

_SUBSCRIBERS: Final = 1000
_TOPIC: Final = "/events/news"
_STEP: Final = 20
_HIGHEST: Final = 4000
_CALM: Final = 10
_SECONDS: Final = 3.0
_P99_MS: Final = 50.0
_LEAST_RATE_RATIO: Final = 4.0
_MOST_CPU_RATIO: Final = 1.2


async def run(bench: Bench) -> Report:
    """Measure."""
    count = bench.options.scaled(_SUBSCRIBERS)
    report = Report(
        title=f"One topic to {count:,} subscribers, events of 100 bytes over HTTP",
        columns={
            "offered": "events/s",
            "deliveries": "deliveries/s",
            "per_send": "events/send",
            "cpu": "CPU µs/delivery",
            "p50": "p50 ms",
            "p99": "p99 ms",
        },
    )
    hubs = bench.recipes(report, servers.nchan, servers.hub)
    floor = servers.floor(bench.programs)
    for this in bench.rounds(report):
        await bench.begin(this)
        best: dict[str, int] = {}
        for recipe in hubs:
            async with bench.subscribed(recipe, _TOPIC, count) as (server, group):
                best[recipe.name] = await _search(bench, this, server, group)
        if rate := best.get("nchan"):
            for recipe in hubs:
                await _at(bench, this, recipe, count, rate=rate, what="at nchan's best")
        for recipe in (*hubs, floor):
            await _at(bench, this, recipe, count, rate=_CALM, what="batches of one")
    _judge(report)
    return report


def _judge(report: Report) -> None:
    rates = report.ratios("offered", "h3trio: highest held", "nchan: highest held")
    report.check("highest held rate, h3trio ÷ nchan", rates, least=_LEAST_RATE_RATIO)
    cpu = report.ratios("cpu", "h3trio: at nchan's best", "nchan: at nchan's best")
    report.check("CPU/delivery at nchan's best, h3trio ÷ nchan", cpu, most=_MOST_CPU_RATIO)


async def _search(bench: Bench, this: Round, server: Server, group: Subscribers) -> int:
    """Find the highest held rate, a multiple of the step; 0 if not even one step is."""
    seconds = bench.options.seconds(_SECONDS)
    held: dict[int, Measured] = {}

    async def holds(rate: int) -> bool:
        for _attempt in range(2):
            done = await bench.measure(server, group, _TOPIC, rate=rate, seconds=seconds)
            verdict = _is_held(done, rate, group.count)
            complain(f"    {server.name} {_told(rate, done)}{'' if verdict else ': not held'}")
            if verdict:
                held[rate] = done
                return True
        return False

    low, high = 0, _STEP
    while high <= _HIGHEST and await holds(high):
        low, high = high, high * 2
    while high - low > max(_STEP, low // 10):
        middle = (low + high) // 2 // _STEP * _STEP
        if await holds(middle):
            low = middle
        else:
            high = middle
    if low:
        _add(this, f"{server.name}: highest held", low, held[low])
    return low


def _is_held(done: Measured, rate: int, count: int) -> bool:
    return (
        done.published.unsent == 0
        and done.published.rate >= 0.97 * rate
        and done.received.complete == count
        and done.received.latency.p99 <= _P99_MS
    )


def _told(rate: int, done: Measured) -> str:
    return f"at {rate}/s: p99 {done.received.latency.p99:.1f} ms, unsent {done.published.unsent}"


async def _at(
    bench: Bench, this: Round, recipe: Recipe, count: int, *, rate: int, what: str
) -> None:
    async with bench.subscribed(recipe, _TOPIC, count) as (server, group):
        seconds = bench.options.seconds(2 * _SECONDS)
        done = await bench.measure(server, group, _TOPIC, rate=rate, seconds=seconds)
        _add(this, f"{recipe.name}: {what}", rate, done)


def _add(this: Round, subject: str, rate: int, done: Measured) -> None:
    this.add(
        subject,
        offered=rate,
        deliveries=done.received.events / done.received.seconds,
        per_send=done.received.events_per_send,
        cpu=done.cpu_per_delivery,
        p50=done.received.latency.p50,
        p99=done.received.latency.p99,
    )
