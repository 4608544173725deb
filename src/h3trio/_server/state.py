"""`ServerState`: what all connections of one server share. Its settings, its clock, its counts.

There is one value per server, and nothing of it lives in a module. The registry of connections is
here too: how many there are, which of them are idle, and (in the heartbeat) which of them stream.
A drain ends those, and counts on the rest.
"""

from __future__ import annotations

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

from .heartbeat import Heartbeat
from .peers.addresses import AddressBook, address_key
from .watchdog import CancelWatch, Watchdog

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from h3trio._http.closing import Closing
    from h3trio._http.settings import Settings

    from .deadlines import Deadlines
    from .peers.trusted_proxies import TrustedProxies
    from .sockets.listeners import Source

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
    task_failures: Counter[str] = field(default_factory=Counter[str])

    def add(self, closing: Closing) -> None:
        """Count one finished exchange."""
        self.requests += 1
        self.events += closing.events
        self.bytes_sent += closing.bytes_sent
        self.closings[closing.reason] += 1
        if closing.is_stream:
            self.stream_closings[closing.reason] += 1


@final
class ServerState:
    """Settings, heartbeat, drain, counts of one server, and its registry of connections."""

    def __init__(self, settings: Settings, *, proxies: TrustedProxies | None = None) -> None:
        self.settings: Settings = settings
        self.proxies: TrustedProxies | None = proxies
        self.counts: Counts = Counts()
        self.addresses: AddressBook = AddressBook(
            max_connections=settings.max_connections_per_address,
            max_streams=settings.max_streams_per_address,
        )
        self._random = random.Random()  # noqa: S311 - it spreads load, it guards nothing
        self.heartbeat: Heartbeat = Heartbeat(settings.heartbeat_interval, self._random)
        self.cancels: CancelWatch = CancelWatch(settings.cancel_warning)
        self.watchdog: Watchdog = Watchdog(settings.blocked_loop_warning)
        self.draining: trio.Event = trio.Event()
        self.netlink: socket.socket | None = None
        """By which the kernel is asked whose a peer is, while the server runs."""
        self.sources: Sequence[Source] = ()
        """Where connections come from."""
        self.is_closing: bool = False
        """Whether a drain is so far that no request is taken any more."""
        self.connections: int = 0
        """Open connections."""
        self.rejected: int = 0
        """Connections that are being told that there is no room for them."""
        self.idle: set[Deadlines] = set()
        """Of the connections that wait for a request of which nothing has come."""
        self.handshakes: set[trio.CancelScope] = set()
        """Of the connections that don't speak HTTP yet."""
        self._empty = trio.lowlevel.ParkingLot()
        self._date = b""
        self._date_second = 0

    # -- the registry of connections

    def end_idle(self) -> None:
        """End each connection on which no request has begun."""
        for scope in [*self.handshakes, *(deadlines.scope for deadlines in self.idle)]:
            scope.cancel(reason=CloseReason.DRAINING.value)

    def wake_if_empty(self) -> None:
        """Wake who waits for the last connection to leave, if that was it."""
        if not self.connections and not self.rejected:
            self._empty.unpark_all()

    async def wait_empty(self) -> None:
        """Wait until there are no connections, nor any that are being rejected."""
        while self.connections or self.rejected:
            await self._empty.park()

    # -- counts

    def count_limit(self, limit: str) -> None:
        """Count that a limit was met, by the name of its setting (or of an application's own)."""
        self.counts.limits[limit] += 1

    def statistics(self) -> ServerStatistics:
        """A snapshot; its cost doesn't grow with the connections."""
        counts = self.counts
        return ServerStatistics(
            connections=self.connections,
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
            blocked_loops=self.watchdog.blocked,
            overdue_cancels=self.cancels.overdue,
            draining=self.draining.is_set(),
            refused_by_address=counts.refused_by_address,
            refused_streams=counts.refused_streams,
            failed_handshakes=counts.failed_handshakes,
            failed_proxy_headers=counts.failed_proxy_headers,
            accept_pauses=sum(source.pauses for source in self.sources),
            task_failures=MappingProxyType(dict(counts.task_failures)),
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

    def no_room(self) -> HTTPError:
        """503 with a jittered `Retry-After`."""
        after = str(self.retry_after())
        return HTTPError(503, "too many connections", headers={"Retry-After": after})

    def take_stream(self, client: str) -> str | None:
        """Count a stream of a client; return the key of its place.

        Raises:
            HTTPError: 429, the client's address holds all it may.
        """
        key = address_key(client)
        if not self.addresses.streams.take(key):
            self.counts.refused_streams += 1
            self.count_limit("max_streams_per_address")
            raise self.too_many("streams")
        return key

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
