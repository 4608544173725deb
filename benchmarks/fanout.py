"""`fanout` and `fanout_5000`: one topic, one HTTP publisher; the hub and its peers.

Two questions, as any bare "deliveries a second" grows at will with the events in one send:

1. What is the highest offered rate that is *held*: every event at every subscriber, no request left
   waiting at the end, and p99 within a bound from when the event was due to be published?
2. What do a delivery and its delay cost each of them at nchan's own highest rate?

The search goes up by doubling, or down by halving, and then halves the gap, to a tenth of the rate.
A rate that isn't held is tried once more, for a machine that has other things to do now and then.
5,000 subscribers are nchan's and ours alone: the others hold next to nothing there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from . import servers
from .bench import node_environment, peer_environment
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
_HIGHEST: Final = 4000
_SECONDS: Final = 3.0


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
        lambda: servers.uvicorn(peer_environment(), "streams"),
        lambda: servers.aiohttp(peer_environment()),
        lambda: servers.better_sse(node_environment()),
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
    for this in bench.rounds(report):
        await bench.begin(this)
        best: dict[str, int] = {}
        for recipe in hubs:
            async with bench.subscribed(recipe, TOPIC, count) as (server, group):
                best[recipe.name] = await _search(bench, this, server, group, p99_ms=case.p99_ms)
        if rate := best.get("nchan"):
            for recipe in hubs:
                if recipe.name in ("nchan", "h3trio"):
                    await at_rate(bench, this, recipe, count, rate=rate, what="at nchan's best")
    _judge(report, case)
    return report


def _judge(report: Report, case: _Case) -> None:
    for peer, least in case.targets:
        rates = report.ratios("offered", "h3trio: highest held", f"{peer}: highest held")
        report.check(f"highest held rate, h3trio ÷ {peer}", rates, least=least)
    for key, what in (("cpu", "CPU/delivery"), ("p99", "p99")):
        ratios = report.ratios(key, "h3trio: at nchan's best", "nchan: at nchan's best")
        report.check(f"{what} at nchan's best, h3trio ÷ nchan", ratios, most=1.0)


async def _search(
    bench: Bench, this: Round, server: Server, group: Subscribers, *, p99_ms: float
) -> int:
    """Find the highest held rate within a tenth; 0 if not even the lowest is."""
    seconds = bench.options.seconds(_SECONDS)
    held: dict[int, Measured] = {}

    async def holds(rate: int) -> bool:
        for _attempt in range(2):
            done = await bench.measure(server, group, TOPIC, rate=rate, seconds=seconds)
            verdict = _is_held(done, rate, group.count, p99_ms)
            complain(f"    {server.name} {_told(rate, done)}{'' if verdict else ': not held'}")
            if verdict:
                held[rate] = done
                return True
        return False

    low, high = 0, _START
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
    if low:
        add(this, f"{server.name}: highest held", low, held[low])
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
    bench: Bench, this: Round, recipe: Recipe, count: int, *, rate: float, what: str
) -> Measured:
    """Measure a hub at a fixed rate, and add it to the round."""
    async with bench.subscribed(recipe, TOPIC, count) as (server, group):
        seconds = bench.options.seconds(2 * _SECONDS)
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
