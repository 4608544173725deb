"""A stream for the pages of another origin, and a session in a cookie.

    python -m h3trio serve examples/cross_origin.py:app
    curl -i -c jar -X POST localhost:3000/login -H 'Origin: http://localhost:5173'
    curl -iN -b jar localhost:3000/events -H 'Origin: http://localhost:5173'

A page at http://localhost:5173 reads it so:

    await fetch("http://localhost:3000/login", { method: "POST", credentials: "include" })
    new EventSource("http://localhost:3000/events", { withCredentials: true })
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from h3trio import CORS, App, H3Event, HTTPError, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

sessions: set[str] = set()

app = App()
app.use(CORS(["http://localhost:5173"], allow_credentials=True, expose_headers=["X-Sessions"]))


@app.use
async def restrict(event: H3Event, following: Callable[[], Awaitable[object]]) -> object:
    """Tell browsers to run nothing of an answer, and to guess no type."""
    headers = event.response_headers
    headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
    headers["X-Content-Type-Options"] = "nosniff"
    return await following()


@app.post("/login")
async def login(event: H3Event) -> Response:
    """Open a session."""
    if event.headers.get("origin") != "http://localhost:5173":
        raise HTTPError(403, "only the page may")
    session = secrets.token_urlsafe()
    sessions.add(session)
    response = Response("welcome\n", headers={"X-Sessions": str(len(sessions))})
    response.set_cookie("__Host-session", session, max_age=3600)
    return response


@app.post("/logout")
async def logout(event: H3Event) -> Response:
    """Close the session."""
    sessions.discard(event.cookies.get("__Host-session", ""))
    response = Response("bye\n")
    response.delete_cookie("__Host-session")
    return response


@app.get("/events")
async def events(event: H3Event) -> None:
    """Stream to those who have a session."""
    if event.cookies.get("__Host-session") not in sessions:
        raise HTTPError(401, "log in first", headers={"WWW-Authenticate": "Session"})
    event.set_cookie("last_seen", "1")
    async with event.start_sse() as writer:
        await writer.send("Hello!")
