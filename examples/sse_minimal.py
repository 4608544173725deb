"""The least there is: one event, then the end.

    python -m h3trio serve examples/sse_minimal.py:app
    curl -N localhost:3000/events

A browser's EventSource would take the end for a broken line, and ask again.
"""

from __future__ import annotations

from h3trio import App, H3Event

app = App()


@app.get("/events")
async def events(event: H3Event) -> None:
    """Say hello."""
    async with event.start_sse() as writer:
        await writer.send("Hello!")
