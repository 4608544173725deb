"""Another server's event stream, passed on with its data in upper case.

    python -m h3trio serve examples/sse_counter.py:app --port 3001
    python -m h3trio serve examples/sse_proxy.py:app
    curl -N localhost:3000/events

UPSTREAM names the other stream, if it isn't that one. Needs httpx2: pip install '.[client]'.
"""

from __future__ import annotations

import os

import httpx2

from h3trio import App, H3Event, HTTPError
from h3trio.client import EventSource, EventSourceError, StatusError

UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:3001/events")
# 30 s without even a heartbeat is a dead upstream.
SILENCE = 30


def create_app(client: httpx2.AsyncClient, upstream: str) -> App:
    """Relay `upstream`; all requests share the client, which is open while the app is served."""
    app = App(lifespan=lambda: client)

    @app.get("/events")
    async def events(event: H3Event) -> None:
        source = EventSource(
            upstream,
            http_client=client,
            last_event_id=event.last_event_id,
            reconnect=False,  # our own client does, and tells us where it was
            read_timeout=SILENCE,
        )
        try:
            # When our client leaves, this is cancelled, and leaving the block hangs up.
            async with source:
                await source.wait_open()
                await relay(source, event)
        except StatusError as exc:
            raise HTTPError(502, f"the upstream answered {exc.status}") from exc
        except EventSourceError as exc:
            raise HTTPError(502, "the upstream can't be reached, or was lost") from exc

    return app


async def relay(source: EventSource, event: H3Event) -> None:
    """Send each event on as it comes; ids stay, so that reconnecting works through the proxy."""
    async with event.start_sse() as writer:
        async for found in source:
            await writer.send_event(found.replace(data=(found.data or "").upper()))


# As many streams at once as the server allows.
app = create_app(httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None)), UPSTREAM)
