"""`runs`: what a run costs beside a topic of the hub that is published to by hand.

A viewer of a run against a plain subscriber, a thousand of each: the processor time of a delivery,
and the resident memory of a stream. Then a thousand runs with one viewer each against a thousand
topics, at a rate of a hundred tokens a second over all of them: how late a token is, measured of
both at the same time. One program serves both, `apps/runs.py`, and whatever publishes is the same.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from . import servers
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench
    from .load import Subscribers
    from .report import Round
    from .servers import Server

_VIEWERS: Final = 1000
_RATE: Final = 20
_RUNS: Final = 1000
_TOKENS: Final = 100
_SECONDS: Final = 5.0
_TOKENS_SECONDS: Final = 20.0
_MOST_RATIO: Final = 1.1
# A p99 of two thousand events is the twentieth of the latest: it differs so much by itself.
_MOST_P99: Final = 1.25
_KINDS: Final = {"hub": "topic", "runs": "run"}


async def run(bench: Bench) -> Report:
    """Measure."""
    viewers, count = bench.options.scaled(_VIEWERS), bench.options.scaled(_RUNS)
    report = Report(
        plotted="cpu",
        title=f"{viewers:,} viewers of one run, and {count:,} runs, against topics of the hub",
        columns={
            "rate": "events/s",
            "cpu": "CPU µs/delivery",
            "kib": "KiB/stream",
            "p50": "p50 ms",
            "p99": "p99 ms",
            "complete": "complete",
        },
    )
    for this in bench.rounds(report):
        await bench.begin(this)
        for path, kind in _KINDS.items():
            await _viewers(bench, this, f"one {kind}", path, count=viewers)
        await _many(bench, this, count=count)
    for key, name in (("cpu", "CPU/delivery"), ("kib", "KiB/stream")):
        ratios = report.ratios(key, "one run", "one topic")
        report.check(f"{name}, a viewer ÷ a subscriber", ratios, most=_MOST_RATIO)
    p99 = report.ratios("p99", f"{count:,} runs", f"{count:,} topics")
    report.check(f"p99, {count:,} runs ÷ topics", p99, most=_MOST_P99)
    return report


async def _viewers(bench: Bench, this: Round, subject: str, path: str, *, count: int) -> None:
    async with bench.servers.start(servers.runs(1)) as server:
        async with bench.load.subscribers(server.port, f"/{path}/0", 20):
            await trio.sleep(0.2)
        before = server.resident_bytes()
        async with bench.load.subscribers(server.port, f"/{path}/0", count) as group:
            await trio.sleep(1)
            held = server.resident_bytes() - before
            seconds = bench.options.seconds(_SECONDS)
            await bench.load.publish(server.port, f"/{path}", rate=_RATE, seconds=1)
            await trio.sleep(0.5)
            done = await bench.measure(server, group, f"/{path}", rate=_RATE, seconds=seconds)
    this.add(
        subject,
        rate=done.published.rate,
        cpu=done.cpu_per_delivery,
        kib=held / count / 1024,
        p50=done.received.latency.p50,
        p99=done.received.latency.p99,
        complete=done.received.complete,
    )


async def _many(bench: Bench, this: Round, *, count: int) -> None:
    """Measure both at the same time: what else the machine does makes both late."""
    recipe = servers.runs(count)
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for path, kind in _KINDS.items():
            server = await stack.enter_async_context(bench.servers.start(recipe))
            group = await stack.enter_async_context(
                bench.load.subscribers(server.port, f"/{path}/%d", count)
            )
            one = partial(_one_of_many, bench, this, f"{count:,} {kind}s", server, group)
            nursery.start_soon(one, f"/{path}")


async def _one_of_many(  # noqa: PLR0917 - a task's
    bench: Bench, this: Round, subject: str, server: Server, group: Subscribers, path: str
) -> None:
    await bench.load.publish(server.port, path, rate=_TOKENS, seconds=1)
    await trio.sleep(1)
    await group.mark()
    seconds, before = bench.options.seconds(_TOKENS_SECONDS), server.cpu_seconds()
    published = await bench.load.publish(server.port, path, rate=_TOKENS, seconds=seconds)
    received = await group.wait(published.acked, seconds=5)
    this.add(
        subject,
        rate=published.rate,
        cpu=(server.cpu_seconds() - before) / max(1, received.events) * 1e6,
        p50=received.latency.p50,
        p99=received.latency.p99,
        complete=received.events / max(1, published.acked),
    )
