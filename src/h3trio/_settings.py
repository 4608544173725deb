"""Every limit and every time of the server, on one page.

One frozen value is handed to `serve`; nothing else configures a server. Each
field has a default with its reason, and each is checked when the value is
made, so a bad setting fails at start and not under load.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final, final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# Fields that may be zero, or that may be None ("off").
_MAY_BE_ZERO: Final = frozenset({"drain_soft", "drain_hard", "lease_jitter", "linger_timeout"})
_MAY_BE_NONE: Final = frozenset({"lease"})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits and times of one server. Times are seconds, sizes are bytes.

    Raises:
        ValueError: a number is negative, zero where that means nothing, or NaN.
        TypeError: a value is not a number.
    """

    max_connections: int = 10_000
    """Connections at once; one more is answered 503. What one core serves well,
    and within the open-file limit that `serve` asks for."""

    backlog: int = 1024
    """Connections the kernel may hold for us before `accept`."""

    max_head_bytes: int = 16 * KIB
    """Request line and headers together (431 above). Browsers stay below 8 KiB;
    the same bound holds for pipelined requests that wait for their turn."""

    max_body_bytes: int = 1 * MIB
    """What `H3Event.body` collects (413 above). `H3Event.stream` has no such end."""

    body_buffer_bytes: int = 64 * KIB
    """Request body held before the handler asks for it; then reading pauses."""

    max_discard_bytes: int = 256 * KIB
    """Unread request body thrown away to keep a connection; above, it closes."""

    head_timeout: float = 10.0
    """From a request's first byte (or the connection's start) to the end of its
    head: slow on a bad mobile link, short for an attacker. 408 after it."""

    body_timeout: float = 30.0
    """Longest silence inside a request body. 408 after it."""

    keepalive_timeout: float = 75.0
    """Idle time between two requests, longer than the 60 s for which common
    proxies reuse a connection, so that they close first."""

    write_timeout: float = 30.0
    """A write that makes no progress for so long ends the connection, reason
    `slow`. Also the `TCP_USER_TIMEOUT` of every connection."""

    linger_timeout: float = 2.0
    """After the last response: how long to read on, so that the peer gets our
    bytes and not a reset (RFC 9112 section 9.6)."""

    heartbeat_interval: float = 15.0
    """Silence on a stream before a comment is sent; WHATWG section 9.2.7
    recommends about 15 s against proxies that drop idle connections."""

    lease: float | None = None
    """Longest life of one stream, `None` for no end. A client behind a proxy
    that never closes is found out by it; EventSource reconnects."""

    lease_jitter: float = 0.1
    """A lease is drawn from ± this share, so that clients don't return at once."""

    reconnect_delay: float = 2.0
    """Middle of the jittered `retry:` and `Retry-After` we tell clients."""

    queue_events: int = 256
    """Events that wait in one writer; then `send` waits."""

    queue_bytes: int = 64 * KIB
    """Bytes that wait in one writer. A larger event enters an empty queue only."""

    notsent_lowat: int = 128 * KIB
    """`TCP_NOTSENT_LOWAT`: unsent bytes the kernel takes per connection. Without
    it a stalled client holds megabytes of kernel memory."""

    farewell_timeout: float = 1.0
    """How long a stream that we end may take to accept what it still holds."""

    drain_soft: float = 5.0
    """First phase of a drain: streams are ended, spread over it."""

    drain_hard: float = 10.0
    """Second phase: what is left may finish; then it is cancelled."""

    blocked_loop_warning: float = 1.0
    """A task that keeps the event loop for so long is named in the log, with its stack;
    infinity for never. Long enough for a garbage collection, and noticed by every client."""

    cancel_warning: float = 5.0
    """A handler that goes on so long after it was cancelled is named in the log; infinity
    for never. Longer than the clean-up of a handler that hears it."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name), whole=field.type == "int")


def _check(name: str, value: object, *, whole: bool) -> None:
    if value is None and name in _MAY_BE_NONE:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise TypeError(f"{name} must be a {'whole ' if whole else ''}number, not {value!r}")
    if math.isnan(value) or value < 0 or (value == 0 and name not in _MAY_BE_ZERO):
        msg = f"{name} must be positive, not {value!r}"
        raise ValueError(msg)
