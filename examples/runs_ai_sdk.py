"""A chat for the AI SDK's `useChat`: its UI message stream, resumed, and stopped.

    python -m h3trio serve examples/runs_ai_sdk.py:app
    curl -N localhost:3000/api/chat -d '{"id":"c","messages":[{"parts":[{"text":"hi"}]}]}'
    curl -N localhost:3000/api/chat/c/stream
    curl -X POST localhost:3000/api/chat/c/stop

`useChat({ id, resume: true })` and `DefaultChatTransport` read it with their defaults: a chat that
is opened again shows the answer that is under way, from its first word. To leave, `stop()` of
`useChat` as well, isn't to stop the answer: that is the third request. Who has a chat's id may do
all of it; with users, put the user into the owner. The hub keeps 10,000 events in memory.
"""

from __future__ import annotations

import json

import trio

from h3trio import App, H3Event, HTTPError
from h3trio.hub import Hub
from h3trio.runs import Run, RunFailedError, Runs, RunState

runs = Runs(Hub())
app = App(lifespan=runs.lifespan)


async def answer(run: Run, prompt: str) -> None:
    """Stand in for a model: echo the prompt, and break at the word "fail"."""
    for word in ["You", "said:", *prompt.split()]:
        await trio.sleep(0.05)
        if word == "fail":
            raise RunFailedError("the model lost its thread")
        await run.send(f"{word} ")


@app.post("/api/chat")
async def chat(event: H3Event) -> None:
    """Start the answer to the last message, and stream it."""
    match await event.json():
        case {"id": str(chat_id), "messages": [*_, {"parts": [*_, {"text": str(prompt)}]}]}:
            await stream(event, await runs.start(answer, prompt, owner=chat_id))
        case _:
            raise HTTPError(400, "send a chat's id and its messages")


@app.get("/api/chat/:id/stream")
async def resume(event: H3Event) -> None:
    """Stream the answer that is under way from its first word; 204 where none is."""
    if run := await under_way(event.params["id"]):
        await stream(event, run)


@app.post("/api/chat/:id/stop")
async def stop(event: H3Event) -> None:
    """Stop the answer that is under way."""
    if run := await under_way(event.params["id"]):
        await runs.stop(run.id, by=event.params["id"])


async def under_way(chat_id: str) -> Run | None:
    """Find a chat's newest answer if it is under way: a chat is the owner of its answers."""
    for newest in await runs.list(owner=chat_id, limit=1):
        if newest.state is RunState.RUNNING:
            return await runs.get(newest.id, by=chat_id)
    return None


async def stream(event: H3Event, run: Run) -> None:
    """Send an answer as parts of a UI message; `[DONE]` stands only behind a whole one."""
    event.response_headers["X-Vercel-AI-UI-Message-Stream"] = "v1"
    async with run.follow(event) as items, event.start_sse(drain="finish") as writer:
        await writer.send_json({"type": "start", "messageId": run.id})
        await writer.send_json({"type": "text-start", "id": "text"})
        async for item in items:
            match item.event:
                case "message":
                    part = {"type": "text-delta", "id": "text", "delta": item.data}
                    await writer.send_json(part)
                case "done":
                    await writer.send_json({"type": "text-end", "id": "text"})
                    await writer.send_json({"type": "finish"})
                    await writer.send("[DONE]")
                case "stopped":
                    await writer.send_json({"type": "abort"})
                case "failed":
                    message = json.loads(item.data or "")["message"]
                    await writer.send_json({"type": "error", "errorText": message})
                case _:
                    await writer.send_json({"type": "error", "errorText": "interrupted"})
