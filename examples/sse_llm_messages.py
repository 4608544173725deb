"""A model's answer as named events, in the style of Anthropic's Messages API.

    python -m h3trio serve examples/sse_llm_messages.py:app
    curl -N localhost:3000/v1/messages -d '{"stream": true, "messages": [{"content": "hi"}]}'

Each event has a type, and JSON with the same type in it: `message_start`, then for each block of
the answer `content_block_start`, `content_block_delta`s and `content_block_stop`, then
`message_delta` with why it ended, and `message_stop`. A stream with neither that nor an `error` was
cut off. The words "refuse" and "fail" in a message make the model do so.
"""

from __future__ import annotations

import secrets
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from h3trio import App, H3Event, Response, SSEWriter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

app = App()


class ModelError(Exception):
    """The model can't go on."""


@asynccontextmanager
async def call_model(prompt: str) -> AsyncGenerator[AsyncGenerator[str]]:
    """Stand in for a model's client: the call may be refused; then the tokens come, or break."""
    if "refuse" in prompt.split():
        raise ModelError("Overloaded")
    try:
        async with aclosing(generate(prompt)) as tokens:
            yield tokens
    except trio.Cancelled:
        print("the call of the model is cancelled", flush=True)
        raise


async def generate(prompt: str) -> AsyncGenerator[str]:
    """Echo the prompt, token by token."""
    for word in ["You", "said:", *prompt.split()]:
        await trio.sleep(0.05)
        if word == "fail":
            raise ModelError("Overloaded")
        yield f"{word} "


@app.post("/v1/messages")
async def messages(event: H3Event) -> Response | None:
    """Stream the answer to the last message."""
    match await event.json():
        case {"stream": True, "messages": [*_, {"content": str(prompt)}], **options}:
            model = str(options.get("model", "echo"))
        case _:
            message = "send messages, and stream: true"
            return Response.json(error("invalid_request_error", message), status=400)
    try:
        async with call_model(prompt) as tokens:
            await stream(event, model, tokens)
    except ModelError as exc:
        return Response.json(error("overloaded_error", str(exc)), status=529)
    return None


async def stream(event: H3Event, model: str, tokens: AsyncGenerator[str]) -> None:
    """Send the message: one block of text, and why it ended."""
    async with event.start_sse() as writer:
        await send(writer, "message_start", message=empty_message(model))
        block = {"type": "text", "text": ""}
        await send(writer, "content_block_start", index=0, content_block=block)
        count = 0
        try:
            async for token in tokens:
                delta = {"type": "text_delta", "text": token}
                await send(writer, "content_block_delta", index=0, delta=delta)
                count += 1
        except ModelError as exc:
            await writer.send_json(error("overloaded_error", str(exc)), event="error")
            return
        await send(writer, "content_block_stop", index=0)
        stop = {"stop_reason": "end_turn", "stop_sequence": None}
        await send(writer, "message_delta", delta=stop, usage={"output_tokens": count})
        await send(writer, "message_stop")


async def send(writer: SSEWriter, name: str, **fields: object) -> None:
    """Send an event whose type is in its data too, for clients that look at the data only."""
    await writer.send_json({"type": name, **fields}, event=name)


def error(kind: str, message: str) -> dict[str, object]:
    """Say what went wrong: an answer's body before the stream, an event's data in it."""
    return {"type": "error", "error": {"type": kind, "message": message}}


def empty_message(model: str) -> dict[str, object]:
    """Make the message that the events fill."""
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": model,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
