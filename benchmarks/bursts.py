"""`bursts`: one own stream of 100,000 events by what doesn't wait for each.

`send_nowait` with a wait only where the queue is full, and one `send_from`, against better-sse,
whose `push` never waits. The time is from the client's request to its last event: who holds all
events until the last one is made sends them in no time, and late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import servers
from .bench import node_environment
from .load import FailedError
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench
    from .servers import Recipe

_EVENTS: Final = 100_000


async def run(bench: Bench) -> Report:
    """Measure."""
    events = bench.options.scaled(_EVENTS)
    report = Report(
        title=f"One stream of {events:,} events of 100 bytes, in bursts",
        columns={"rate": "events/s", "cpu": "CPU µs/event", "per_send": "events/send"},
    )
    ours = servers.app()
    peers = bench.recipes(report, lambda: servers.better_sse(node_environment()))
    for this in bench.rounds(report):
        await bench.begin(this)
        for name, path in (("send_nowait", "/burst"), ("send_from", "/from")):
            this.add(name, **await _one(bench, ours, path, events))
        for recipe in peers:
            this.add(recipe.name, **await _one(bench, recipe, "/burst", events))
    for name in ("send_nowait", "send_from"):
        ratios = report.ratios("rate", name, "better-sse")
        report.check(f"events/s, {name} ÷ better-sse", ratios, least=1.5)
    return report


async def _one(bench: Bench, recipe: Recipe, path: str, events: int) -> dict[str, float]:
    async with bench.servers.start(recipe) as server:
        async with bench.load.subscribers(server.port, f"{path}?n=1000", 1) as client:
            await client.wait(1000, seconds=10)
        before = server.cpu_seconds()
        async with bench.load.subscribers(server.port, f"{path}?n={events}", 1) as client:
            received = await client.wait(events, seconds=60)
        cpu = server.cpu_seconds() - before
    if received.events != events:
        raise FailedError(f"{recipe.name} sent {received.events} of {events} events in a minute")
    return {
        "rate": events / received.since_start,
        "cpu": cpu / events * 1e6,
        "per_send": received.events_per_send,
    }
