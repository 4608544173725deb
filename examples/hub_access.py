"""A hub whose rights come from an application's own sessions, and can be taken back at once.

python -m h3trio serve examples/hub_access.py:app
curl -N -H 'X-Session: reader' localhost:3000/events/news
curl -d hi -H 'X-Session: writer' 'localhost:3000/events/news?private=on'
curl -X DELETE localhost:3000/sessions/reader

The hub keeps the newest 10,000 events in memory, `Hub(MemoryHistory(max_events=...))` others; who
comes back too late for them gets an event of type `reset`.
"""

from __future__ import annotations

from h3trio import H3Event, HTTPError
from h3trio.hub import Hub
from h3trio.hubserver import AccessControl, Grant, Limits, Rate, create_app, selection_of

# In an application, a table of its database.
SESSIONS = {
    "reader": Grant(subject="alice", subscribe=selection_of(["news", "users/alice/{+rest}"])),
    "writer": Grant(subject="backend", publish=selection_of(["*"])),
}


async def authenticate(event: H3Event) -> Grant | None:
    """Tell what a request may do; asked again for streams, once a minute."""
    session = event.headers.get("x-session")
    if session is None:
        return None
    if session not in SESSIONS:
        raise HTTPError(401, "there is no such session")
    return SESSIONS[session]


hub = Hub()
limits = Limits(recheck_interval=60, publish_rate=Rate(per_second=100, burst=500))
access = AccessControl(authenticator=authenticate, limits=limits)
app = create_app(hub, access=access)


@app.delete("/sessions/:session")
async def log_out(event: H3Event) -> dict[str, object]:
    """End a session, and its streams at once. Let nobody but the application get here."""
    access.anonymous.check_operate(event)
    grant = SESSIONS.pop(event.params["session"], None)
    if grant is None:
        raise HTTPError(404)
    kicked = await hub.kick_where(subject=grant.subject)
    # Of hubs that share a history: those that didn't answer in time.
    return {"ended": kicked.count, "silent": kicked.silent}
