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
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._http.closing import CloseReason
from h3trio._http.errors import HTTPError
from h3trio._http.statistics import ServerStatistics

from .access_log import log_exchange
from .heartbeat import Heartbeat
from .peers.addresses import AddressBook, address_key
from .responder import ClosedPort
from .watchdog import CancelWatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from h3trio._http.closing import Closing
    from h3trio._http.settings import Settings

    from .event import H3Event
    from .peers.trusted_proxies import TrustedProxies

    Handler = Callable[[H3Event], Awaitable[object]]

logger = logging.getLogger("h3trio.server")

# RFC 9110 section 15.6.4, RFC 6585 section 4: both may say when to come again.
_COME_LATER: Final = frozenset({429, 503})


@final
@dataclass(slots=True)
class Counts:
    """Running totals of one server."""

    connections: int = 0
    refused: int = 0
    refused_by_address: int = 0
    refused_streams: int = 0
    failed_handshakes: int = 0
    failed_proxy_headers: int = 0
    requests: int = 0
    events: int = 0
    bytes_sent: int = 0
    closings: Counter[CloseReason] = field(default_factory=Counter[CloseReason])
    stream_closings: Counter[CloseReason] = field(default_factory=Counter[CloseReason])
    limits: Counter[str] = field(default_factory=Counter[str])
    refusals: Counter[int] = field(default_factory=Counter[int])

    def add(self, closing: Closing) -> None:
        """Count one finished exchange."""
        self.requests += 1
        self.events += closing.events
        self.bytes_sent += closing.bytes_sent
        self.closings[closing.reason] += 1
        if closing.is_stream:
            self.stream_closings[closing.reason] += 1


