"""A hub for Datastar 1.0: each event is a patch of the page.

    python -m h3trio serve examples/hub_datastar.py:app
    curl -d text=hi localhost:3000/messages

Put `bundles/datastar.js` of a release 1.0 of https://github.com/starfederation/datastar beside you,
or name it in the environment variable DATASTAR; it isn't the npm package of that name, which is
older. http://localhost:3000/ shows it. A page that comes back gets what it missed, of the newest
10,000 events that the hub keeps by default. If some are gone it begins anew.
"""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

import trio

from h3trio import App, H3Event, HTTPError, Response, SSEEvent
from h3trio.hub import Hub

SCRIPT = Path(os.environ.get("DATASTAR", "datastar.js"))
PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")

hub = Hub()
app = App(lifespan=lambda: hub)


def patch(html: str, *, selector: str, mode: str) -> SSEEvent:
    """Make a patch: a line of data for each of its words, and for each line of the HTML."""
    lines = [f"selector {selector}", f"mode {mode}"]
    lines += [f"elements {line}" for line in html.splitlines()]
    return SSEEvent("\n".join(lines), event="datastar-patch-elements")


RELOAD = patch("<script>location.reload()</script>", selector="body", mode="append")


@app.get("/")
async def page(_event: H3Event) -> Response:
    """Show the page."""
    return Response.html(PAGE)


@app.get("/datastar.js")
async def script(_event: H3Event) -> Response:
    """Send Datastar's script."""
    try:
        code = await trio.Path(SCRIPT).read_bytes()
    except FileNotFoundError:
        raise HTTPError(404, f"there is no {SCRIPT} here: take it from its repository") from None
    return Response(code, content_type="text/javascript; charset=utf-8")


@app.get("/events")
async def events(event: H3Event) -> None:
    """Stream the patches: the last 20 and what comes, or what a page that comes back missed."""
    last = event.last_event_id
    async with (
        event.start_sse() as writer,
        hub.subscription(["chat"], last_event_id=last, first=20) as patches,
    ):
        async for found in patches:
            # Datastar reads its own types only: have it do what a page does at `reset`.
            await writer.send(RELOAD if found.event == "reset" else found)


@app.post("/messages")
async def say(event: H3Event) -> Response:
    """Publish a message, as a patch that appends it."""
    text = (await event.form()).get("text", "")
    message = patch(f"<li>{escape(text)}</li>", selector="#list", mode="append")
    await hub.publish(message, topics=["chat"])
    return Response(status=204)
