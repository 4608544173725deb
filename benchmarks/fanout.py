"""`fanout` and `fanout_5000`: one topic, one HTTP publisher; the hub and its peers.

Two questions, as any bare "deliveries a second" grows at will with the events in one send:

1. What is the highest offered rate that is *held*: every event at every subscriber, no request left
   waiting at the end, and p99 within a bound from when the event was due to be published?
2. What do a delivery and its delay cost each of them at nchan's own highest rate?

The search goes up by doubling, or down by halving, and then halves the gap, to a tenth of the rate.
It begins at half of what was held in the round before. A rate that is nearly held is tried once
more, for a machine that has other things to do now and then. hypercorn's Trio worker is there as
what a Trio user has today; where it doesn't hold one event a second, the ratio is taken to one.
All other peers are in `fanout_fixed`, and 5,000 subscribers are nchan's and ours alone.

At nchan's best rate the hub runs a second time, with `--flush-interval 0.01`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from . import servers
from .bench import peer_environment
from .load import complain
from .report import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from .bench import Bench, Measured
    from .load import Subscribers
    from .report import Round
    from .servers import Recipe, Server

TOPIC: Final = "/events/news"
COLUMNS: Final = {
    "offered": "events/s",
    "deliveries": "deliveries/s",
    "per_send": "events/send",
    "cpu": "CPU µs/delivery",
    "p50": "p50 ms",
    "p99": "p99 ms",
}
_START: Final = 16
_SLOW_START: Final = 2
_HIGHEST: Final = 4000
_SECONDS: Final = 3.0
# Beyond the bound on p99 by so much, a second try would be no better.
_NEAR: Final = 1.5
_NOT_ONE: Final = "1 not held"
_BEST: Final = "at nchan's best"
_FLUSHED: Final = "h3trio, flush 10 ms"
_MOST_FLUSHED_CPU: Final = 1 / 3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    subscribers: int
    p99_ms: float
    makers: tuple[Callable[[], Recipe], ...]
    targets: tuple[tuple[str, float], ...]
    """Peer, and the least that the hub's rate is to be of its."""


_SMALL: Final = _Case(
    subscribers=1000,
    p99_ms=50.0,
    makers=(
        servers.nchan,
        servers.hub,
        lambda: servers.hypercorn(peer_environment(), "streams"),
    ),
    targets=(("nchan", 8.0), ("hypercorn-trio", 100.0)),
)
_LARGE: Final = _Case(
    subscribers=5000,
    p99_ms=250.0,
    makers=(servers.nchan, servers.hub),
    targets=(("nchan", 10.0),),
)


async def run(bench: Bench) -> Report:
    """Measure with 1,000 subscribers."""
    return await _run(bench, _SMALL)


async def run_large(bench: Bench) -> Report:
    """Measure with 5,000 subscribers."""
    return await _run(bench, _LARGE)


async def _run(bench: Bench, case: _Case) -> Report:
    count = bench.options.scaled(case.subscribers)
    report = Report(
        title=f"One topic to {count:,} subscribers, p99 ≤ {case.p99_ms:g} ms, events of 100 bytes",
        columns=COLUMNS,
    )
    hubs = bench.recipes(report, *case.makers)
    best = {recipe.name: 2 * _START for recipe in hubs} | {"hypercorn-trio": 2 * _SLOW_START}
    for this in bench.rounds(report):
        await bench.begin(this)
        for recipe in hubs:
            start = max(1, best[recipe.name] // 2)
            async with bench.subscribed(recipe, TOPIC, count) as (server, group):
                held = await search(bench, this, server, group, p99_ms=case.p99_ms, start=start)
            best[recipe.name] = held
        if rate := best.get("nchan"):
            flushed = servers.hub("--flush-interval", "0.01", name=_FLUSHED)
            for recipe in (servers.nchan(), servers.hub(), flushed):
                await at_rate(bench, this, recipe, count, rate=rate, what=_BEST)
    _judge(report, case)
    return report


def _judge(report: Report, case: _Case) -> None:
    for peer, least in case.targets:
        rates = [
            ratio
            for theirs in (f"{peer}: highest held", f"{peer}: {_NOT_ONE}")
            for ratio in report.ratios("offered", "h3trio: highest held", theirs)
        ]
        report.check(f"highest held rate, h3trio ÷ {peer}", rates, least=least)
    for key, what in (("cpu", "CPU/delivery"), ("p99", "p99")):
        ratios = report.ratios(key, f"h3trio: {_BEST}", f"nchan: {_BEST}")
        report.check(f"{what} {_BEST}, h3trio ÷ nchan", ratios, most=1.0)
    ratios = report.ratios("cpu", f"{_FLUSHED}: {_BEST}", f"nchan: {_BEST}")
    report.check(f"CPU/delivery {_BEST}, {_FLUSHED} ÷ nchan", ratios, most=_MOST_FLUSHED_CPU)


async def search(
    bench: Bench, this: Round, server: Server, group: Subscribers, *, p99_ms: float, start: int
) -> int:
    """Find the highest held rate within a tenth; 0 if not even the lowest is."""
    seconds = bench.options.seconds(_SECONDS)
    tried: dict[int, Measured] = {}

    async def holds(rate: int) -> bool:
        for _attempt in range(2):
            tried[rate] = done = await bench.measure(
                server, group, TOPIC, rate=rate, seconds=seconds
            )
            verdict = _is_held(done, rate, group.count, p99_ms)
            complain(f"    {server.name} {_told(rate, done)}{'' if verdict else ': not held'}")
            if verdict or done.received.latency.p99 > _NEAR * p99_ms:
                return verdict
        return False

    low, high = 0, start
    highest = 2 * _START if bench.options.quick else _HIGHEST
    while high <= highest and await holds(high):
        low, high = high, high * 2
    while not low and high > 1:
        if await holds(high // 2):
            low = high // 2
        else:
            high //= 2
    while low and high <= highest and high - low > max(1, low // 10):
        middle = (low + high) // 2
        if await holds(middle):
            low = middle
        else:
            high = middle
    add(this, f"{server.name}: {'highest held' if low else _NOT_ONE}", low or 1, tried[low or 1])
    return low


def _is_held(done: Measured, rate: int, count: int, p99_ms: float) -> bool:
    return (
        done.published.unsent == 0
        and done.published.rate >= 0.97 * rate
        and done.received.complete == count
        and done.received.latency.p99 <= p99_ms
    )


def _told(rate: int, done: Measured) -> str:
    return f"at {rate}/s: p99 {done.received.latency.p99:.1f} ms, unsent {done.published.unsent}"


async def at_rate(
    bench: Bench,
    this: Round,
    recipe: Recipe,
    count: int,
    *,
    rate: float,
    what: str,
    seconds: float = 2 * _SECONDS,
) -> Measured:
    """Measure a hub at a fixed rate, and add it to the round."""
    seconds = bench.options.seconds(seconds)
    async with bench.subscribed(recipe, TOPIC, count) as (server, group):
        done = await bench.measure(server, group, TOPIC, rate=rate, seconds=seconds)
        add(this, f"{recipe.name}: {what}", rate, done)
    return done


def add(this: Round, subject: str, rate: float, done: Measured, **more: float) -> None:
    """Add what was measured to a round, under the keys of `COLUMNS`."""
    this.add(
        subject,
        offered=rate,
        deliveries=done.received.events / max(done.received.seconds, 1e-9),
        per_send=done.received.events_per_send,
        cpu=done.cpu_per_delivery,
        p50=done.received.latency.p50,
        p99=done.received.latency.p99,
        complete=done.received.complete,
        **more,
    )
