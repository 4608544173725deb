"""A site with runs over SQLite or Redis, as a program of its own, for tests that kill it.

`RUNS_DB` names the file or the server. `RUNS_LOG` names another file: a line is in it for each
token, once `Run.send` has returned and before anything else happens.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from h3trio.hub import Hub, RedisHistory, SQLiteHistory
from h3trio.hubserver import create_app
from h3trio.runs import Run, Runs, RunsSettings

if TYPE_CHECKING:
    from h3trio import H3Event, Response

place = os.environ["RUNS_DB"]
hub = Hub(RedisHistory(place) if "://" in place else SQLiteHistory(place))
runs = Runs(hub, settings=RunsSettings(lease=float(os.environ.get("RUNS_LEASE", "15"))))
acknowledged = os.open(os.environ["RUNS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


app = create_app(hub, runs=runs)


async def count(run: Run, last: int) -> None:
    """Send numbers, and note each that was acknowledged."""
    for number in range(last):
        await run.send(f"{number}")
        os.write(acknowledged, f"{run.id} {number}\n".encode())
        await trio.sleep(0.05)


@app.post("/runs")
async def start(event: H3Event) -> Response | None:
    """Start a run that sends as many numbers as the body says."""
    run = await runs.start(count, int(await event.text()), key=event.headers["idempotency-key"])
    return run.reply(event)


@app.get("/runs/:id")
async def watch(event: H3Event) -> None:
    """Watch a run."""
    await runs.watch(event, event.params["id"])
