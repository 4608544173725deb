"""`connects`: how fast streams open, and what 5,000 cost that come back at once.

First 2,000 that open one after the other, 64 at a time. Then the storm: a server was away, and all
its clients come back at the same moment, each having missed 100 events. It is over when the last
one has the last of them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from . import servers
from .bench import peer_environment
from .load import FailedError
from .raw import last_event_id
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench
    from .servers import Recipe

_STREAMS: Final = 2000
_STORM: Final = 5000
_MISSED: Final = 100
_TOPIC: Final = "/events/news"
_BACKLOG: Final = ("--backlog", "8192")
_LEAST_RATIO: Final = 4.5


async def run(bench: Bench) -> Report:
    """Measure."""
    streams, storm = bench.options.scaled(_STREAMS), bench.options.scaled(_STORM)
    report = Report(
        title=f"{streams:,} streams open; {storm:,} come back at once, {_MISSED} events behind",
        columns={"rate": "connects/s", "cpu": "CPU µs each", "seconds": "s until all have all"},
    )
    apps = bench.recipes(
        report,
        partial(servers.app, name="h3trio, own streams"),
        lambda: servers.hypercorn(peer_environment(), "streams"),
    )
    ours = partial(servers.hub, *_BACKLOG, name="h3trio, hub")
    hubs = bench.recipes(report, ours, servers.nchan)
    for this in bench.rounds(report):
        await bench.begin(this)
        for recipe in apps:
            this.add(recipe.name, **await _open(bench, recipe, "/idle", streams))
        for recipe in hubs:
            this.add(recipe.name, **await _open(bench, recipe, _TOPIC, streams))
            this.add(f"{recipe.name}: storm", **await _storm(bench, recipe, storm))
    ratios = report.ratios("rate", "h3trio, own streams", "hypercorn-trio")
    report.check("connects/s, h3trio ÷ hypercorn-trio", ratios, least=_LEAST_RATIO)
    return report


async def _open(bench: Bench, recipe: Recipe, path: str, streams: int) -> dict[str, float]:
    async with bench.servers.start(recipe) as server:
        async with bench.load.subscribers(server.port, path, 20):
            await trio.sleep(0.2)
        before = server.cpu_seconds()
        async with bench.load.subscribers(server.port, path, streams) as group:
            cpu = server.cpu_seconds() - before
    return {"rate": streams / group.connect_seconds, "cpu": cpu / streams * 1e6}


async def _storm(bench: Bench, recipe: Recipe, streams: int) -> dict[str, float]:
    async with bench.servers.start(recipe) as server:
        last = await last_event_id(server.port, _TOPIC)
        await bench.load.publish(server.port, _TOPIC, count=_MISSED, connections=1)
        before, began = server.cpu_seconds(), trio.current_time()
        clients = bench.load.subscribers(
            server.port, _TOPIC, streams, ramp=streams, last_event_id=last
        )
        async with clients as group:
            received = await group.wait(streams * _MISSED, seconds=60)
            took = trio.current_time() - began
            cpu = server.cpu_seconds() - before
    if received.events != streams * _MISSED:
        told = f"{received.events} of {streams * _MISSED}"
        raise FailedError(f"{recipe.name} replayed {told} events in a minute")
    return {
        "rate": streams / group.connect_seconds,
        "cpu": cpu / streams * 1e6,
        "seconds": took,
    }
