"""`fanout_fixed`: one topic at fixed rates, to 100, 1,000, 5,000 and 10,000 subscribers.

What each hub does when nobody looks for its limit: rates that a busy application has, the same for
all. Where a hub can't keep up, `complete` says how many subscribers got everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import servers
from .bench import node_environment, peer_environment
from .fanout import COLUMNS, at_rate
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench

_RATES: Final = {100: 100, 1000: 20, 5000: 4, 10_000: 2}
_WITH_PEERS: Final = 1000


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
            for recipe in (*hubs, *(peers if subscribers <= _WITH_PEERS else ())):
                what = f"{count:,} subscribers"
                await at_rate(bench, this, recipe, count, rate=rate, what=what)
    return report
