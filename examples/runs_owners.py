"""Answers of users, on a file: found again from another device, started once for one request.

    python -m h3trio serve examples/runs_owners.py:app
    curl localhost:3000/answers -H 'X-Session: red' -H 'Idempotency-Key: 1' -d 'Tell me a story'
    curl localhost:3000/answers -H 'X-Session: red'
    curl -N 'localhost:3000/answers/ID?from=snapshot' -H 'X-Session: red'

The first may be sent again, and is told of the same answer. After `kill -9` and a new start, those
that were under way are `interrupted`, with all that there was of them. The file keeps 1,000,000
events, and each answer for a day.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from h3trio import App, H3Event, HTTPError, Response
from h3trio.hub import Hub, SQLiteHistory
from h3trio.runs import Run, Runs, RunsSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SESSIONS = {"red": "alice", "blue": "bob"}  # in an application, a table of its database

hub = Hub(SQLiteHistory(os.environ.get("HUB_DB", "answers.db")))
runs = Runs(
    hub,
    retain=86_400,
    cancel_unwatched_after=300,
    settings=RunsSettings(max_owner_runs=5, max_run_seconds=600),
)
app = App(lifespan=runs.lifespan)


@app.use
async def log_in(event: H3Event, following: Callable[[], Awaitable[object]]) -> object:
    """Tell whose request it is."""
    event.subject = SESSIONS.get(event.headers.get("x-session", ""), "")
    if not event.subject:
        raise HTTPError(401, "there is no such session")
    return await following()


async def answer(run: Run, prompt: str) -> None:
    """Stand in for the call of a model: echo the prompt."""
    for word in ["You", "said:", *prompt.split()]:
        await trio.sleep(0.1)
        await run.send(f"{word} ")


@app.post("/answers")
async def start(event: H3Event) -> Response | None:
    """Start an answer, or join the one that the same request has started."""
    prompt = await event.text()
    run = await runs.start(
        answer,
        prompt,
        owner=event.subject,
        key=event.headers.get("idempotency-key"),
        fingerprint=prompt,
    )
    return run.reply(event)


@app.get("/answers")
async def mine(event: H3Event) -> list[dict[str, object]]:
    """List the user's answers, the newest first: another device has no id."""
    return [found.to_json() for found in await runs.list(owner=event.subject)]


@app.get("/answers/:id")
async def watch(event: H3Event) -> None:
    """Show an answer to its owner."""
    await runs.watch(event, event.params["id"])


@app.delete("/answers/:id")
async def stop(event: H3Event) -> None:
    """Stop an answer of the user's own."""
    await runs.stop(event.params["id"], by=event.subject, reason="you stopped it")
