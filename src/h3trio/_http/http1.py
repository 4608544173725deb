"""HTTP/1.1 framing without I/O: the only door to h11.

Bytes go in by `receive`, values come out of `next`; the head of a response goes
in as plain values and comes out as bytes. Event streams pass this only for their
head and their end: their chunks are framed once for all subscribers elsewhere.

h11 never sees the client's bytes. They are read in `_request_head` and `_chunks` by
stricter rules than its own (it takes a bare LF for a line's end, folded lines, control
characters), so there is one reading of those bytes, and nothing for a second to
disagree with. What h11 decides is how a response is framed and whether the connection
lives on: it is given a short head that says what was read, and the response, and is let
go with what it said. So it costs nothing where it isn't asked, and an idle connection
doesn't hold one (1 KiB).

It isn't asked about the usual response, which says nothing about framing itself: there
only the length is to be added, and the end of the connection if the client asked for it.
That is written here, and a test holds it against what h11 would write. To keep an h11
connection in step with it took 65 of the 260 microseconds of a small GET.

Four rules keep this and the wire in step:

1. After `stream_head` exactly one of `stream_ended` and `abandoned` follows.
2. After `ProtocolError` nothing more is parsed; one last response may be sent, and
   the connection closes.
3. EOF is the connection's business and never comes here: what it means depends
   on the exchange under way, and a request needs no EOF to be complete.
4. Bytes behind a request stay here, unread, until `next_cycle`.
"""

from __future__ import annotations

import enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, final

import h11

from .chunks import ChunkReader
from .errors import reason_phrase
from .headers import is_field
from .strict import ProtocolError, RequestHead, check_start, parse_head

if TYPE_CHECKING:
    from .settings import Settings
    from .strict import RawHeaders

_NO_CONTENT: Final = 204
_NOT_MODIFIED: Final = 304
_LENGTHLESS: Final = frozenset({_NO_CONTENT, _NOT_MODIFIED})
# RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5: these end with the head.
_BODILESS: Final = frozenset({_NO_CONTENT, 205, _NOT_MODIFIED})
# Header fields that h11 must see.
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding", b"upgrade"})
_END: Final = h11.EndOfMessage()
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

# What h11 is told of a request: whether it is HEAD, its version, whether to close. Of a body it is
# told nothing, as that has no part in the response.
_TOLD: Final = {
    (is_head, closes, version): b"%b / HTTP/%b\r\nHost:\r\n%b\r\n"
    % (
        b"HEAD" if is_head else b"GET",
        version.encode("ascii"),
        b"Connection: close\r\n" if closes else b"",
    )
    for is_head in (False, True)
    for closes in (False, True)
    for version in ("1.0", "1.1")
}


class Signal(enum.Enum):
    """What `next` returns when there is no value to give."""

    NEED_DATA = enum.auto()
    END_OF_REQUEST = enum.auto()
    PAUSED = enum.auto()
    """The request is complete; what comes behind it must wait."""


class _Request(enum.Enum):
    """How far the request under way was read."""

    AWAITED = enum.auto()
    IN_BODY = enum.auto()
    COMPLETE = enum.auto()


class _Answer(enum.Enum):
    """How far the response to it was written."""

    DUE = enum.auto()
    BEGUN = enum.auto()
    COMPLETE = enum.auto()
    """And the connection stays open, for all that was said."""
    LAST = enum.auto()
    """Complete or given up: nothing follows on this connection."""


