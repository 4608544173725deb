"""What is done with H3Z, done with h3trio.

    python -m h3trio serve examples/coming_from/h3z.py:app
    curl -N localhost:3000/events

docs/how-to/coming-from/h3z.md has it beside the original.
"""

from __future__ import annotations

from itertools import count

import trio

from h3trio import App, H3Event, SSEEvent, SSEWriter

app = App()


@app.get("/events")
async def handler(event: H3Event) -> None:
    """Start the stream, and name what writes to it once this has returned."""
    event.start_sse()
    event.set_stream_callback(stream)


async def stream(writer: SSEWriter) -> None:
    """Count for as long as somebody listens; a client that leaves cancels the sleep."""
    for n in count(1):
        await writer.send_event(SSEEvent(f"Event #{n}", event="counter", id=str(n)))
        await trio.sleep(1)


@app.get("/direct")
async def direct(event: H3Event) -> None:
    """Do the same without a callback: the writer is ready once the block is entered."""
    async with event.start_sse() as writer:
        await stream(writer)
