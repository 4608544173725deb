"""`add_monitoring`: the routes that tell programs how a hub server is doing.

`/metrics` has numbers alone, and is for whoever may see the health checks
(`AccessControl.check_operate`). `/statistics` also names topics and clients, and is guarded as they
are (`AccessControl.check_statistics`).

Streams of `/statistics` share snapshots: were each to take its own, a hundred open pages would take
a hundred a second.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from h3trio import HTTPError, Response, SSEEvent
from h3trio.hubserver._query import check_query

from .metrics import make_metrics
from .statistics import MIN_INTERVAL, Snapshots

if TYPE_CHECKING:
    from h3trio import App, H3Event
    from h3trio.hub import Hub
    from h3trio.hubserver._access.access import AccessControl
    from h3trio.metrics import Metrics

MAX_INTERVAL: Final = 60.0
"""Seconds between two snapshots of a stream: who wants fewer can ask for one at a time."""


def add_monitoring(app: App, hub: Hub, access: AccessControl) -> None:
    """Route `/statistics` and `/metrics` of a hub and its access control."""
    snapshots = Snapshots(hub, access)
    metrics: Metrics | None = None

    @app.get("/statistics")
    async def statistics(event: H3Event) -> Response | None:
        grant = await access.check_statistics(event)
        check_query(event, "interval")
        if "text/event-stream" not in event.headers.get("accept", "").lower():
            text, headers = snapshots.take(event.server_statistics()), {"Cache-Control": "no-store"}
            return Response(text, content_type="application/json", headers=headers)
        interval = _interval(event.query.get("interval"))
        with access.stream(event, grant):
            async with event.start_sse() as writer:
                while True:
                    text = snapshots.latest(event.server_statistics)
                    await writer.send_event(SSEEvent(text, event="statistics"))
                    # A snapshot that waits for a slow client would be old when it comes.
                    await writer.flush()
                    await trio.sleep(interval)

    @app.get("/metrics")
    async def scrape(event: H3Event) -> Response:
        nonlocal metrics
        await access.check_operate(event)
        metrics = metrics or make_metrics(hub, access)
        return await metrics(event)


def _interval(text: str | None) -> float:
    """Read the seconds between two snapshots; HTTPError 400 for what is none."""
    try:
        seconds = 1.0 if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not MIN_INTERVAL <= seconds <= MAX_INTERVAL:
        raise HTTPError(400, f"interval must be from {MIN_INTERVAL:g} to {MAX_INTERVAL:g} seconds")
    return seconds
