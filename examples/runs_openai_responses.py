"""OpenAI's Responses API: answers that go on without their client, resumed and cancelled.

    python -m h3trio serve examples/runs_openai_responses.py:app
    curl -N localhost:3000/v1/responses -d '{"stream":true,"input":"hi"}'
    curl -N 'localhost:3000/v1/responses/ID?stream=true&starting_after=4'
    curl -X POST localhost:3000/v1/responses/ID/cancel

`AsyncOpenAI(base_url="http://localhost:3000/v1", api_key="none")` reads it as it does OpenAI's own:
`responses.create`, `responses.retrieve`, with `stream=True, starting_after=N` too, and
`responses.cancel`. Each answer goes on when its client leaves, as with `background=True`. The word
"fail" in the input makes the model do so. The hub keeps 10,000 events in memory.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import trio

from h3trio import App, H3Event, HTTPError, Response
from h3trio.hub import Hub
from h3trio.runs import Run, RunFailedError, RunResult, Runs, RunState

runs = Runs(Hub())
app = App(lifespan=runs.lifespan)

Json = dict[str, Any]
STATUS = {"running": "in_progress", "done": "completed", "stopped": "cancelled"}  # else failed
LAST = {"cancelled": "response.incomplete", "failed": "response.failed"}


async def answer(run: Run, prompt: str) -> None:
    """Stand in for a model: echo the prompt, and break at the word "fail"."""
    for word in ["You", "said:", *prompt.split()]:
        await trio.sleep(0.05)
        if word == "fail":
            raise RunFailedError("the model lost its thread")
        await run.send(f"{word} ")


@app.post("/v1/responses")
async def create(event: H3Event) -> Response | None:
    """Answer an input: as a stream, at once with where it is, or when it is whole."""
    match await event.json():
        case {"input": str(prompt) | [*_, {"content": str(prompt)}], **options}:
            run = await runs.start(answer, prompt)
        case _:
            raise HTTPError(400, "send an input of text")
    if options.get("stream") is True:
        await stream(event, run)
        return None
    waits = options.get("background") is not True
    return Response.json(response(await run.result(wait=waits)))


@app.get("/v1/responses/:id")
async def retrieve(event: H3Event) -> Response | None:
    """Stream an answer from where the client was, or give what there is of it."""
    run = await runs.get(event.params["id"])
    if event.query.get("stream") != "true":
        return Response.json(response(await run.result(wait=False)))
    after = event.query.get("starting_after", "-1")
    if not after.removeprefix("-").isdecimal():
        raise HTTPError(400, "starting_after is a number")
    await stream(event, run, int(after))
    return None


@app.post("/v1/responses/:id/cancel")
async def cancel(event: H3Event) -> Response:
    """Stop an answer; what has ended stays as it ended."""
    await runs.stop(event.params["id"])
    run = await runs.get(event.params["id"])
    return Response.json(response(await run.result()))


def response(result: RunResult) -> Json:
    """Make the object for an answer as it stands."""
    run = result.status
    status = STATUS.get(run.state, "failed")
    told = {"code": "server_error", "message": run.detail or run.state}
    error = told if status == "failed" else None
    item = message(run.id, "incomplete" if status in LAST else status, result.text)
    fields = {"object": "response", "created_at": run.started, "model": "echo", "tools": []}
    fields |= {"parallel_tool_calls": False, "tool_choice": "auto", "error": error}
    return {"id": run.id, "status": status, "output": [item] if result.text else [], **fields}


def message(name: str, status: str, *texts: str) -> Json:
    """Make the part of an answer that holds its text."""
    content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    fields = {"type": "message", "role": "assistant", "content": content}
    return {"id": f"msg_{name}", "status": status, **fields}


async def stream(event: H3Event, run: Run, after: int = -1) -> None:
    """Send the events behind a number: they are made from the first on, each time the same."""
    place, numbers = {"item_id": f"msg_{run.id}", "output_index": 0, "content_index": 0}, count()
    async with run.follow(event) as items, event.start_sse(drain="finish") as writer:

        async def send(kind: str, **fields: object) -> None:
            if (number := next(numbers)) > after:
                piece = {"type": kind, "sequence_number": number, **fields}
                await writer.send_json(piece, event=kind)

        begun = RunResult(status=replace(run.status, state=RunState.RUNNING), text="", whole=True)
        await send("response.created", response=response(begun))
        added = message(run.id, "in_progress")
        await send("response.output_item.added", item=added, output_index=0)
        part = {"type": "output_text", "text": "", "annotations": []}
        await send("response.content_part.added", part=part, **place)
        async for item in items:
            if item.event == "message":
                fields = place | {"delta": item.data, "logprobs": []}
                await send("response.output_text.delta", **fields)
        whole = response(await run.result())
        await send(LAST.get(whole["status"], "response.completed"), response=whole)
