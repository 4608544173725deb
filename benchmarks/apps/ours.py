"""What h3trio serves in the benchmarks; `peers.py` does the same for the peers.

By hand: `python -m h3trio serve benchmarks/apps/ours.py:app`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from h3trio import App, H3Event

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

app = App()

# The mark that the load programs look for, and 100 bytes in all.
TEXT = "~t=0000000000000000000 n=%010d" + "x" * 65


@app.get("/stream")
async def stream(event: H3Event) -> None:
    """Send `n` events, each by an awaited `send`."""
    async with event.start_sse() as writer:
        for number in range(int(event.query["n"])):
            await writer.send(TEXT % number)


@app.get("/burst")
async def burst(event: H3Event) -> None:
    """Send `n` events by `send_nowait`, waiting for room only where there is none."""
    async with event.start_sse() as writer:
        for number in range(int(event.query["n"])):
            try:
                writer.send_nowait(TEXT % number)
            except trio.WouldBlock:
                await writer.send(TEXT % number)


@app.get("/from")
async def send_from(event: H3Event) -> None:
    """Send `n` events by one `send_from`."""

    async def texts() -> AsyncGenerator[str]:
        for number in range(int(event.query["n"])):
            yield TEXT % number

    async with event.start_sse() as writer:
        await writer.send_from(texts())


@app.get("/idle")
async def idle(event: H3Event) -> None:
    """Open a stream and wait."""
    async with event.start_sse():
        await trio.sleep_forever()


@app.get("/")
async def small(_event: H3Event) -> str:
    """Answer a small request."""
    return "hello\n"


async def bare(_event: H3Event) -> str:
    """Answer a small request without an `App` around it."""
    return "hello\n"
