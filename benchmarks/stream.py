"""`stream`: one own stream of 100,000 events of 100 bytes, each by an awaited `send`.

The plainest program a user writes, in h3trio and in what a Trio user has today (hypercorn's Trio
worker with sse-starlette), with the C loop of bare sends beside them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from . import servers
from .bench import peer_environment
from .load import FailedError
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench
    from .servers import Recipe

_EVENTS: Final = 100_000
_LEAST_RATIO: Final = 4.0


async def run(bench: Bench) -> Report:
    """Measure."""
    events = bench.options.scaled(_EVENTS)
    report = Report(
        title=f"One stream of {events:,} events of 100 bytes, each by an awaited send",
        columns={"rate": "events/s", "cpu": "CPU µs/event"},
    )
    recipes = bench.recipes(
        report,
        servers.app,
        lambda: servers.hypercorn(peer_environment(), "streams"),
        partial(servers.floor, bench.programs),
    )
    for this in bench.rounds(report):
        await bench.begin(this)
        for recipe in recipes:
            this.add(recipe.name, **await _one(bench, recipe, events))
    ratios = report.ratios("rate", "h3trio", "hypercorn-trio")
    report.check("events/s, h3trio ÷ hypercorn-trio", ratios, least=_LEAST_RATIO)
    return report


async def _one(bench: Bench, recipe: Recipe, events: int) -> dict[str, float]:
    async with bench.servers.start(recipe) as server:
        # A short one first: the server's code is loaded and warm.
        async with bench.load.subscribers(server.port, "/stream?n=1000", 1) as client:
            await client.wait(1000, seconds=10)
        before = server.cpu_seconds()
        async with bench.load.subscribers(server.port, f"/stream?n={events}", 1) as client:
            received = await client.wait(events, seconds=60)
        cpu = server.cpu_seconds() - before
    if received.events != events:
        raise FailedError(f"{recipe.name} sent {received.events} of {events} events in a minute")
    return {
        "rate": events / received.seconds,
        "cpu": cpu / events * 1e6,
    }
