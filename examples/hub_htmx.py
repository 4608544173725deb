"""A hub for htmx 4: each event is a piece of HTML, and the extension `hx-sse` puts it in its place.

    npm install htmx.org@4
    python -m h3trio serve examples/hub_htmx.py:app
    curl -d text=hi localhost:3000/messages

http://localhost:3000/ shows it. The scripts are looked for in `node_modules`, or the folder that
the environment variable NODE_MODULES names. A page that comes back gets what it missed, of the
newest 10,000 events that the hub keeps by default. If some are gone it is told by `reset`, and
begins anew.
"""

from __future__ import annotations

import os
from html import escape
from pathlib import Path

import trio

from h3trio import App, H3Event, HTTPError, Response
from h3trio.hub import Hub

MODULES = Path(os.environ.get("NODE_MODULES", "node_modules"))
SCRIPTS = {"htmx.min.js": "htmx.org/dist/htmx.min.js"}
SCRIPTS["hx-sse.min.js"] = "htmx.org/dist/ext/hx-sse.min.js"
PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")

hub = Hub()
app = App(lifespan=lambda: hub)


@app.get("/")
async def page(_event: H3Event) -> Response:
    """Show the page."""
    return Response.html(PAGE)


@app.get("/scripts/:name")
async def script(event: H3Event) -> Response:
    """Send a script of htmx."""
    name = SCRIPTS.get(event.params["name"])
    if name is None:
        raise HTTPError(404)
    try:
        code = await trio.Path(MODULES / name).read_bytes()
    except FileNotFoundError:
        raise HTTPError(404, f"there is no {MODULES / name}: npm install htmx.org@4") from None
    return Response(code, content_type="text/javascript; charset=utf-8")


@app.get("/events")
async def events(event: H3Event) -> None:
    """Stream the messages: the last 20 and what comes, or what a page that comes back missed."""
    start = await hub.locate(["chat"], last_event_id=event.last_event_id, first=20)
    event.response_headers.update(start.headers)
    async with event.start_sse() as writer:
        # htmx reads no headers, and keeps the id of any event: also of one that is only an id.
        await hub.subscribe(writer, start, cursor=True)


@app.post("/messages")
async def say(event: H3Event) -> Response:
    """Publish a message, as HTML. An event without a type is what htmx swaps in."""
    text = (await event.form()).get("text", "")
    await hub.publish(f"<li>{escape(text)}</li>", topics=["chat"])
    return Response(status=204)
