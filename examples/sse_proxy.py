"""Another server's event stream, passed on with its data in upper case.

    python -m h3trio serve examples/sse_counter.py:app --port 3001
    python -m h3trio serve examples/sse_proxy.py:app
    curl -N localhost:3000/events

UPSTREAM names the other stream, if it isn't that one. Needs httpx: pip install 'h3trio[client]'.
"""

from __future__ import annotations

import os

import httpx

from h3trio import App, H3Event, HTTPError, SSEParser

UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:3001/events")


def create_app(client: httpx.AsyncClient, upstream: str) -> App:
    """Relay `upstream`; all requests share the client, which is open while the app is served."""
    app = App(lifespan=lambda: client)

    @app.get("/events")
    async def events(event: H3Event) -> None:
        headers = httpx.Headers({"Accept": "text/event-stream"})
        if event.last_event_id is not None:
            headers["Last-Event-ID"] = event.last_event_id
        try:
            # When our client leaves, this is cancelled, and leaving the block hangs up.
            async with client.stream("GET", upstream, headers=headers) as source:
                if source.status_code != httpx.codes.OK:
                    raise HTTPError(502, f"the upstream answered {source.status_code}")
                await relay(source, event)
        except httpx.TransportError as exc:
            raise HTTPError(502, "the upstream can't be reached, or was lost") from exc

    return app


async def relay(source: httpx.Response, event: H3Event) -> None:
    """Send each event on as it comes; ids stay, so that reconnecting works through the proxy."""
    parser = SSEParser()
    async with event.start_sse() as writer:
        async for chunk in source.aiter_bytes():
            for found in parser.feed(chunk):
                await writer.send_event(found.replace(data=(found.data or "").upper()))


# As many streams at once as the server allows; 30 s without even a heartbeat is a dead upstream.
app = create_app(
    httpx.AsyncClient(
        timeout=httpx.Timeout(10, read=30), limits=httpx.Limits(max_connections=None)
    ),
    UPSTREAM,
)
