"""`streams_50`: 50 own streams at once, each event by an awaited `send`.

How fast they are together, and how fair: while none of them has to wait for its client, a handler
that only sends could keep all others from theirs. Halfway through, no stream may have less than
half of the mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import servers
from .bench import peer_environment
from .load import FailedError
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench
    from .servers import Recipe

_STREAMS: Final = 50
_EVENTS: Final = 2_000
_LEAST_RATIO: Final = 4.0
_LEAST_SHARE: Final = 0.5


async def run(bench: Bench) -> Report:
    """Measure."""
    events = bench.options.scaled(_EVENTS)
    report = Report(
        title=f"{_STREAMS} streams of {events:,} events, each by an awaited send",
        columns={
            "rate": "events/s, all",
            "cpu": "CPU µs/event",
            "share": "least ÷ mean, halfway",
        },
    )
    recipes = bench.recipes(
        report,
        servers.app,
        lambda: servers.hypercorn(peer_environment(), "streams"),
        lambda: servers.uvicorn(peer_environment(), "streams"),
        lambda: servers.aiohttp(peer_environment()),
    )
    for this in bench.rounds(report):
        await bench.begin(this)
        for recipe in recipes:
            this.add(recipe.name, **await _one(bench, recipe, events))
    ratios = report.ratios("rate", "h3trio", "hypercorn-trio")
    report.check("events/s, h3trio ÷ hypercorn-trio", ratios, least=_LEAST_RATIO)
    shares = report.values("h3trio", "share")
    report.check("slowest stream ÷ mean, h3trio", shares, least=_LEAST_SHARE)
    return report


async def _one(bench: Bench, recipe: Recipe, events: int) -> dict[str, float]:
    total = events * _STREAMS
    async with bench.servers.start(recipe) as server:
        async with bench.load.subscribers(server.port, "/stream?n=1000", 1) as client:
            await client.wait(1000, seconds=10)
        before = server.cpu_seconds()
        path = f"/stream?n={events}"
        async with bench.load.subscribers(server.port, path, _STREAMS) as clients:
            halfway = await clients.wait(total // 2, seconds=60)
            received = await clients.wait(total, seconds=60)
        cpu = server.cpu_seconds() - before
    if received.events != total:
        raise FailedError(f"{recipe.name} sent {received.events} of {total} events")
    return {
        "rate": total / received.seconds,
        "cpu": cpu / total * 1e6,
        "share": halfway.least / (halfway.events / _STREAMS),
    }