@final
class Http1:
    """The framing state of one server-side connection."""

    __slots__ = (
        "_answer",
        "_buffer",
        "_chunks",
        "_closes",
        "_failed",
        "_is_head",
        "_left",
        "_request",
        "_scanned",
        "_settings",
        "_skips_line",
        "_version",
        "_waits",
    )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._buffer = b""
        self._scanned = 0  # so many bytes of the buffer can still become a head
        self._skips_line = True
        self._request = _Request.AWAITED
        self._answer = _Answer.DUE
        self._closes = False
        self._waits = False
        self._left = 0
        self._chunks: ChunkReader | None = None
        self._failed = False
        self._is_head = False
        self._version = ""

    def receive(self, data: bytes) -> None:
        """Add bytes from the peer, at least one."""
        if not self._failed:
            self._buffer = self._buffer + data if self._buffer else bytes(data)

    @property
    def buffered(self) -> int:
        """Bytes received but not yet part of a value."""
        return len(self._buffer)

    def next(self) -> RequestHead | bytes | Signal:
        """Return the next head, piece of body, or signal.

        Raises:
            ProtocolError: the peer's bytes are not HTTP, or above a limit.
        """
        try:
            if self._request is _Request.IN_BODY:
                return self._next_body()
            if self._request is _Request.AWAITED and not self._failed:
                return self._next_head()
        except ProtocolError:
            self._failed = True
            self._request = _Request.AWAITED
            self._buffer = b""
            raise
        return Signal.PAUSED if self._buffer else Signal.NEED_DATA

    def _next_head(self) -> RequestHead | Signal:
        # Whether it is HEAD is seen before it is checked, and before it is complete: a refusal
        # "MUST NOT send content" either (RFC 9110 section 9.3.2).
        self._skip_empty_line()
        end = self._buffer.find(b"\r\n\r\n", max(0, self._scanned - 3)) + 4
        if end < 4:  # noqa: PLR2004 - not found
            if len(self._buffer) > self._scanned and self._buffer != b"\r":
                self._is_head = self._buffer.startswith(b"HEAD ")
                check_start(self._buffer, self._scanned, self._settings)
                self._scanned = len(self._buffer)
            return Signal.NEED_DATA
        raw, self._buffer = self._buffer[:end], self._buffer[end:]
        self._is_head = raw.startswith(b"HEAD ")
        head, framing = parse_head(raw, self._settings)
        self._scanned = 0
        self._version = head.http_version
        self._request = _Request.IN_BODY
        self._closes = framing.closes
        self._waits = framing.waits
        self._left = framing.length or 0
        self._chunks = ChunkReader(self._settings) if framing.length is None else None
        return head

    def _skip_empty_line(self) -> None:
        # RFC 9112 section 2.2: a server "SHOULD ignore at least one empty line (CRLF) received
        # prior to the request-line". One is enough for the clients that send any.
        if self._skips_line and len(self._buffer) > 1:
            self._skips_line = False
            self._buffer = self._buffer.removeprefix(b"\r\n")

    def _next_body(self) -> bytes | Signal:
        if self._left or self._chunks is not None:
            if not self._buffer:
                return Signal.NEED_DATA
            self._waits = False
            if piece := self._take_body():
                return piece
            if self._chunks is not None:
                return Signal.NEED_DATA
        self._request = _Request.COMPLETE
        self._waits = False
        return Signal.END_OF_REQUEST

    def _take_body(self) -> bytes:
        """Take what the buffer has of the body under way."""
        if self._chunks is not None:
            piece, self._buffer = self._chunks.feed(self._buffer)
            if self._chunks.complete:
                self._chunks = None
        elif len(self._buffer) <= self._left:
            piece, self._buffer = self._buffer, b""
            self._left -= len(piece)
        else:
            piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
            self._left = 0
        return piece

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return self._waits

    def continue_head(self) -> bytes:
        """The bytes of `100 Continue` (RFC 9110 section 10.1.1)."""
        self._waits = False
        return _CONTINUE

    @property
    def chunks_streams(self) -> bool:
        """Whether a body without length is chunked (1.1) or ends with the connection (1.0)."""
        return self._version == "1.1"

    def response(self, status: int, headers: RawHeaders, body: bytes) -> bytes:
        """A whole response: head with its `Content-Length`, body, end.

        Raises:
            ValueError: the headers contradict the framing; nothing has happened then.
        """
        lines = self._plain_lines(status, headers)
        if lines is None or (body and status in _BODILESS):
            return self._framed_response(status, headers, body)
        if status not in _LENGTHLESS:
            lines.append(b"Content-Length: %d\r\n" % len(body))
        lines.append(b"Connection: close\r\n\r\n" if self._closes else b"\r\n")
        if not self._is_head:
            lines.append(body)
        self._answer = _Answer.LAST if self._closes else _Answer.COMPLETE
        return b"".join(lines)

    def _plain_lines(self, status: int, headers: RawHeaders) -> list[bytes] | None:
        """The head of a response but for its framing; `None` where h11 is to decide about that."""
        lines = [_status_line(status)]
        frames = self._failed or self._waits
        for name, value in headers:
            _check_field(name, value)
            frames = frames or name.lower() in _FRAMING
            lines.append(b"%b: %b\r\n" % (name, value))
        return None if frames else lines

    def _framed_response(self, status: int, headers: RawHeaders, body: bytes) -> bytes:
        """As `response`, with headers that have a part in the framing: h11 sees to them."""
        fields = _with_length(status, headers, body, is_head=self._is_head)
        data = self._frame(status, fields, b"" if self._is_head else body, with_end=True)
        self._answer = _Answer.LAST if self._closes else _Answer.COMPLETE
        return data

    def stream_head(self, status: int, headers: RawHeaders) -> bytes:
        """The head of a response whose body is framed by the caller.

        Raises:
            ValueError: as `response`, or the status is one without a body.
        """
        lines = self._plain_lines(status, headers)
        if lines is None or status in _BODILESS:
            return self._framed_stream_head(status, headers)
        if self.chunks_streams:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        lines.append(b"Connection: close\r\n\r\n" if self._closes else b"\r\n")
        self._answer = _Answer.BEGUN
        return b"".join(lines)

    def _framed_stream_head(self, status: int, headers: RawHeaders) -> bytes:
        """As `stream_head`, with headers that have a part in the framing: h11 sees to them."""
        if status in _BODILESS or _lengths(headers):
            raise ValueError(
                f"a {status} response can't be a stream, nor can one with a Content-Length"
            )
        data = self._frame(status, headers, b"", with_end=False)
        self._answer = _Answer.BEGUN
        return data

    def stream_ended(self) -> None:
        """The caller has sent the last chunk, or the head alone in answer to HEAD."""
        self._answer = _Answer.LAST if self._closes else _Answer.COMPLETE

    def abandoned(self) -> None:
        """A send failed or was given up: the connection can't be used again."""
        self._answer = _Answer.LAST

    def _frame(self, status: int, headers: RawHeaders, body: bytes, *, with_end: bool) -> bytes:
        """Have h11 write a response, and say whether the connection closes behind it."""
        # Checked first: what is wrong is said as it is everywhere else.
        for name, value in headers:
            _check_field(name, value)
            if name.lower() == b"transfer-encoding":
                raise ValueError("Transfer-Encoding is the server's to set")
        # A client that was never told to continue may or may not send its body:
        # nothing behind it can be trusted to be a request, nor behind what isn't HTTP.
        fields = list(headers)
        if (self._waits or self._failed) and (b"Connection", b"close") not in fields:
            fields.append((b"Connection", b"close"))
        conn = h11.Connection(h11.SERVER)
        if self._version or self._is_head:
            conn.receive_data(_TOLD[self._is_head, self._closes, self._version or "1.1"])
            conn.next_event()
        reason = reason_phrase(status).encode("ascii")
        try:
            parts = [conn.send(h11.Response(status_code=status, headers=fields, reason=reason))]
            if body:
                parts.append(conn.send(h11.Data(data=body)))
            # The end of a stream is written by the caller; h11 says now what it will mean.
            end = conn.send(_END)
        except h11.LocalProtocolError as exc:
            raise ValueError(f"a {status} response can't be framed: {exc}") from exc
        self._waits = False
        self._closes = conn.our_state is not h11.DONE
        return b"".join(filter(None, [*parts, end] if with_end else parts))

    @property
    def can_respond(self) -> bool:
        """Whether a response can still be started."""
        return self._answer is _Answer.DUE

    @property
    def keeps_alive(self) -> bool:
        """Whether our side, its response complete, leaves the connection open."""
        return self._answer is _Answer.COMPLETE and not self._failed

    def next_cycle(self) -> bool:
        """Get ready for the next request; `False` if the connection must close."""
        if not self.keeps_alive or self._request is not _Request.COMPLETE:
            return False
        self._request, self._answer = _Request.AWAITED, _Answer.DUE
        self._is_head = self._closes = False
        self._version = ""
        self._skips_line = True
        self._skip_empty_line()
        return True


