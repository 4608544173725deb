"""HTTP/1.1 framing without I/O: the only door to h11.

Bytes go in by `receive`, values come out of `next`; the head of a response goes
in as plain values and comes out as bytes. Event streams pass h11 only for their
head and their end: their chunks are framed once for all subscribers elsewhere.

Two rules keep h11 and the wire in step:

1. After `stream_head` exactly one of `stream_ended` and `abandoned` follows.
2. After `ProtocolError` nothing more is parsed; one last response may be sent.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple, final

import h11

from ._errors import reason_phrase

if TYPE_CHECKING:
    from collections.abc import Sequence

    RawHeaders = Sequence[tuple[bytes, bytes]]


@final
class ProtocolError(Exception):
    """The client broke HTTP or a limit; `status` is what to answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status: Final = status
        self.detail: Final = detail


class RequestHead(NamedTuple):
    """A parsed request line and its headers (names in lower case)."""

    method: str
    target: bytes
    headers: RawHeaders
    http_version: str
    """`"1.0"` or `"1.1"`."""


class Signal(enum.Enum):
    """What `next` returns when there is no value to give."""

    NEED_DATA = enum.auto()
    END_OF_REQUEST = enum.auto()
    PAUSED = enum.auto()
    """The request is complete and bytes of a later one wait."""
    CLOSED = enum.auto()


@final
class Http1:
    """The framing state of one server-side connection."""


    __slots__ = ("_conn",)

    def __init__(self, *, max_head_bytes: int) -> None:
        self._conn = h11.Connection(h11.SERVER, max_incomplete_event_size=max_head_bytes)

    def receive(self, data: bytes) -> None:
        """Add bytes from the peer; `b""` is EOF."""
        self._conn.receive_data(data)

    @property
    def buffered(self) -> int:
        """Bytes received but not yet part of a value."""
        return len(self._conn.trailing_data[0])

    def next(self) -> RequestHead | bytes | Signal:
        """Return the next head, piece of body, or signal.

        Raises:
            ProtocolError: the peer's bytes are not HTTP.
        """
        try:
            event = self._conn.next_event()
        except h11.RemoteProtocolError as exc:
            raise ProtocolError(exc.error_status_hint, str(exc)) from exc
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.Request):
            return RequestHead(
                event.method.decode("ascii"),
                event.target,
                list(event.headers),
                event.http_version.decode("ascii"),
            )
        if isinstance(event, h11.EndOfMessage):
            return Signal.END_OF_REQUEST
        if event is h11.NEED_DATA:
            return Signal.NEED_DATA
        if event is h11.PAUSED:
            return Signal.PAUSED
        return Signal.CLOSED

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return self._conn.they_are_waiting_for_100_continue

    def continue_head(self) -> bytes:
        """The bytes of `100 Continue` (RFC 9110 section 10.1.1)."""
        head = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
        return self._conn.send(head) or b""

    @property
    def chunks_streams(self) -> bool:
        """Whether a body without length is chunked (1.1) or ends with the connection (1.0)."""
        return self._conn.their_http_version == b"1.1"

    def response(self, status: int, headers: RawHeaders, body: bytes) -> bytes:
        """A whole response: head, body, end.

        h11 drops the body for HEAD, 204 and 304, so there it isn't handed over.
        """
        parts = [self._head(status, headers)]
        if body and self._conn.our_state is h11.SEND_BODY:
            parts.append(self._conn.send(h11.Data(data=body)) or b"")
        parts.append(self._conn.send(h11.EndOfMessage()) or b"")
        return b"".join(parts)

    def stream_head(self, status: int, headers: RawHeaders) -> bytes:
        """The head of a response whose body is framed by the caller."""
        return self._head(status, headers)

    def stream_ended(self) -> None:
        """The caller has sent the last chunk, or the head alone in answer to HEAD."""
        self._conn.send(h11.EndOfMessage())

    def abandoned(self) -> None:
        """A send failed or was given up: the connection can't be used again."""
        self._conn.send_failed()

    def _head(self, status: int, headers: RawHeaders) -> bytes:
        reason = reason_phrase(status).encode("ascii")
        head = h11.Response(status_code=status, headers=list(headers), reason=reason)
        return self._conn.send(head) or b""

    @property
    def can_respond(self) -> bool:
        """Whether a response can still be started."""
        return self._conn.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def next_cycle(self) -> bool:
        """Get ready for the next request; `False` if the connection must close."""
        if self._conn.our_state is h11.DONE and self._conn.their_state is h11.DONE:
            self._conn.start_next_cycle()
            return True
        return False
