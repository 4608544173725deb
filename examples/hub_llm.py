"""A model's answer that goes on when its client is gone: the client comes back for the rest.

    python -m h3trio serve examples/hub_llm.py:app
    curl -N localhost:3000/answers -d 'Tell me a long story'
    curl -N localhost:3000/answers/ID -H 'Last-Event-ID: ...'

The tokens go to a topic of a hub, and clients read that. The answer's `Content-Location` says where
to come back to, each event's id from where on; without an id it begins at the first token. It ends
with `done` or `error`.

What the hub keeps is bounded: 10,000 events here, one a token, or 64 MiB. An answer doesn't count
there while it goes on, nor for a minute behind its end: it is pinned, within bounds of its own. Who
asks for what is gone is told by an event `error`.
"""

from __future__ import annotations

import secrets
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from h3trio import App, H3Event, HTTPError, SSEEvent
from h3trio.hub import Hub, MemoryHistory, PinnedFullError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class ModelError(Exception):
    """The model can't go on."""


@trio.as_safe_channel
async def generate(prompt: str) -> AsyncGenerator[str]:
    """Stand in for the call of a model: echo the prompt, and break at the word "fail"."""
    for word in ["You", "said:", *prompt.split()]:
        await trio.sleep(0.05)
        if word == "fail":
            raise ModelError("the model lost its thread")
        yield f"{word} "


class Answers:
    """Answers that are being generated, in tasks of their own, and those that are kept."""

    def __init__(self, max_events: int = 10_000, *, kept: float = 60.0) -> None:
        self._hub = Hub(MemoryHistory(max_events=max_events))
        self._kept = kept  # seconds behind its end, for who has lost the connection
        self._running: dict[str, trio.CancelScope] = {}
        self._known: deque[str] = deque(maxlen=10_000)

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Run while the app is served; what is being generated at the end is cancelled."""
        async with self._hub, trio.open_nursery() as self._nursery:
            yield
            self._nursery.cancel_scope.cancel(reason="the server is going down")

    async def start(self, prompt: str) -> str:
        """Start an answer; return its name."""
        name = secrets.token_urlsafe(12)
        self._known.append(name)
        # An id without data: the cursor in front of the first token, as long as that is kept.
        await self._hub.publish(SSEEvent(id="start"), topics=[name])
        self._nursery.start_soon(self._run, name, prompt)
        return name

    async def _run(self, name: str, prompt: str) -> None:
        with self._hub.pin(name):
            last = await self._generate(name, prompt)
            await self._hub.publish(last, topics=[name], last=True)
            await trio.sleep(self._kept)

    async def _generate(self, name: str, prompt: str) -> SSEEvent:
        last = SSEEvent("stopped", event="error")
        with trio.CancelScope() as self._running[name]:
            try:
                async with generate(prompt) as tokens:
                    async for token in tokens:
                        await self._hub.publish(token, topics=[name])
                last = SSEEvent("", event="done")
            except (ModelError, PinnedFullError) as exc:
                last = SSEEvent(str(exc), event="error")
        del self._running[name]
        return last

    def stop(self, name: str) -> None:
        """Cancel the call of the model, if it still runs."""
        if name in self._running:
            self._running[name].cancel(reason="nobody wants the rest")

    async def send(self, event: H3Event, name: str) -> None:
        """Stream an answer, from where the client stands; end with it."""
        if name not in self._known:
            raise HTTPError(404, "there is no such answer")
        after = event.last_event_id or "start"
        if (await self._hub.locate([name], last_event_id=after)).complete:
            return  # 204: the client has all of it
        event.response_headers["Content-Location"] = f"/answers/{name}"
        subscription = self._hub.subscription([name], last_event_id=after)
        async with event.start_sse() as writer, subscription as got:
            async for piece in got:
                if piece.event == "reset":
                    await writer.send("a part of the answer is gone", event="error")
                    return
                await writer.send(piece)


answers = Answers()
app = App(lifespan=answers.lifespan)


@app.post("/answers")
async def ask(event: H3Event) -> None:
    """Start an answer, and stream it."""
    await answers.send(event, await answers.start(await event.text()))


@app.get("/answers/:name")
async def come_back(event: H3Event) -> None:
    """Stream what follows the id that the client comes back with."""
    await answers.send(event, event.params["name"])


@app.delete("/answers/:name")
async def stop(event: H3Event) -> None:
    """Stop an answer: to leave isn't to stop it."""
    answers.stop(event.params["name"])
