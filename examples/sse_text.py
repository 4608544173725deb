"""A text, word by word; a last event tells the client not to come back for more.

    python -m h3trio serve examples/sse_text.py:app
    curl -N localhost:3000/events

http://localhost:3000/ shows the same in a browser.
"""

from __future__ import annotations

from pathlib import Path

import trio

from h3trio import App, H3Event, Response

PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
TEXT = (
    "A stream of events is one long answer to one short question. The server writes whenever it "
    "has something to say, and the browser reads along; when the line breaks, the browser calls "
    "again and says how far it got."
)

app = App()


@app.get("/")
async def page(_event: H3Event) -> Response:
    """Show the text as it grows."""
    return Response.html(PAGE)


@app.get("/events")
async def events(event: H3Event) -> None:
    """Send the words, then `done`."""
    async with event.start_sse() as writer:
        for word in TEXT.split():
            await writer.send(f"{word} ")
            await trio.sleep(0.1)
        await writer.send("", event="done")
