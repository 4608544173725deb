"""Routes, parameters, what a request says, and middleware that lets only some in.

python -m h3trio serve examples/app_routes.py:app
curl 'localhost:3000/rooms/7/seats?free=yes'
curl -H 'X-Team: blue' -d '{"name": "attic"}' localhost:3000/admin/rooms
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from h3trio import App, H3Event, HTTPError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

app = App()


@app.use
async def only_blue(event: H3Event, following: Callable[[], Awaitable[object]]) -> object:
    """Let only the blue team to what is below `/admin/`."""
    if event.path.startswith("/admin/") and event.headers.get("x-team") != "blue":
        raise HTTPError(403, "this is for the blue team")
    return await following()


@app.get("/rooms/:room/seats")
async def seats(event: H3Event) -> dict[str, object]:
    """Answer with JSON: what the path and the query say."""
    return {"room": event.params["room"], "free": event.query.get("free") == "yes"}


@app.get("/files/*")
async def files(event: H3Event) -> str:
    """Answer with text: the rest of the path."""
    return event.params["*"]


@app.post("/admin/rooms")
async def add(event: H3Event) -> None:
    """Take JSON, and answer 204."""
    match await event.json():
        case {"name": str()}:
            pass
        case _:
            raise HTTPError(400, 'send {"name": "..."}')
