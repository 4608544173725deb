"""`idle`: resident memory of 2,000 streams on which nothing happens.

The difference that the streams make to the server's resident memory, divided by their number:
everything counts that the process holds for them, from the socket object to the parked handler.
The kernel's share, the socket itself, is not in it, for nobody. A few streams come and go first,
so that code loaded on first use isn't counted.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from . import servers
from .bench import peer_environment
from .raw import tls_subscribers
from .report import Report

if TYPE_CHECKING:
    from pathlib import Path

    from .bench import Bench
    from .servers import Recipe

_STREAMS: Final = 2000
_TLS_STREAMS: Final = 500
_MOST_KIB: Final = {"h3trio, own streams": 12.0, "h3trio, hub": 14.0}


async def run(bench: Bench) -> Report:
    """Measure."""
    streams = bench.options.scaled(_STREAMS)
    report = Report(
        title=f"{streams:,} idle streams: resident memory",
        columns={"kib": "KiB/stream", "connects": "connects/s"},
    )
    own = partial(servers.app, name="h3trio, own streams")
    starlette = partial(servers.hypercorn, target="streams")
    apps = bench.recipes(report, own, lambda: starlette(peer_environment()))
    hubs = bench.recipes(report, partial(servers.hub, name="h3trio, hub"), servers.nchan)
    certificate = bench.programs / "server.pem"
    tls = bench.recipes(report, partial(servers.hub_over_tls, certificate))
    for this in bench.rounds(report):
        await bench.begin(this)
        for path, recipes in (("/idle", apps), ("/events/news", hubs)):
            for recipe in recipes:
                this.add(recipe.name, **await _one(bench, recipe, path, streams))
        for recipe in tls:
            this.add(recipe.name, kib=await _over_tls(bench, recipe, certificate))
    for subject, most in _MOST_KIB.items():
        report.check(f"KiB a stream, {subject}", report.values(subject, "kib"), most=most)
    return report


async def _one(bench: Bench, recipe: Recipe, path: str, streams: int) -> dict[str, float]:
    async with bench.servers.start(recipe) as server:
        async with bench.load.subscribers(server.port, path, 20):
            await trio.sleep(0.2)
        await trio.sleep(0.5)
        before = server.resident_bytes()
        async with bench.load.subscribers(server.port, path, streams) as group:
            await trio.sleep(1)
            held = server.resident_bytes() - before
    return {"kib": held / streams / 1024, "connects": streams / group.connect_seconds}


async def _over_tls(bench: Bench, recipe: Recipe, certificate: Path) -> float:
    """KiB a stream. Its clients are sockets of our own process, so they are fewer."""
    streams, path = bench.options.scaled(_TLS_STREAMS), "/events/news"
    async with bench.servers.start(recipe) as server:
        async with tls_subscribers(server.port, path, 20, certificate=certificate):
            await trio.sleep(0.2)
        await trio.sleep(0.5)
        before = server.resident_bytes()
        async with tls_subscribers(server.port, path, streams, certificate=certificate):
            await trio.sleep(1)
            held = server.resident_bytes() - before
    return held / streams / 1024
