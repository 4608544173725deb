"""`topic_latency`: a topic with one subscriber, beside a feed of 10,000 that is saturated.

The quiet topic gets 50 events a second, and is measured three times: alone; beside a crowded topic
that gets more than ten thousand subscribers can be sent one by one, so that there is always a pass
under way; and beside one that is flooded, 64 requests on the way at any time, where the quiet
publisher's requests stand in one line with the others'. The second is judged.

The quiet topic's publisher and subscriber get real-time priority if they may, as they share a core
with 10,000 busy subscribers, and it is the server's delay that is of interest. Without it the
figures include the wait for that core.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from . import servers
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench, Measured
    from .load import Subscribers
    from .report import Round
    from .servers import Server

_SUBSCRIBERS: Final = 10_000
_CROWDED: Final = "/events/crowded"
_QUIET: Final = "/events/quiet"
_QUIET_RATE: Final = 50
_CROWD_RATE: Final = 50
_SECONDS: Final = 6.0
_LEAD: Final = 1.0
_MOST_P99_MS: Final = 5.0


async def run(bench: Bench) -> Report:
    """Measure."""
    count = bench.options.scaled(_SUBSCRIBERS)
    report = Report(
        plotted="p99",
        title=f"A topic with one subscriber, beside a saturated one with {count:,}",
        columns={
            "rate": "events/s",
            "per_send": "events/send",
            "p50": "p50 ms",
            "p99": "p99 ms",
            "max": "max ms",
            "post_p99": "POST p99 ms",
        },
    )
    for this in bench.rounds(report):
        await bench.begin(this)
        await _round(bench, this, count)
    p99 = report.values("beside saturated", "p99")
    report.check("p99 ms beside the saturated crowd", p99, most=_MOST_P99_MS)
    return report


async def _round(bench: Bench, this: Round, count: int) -> None:
    async with (
        bench.subscribed(servers.hub(), _CROWDED, count) as (server, group),
        bench.load.subscribers(server.port, _QUIET, 1, realtime=1) as single,
    ):
        this.add("alone", **_figures(await _probe(bench, server, single)))
        for name, rate in (("saturated", _CROWD_RATE), ("flooded", None)):
            crowd: list[Measured] = []
            async with trio.open_nursery() as nursery:
                load = partial(_load_the_crowd, bench, server, group, crowd, rate=rate)
                nursery.start_soon(load)
                await trio.sleep(_LEAD)
                beside = await _probe(bench, server, single)
            this.add(f"beside {name}", **_figures(beside))
            this.add(f"the crowd, {name}", **_figures(crowd[0]))


async def _load_the_crowd(
    bench: Bench,
    server: Server,
    group: Subscribers,
    done: list[Measured],
    *,
    rate: float | None,
) -> None:
    seconds = bench.options.seconds(_SECONDS) + 2 * _LEAD
    done.append(await bench.measure(server, group, _CROWDED, rate=rate, seconds=seconds, grace=30))


async def _probe(bench: Bench, server: Server, single: Subscribers) -> Measured:
    return await bench.measure(
        server,
        single,
        _QUIET,
        rate=_QUIET_RATE,
        seconds=bench.options.seconds(_SECONDS),
        connections=4,
        realtime=1,
    )


def _figures(done: Measured) -> dict[str, float]:
    latency = done.received.latency
    return {
        "rate": done.published.rate,
        "per_send": done.received.events_per_send,
        "p50": latency.p50,
        "p99": latency.p99,
        "max": latency.max,
        "post_p99": done.published.latency.p99,
    }
