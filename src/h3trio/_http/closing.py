"""`Closing`: how and why an exchange ended; the same value for hook, log and statistics."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Mapping


@final
class CloseReason(enum.StrEnum):
    """Why a response or a stream ended. Its value is also Trio's cancel reason."""

    COMPLETED = "completed"
    """The handler finished and all of its answer was handed to the kernel."""
    CLIENT_CLOSED = "client_closed"
    """The client closed the connection (EOF)."""
    CONNECTION_LOST = "connection_lost"
    """The connection was reset or timed out in the network."""
    SLOW = "slow"
    """The client took nothing for `Settings.write_timeout`."""
    LEASE = "lease"
    """The stream's lease was over."""
    DRAINING = "draining"
    """The server is going away."""
    KICKED = "kicked"
    """The application ended the stream."""
    AUTH_EXPIRED = "auth_expired"
    """The rights that the stream was opened with are over."""
    TIMEOUT = "timeout"
    """The client didn't send the rest of its request in time."""
    HANDLER_ERROR = "handler_error"
    """The handler raised."""
    PROTOCOL_ERROR = "protocol_error"
    """What the client sent is not HTTP, beyond a limit, or no body that its handler can read."""
    CANCELLED = "cancelled"
    """The scope around the server was cancelled."""


def lost(error: BaseException) -> CloseReason:
    """Tell why a connection broke: the kernel watches the write timeout, by `TCP_USER_TIMEOUT`."""
    is_timeout = isinstance(error if isinstance(error, OSError) else error.__cause__, TimeoutError)
    return CloseReason.SLOW if is_timeout else CloseReason.CONNECTION_LOST


ENDED_BY_SERVER = frozenset(
    {CloseReason.LEASE, CloseReason.DRAINING, CloseReason.KICKED, CloseReason.AUTH_EXPIRED}
)
"""Endings by the server: a client that comes back by itself gets a farewell `retry:` and the final
chunk, any other neither."""

LIMIT_OF: Mapping[CloseReason | None, str] = {
    CloseReason.SLOW: "write_timeout",
    CloseReason.LEASE: "lease",
}
"""The setting that an ending for this reason met."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """One finished exchange, as `H3Event.on_close` and the access log see it."""

    reason: CloseReason
    """Why it ended."""
    status: int
    """The status sent, 0 if the client left before there was one."""
    duration: float
    """Seconds from the parsed head to the end."""
    events: int
    """Events, or pieces of another type, written to the stream; 0 for a plain response."""
    bytes_sent: int
    """Bytes of the response handed to the transport, head and framing included."""
    is_stream: bool = False
    """Whether the answer was a stream, of events or of another type."""
