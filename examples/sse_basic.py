"""Ten events with a type and an id, one a second, then the end.

    python -m h3trio serve examples/sse_basic.py:app
    curl -N localhost:3000/events

The next example, sse_counter, adds a page and clients that come back.
"""

from __future__ import annotations

import trio

from h3trio import App, H3Event

app = App()


@app.get("/events")
async def events(event: H3Event) -> None:
    """Count to ten; leaving the block ends the stream."""
    async with event.start_sse() as writer:
        for n in range(10):
            await writer.send(str(n), event="counter", id=str(n))
            await trio.sleep(1)