@final
class Context:
    """Settings, handler, heartbeat, drain state and counts of one server."""

    __slots__ = (
        "_date",
        "_date_second",
        "_over",
        "_proxies",
        "_random",
        "addresses",
        "cancels",
        "closing",
        "counts",
        "draining",
        "handler",
        "heartbeat",
        "settings",
        "take_snapshot",
    )

    def __init__(
        self, handler: Handler, settings: Settings, *, proxies: TrustedProxies | None = None
    ) -> None:
        self.handler: Handler = handler
        self.settings: Settings = settings
        self._proxies = proxies
        self.counts: Counts = Counts()
        self.addresses: AddressBook = AddressBook(
            max_connections=settings.max_connections_per_address,
            max_streams=settings.max_streams_per_address,
        )
        self.draining: trio.Event = trio.Event()
        self._over = ClosedPort(self)
        self.closing: bool = False
        """Whether a drain is so far that no request begins any more."""
        self._random = random.Random()  # noqa: S311 - it spreads load, it guards nothing
        self.heartbeat: Heartbeat = Heartbeat(settings.heartbeat_interval, self._random)
        self.cancels: CancelWatch = CancelWatch(settings.cancel_warning)
        self.take_snapshot: Callable[[], ServerStatistics] = self.snapshot
        """What `statistics` does; a server's own, once there is one."""
        self._date = b""
        self._date_second = 0

    @property
    def cancel_reason(self) -> CloseReason:
        """Why an exchange that nobody ended was cancelled: by a drain, or from outside."""
        return CloseReason.DRAINING if self.draining.is_set() else CloseReason.CANCELLED

    def closed(self, event: H3Event, closing: Closing) -> None:
        """Count and log a finished exchange, call its hooks, and let the event go."""
        self.cancels.ended(event)
        self.counts.add(closing)
        log_exchange(event, closing)
        for hook in event.close_hooks or ():
            try:
                hook(closing)
            except Exception:
                logger.exception("%s: an on_close hook raised", event)
        event.let_go(self._over)

    def met(self, limit: str) -> None:
        """Count that a limit was met, by the name of its setting (or of an application's own)."""
        self.counts.limits[limit] += 1

    def statistics(self) -> ServerStatistics:
        """As of `Server.statistics`."""
        return self.take_snapshot()

    def snapshot(
        self, *, connections: int = 0, blocked_loops: int = 0, accept_pauses: int = 0
    ) -> ServerStatistics:
        """All that is counted here, and what only a server knows."""
        counts = self.counts
        return ServerStatistics(
            connections=connections,
            streams=len(self.heartbeat),
            accepted=counts.connections,
            refused=counts.refused,
            requests=counts.requests,
            events=counts.events,
            bytes_sent=counts.bytes_sent,
            closings=MappingProxyType(dict(counts.closings)),
            stream_closings=MappingProxyType(dict(counts.stream_closings)),
            limits=MappingProxyType(dict(counts.limits)),
            refusals=MappingProxyType(dict(counts.refusals)),
            blocked_loops=blocked_loops,
            overdue_cancels=self.cancels.overdue,
            draining=self.draining.is_set(),
            refused_by_address=counts.refused_by_address,
            refused_streams=counts.refused_streams,
            failed_handshakes=counts.failed_handshakes,
            failed_proxy_headers=counts.failed_proxy_headers,
            accept_pauses=accept_pauses,
        )

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
        """A jittered `Retry-After`: whole seconds from half to one and a half `reconnect_delay`.

        At least 1: `Retry-After: 0` would bring a crowd back at once (RFC 9110 section 10.2.3
        knows no fractions).
        """
        return max(1, round(self.jittered(self.settings.reconnect_delay)))

    def come_later(self, status: int) -> Sequence[tuple[bytes, bytes]]:
        """The fields that tell when to come again, in answers of a status that may say so."""
        return ((b"Retry-After", b"%d" % self.retry_after()),) if status in _COME_LATER else ()

    def too_late(self, event: H3Event) -> HTTPError:
        """503 for a request that begins after `drain_soft`, with what marks every answer.

        An app's `mark` lets the middleware in front add its headers: without those of CORS
        a page of another site couldn't read when to come back.
        """
        self.met("drain_soft")
        mark: Callable[[H3Event], None] | None = getattr(self.handler, "mark", None)
        if mark is not None:
            mark(event)
        return HTTPError(503, "the server is going away")

    def no_room(self) -> HTTPError:
        """503 with a jittered `Retry-After`."""
        after = str(self.retry_after())
        return HTTPError(503, "too many connections", headers={"Retry-After": after})

    def proxies_for(self, peer: str) -> TrustedProxies | None:
        """The proxies if this peer is one of them."""
        proxies = self._proxies
        return proxies if proxies is not None and proxies.trusts(peer) else None

    def forwarders_for(self, client: str) -> TrustedProxies | None:
        """The proxies if the headers of this one are believed."""
        proxies = self._proxies
        return proxies if proxies is not None and proxies.believes(client) else None

    def connection_key(self, client: str, *, was_told: bool) -> str | None:
        """What a new connection is counted under, see `address_key`; a proxy's isn't.

        Whom a PROXY header names is a client, unless it is named as a proxy itself.
        """
        proxies = self._proxies
        if proxies is not None and (proxies.names if was_told else proxies.trusts)(client):
            return None
        return address_key(client)

    def take_stream(self, client: str) -> str | None:
        """Count a stream of a client; return what to give back to `leave_stream`.

        Raises:
            HTTPError: 429, the client's address holds all it may.
        """
        key = address_key(client)
        if not self.addresses.take_stream(key):
            self.counts.refused_streams += 1
            self.met("max_streams_per_address")
            raise self.too_many("streams")
        return key

    def leave_stream(self, key: str | None) -> None:
        """A stream that `take_stream` counted has ended."""
        self.addresses.leave_stream(key)

    def too_many(self, what: str) -> HTTPError:
        """429 for an address that holds all it may, with a jittered `Retry-After`.

        EventSource takes any status but 200 as final (WHATWG section 9.2.2, "fail the
        connection"), and that is what a client over its limit should do: told to
        reconnect by a 200 and a `retry:`, it would be back for good, every few seconds.
        """
        after = str(self.retry_after())
        return HTTPError(429, f"too many {what} from your address", headers={"Retry-After": after})

    def lease(self) -> float:
        """How many seconds a stream that opens now may last."""
        lease = self.settings.lease
        if lease is None:
            return float("inf")
        return self.jittered(lease, self.settings.lease_jitter)
