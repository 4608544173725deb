"""`Samples`: what a hub counted in the last minutes, second by second.

A page that opens draws its charts from them, and needn't be open for minutes to show any. They are
the hub's own counts: what watches it is no subscriber, so it isn't among them.

They are taken by a task, whether somebody looks or not: who opens the page does it when something
has happened. A sample is six numbers, and of `WINDOW` seconds they are kept: about 50 KiB.
"""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, final

import trio

if TYPE_CHECKING:
    from h3trio.hub import Hub

WINDOW: Final = 180
"""Seconds that are kept: the width of a chart of the dashboard."""

STEP: Final = 1.0
"""Seconds from one sample to the next, as from one snapshot that a dashboard gets to the next."""


@final
class Sample(NamedTuple):
    """The hub's counts at one moment, under their names in the statistics."""

    time: float
    uptime: float
    published: int
    delivered: int
    delivered_bytes: int
    subscribers: int


@final
class Samples:
    """The samples of one hub, the newest last."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._began = time.monotonic()
        # Both ends of the window are in it.
        self._kept: deque[Sample] = deque(maxlen=round(WINDOW / STEP) + 1)

    @property
    def uptime(self) -> float:
        """Seconds since the hub server was made; no setting of a clock moves it."""
        return time.monotonic() - self._began

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            self._take()
            await trio.sleep(STEP)

    def _take(self) -> None:
        found = self._hub.statistics()
        self._kept.append(
            Sample(
                time=time.time(),
                uptime=self.uptime,
                published=found.published,
                delivered=found.delivered,
                delivered_bytes=found.delivered_bytes,
                subscribers=found.subscribers,
            )
        )

    def json(self) -> str:
        """Return them as JSON: the names of the fields, and a list of values for each sample."""
        return json.dumps({"fields": Sample._fields, "samples": self._kept}, default=list)
