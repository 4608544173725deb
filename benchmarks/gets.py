"""`gets`: small GETs a second, 64 keep-alive connections with one request each on the way.

Not what the server is for, but every publish is such a request. Against bare ASGI applications on
two servers that parse with h11 as we do. Two marks on the wall: a loop of Trio and h11 with nothing
around it, and a C program that answers without looking.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from . import servers
from .bench import peer_environment
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench
    from .servers import Recipe

_SECONDS: Final = 4.0
_CONNECTIONS: Final = 64


async def run(bench: Bench) -> Report:
    """Measure."""
    report = Report(
        title=f"Small GETs over {_CONNECTIONS} keep-alive connections",
        columns={"rate": "GETs/s", "cpu": "CPU µs each", "p50": "p50 ms", "p99": "p99 ms"},
    )
    recipes = bench.recipes(
        report,
        partial(servers.app, name="h3trio App"),
        partial(servers.app, target="bare", name="h3trio bare handler"),
        servers.loop,
        lambda: servers.uvicorn(peer_environment(), "small"),
        lambda: servers.hypercorn(peer_environment(), "small"),
        partial(servers.floor, bench.programs),
    )
    for this in bench.rounds(report):
        await bench.begin(this)
        for recipe in recipes:
            this.add(recipe.name, **await _one(bench, recipe))
    for peer, least in (("uvicorn (h11)", 0.95), ("hypercorn-trio", 3.0)):
        ratios = report.ratios("rate", "h3trio App", peer)
        report.check(f"GETs/s, h3trio App ÷ {peer}", ratios, least=least)
    return report


async def _one(bench: Bench, recipe: Recipe) -> dict[str, float]:
    async with bench.servers.start(recipe) as server:
        get = partial(bench.load.publish, server.port, "/", method="GET", connections=_CONNECTIONS)
        await get(seconds=0.5)
        before = server.cpu_seconds()
        done = await get(seconds=bench.options.seconds(_SECONDS))
        cpu = server.cpu_seconds() - before
    return {
        "rate": done.rate,
        "cpu": cpu / max(1, done.acked) * 1e6,
        "p50": done.latency.p50,
        "p99": done.latency.p99,
    }
