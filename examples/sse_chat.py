"""A language model's answer, token by token: a prompt in, a stream of JSON out.

    python -m h3trio serve examples/sse_chat.py:app
    curl -N localhost:3000/events -d '{"prompt": "Tell me something"}'
    curl -N localhost:3000/events -d '{"prompt": "Now please fail"}'

The stream ends with `done` or `error`: one that ends with neither was cut off. A client that
leaves cancels the model. http://localhost:3000/ is a page to type prompts into.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trio

from h3trio import App, H3Event, HTTPError, Response

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")

app = App()


class ModelError(Exception):
    """The model can't go on."""


@trio.as_safe_channel
async def answer(prompt: str) -> AsyncGenerator[str]:
    """Stand in for a model: echo the prompt, and break at the word "fail"."""
    for word in ["You", "said:", *prompt.split()]:
        await trio.sleep(0.05)
        if word == "fail":
            raise ModelError("the model lost its thread")
        yield f"{word} "


@app.get("/")
async def page(_event: H3Event) -> Response:
    """Show the chat."""
    return Response.html(PAGE)


@app.post("/events")
async def events(event: H3Event) -> None:
    """Stream the answer: an error before its first byte has a status, a later one is an event."""
    match await event.json():
        case {"prompt": str(prompt)}:
            pass
        case _:
            raise HTTPError(400, 'send {"prompt": "..."}')
    async with event.start_sse() as writer:
        try:
            async with answer(prompt) as tokens:
                async for token in tokens:
                    await writer.send_json({"token": token})
        except ModelError as exc:
            await writer.send_json({"message": str(exc)}, event="error")
        else:
            await writer.send_json({"reason": "stop"}, event="done")
