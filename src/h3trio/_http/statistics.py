"""`ServerStatistics`: a snapshot of one server."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .closing import CloseReason


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """A snapshot of one server; totals count since its start."""

    connections: int
    """Open connections."""
    streams: int
    """Open event streams."""
    accepted: int
    """Connections accepted in total."""
    refused: int
    """Connections refused for want of room in total."""
    requests: int
    """Exchanges finished in total."""
    events: int
    """Events sent on streams that have ended."""
    bytes_sent: int
    """Bytes sent by exchanges that have ended."""
    closings: Mapping[CloseReason, int]
    """Exchanges finished, by reason."""
    stream_closings: Mapping[CloseReason, int]
    """Those of them that were event streams."""
    limits: Mapping[str, int]
    """How often each limit was met, by the name of its setting; absent if never."""
    refusals: Mapping[int, int]
    """Requests that broke HTTP, a limit of it or its timeouts, by status."""
    blocked_loops: int
    """Times the event loop was blocked for `Settings.blocked_loop_warning`."""
    overdue_cancels: int
    """Handlers that went on for `Settings.cancel_warning` after they were cancelled."""
    draining: bool
    """Whether the server is going away."""
    refused_by_address: int = 0
    """Connections refused because their address held all it may, in total."""
    refused_streams: int = 0
    """Event streams refused because their address held all it may, in total."""
    failed_handshakes: int = 0
    """TLS handshakes that failed or took too long, in total."""
    failed_proxy_headers: int = 0
    """Connections from trusted proxies without a PROXY header that was due, in total."""
    accept_pauses: int = 0
    """Times accepting paused for want of descriptors or memory, in total."""
    task_failures: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Errors that the server's own tasks went on from, by task; absent if never."""