def _status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or _write_status_line(status)


def _write_status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {reason_phrase(status)}\r\n".encode("ascii")


_STATUS_LINES: Final = {int(status): _write_status_line(status) for status in HTTPStatus}


def _check_field(name: bytes, value: bytes) -> None:
    if not is_field(name, value):
        raise ValueError(f"header {name!r} can't be framed")


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


@final
class ResponseReader:
    """The client's side of one exchange, for the test kit: bytes in; head, body and end out.

    It is as strict as h11, and takes nothing behind the response: one request was sent.

    Attributes:
        status: 0 until the head is there. A `100 Continue` isn't kept: the response follows.
        headers: names in lower case, the values of a repeated one joined with `", "`.
        is_done: whether the response is whole.
    """

    def __init__(self, *, is_head: bool = False) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_done = False
        # Nothing bounds the head that a handler sends but the test that reads it.
        self._conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**31)
        method = "HEAD" if is_head else "GET"
        self._conn.send(h11.Request(method=method, target="/", headers=[("Host", "")]))
        self._conn.send(_END)

    def feed(self, data: bytes) -> bytes:
        """Take what was received; return the part of the body that it brings.

        Args:
            data: `b""` is the connection's end. A response that isn't done by then was cut off.

        Raises:
            ValueError: the bytes aren't HTTP, or lie behind the response.
        """
        body = b""
        try:
            self._conn.receive_data(data)
            while not self.is_done and (event := self._conn.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Response):
                    self._take_head(event)
                elif isinstance(event, h11.Data):
                    body += event.data
                self.is_done = isinstance(event, h11.EndOfMessage)
        except h11.RemoteProtocolError as exc:
            if data:
                raise ValueError(str(exc)) from exc
        if self.is_done and (rest := self._conn.trailing_data[0]):
            raise ValueError(f"behind the response comes {rest[:50]!r}")
        return body

    def _take_head(self, head: h11.Response) -> None:
        self.status = head.status_code
        for name, value in head.headers:
            key, text = name.decode("ascii"), value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text
