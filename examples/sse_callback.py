"""The callback style: the handler starts the stream and returns, then the callback writes.

    python -m h3trio serve examples/sse_callback.py:app
    curl -N localhost:3000/events

http://localhost:3000/ shows the same in a browser.
"""

from __future__ import annotations

from pathlib import Path

from h3trio import App, H3Event, Response, SSEEvent, SSEWriter

PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")

app = App()


@app.get("/")
async def page(_event: H3Event) -> Response:
    """Show the event."""
    return Response.html(PAGE)


@app.get("/events")
async def events(event: H3Event) -> None:
    """Start the stream; the head is sent once this has returned."""
    event.start_sse()
    event.set_stream_callback(greet)


async def greet(writer: SSEWriter) -> None:
    """Send one event; the stream ends when this returns."""
    await writer.send_event(SSEEvent("Hello!", event="message", id="1"))
