"""HTTP/1.1 framing without I/O: the only door to h11.

Bytes go in by `receive`, values come out of `next`; the head of a response goes
in as plain values and comes out as bytes. Event streams pass h11 only for their
head and their end: their chunks are framed once for all subscribers elsewhere.

Three rules keep h11 and the wire in step:

1. After `stream_head` exactly one of `stream_ended` and `abandoned` follows.
2. After `ProtocolError` nothing more is parsed; one last response may be sent.
3. EOF is the connection's business and never comes here: what it means depends
   on the exchange under way, and a request needs no EOF to be complete.

h11 is as strict as RFC 9112 asks, but for what follows from two framings at once,
which is how requests are smuggled; that is refused here.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple, final

import h11

from ._errors import reason_phrase

if TYPE_CHECKING:
    from collections.abc import Sequence

    RawHeaders = Sequence[tuple[bytes, bytes]]

_NO_CONTENT: Final = 204
_NOT_MODIFIED: Final = 304
_LENGTHLESS: Final = frozenset({_NO_CONTENT, _NOT_MODIFIED})
# RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5: these end with the head.
_BODILESS: Final = frozenset({_NO_CONTENT, 205, _NOT_MODIFIED})


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
    """The request is complete; what comes behind it must wait."""


@final
class Http1:
    """The framing state of one server-side connection."""

    __slots__ = ("_conn", "_is_head", "_max_head_bytes", "_may_be_large")

    def __init__(self, *, max_head_bytes: int) -> None:
        self._is_head = False
        self._max_head_bytes = max_head_bytes
        self._may_be_large = False
        self._conn = h11.Connection(h11.SERVER, max_incomplete_event_size=max_head_bytes)

    def receive(self, data: bytes) -> None:
        """Add bytes from the peer, at least one."""
        # h11 measures a head only while it is incomplete: one that ends in the read that brings
        # it above the bound would pass. What can't be so large isn't measured.
        self._may_be_large = self.buffered + len(data) > self._max_head_bytes
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
            # h11 raises it from a method of its own: its traceback is a circle through our frames.
            cause = exc.with_traceback(None)
            raise ProtocolError(exc.error_status_hint, str(exc)) from cause
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.Request):
            # Before anything is refused: to HEAD, a refusal has no body either.
            self._is_head = event.method == b"HEAD"
            if self._may_be_large and _head_size(event) > self._max_head_bytes:
                raise ProtocolError(431, "the request head is too large")
            return _request_head(event)
        if isinstance(event, h11.EndOfMessage):
            return Signal.END_OF_REQUEST
        return Signal.NEED_DATA if event is h11.NEED_DATA else Signal.PAUSED

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
        # As h11 has it: a minor version above ours is one that understands ours.
        version = self._conn.their_http_version
        return version is not None and version >= b"1.1"

    def response(self, status: int, headers: RawHeaders, body: bytes) -> bytes:
        """A whole response: head with its `Content-Length`, body, end.

        Raises:
            ValueError: the headers contradict the framing; nothing has happened then.
        """
        parts = [self._head(status, _with_length(status, headers, body, is_head=self._is_head))]
        if body and not self._is_head:
            parts.append(self._conn.send(h11.Data(data=body)) or b"")
        parts.append(self._conn.send(h11.EndOfMessage()) or b"")
        return b"".join(parts)

    def stream_head(self, status: int, headers: RawHeaders) -> bytes:
        """The head of a response whose body is framed by the caller.

        Raises:
            ValueError: as `response`, or the status is one without a body.
        """
        if status in _BODILESS or _lengths(headers):
            raise ValueError(
                f"a {status} response can't be a stream, nor can one with a Content-Length"
            )
        return self._head(status, headers)

    def stream_ended(self) -> None:
        """The caller has sent the last chunk, or the head alone in answer to HEAD."""
        self._conn.send(h11.EndOfMessage())

    def abandoned(self) -> None:
        """A send failed or was given up: the connection can't be used again."""
        self._conn.send_failed()

    def _head(self, status: int, headers: RawHeaders) -> bytes:
        # Checked first: what h11 refuses leaves it in a state without an answer.
        if any(name.lower() == b"transfer-encoding" for name, _ in headers):
            raise ValueError("Transfer-Encoding is the server's to set")
        # A client that was never told to continue may or may not send its body:
        # nothing behind it can be trusted to be a request.
        close = ((b"Connection", b"close"),) if self.wants_continue else ()
        reason = reason_phrase(status).encode("ascii")
        head = h11.Response(status_code=status, headers=[*headers, *close], reason=reason)
        return self._conn.send(head) or b""

    @property
    def can_respond(self) -> bool:
        """Whether a response can still be started."""
        return self._conn.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    @property
    def keeps_alive(self) -> bool:
        """Whether our side, its response complete, leaves the connection open."""
        return self._conn.our_state is h11.DONE

    def next_cycle(self) -> bool:
        """Get ready for the next request; `False` if the connection must close."""
        if self._conn.our_state is h11.DONE and self._conn.their_state is h11.DONE:
            self._conn.start_next_cycle()
            self._is_head = False
            return True
        return False


def _with_length(status: int, headers: RawHeaders, body: bytes, *, is_head: bool) -> RawHeaders:
    """Add the body's length, or check the one that is there."""
    told = _lengths(headers)
    true = b"%d" % len(body)
    if not told:
        return headers if status in _LENGTHLESS else [*headers, (b"Content-Length", true)]
    # HEAD and 304 may tell the length of what they don't send (RFC 9110 section 8.6).
    free = (is_head and not body) or status == _NOT_MODIFIED
    if status == _NO_CONTENT or (told != [true] and not (free and told[0].isdigit())):
        raise ValueError(
            f"Content-Length {told} in a {status} response with a body of {len(body)} bytes"
        )
    return headers


def _lengths(headers: RawHeaders) -> list[bytes]:
    return [value for name, value in headers if name.lower() == b"content-length"]


def _head_size(request: h11.Request) -> int:
    """The size of a head as h11 reads it: without the blanks around its values."""
    line = len(request.method) + len(request.target) + len(b"  HTTP/1.1\r\n\r\n")
    return line + sum(len(name) + len(value) + len(b": \r\n") for name, value in request.headers)


def _request_head(request: h11.Request) -> RequestHead:
    headers = list(request.headers)
    names = [name for name, _ in headers]
    if b"transfer-encoding" in names and (
        b"content-length" in names or request.http_version < b"1.1"
    ):
        # RFC 9112 section 6.3: both together "ought to be handled as an error"; section
        # 6.1: in HTTP/1.0 one "MUST treat the message as if the framing is faulty".
        raise ProtocolError(400, "Transfer-Encoding with Content-Length, or in HTTP/1.0")
    if not request.http_version.startswith(b"1."):
        raise ProtocolError(505, "HTTP/1.0 and HTTP/1.1 are spoken here")
    if request.target == b"*" and request.method != b"OPTIONS":
        # RFC 9112 section 3.2.4: the asterisk is "only used for a server-wide OPTIONS".
        raise ProtocolError(400, "the target * is for OPTIONS")
    if request.method == b"CONNECT":
        # h11 would hand the connection over as a tunnel on any 2xx.
        raise ProtocolError(501, "CONNECT is for proxies")
    return RequestHead(
        request.method.decode("ascii"),
        request.target,
        headers,
        request.http_version.decode("ascii"),
    )
