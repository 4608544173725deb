"""`Settings`: every limit and every time of the server.

Each is checked when the value is made, so a bad setting fails at start and not under load. Off is
`None`; an infinity is refused, as it can't be a number of milliseconds. No setting is held against
another: where two bounds meet, the tighter holds (a drain of 0.2 s cuts a farewell of 1 s).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final, cast, final

from h3trio._limits import check_limit

KIB: Final = 1024
MIB: Final = 1024 * KIB

# The others must be positive.
_MAY_BE_ZERO: Final = frozenset(
    {"drain_soft", "drain_hard", "drain_finish", "lease_jitter", "linger_timeout"}
)
# What the kernel takes as a C int.
_MAX_INT: Final = 2**31 - 1
_KERNEL_INTS: Final = frozenset({"backlog", "notsent_lowat"})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits and times of one server. Times are seconds, sizes are bytes.

    Raises:
        ValueError: a number is negative, zero where that means nothing, infinite, NaN or out of its
            range.
        TypeError: a value is not a number.
    """

    max_connections: int = 10_000
    """Connections at once; one more is answered 503. One core serves so many well."""

    max_connections_per_address: int = 1000
    """Connections of one address (IPv6: of one /64); one more is answered 429. A tenth of all, so
    that no one keeps the others out; offices and mobile networks put hundreds of people behind one
    address. Not for this machine."""

    max_streams_per_address: int = 500
    """Event streams of one address, as told by a trusted proxy; one more is answered 429. Fewer
    than connections, so that an address at its limit can still be told so, and can publish."""

    backlog: int = 1024
    """Connections the kernel may hold for us before `accept`."""

    max_requests_per_connection: int | None = None
    """Requests on one connection; the last is answered with `Connection: close`. `None` for no end:
    a connection costs more to make than to keep, and other limits see to idle ones."""

    max_head_bytes: int = 16 * KIB
    """Request line and headers together (431 above). Browsers stay below 8 KiB. So much of
    pipelined requests may wait as well."""

    max_target_bytes: int = 12 * KIB
    """A request's target (414 above). RFC 9112 section 3 asks for 8,000 at least, a hub's
    subscription to 1,000 topics takes about 10 KB; headers keep 4 KiB."""

    max_header_count: int = 100
    """Header fields, and trailer fields, of one request (431 above). Browsers send about 20."""

    max_body_bytes: int = 1 * MIB
    """What `H3Event.body` collects (413 above). `H3Event.stream` has no such end."""

    max_json_values: int = 20_000
    """Values that `H3Event.json` reads, those in arrays and objects among them (413 above). JSON is
    read in one step, in which no other connection has a turn: for so many it takes some 2 ms, and
    for those of a whole `max_body_bytes` 100."""

    max_event_bytes: int = 1 * MIB
    """One event that a client publishes (413 above). As much as `max_body_bytes`,
    and what clients read by default: no event is accepted that none could take."""

    body_buffer_bytes: int = 64 * KIB
    """Request body held before the handler asks for it; then reading pauses."""

    max_discard_bytes: int = 256 * KIB
    """Unread request body thrown away to keep a connection; above, it closes. The
    same under a stream: reading on is how a client's leaving is seen."""

    head_timeout: float = 10.0
    """From a request's first byte (or the connection's start) to the end of its head. 408 after it:
    slow on a bad mobile link, short for an attacker."""

    tls_handshake_timeout: float = 10.0
    """From the connection's start to the end of the TLS handshake; then the connection closes. A
    head's time again, as it is as many round trips."""

    body_timeout: float = 30.0
    """Longest silence inside a request body. 408 after it."""

    min_body_rate: float | None = 512.0
    """Bytes a second that a body must come to on the whole, from `body_timeout` on; 408 below. Half
    the rate of a phone at the edge of a cell (GPRS, about 1 KiB/s). `None` is off. Not for a body
    that a handler takes by `H3Event.stream`, which may be a live one."""

    keepalive_timeout: float = 75.0
    """Idle time between two requests, longer than the 60 s for which common proxies reuse a
    connection, so that they close first."""

    write_timeout: float = 30.0
    """A write that makes no progress for so long ends the connection, reason `slow`. Also the
    `TCP_USER_TIMEOUT` of every connection."""

    linger_timeout: float = 2.0
    """After the last response: how long to read on, so that the peer gets our
    bytes and not a reset (RFC 9112 section 9.6)."""

    heartbeat_interval: float = 15.0
    """Silence on a stream before a comment is sent; WHATWG section 9.2.7
    recommends about 15 s against proxies that drop idle connections."""

    lease: float | None = None
    """Longest life of one stream, `None` for no end. It ends streams of clients that are gone, but
    whose proxy stays; EventSource reconnects."""

    lease_jitter: float = 0.1
    """A lease is drawn from ± this share, below 1, so that clients don't return at once."""

    reconnect_delay: float = 2.0
    """Middle of the jittered `retry:` and `Retry-After` we tell clients: each is
    drawn from half to one and a half of it, `Retry-After` at least 1."""

    queue_events: int = 256
    """Events that wait in one writer; then `send` waits."""

    queue_bytes: int = 64 * KIB
    """Bytes that wait in one writer. A larger event enters an empty queue only."""

    notsent_lowat: int = 128 * KIB
    """`TCP_NOTSENT_LOWAT`: unsent bytes the kernel takes per connection. Without it a stalled
    client holds megabytes of kernel memory."""

    farewell_timeout: float = 1.0
    """How long a stream that we end may take to accept what it still holds."""

    drain_soft: float = 5.0
    """First phase of a drain: streams are ended, spread over it."""

    drain_hard: float = 10.0
    """Second phase: what is left may finish; then it is cancelled."""

    drain_finish: float = 25.0
    """From a drain's start: how long streams may last that are to finish. Then they are cut off.
    Those are the answers to methods other than GET, and what `start_sse(drain="finish")` asks for.
    Most answers of a language model are over by then, and Kubernetes kills after 30 s."""

    blocked_loop_warning: float | None = 1.0
    """A task that keeps the event loop for so long is named in the log, with its stack;
    `None` for never. Long enough for a garbage collection, and noticed by every client."""

    cancel_warning: float | None = 5.0
    """A handler that goes on so long after it was cancelled is named in the log; `None`
    for never. Longer than the clean-up of a handler that hears it."""

    def __post_init__(self) -> None:
        for field in fields(self):
            check(field.name, getattr(self, field.name))


def check(name: str, value: object) -> None:
    """Check one setting by itself.

    Raises:
        ValueError, TypeError: as `Settings`.
    """
    kind = _KINDS[name]
    if value is None and kind.endswith("None"):
        return
    if value == 0 and value is not False and name in _MAY_BE_ZERO:
        return
    if value == math.inf:
        off = ": None is off" if kind.endswith("None") else ""
        raise ValueError(f"{name} must be finite, not {value!r}{off}")
    check_limit(name, value, whole=kind.startswith("int"))
    number = cast("float", value)
    if name in _KERNEL_INTS and number > _MAX_INT:
        raise ValueError(f"{name} must be at most {_MAX_INT}, not {value!r}")
    if name == "lease_jitter" and number >= 1:
        raise ValueError(f"{name} must be a share below 1, not {value!r}")


_KINDS: Final = {field.name: str(field.type) for field in fields(Settings)}
