"""An endpoint for OpenAI's clients: chat completions, as a stream or whole.

    python -m h3trio serve examples/sse_llm_openai.py:app
    curl -N localhost:3000/v1/chat/completions -d '{"stream":true,"messages":[{"content":"hi"}]}'

`AsyncOpenAI(base_url="http://localhost:3000/v1", api_key="none")` reads it as it does OpenAI's
own: events without a type, `data: {JSON}` each, and `data: [DONE]` behind the last. The words
"refuse", "think" and "fail" in a message make the model do so.
"""

from __future__ import annotations

import secrets
import time
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from h3trio import App, H3Event, Response

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

app = App()


class ModelError(Exception):
    """The model can't go on."""


@asynccontextmanager
async def call_model(prompt: str) -> AsyncGenerator[AsyncGenerator[str]]:
    """Stand in for a model's client: the call may be refused; then the tokens come, or break."""
    if "refuse" in prompt.split():
        raise ModelError("the model is overloaded")
    try:
        async with aclosing(generate(prompt)) as tokens:
            yield tokens
    except trio.Cancelled:
        print("the call of the model is cancelled", flush=True)
        raise


async def generate(prompt: str) -> AsyncGenerator[str]:
    """Echo the prompt, token by token."""
    for word in ["You", "said:", *prompt.split()]:
        await trio.sleep(60 if word == "think" else 0.05)
        if word == "fail":
            raise ModelError("the model lost its thread")
        yield f"{word} "


@app.post("/v1/chat/completions")
async def completions(event: H3Event) -> Response | None:
    """Answer the last message: until something is sent, what goes wrong has a status."""
    match await event.json():
        case {"messages": [*_, {"content": str(prompt)}], **options}:
            answer = Answer(str(options.get("model", "echo")))
        case _:
            return failure(400, "invalid_request_error", "send messages")
    try:
        async with call_model(prompt) as tokens:
            if options.get("stream") is True:
                await stream(event, answer, tokens)
                return None
            return Response.json(answer.completion("".join([token async for token in tokens])))
    except ModelError as exc:
        return failure(503, "server_error", str(exc))


async def stream(event: H3Event, answer: Answer, tokens: AsyncGenerator[str]) -> None:
    """Send the tokens as they come: now the status is out, so a failure becomes an event."""
    async with event.start_sse() as writer:
        try:
            await writer.send_json(answer.chunk({"role": "assistant", "content": ""}))
            async for token in tokens:
                await writer.send_json(answer.chunk({"content": token}))
        except ModelError as exc:
            await writer.send_json({"error": {"type": "server_error", "message": str(exc)}})
        else:
            await writer.send_json(answer.chunk({}, finish_reason="stop"))
            await writer.send("[DONE]")


class Answer:
    """The objects of OpenAI's API that make one answer."""

    def __init__(self, model: str) -> None:
        self._fields = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, object]:
        """Make a piece of the answer."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {**self._fields, "object": "chat.completion.chunk", "choices": [choice]}

    def completion(self, text: str) -> dict[str, object]:
        """Make the whole answer."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {**self._fields, "object": "chat.completion", "choices": [choice]}


def failure(status: int, kind: str, message: str) -> Response:
    """Say what went wrong in the form in which these clients look for it."""
    return Response.json({"error": {"type": kind, "message": message}}, status=status)
