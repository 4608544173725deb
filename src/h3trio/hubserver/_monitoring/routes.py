"""The routes that show how a hub server is doing, to programs: `/statistics` and `/metrics`.

Numbers alone are for whom the health checks are, `Access.check_operate`; what has names of topics
and clients is guarded as they are, `Access.check_statistics`.
"""

from __future__ import annotations

import json
import math
from functools import partial
from typing import TYPE_CHECKING, Final, final

from h3trio import HTTPError, Response, SSEEvent

from .broadcast import TICK, Broadcast
from .metrics import HubMetrics
from .statistics import Snapshots

if TYPE_CHECKING:
    from h3trio import App, H3Event
    from h3trio.hub import Hub
    from h3trio.hubserver._access.access import Access

MAX_INTERVAL: Final = 60.0
"""Seconds between two snapshots: longer, and a watcher better asks for one at a time."""

_NO_STORE: Final = {"Cache-Control": "no-store"}


@final
class Monitor:
    """Shows one hub server.

    Args:
        hub: what it serves.
        access: its door.
    """

    def __init__(self, hub: Hub, access: Access) -> None:
        self._access = access
        self._snapshots = Snapshots(hub, access)
        self._metrics = HubMetrics(hub, access)
        self._broadcast: Broadcast[SSEEvent] = Broadcast()

    async def run(self) -> None:
        """Make what streams show, until cancelled."""
        await self._broadcast.run()

    def add_routes(self, app: App) -> None:
        """Add what it shows."""
        app.get("/statistics")(self._show_statistics)
        app.get("/metrics")(self._show_metrics)

    async def _show_statistics(self, event: H3Event) -> Response | None:
        grant = await self._access.check_statistics(event)
        if "text/event-stream" in event.headers.get("accept", "").lower():
            interval = _interval(event.query.get("interval"))
            with self._access.stream(event, grant):
                await self._stream_statistics(event, interval)
            return None
        return Response(self._statistics(event), content_type="application/json", headers=_NO_STORE)

    async def _show_metrics(self, event: H3Event) -> Response:
        await self._access.check_operate(event)
        return await self._metrics.respond(event)

    async def _stream_statistics(self, event: H3Event, interval: float) -> None:
        async with event.start_sse() as writer:
            watcher = self._broadcast.join(partial(self._news, event), interval=interval)
            try:
                while True:
                    await writer.send_event(await watcher.next())
                    # What a slow client hasn't taken would be old when it comes.
                    await writer.flush()
            finally:
                self._broadcast.leave(watcher)

    def _news(self, event: H3Event) -> SSEEvent:
        return SSEEvent(self._statistics(event), event="statistics")

    def _statistics(self, event: H3Event) -> str:
        # Escaped to ASCII: a client may ask for a topic that UTF-8 can't carry.
        return json.dumps(self._snapshots.take(event.server_statistics()), separators=(",", ":"))


def _interval(text: str | None) -> float:
    """Read the seconds between two snapshots; HTTPError 400 for what is none."""
    try:
        seconds = 1.0 if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not TICK <= seconds <= MAX_INTERVAL:
        raise HTTPError(400, f"interval must be from {TICK:g} to {MAX_INTERVAL:g} seconds")
    return seconds
