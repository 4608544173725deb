"""`one_by_one`: what a send costs where each carries one event, and how long it takes.

Batching is what makes a hub fast, and at low rates there is none. So two questions about batches of
one: is the processor time of a delivery near a C loop's of bare sends, and the same for 100
subscribers as for 10,000? And, with 1,000 subscribers at 10 events a second, is p99 no worse than
nchan's, and near the loop's? The latter needs many samples: those of all rounds, five at least,
make one distribution.

What a POST costs is not what a send costs, and weighs the more the fewer subscribers share it. So
each hub is also fed on a topic without subscribers, at the same rate, and the processor time of
that is taken away: what is left, divided by the deliveries, is the send.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from . import servers
from .fanout import COLUMNS, TOPIC, add
from .load import Latency, pooled
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench
    from .report import Round
    from .servers import Recipe

# Some 10,000 sends a second: no core is busy, so none batches.
_RATES: Final = {100: 100.0, 1000: 10.0, 10_000: 1.0}
_POOLED: Final = 1000
_QUIET: Final = "/events/quiet"
_SECONDS: Final = 4.0
_LEAST_ROUNDS: Final = 5
_MOST_OF_FLOOR: Final = 1.6
_FLAT: Final = 1.25
_MOST_P99_OF_FLOOR: Final = 1.5


async def run(bench: Bench) -> Report:
    """Measure."""
    report = Report(
        title="Batches of one, events of 100 bytes",
        plotted="send",
        columns=COLUMNS | {"send": "CPU µs/send"},
    )
    floor = servers.floor(bench.programs)
    recipes = [*bench.recipes(report, servers.nchan, servers.hub), floor]
    latencies: dict[str, list[Latency]] = defaultdict(list)
    for this in bench.rounds(report):
        await bench.begin(this)
        for subscribers in _RATES:
            await _round(bench, this, recipes, subscribers, latencies=latencies)
    # What is pooled takes more rounds than the rest.
    for number in range(bench.options.rounds, 0 if bench.options.quick else _LEAST_ROUNDS):
        await _round(bench, report.round(number), recipes, _POOLED, latencies=latencies)
    _judge(bench, report, latencies)
    return report


async def _round(
    bench: Bench,
    this: Round,
    recipes: list[Recipe],
    subscribers: int,
    *,
    latencies: dict[str, list[Latency]],
) -> None:
    count, rate = bench.options.scaled(subscribers), _RATES[subscribers]
    for recipe in recipes:
        async with bench.subscribed(recipe, TOPIC, count) as (server, group):
            seconds = bench.options.seconds(_SECONDS)
            done = await bench.measure(server, group, TOPIC, rate=rate, seconds=seconds)
            before = server.cpu_seconds()
            await bench.load.publish(server.port, _QUIET, rate=rate, seconds=seconds)
            requests = server.cpu_seconds() - before
        # On a busy machine the difference may be none at all; a ratio needs something.
        send = max(done.cpu - requests, 1e-6) / max(1, done.received.events) * 1e6
        add(this, f"{recipe.name}: {subscribers:,}", rate, done, send=send)
        if subscribers == _POOLED:
            latencies[recipe.name].append(done.received.latency)


def _judge(bench: Bench, report: Report, latencies: dict[str, list[Latency]]) -> None:
    for subscribers in _RATES:
        ours, theirs = f"h3trio: {subscribers:,}", f"C floor: {subscribers:,}"
        ratios = report.ratios("send", ours, theirs)
        report.check(f"CPU/send, {ours} ÷ C floor", ratios, most=_MOST_OF_FLOOR)
    many, few = (report.ratios("send", f"h3trio: {n}", f"C floor: {n}") for n in ("10,000", "100"))
    flat = [large / small for large, small in zip(many, few, strict=True)]
    report.check("that ratio, 10,000 subscribers ÷ 100", flat, most=_FLAT)
    p99 = {name: pooled(found, 0.99) for name, found in latencies.items()}
    for peer, most in (("nchan", 1.0), ("C floor", _MOST_P99_OF_FLOOR)):
        if p99.get(peer):
            name = f"p99 at 10/s to {bench.options.scaled(_POOLED):,}, pooled, h3trio ÷ {peer}"
            report.check(name, [p99["h3trio"] / p99[peer]], most=most)
    told = ", ".join(f"{name} {value:.1f} ms" for name, value in p99.items())
    report.notes.append(f"pooled p99: {told}")
