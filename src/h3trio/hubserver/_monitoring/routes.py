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

from .event_list import add_event_list
from .metrics import make_metrics
from .statistics import MIN_INTERVAL, Snapshots
from .watchers import Watchers

if TYPE_CHECKING:
    from h3trio import App, H3Event
    from h3trio.hub import Hub
    from h3trio.hubserver._access.access import AccessControl
    from h3trio.metrics import Metrics
    from h3trio.runs import Runs

    from .samples import Samples

MAX_INTERVAL: Final = 60.0
"""Seconds between two snapshots of a stream: who wants fewer can ask for one at a time."""


def add_monitoring(
    app: App, hub: Hub, access: AccessControl, samples: Samples, *, runs: Runs | None
) -> None:
    """Route `/statistics`, `/metrics` and the dashboard's list of events."""
    watchers = Watchers()
    snapshots = Snapshots(hub, access, samples, watchers, runs)
    add_event_list(app, hub, access, watchers)
    metrics: Metrics | None = None

    @app.get("/statistics")
    async def statistics(event: H3Event) -> Response | None:
        is_stream = "text/event-stream" in event.headers.get("accept", "").lower()
        if is_stream:
            watchers.count_answer(event)
        grant = await access.check_statistics(event)
        check_query(event, "interval", "samples")
        if not is_stream:
            text, headers = snapshots.take(event.server_statistics()), {"Cache-Control": "no-store"}
            return Response(text, content_type="application/json", headers=headers)
        interval = _interval(event.query.get("interval"))
        has_samples = _has_samples(event.query.get("samples"))
        with access.stream(event, grant), watchers.streaming():
            async with event.start_sse() as writer:
                if has_samples:
                    await writer.send_event(SSEEvent(samples.json(), event="samples"))
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
        metrics = metrics or make_metrics(hub, access, runs)
        return await metrics(event)


def _has_samples(text: str | None) -> bool:
    """Whether a stream is to begin with the samples; HTTPError 400 for what is neither word."""
    if text not in (None, "on", "off"):
        raise HTTPError(400, f"samples is on or off, not {text!r}")
    return text == "on"


def _interval(text: str | None) -> float:
    """Read the seconds between two snapshots; HTTPError 400 for what is none."""
    try:
        seconds = 1.0 if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not MIN_INTERVAL <= seconds <= MAX_INTERVAL:
        raise HTTPError(400, f"interval must be from {MIN_INTERVAL:g} to {MAX_INTERVAL:g} seconds")
    return seconds
