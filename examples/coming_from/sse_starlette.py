"""What is done with sse-starlette, done with h3trio.

    python -m h3trio serve examples/coming_from/sse_starlette.py:app
    curl -N localhost:3000/numbers

docs/how-to/coming-from/sse-starlette.md has it beside the original.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from h3trio import App, H3Event

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

logger = logging.getLogger(__name__)
app = App()


@app.get("/numbers")
async def numbers(event: H3Event) -> None:
    """One number a second, for as long as somebody listens."""
    async with event.start_sse() as writer:
        n = 0
        try:
            while True:
                await writer.send_json({"n": n}, event="number", id=str(n))
                n += 1
                await trio.sleep(1)
        finally:
            logger.info("%s is gone after %s numbers", event.client, n)


@trio.as_safe_channel
async def words() -> AsyncGenerator[str]:
    """An async generator that is closed where its block ends."""
    for word in ("a", "generator", "as", "it", "was"):
        yield word
        await trio.sleep(1)


@app.get("/words")
async def stream_words(event: H3Event) -> None:
    """Send what a generator yields."""
    async with words() as source, event.start_sse() as writer:
        await writer.send_from(source)


@app.get("/parts")
async def parts(event: H3Event) -> None:
    """Send from several tasks; the stream ends when all have."""

    async def produce(name: str) -> None:
        for n in range(3):
            await writer.send(f"{name} {n}")
            await trio.sleep(1)

    async with event.start_sse() as writer, trio.open_nursery() as nursery:
        nursery.start_soon(produce, "first")
        nursery.start_soon(produce, "second")
