"""Metrics for Prometheus: the server's, a hub's, and one of the app's own.

python -m h3trio serve examples/app_metrics.py:app
curl localhost:3000/hello
curl localhost:3000/metrics

The hub keeps the newest 10,000 events, in memory; `Hub(MemoryHistory(max_events=...))` more.
"""

from __future__ import annotations

from prometheus_client import Counter

from h3trio import App, H3Event
from h3trio.hub import Hub
from h3trio.metrics import Metrics

hub = Hub()
app = App(lifespan=lambda: hub)

metrics = Metrics(hub=hub)
visits = Counter("visits", "Pages shown.", registry=metrics.registry)
app.get("/metrics")(metrics)


@app.get("/hello")
async def hello(_event: H3Event) -> str:
    """Count a visit, and tell the hub's subscribers of it."""
    visits.inc()
    await hub.publish("somebody came", topics=["visits"])
    return "hello\n"


@app.get("/events")
async def events(event: H3Event) -> None:
    """Stream the visits."""
    async with event.start_sse() as writer:
        await hub.subscribe(writer, ["visits"], last_event_id=event.last_event_id)
