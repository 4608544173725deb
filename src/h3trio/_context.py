"""What all connections of one server share: its settings, its clock, its counts.

One value per server; nothing of it lives in a module.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, final

import trio

from ._access_log import log_exchange
from ._close import CloseReason
from ._heartbeat import Heartbeat
from ._watchdog import CancelWatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._close import Closing
    from ._event import H3Event
    from ._settings import Settings

    Handler = Callable[[H3Event], Awaitable[object]]

logger = logging.getLogger("h3trio.server")


@final
@dataclass(slots=True)
class Counts:
    """Running totals of one server."""

    connections: int = 0
    refused: int = 0
    requests: int = 0
    events: int = 0
    bytes_sent: int = 0
    closings: Counter[CloseReason] = field(default_factory=Counter[CloseReason])

    def add(self, closing: Closing) -> None:
        """Count one finished exchange."""
        self.requests += 1
        self.events += closing.events
        self.bytes_sent += closing.bytes_sent
        self.closings[closing.reason] += 1


@final
class Context:
    """Settings, handler, heartbeat, drain state and counts of one server."""

    __slots__ = (
        "_date",
        "_date_second",
        "_random",
        "cancels",
        "counts",
        "draining",
        "handler",
        "heartbeat",
        "settings",
    )

    def __init__(self, handler: Handler, settings: Settings) -> None:
        self.handler: Handler = handler
        self.settings: Settings = settings
        self.counts: Counts = Counts()
        self.draining: trio.Event = trio.Event()
        self._random = random.Random()  # noqa: S311 - it spreads load, it guards nothing
        self.heartbeat: Heartbeat = Heartbeat(settings.heartbeat_interval, self._random)
        self.cancels: CancelWatch = CancelWatch(settings.cancel_warning)
        self._date = b""
        self._date_second = 0

    @property
    def cancel_reason(self) -> CloseReason:
        """Why an exchange that nobody ended was cancelled: by a drain, or from outside."""
        return CloseReason.DRAINING if self.draining.is_set() else CloseReason.CANCELLED

    def closed(self, event: H3Event, closing: Closing) -> None:
        """Count and log a finished exchange, and call its hooks."""
        self.cancels.ended(event)
        self.counts.add(closing)
        log_exchange(event, closing)
        for hook in event.close_hooks or ():
            try:
                hook(closing)
            except Exception:
                logger.exception("%s: an on_close hook raised", event)

    def date(self) -> bytes:
        """The `Date` header's value, formatted once a second (RFC 9110 section 6.6.1)."""
        now = int(time.time())
        if now != self._date_second:
            self._date_second = now
            self._date = formatdate(now, usegmt=True).encode("ascii")
        return self._date

    def jittered(self, middle: float, share: float = 0.5) -> float:
        """A time drawn evenly from `middle` ± `share` of it."""
        return middle * self._random.uniform(1 - share, 1 + share)

    def reconnect_milliseconds(self) -> int:
        """A jittered `retry:` value, so that clients don't come back in step."""
        return round(1000 * self.jittered(self.settings.reconnect_delay))

    def retry_after(self) -> int:
        """A jittered `Retry-After` in whole seconds, at least 1."""
        return max(1, round(self.jittered(self.settings.reconnect_delay)))

    def lease(self) -> float:
        """How many seconds a stream that opens now may last."""
        lease = self.settings.lease
        if lease is None:
            return float("inf")
        return self.jittered(lease, self.settings.lease_jitter)
