"""`slow_clients`: 1,000 healthy subscribers, alone and beside 200 that aren't.

100 of the others never read at all (a window of nothing after a few kilobytes), 100 read 10 KiB a
second, less than is published. The healthy ones must not notice: p99 within half as much again, no
event missing. The ones that never read must be gone once `--write-timeout` is over; the slow ones
must stay, and have every event in the end.

Memory is read when the load ends: the server's resident memory, and what TCP holds in the kernel,
for all sockets of this machine, ours on both ends among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from . import servers
from .machine import tcp_memory_bytes
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench, Measured
    from .load import Published, Subscribers
    from .report import Round
    from .servers import Server

_HEALTHY: Final = 1000
_STALLED: Final = 100
_SLOW: Final = 100
_SLOW_RATE: Final = 10 * 1024
_STALLED_WINDOW: Final = 4096
# Enough for the kernel to open the window again before it is all used up.
_SLOW_WINDOW: Final = 32 * 1024
_TOPIC: Final = "/events/news"
_RATE: Final = 200
_SECONDS: Final = 10.0
_WRITE_TIMEOUT: Final = 5.0
# Beyond the timeout: it counts from the last progress, and the kernel checks it now and then.
_MARGIN: Final = 5.0
_CATCH_UP: Final = 90.0
_MOST_RATIO: Final = 1.5
_MIB: Final = 1024 * 1024


async def run(bench: Bench) -> Report:
    """Measure."""
    report = Report(
        plotted="p99",
        title=(
            f"{_HEALTHY:,} healthy subscribers at {_RATE} events/s, alone and beside {_STALLED} "
            f"that never read and {_SLOW} that read 10 KiB/s"
        ),
        columns={
            "p50": "p50 ms",
            "p99": "p99 ms",
            "complete": "complete",
            "cpu": "CPU µs/delivery",
            "resident": "resident MiB",
            "kernel": "kernel TCP MiB",
            "stalled_left": "stalled left",
            "slow_complete": "slow complete",
        },
    )
    for this in bench.rounds(report):
        await bench.begin(this)
        await _alone(bench, this)
        await _beside(bench, this)
    _judge(report)
    return report


def _judge(report: Report) -> None:
    ratios = report.ratios("p99", "beside", "alone")
    report.check("p99 of the healthy, beside ÷ alone", ratios, most=_MOST_RATIO)
    complete = report.values("beside", "complete")
    report.check("healthy streams without a missing event", complete, least=_HEALTHY)
    report.check("streams that never read, left", report.values("beside", "stalled_left"), most=0)
    slow = report.values("beside", "slow_complete")
    report.check("slow streams that got everything", slow, least=_SLOW)


def _recipe() -> servers.Recipe:
    return servers.hub("--write-timeout", str(_WRITE_TIMEOUT))


async def _alone(bench: Bench, this: Round) -> None:
    async with bench.subscribed(_recipe(), _TOPIC, _HEALTHY) as (server, healthy):
        before = server.resident_bytes(), tcp_memory_bytes()
        done = await _load(bench, server, healthy)
        this.add("alone", **_figures(done), **_growth(server, before))


async def _beside(bench: Bench, this: Round) -> None:
    async with bench.subscribed(_recipe(), _TOPIC, _HEALTHY) as (server, healthy):
        sockets = server.open_sockets()
        before = server.resident_bytes(), tcp_memory_bytes()
        stalled = bench.load.subscribers(
            server.port, _TOPIC, _STALLED, read_rate=0, rcvbuf=_STALLED_WINDOW
        )
        slow = bench.load.subscribers(
            server.port, _TOPIC, _SLOW, read_rate=_SLOW_RATE, rcvbuf=_SLOW_WINDOW
        )
        async with stalled, slow as slow_group:
            # The stalled count as open once they have asked, not once they are answered.
            await trio.sleep(1)
            await slow_group.mark()
            done = await _load(bench, server, healthy)
            memory = _growth(server, before)
            aftermath = await _wait_out(server, sockets, slow_group, done.published)
    this.add("beside", **_figures(done), **memory, **aftermath)


async def _load(bench: Bench, server: Server, healthy: Subscribers) -> Measured:
    seconds = bench.options.seconds(_SECONDS)
    return await bench.measure(server, healthy, _TOPIC, rate=_RATE, seconds=seconds)


async def _wait_out(
    server: Server, sockets: int, slow: Subscribers, published: Published
) -> dict[str, float]:
    """See what became of the 200."""
    await trio.sleep(_WRITE_TIMEOUT + _MARGIN)
    held = server.open_sockets() - sockets
    events = published.acked * slow.count
    received = await slow.wait(events, seconds=_CATCH_UP, published=published)
    # What the server held then, less the slow ones: those that are still there are alive.
    return {"stalled_left": held - received.open, "slow_complete": received.complete}


def _growth(server: Server, before: tuple[int, int]) -> dict[str, float]:
    return {
        "resident": (server.resident_bytes() - before[0]) / _MIB,
        "kernel": (tcp_memory_bytes() - before[1]) / _MIB,
    }


def _figures(done: Measured) -> dict[str, float]:
    return {
        "p50": done.received.latency.p50,
        "p99": done.received.latency.p99,
        "complete": done.received.complete,
        "cpu": done.cpu_per_delivery,
    }
