"""Runs, and the same by hand on the same hub: what `runs.py` measures.

Both are published to by requests and watched by streams, so that all that differs is the run.

    POST /hub           publish to the next of the topics, in turn
    GET  /hub/N         subscribe to one
    POST /runs          send by the next of the runs
    GET  /runs/N        watch one

`H3TRIO_BENCH_RUNS` says how many there are of each.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Final

import trio

from h3trio import App, H3Event
from h3trio.hub import Hub
from h3trio.runs import Run, Runs, RunsSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

COUNT: Final = int(os.environ.get("H3TRIO_BENCH_RUNS", "1"))

hub = Hub()
# Each run goes on for as long as the server, whatever is sent.
settings = RunsSettings(max_runs=COUNT, max_run_events=10**9, max_run_bytes=10**12)
runs = Runs(hub, settings=settings)
started: list[Run] = []


async def answer(_run: Run) -> None:
    """Wait: what is sent comes by requests."""
    await trio.sleep_forever()


@asynccontextmanager
async def lifespan() -> AsyncGenerator[None]:
    """Run the hub, and start all runs."""
    async with runs.lifespan():
        started.extend([await runs.start(answer) for _ in range(COUNT)])
        yield


app = App(lifespan=lifespan)
next_topic: Iterator[str] = cycle([str(number) for number in range(COUNT)])
next_run: Iterator[int] = cycle(range(COUNT))


@app.post("/hub")
async def publish(event: H3Event) -> str:
    """Publish to a topic."""
    return await hub.publish(await event.text(), topics=[next(next_topic)])


@app.get("/hub/:number")
async def subscribe(event: H3Event) -> None:
    """Subscribe to a topic, as a handler does that says where its stream begins."""
    start = await hub.locate([event.params["number"]], last_event_id=event.last_event_id)
    event.response_headers.update(start.headers)
    async with event.start_sse() as writer:
        await hub.subscribe(writer, start, info={"client": event.client})


@app.post("/runs")
async def send(event: H3Event) -> str:
    """Send by a run."""
    return await started[next(next_run)].send(await event.text())


@app.get("/runs/:number")
async def watch(event: H3Event) -> None:
    """Watch a run."""
    await runs.watch(event, started[int(event.params["number"])].id)
