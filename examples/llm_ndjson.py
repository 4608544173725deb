"""A model's answer as lines of JSON (NDJSON), in the style of Ollama's API.

    python -m h3trio serve examples/llm_ndjson.py:app
    curl -N localhost:3000/api/chat -d '{"messages": [{"role": "user", "content": "hi"}]}'

Each line is an object with a piece of the text; the last has `"done": true`. An answer without it
was cut off, or holds an `error`. The word "fail" in a message makes the model do so.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import trio

from h3trio import App, H3Event, Response

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

app = App()


class ModelError(Exception):
    """The model can't go on."""


async def generate(prompt: str) -> AsyncGenerator[str]:
    """Stand in for a model: echo the prompt, token by token."""
    for word in ["You", "said:", *prompt.split()]:
        await trio.sleep(0.05)
        if word == "fail":
            raise ModelError("the model lost its thread")
        yield f"{word} "


@app.post("/api/chat")
async def chat(event: H3Event) -> Response | None:
    """Stream the answer to the last message."""
    match await event.json():
        case {"messages": [*_, {"content": str(prompt)}], **options}:
            model = str(options.get("model", "echo"))
        case _:
            return Response.json({"error": "send messages"}, status=400)
    async with event.start_stream("application/x-ndjson") as writer:
        try:
            async with aclosing(generate(prompt)) as tokens:
                async for token in tokens:
                    message = {"role": "assistant", "content": token}
                    await writer.send_json({"model": model, "message": message, "done": False})
        except ModelError as exc:
            await writer.send_json({"error": str(exc)})
        else:
            await writer.send_json({"model": model, "done": True, "done_reason": "stop"})
    return None
