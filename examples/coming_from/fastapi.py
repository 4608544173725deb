"""What is done with FastAPI's own SSE, done with h3trio.

    python -m h3trio serve examples/coming_from/fastapi.py:app
    curl -N localhost:3000/items/stream
    curl -N -H 'Authorization: Bearer let-me-in' -d '{"prompt": "hi"}' localhost:3000/chat

docs/how-to/coming-from/fastapi.md has it beside the original.
"""

from __future__ import annotations

from typing import NamedTuple

from h3trio import App, H3Event, HTTPError


class Item(NamedTuple):
    """A thing on sale."""

    name: str
    price: float


ITEMS = [Item("Plumbus", 32.99), Item("Portal Gun", 999.99)]
app = App()


@app.get("/items/stream")
async def stream_items(event: H3Event) -> None:
    """Each item as JSON, from where the client stands."""
    last = event.last_event_id or ""
    start = int(last) + 1 if last.isdecimal() else 0
    async with event.start_sse() as writer:
        for n, item in enumerate(ITEMS[start:], start):
            await writer.send_json(item._asdict(), event="item", id=str(n), retry=5000)


def check_token(event: H3Event) -> None:
    """Raise unless the request says who asks: a dependency is a function that you call."""
    if event.headers.get("authorization") != "Bearer let-me-in":
        raise HTTPError(401, "log in first", headers={"WWW-Authenticate": "Bearer"})


@app.post("/chat")
async def chat(event: H3Event) -> None:
    """Answer a prompt word by word. Until the stream is entered, errors have their status."""
    check_token(event)
    match await event.json():
        case {"prompt": str(prompt)}:
            pass
        case _:
            raise HTTPError(422, 'send {"prompt": "..."}')
    async with event.start_sse() as writer:
        for word in f"You said {prompt}".split():
            await writer.send_json({"token": word})
        await writer.send("[DONE]")
