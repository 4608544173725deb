"""`publish`: how many events a second get into the hub, by HTTP.

One POST for each event, 64 on the way, or all as the body of one request, an event stream; in
memory and durable; with nobody subscribed, and with one. Against nchan, which knows POSTs only.
For the durable the temporary folder must be on a real disk, as in memory a sync costs nothing.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from . import servers
from .raw import publish_stream
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench
    from .servers import Recipe, Server

_TOPIC: Final = "/events/news"
_SECONDS: Final = 4.0
_EVENTS: Final = 100_000
_SIZE: Final = 100
_SUBSCRIBERS: Final = (0, 1)
_LEAST_OF_POSTS: Final = 5.0
_LEAST_OF_MEMORY: Final = 0.5


async def run(bench: Bench) -> Report:
    """Measure."""
    report = Report(
        title="Publishing over HTTP, events of 100 bytes",
        columns={"rate": "events/s", "cpu": "CPU µs each", "p99": "p99 ms"},
    )
    durable = f"sqlite:{bench.programs / 'publish-%d.db'}"
    peers = bench.recipes(report, servers.nchan)
    for this in bench.rounds(report):
        await bench.begin(this)
        # A file of its own for each server that is started.
        for count in _SUBSCRIBERS:
            for stored, flags in (
                ("memory", ()),
                ("durable", ("--store", durable % (this.number * 2 + count))),
            ):
                recipe = servers.hub(*flags)
                for how, found in (await _both(bench, recipe, count)).items():
                    this.add(f"h3trio {stored}, {how}, {count} subscribed", **found)
            for recipe in peers:
                async with bench.servers.start(recipe) as server:
                    found = await _posts(bench, server)
                this.add(f"nchan, POSTs, {count} subscribed", **found)
    _judge(report)
    return report


def _judge(report: Report) -> None:
    for count in _SUBSCRIBERS:
        stream = f"h3trio memory, stream, {count} subscribed"
        posts = report.ratios("rate", stream, f"h3trio memory, POSTs, {count} subscribed")
        report.check(f"{stream} ÷ POSTs", posts, least=_LEAST_OF_POSTS)
        nchan = report.ratios("rate", stream, f"nchan, POSTs, {count} subscribed")
        report.check(f"{stream} ÷ nchan's POSTs", nchan, least=1.0)
        durable = report.ratios("rate", f"h3trio durable, stream, {count} subscribed", stream)
        report.check(
            f"stream, durable ÷ memory, {count} subscribed", durable, least=_LEAST_OF_MEMORY
        )


async def _both(bench: Bench, recipe: Recipe, subscribed: int) -> dict[str, dict[str, float]]:
    async with bench.servers.start(recipe) as server, AsyncExitStack() as stack:
        if subscribed:
            group = bench.load.subscribers(server.port, _TOPIC, subscribed)
            await stack.enter_async_context(group)
        return {"POSTs": await _posts(bench, server), "stream": await _stream(bench, server)}


async def _posts(bench: Bench, server: Server) -> dict[str, float]:
    await bench.load.publish(server.port, _TOPIC, seconds=0.3)
    before = server.cpu_seconds()
    done = await bench.load.publish(server.port, _TOPIC, seconds=bench.options.seconds(_SECONDS))
    cpu = server.cpu_seconds() - before
    return {"rate": done.rate, "cpu": cpu / max(1, done.acked) * 1e6, "p99": done.latency.p99}


async def _stream(bench: Bench, server: Server) -> dict[str, float]:
    events = bench.options.scaled(_EVENTS)
    await publish_stream(server.port, _TOPIC, 100, _SIZE)
    before = server.cpu_seconds()
    seconds = await publish_stream(server.port, _TOPIC, events, _SIZE)
    cpu = server.cpu_seconds() - before
    return {"rate": events / seconds, "cpu": cpu / events * 1e6}
