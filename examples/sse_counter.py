"""One event a second for as long as the client stays; one that returns goes on where it was.

    python -m h3trio serve examples/sse_counter.py:app
    curl -N localhost:3000/events
    curl -N -H 'Last-Event-ID: 41' localhost:3000/events

http://localhost:3000/ shows the same in a browser.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import trio

from h3trio import App, H3Event, Response

PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")

app = App()


@app.get("/")
async def page(_event: H3Event) -> Response:
    """Show the counter."""
    return Response.html(PAGE)


@app.get("/events")
async def events(event: H3Event) -> None:
    """Count until the client leaves: that cancels the sleep, or the send."""
    async with event.start_sse() as writer:
        for n in count(following(event.last_event_id)):
            await writer.send(str(n), event="count", id=str(n))
            await trio.sleep(1)


def following(last_event_id: str | None) -> int:
    """Return the number after the client's last; it may send anything, and then begins at 1."""
    try:
        return int(last_event_id or 0) + 1
    except ValueError:
        return 1
