"""`replay`: 500 clients come with an id that 10,000 events have followed since."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from . import servers
from .load import FailedError
from .raw import last_event_id
from .report import Report

if TYPE_CHECKING:
    from .bench import Bench
    from .servers import Recipe

_CLIENTS: Final = 500
_EVENTS: Final = 10_000
_TOPIC: Final = "/events/news"


async def run(bench: Bench) -> Report:
    """Measure."""
    clients, events = bench.options.scaled(_CLIENTS), bench.options.scaled(_EVENTS)
    report = Report(
        title=f"{events:,} events replayed to {clients:,} clients",
        columns={
            "rate": "events/s",
            "cpu": "CPU µs/event",
            "seconds": "s until all have all",
            "resident": "growth MiB",
        },
    )
    recipes = bench.recipes(
        report,
        partial(servers.hub, "--max-events", str(2 * _EVENTS)),
        partial(servers.nchan, messages=2 * _EVENTS),
    )
    for this in bench.rounds(report):
        await bench.begin(this)
        for recipe in recipes:
            this.add(recipe.name, **await _one(bench, recipe, clients, events))
    return report


async def _one(bench: Bench, recipe: Recipe, clients: int, events: int) -> dict[str, float]:
    total = clients * events
    async with bench.servers.start(recipe) as server:
        last = await last_event_id(server.port, _TOPIC)
        await bench.load.publish(server.port, _TOPIC, count=events, seconds=60)
        resident = server.resident_bytes()
        before, began = server.cpu_seconds(), trio.current_time()
        group = bench.load.subscribers(server.port, _TOPIC, clients, last_event_id=last)
        async with group as subscribers:
            received = await subscribers.wait(total, seconds=90)
            took = trio.current_time() - began
            cpu = server.cpu_seconds() - before
            resident = server.resident_bytes() - resident
    if received.events != total:
        raise FailedError(f"{recipe.name} replayed {received.events} of {total} events")
    return {
        "rate": total / took,
        "cpu": cpu / total * 1e6,
        "seconds": took,
        "resident": resident / 2**20,
    }
