"""`fanout_fixed`: one topic at fixed rates and without a pause, to 100 to 10,000 subscribers.

What each hub does when nobody looks for its limit: rates that a busy application has, the same for
all. Where a hub can't keep up, `complete` says how many subscribers got everything. Then nchan and
ours at saturation: 64 requests on the way at any time, so that each hub is fed as fast as it
answers; `deliveries` and `events/send` belong together there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import servers
from .bench import node_environment, peer_environment
from .fanout import COLUMNS, TOPIC, add, at_rate
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench
    from .report import Round
    from .servers import Recipe

_RATES: Final = {100: 100, 1000: 20, 5000: 4, 10_000: 2}
_WITH_PEERS: Final = 1000
_SECONDS: Final = 3.0
_SATURATED_SECONDS: Final = 1.5


async def run(bench: Bench) -> Report:
    """Measure."""
    report = Report(
        plotted="p99",
        title="One topic at fixed rates, events of 100 bytes",
        columns=COLUMNS | {"complete": "complete"},
    )
    hubs = bench.recipes(report, servers.nchan, servers.hub)
    peers = bench.recipes(
        report,
        lambda: servers.hypercorn(peer_environment(), "streams"),
        lambda: servers.uvicorn(peer_environment(), "streams"),
        lambda: servers.aiohttp(peer_environment()),
        lambda: servers.better_sse(node_environment()),
    )
    for this in bench.rounds(report):
        await bench.begin(this)
        for subscribers, rate in _RATES.items():
            count = bench.options.scaled(subscribers)
            for recipe in (*hubs, *(peers if subscribers == _WITH_PEERS else ())):
                what = f"{count:,} subscribers"
                await at_rate(bench, this, recipe, count, rate=rate, what=what, seconds=_SECONDS)
            for recipe in hubs:
                await _saturated(bench, this, recipe, count)
    return report


async def _saturated(bench: Bench, this: Round, recipe: Recipe, count: int) -> None:
    seconds = bench.options.seconds(_SATURATED_SECONDS)
    async with bench.subscribed(recipe, TOPIC, count) as (server, group):
        done = await bench.measure(server, group, TOPIC, seconds=seconds, grace=20)
    add(this, f"{recipe.name}: {count:,} saturated", done.published.rate, done)
