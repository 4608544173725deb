"""`Http1`: the framing of one server-side connection, without I/O. Only this file imports h11.

Reading: bytes go in by `receive`, values come out of `next`. Every byte of a request goes through
an `h11.Connection`, behind a `Gate` that lets through one request at a time. Each request has an
h11 connection of its own, which is dropped as soon as the request is read and its answer has begun:
an idle stream holds none, nor does an idle connection.

Writing: headers come checked, from `MutableHeaders`. The usual head is written here; a property
test compares it with h11's. If the headers say something of framing, h11 writes the head. To let
h11 write all was rejected: it checks each header a second time. Of an event stream only the head
and the end pass here: its chunks are framed elsewhere, once for all subscribers.

Four rules keep this and the wire in step:

1. After `stream_head` exactly one of `stream_ended` and `abandon` follows.
2. After `ProtocolError` nothing more is parsed; one last response may be sent, and the connection
   closes.
3. EOF never comes here: its meaning depends on the exchange, and no request needs it.
4. Bytes behind a request stay in the gate, unread, until `next_cycle`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final

import h11

from .errors import reason_phrase
from .strict import Gate, ProtocolError, check_expectations, check_host, members

if TYPE_CHECKING:
    from .settings import Settings

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]

_NO_CONTENT: Final = 204
_NOT_MODIFIED: Final = 304
_LENGTHLESS: Final = frozenset({_NO_CONTENT, _NOT_MODIFIED})
# RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5: these end with the head.
_BODILESS: Final = frozenset({_NO_CONTENT, 205, _NOT_MODIFIED})
# The fields of a request that say something of its connection, or that are checked here.
_LOOKED_AT: Final = frozenset({b"host", b"connection", b"expect"})
# The fields of a response that say something of its framing.
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding", b"upgrade"})
_FRAMING_LENGTHS: Final = frozenset(map(len, _FRAMING))
_CLOSE: Final = b"Connection: close\r\n\r\n"
_END: Final = h11.EndOfMessage()
# Strings that are there: a stream would hold one of its own.
_METHODS: Final = {name.encode(): name for name in ("GET", "HEAD", "POST", "DELETE", "OPTIONS")}


class RequestHead(NamedTuple):
    """A parsed request line and its headers (names in lower case)."""

    method: str
    target: bytes
    headers: RawHeaders
    http_version: str
    """`"1.0"` or `"1.1"`."""


class Signal(enum.Enum):
    """The result of `next` when there is no value."""

    NEED_DATA = enum.auto()
    END_OF_REQUEST = enum.auto()
    PAUSED = enum.auto()
    """The request is complete; what comes behind it must wait."""


class Reading(enum.Enum):
    """How far the request under way was read."""

    HEAD = enum.auto()
    """Its head is awaited."""
    BODY = enum.auto()
    COMPLETE = enum.auto()
    CLOSED = enum.auto()
    """No request is read any more: the client broke HTTP."""


class Answer(enum.Enum):
    """How far the response to it was written."""

    DUE = enum.auto()
    BEGUN = enum.auto()
    COMPLETE = enum.auto()
    """And the connection stays open, for all that was said."""
    LAST = enum.auto()
    """Complete or given up; nothing follows on this connection."""
    CUT = enum.auto()
    """A send failed or was given up: not even an orderly end may follow."""


@final
class Http1:
    """The framing state of one server-side connection."""

    __slots__ = ("_closes", "_conn", "_gate", "_is_head", "_version", "answer", "reading")

    def __init__(self, settings: Settings) -> None:
        self._gate = Gate(settings)
        self._conn: h11.Connection | None = None
        self._closes = False
        self._is_head = False
        self._version = ""
        self.reading: Reading = Reading.HEAD
        self.answer: Answer = Answer.DUE

    # -- reading

    def receive(self, data: bytes) -> None:
        """Add bytes from the peer, at least one."""
        if self.reading is not Reading.CLOSED:
            self._gate.receive(data)

    @property
    def buffered(self) -> int:
        """Bytes received but not yet part of a value."""
        return len(self._gate)

    @property
    def has_more(self) -> bool:
        """Whether a bound cut short the result of `next`: let others have their turn."""
        return self._gate.has_more

    def next(self) -> RequestHead | bytes | Signal:
        """Return the next head, piece of body, or signal.

        A piece of a chunked body is made of a bounded number of chunks, see `has_more`.

        Raises:
            ProtocolError: the peer's bytes are not HTTP, or above a limit.
        """
        try:
            if self.reading is Reading.BODY:
                return self._next_body()
            if self.reading is Reading.HEAD:
                return self._next_head()
        except ProtocolError:
            self.stop_reading()
            raise
        return Signal.PAUSED if self._gate else Signal.NEED_DATA

    def stop_reading(self) -> None:
        """Drop all bytes, now and from now on; an answer that is due closes the connection."""
        self.reading = Reading.CLOSED
        self._gate.clear()

    def _next_head(self) -> RequestHead | Signal:
        try:
            raw = self._gate.take_head()
        finally:
            self._is_head = self._gate.is_head_request
        if raw is None:
            return Signal.NEED_DATA
        self._conn = conn = h11.Connection(h11.SERVER)
        conn.receive_data(raw)
        try:
            request = conn.next_event()
        except h11.RemoteProtocolError:
            # All else that h11 refuses, the gate has refused. Its words quote the client.
            raise ProtocolError(400, "a request has one Host header") from None
        assert isinstance(request, h11.Request), "the gate gives whole heads"
        head = RequestHead(
            _METHODS.get(request.method) or request.method.decode("ascii"),
            request.target,
            # As fields are compared: in lower case.
            [(name.lower(), value) for name, value in request.headers.raw_items()],
            "1.0" if request.http_version == b"1.0" else "1.1",
        )
        self._look_at(head)
        self._version = head.http_version
        self.reading = Reading.BODY
        return head

    def _look_at(self, head: RequestHead) -> None:
        values: dict[bytes, list[bytes]] = {}
        for name, value in head.headers:
            if name in _LOOKED_AT:
                values.setdefault(name, []).append(value)
        check_host(values.get(b"host", ()), head.target)
        self._closes = head.http_version == "1.0"
        # RFC 9110 section 10.1.1: what HTTP/1.0 expects is to be ignored.
        if b"expect" in values and not self._closes:
            check_expectations(values[b"expect"])
        if b"connection" in values and b"close" in members(values[b"connection"]):
            self._closes = True

    def _next_body(self) -> bytes | Signal:
        conn = self._conn
        assert conn is not None, "held until the request is complete"
        while conn.their_state is h11.SEND_BODY:
            if piece := self._gate.take_body():
                conn.receive_data(piece)
            pieces: list[bytes] = []
            # What lies in front of an error is a piece too; the next call raises it.
            with suppress(h11.RemoteProtocolError):
                while isinstance(event := conn.next_event(), h11.Data):
                    pieces.append(event.data)
            if pieces:
                return b"".join(pieces)
            # A size line alone is no data, and an error may lie behind it.
            if not piece and conn.their_state is h11.SEND_BODY:
                return Signal.NEED_DATA
        if conn.their_state is h11.ERROR:
            raise ProtocolError(400, "a chunk is not as its size line says")
        self.reading = Reading.COMPLETE
        self._let_go()
        return Signal.END_OF_REQUEST

    def _let_go(self) -> None:
        """Drop the h11 connection once neither side needs it: it is 1 KiB of each idle stream."""
        if self.reading is Reading.COMPLETE and self.answer is not Answer.DUE:
            self._conn = None

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return self._conn is not None and self._conn.they_are_waiting_for_100_continue

    # -- writing

    def continue_head(self) -> bytes:
        """Return the bytes of `100 Continue` (RFC 9110 section 10.1.1)."""
        assert self._conn is not None, "a client waits for it"
        response = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
        return self._conn.send(response)

    @property
    def chunks_streams(self) -> bool:
        """Whether a body without length is chunked (1.1) or ends with the connection (1.0)."""
        return self._version == "1.1"

    def response(self, status: int, headers: RawHeaders, body: bytes) -> bytes:
        """Return a whole response: head with its `Content-Length`, body, end.

        Raises:
            ValueError: the headers contradict the framing; nothing has happened then.
        """
        plain = self._plain_head(status, headers)
        if plain is None or (body and status in _BODILESS):
            return self._framed_response(status, headers, body)
        lines, self._closes = plain
        if status not in _LENGTHLESS:
            lines.append(b"Content-Length: %d\r\n" % len(body))
        lines.append(_CLOSE if self._closes else b"\r\n")
        if not self._is_head:
            lines.append(body)
        self._has_ended()
        return b"".join(lines)

    def stream_head(self, status: int, headers: RawHeaders) -> bytes:
        """Return the head of a response whose body is framed by the caller.

        Raises:
            ValueError: as `response`, or the status is one without a body.
        """
        plain = self._plain_head(status, headers)
        if plain is None or status in _BODILESS:
            return self._framed_stream_head(status, headers)
        lines, self._closes = plain
        if self.chunks_streams:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        lines.append(_CLOSE if self._closes else b"\r\n")
        self._has_begun()
        return b"".join(lines)

    def _plain_head(self, status: int, headers: RawHeaders) -> tuple[list[bytes], bool] | None:
        """Write a head but for its framing, and tell whether it closes; `None` if h11 is to."""
        lines = [_status_line(status)]
        # A client that was never told to continue may or may not send its body: the bytes behind
        # may be no request, as behind those that aren't HTTP.
        closes = self._closes or self.reading is Reading.CLOSED or self.wants_continue
        for name, value in headers:
            if len(name) in _FRAMING_LENGTHS and name.lower() in _FRAMING:
                if name.lower() != b"connection" or value.lower() != b"close":
                    return None
                closes = True
            else:
                lines.append(b"%b: %b\r\n" % (name, value))
        return lines, closes

    def _framed_response(self, status: int, headers: RawHeaders, body: bytes) -> bytes:
        """Have h11 frame a whole response, as its headers have a part in the framing."""
        fields = _with_length(status, headers, body, is_head=self._is_head)
        data = self._frame(status, fields, b"" if self._is_head else body, with_end=True)
        self._has_ended()
        return data

    def _framed_stream_head(self, status: int, headers: RawHeaders) -> bytes:
        """Have h11 frame the head of a stream, as its headers have a part in the framing."""
        if status in _BODILESS or _lengths(headers):
            raise ValueError(
                f"a {status} response can't be a stream, nor can one with a Content-Length"
            )
        data = self._frame(status, headers, b"", with_end=False)
        self._has_begun()
        return data

    def _frame(self, status: int, headers: RawHeaders, body: bytes, *, with_end: bool) -> bytes:
        """Have h11 write a response, and say whether the connection closes behind it."""
        # Checked first: h11 takes no second response once one has failed.
        if any(name.lower() == b"transfer-encoding" for name, _ in headers):
            raise ValueError("Transfer-Encoding is the server's to set")
        fields = list(headers)
        closes = self.wants_continue or self.reading is Reading.CLOSED
        if closes and (b"Connection", b"close") not in fields:
            fields.append((b"Connection", b"close"))
        conn = self._conn
        assert conn is not None, "held until the answer has begun; a refusal is a plain response"
        reason = reason_phrase(status).encode("ascii")
        try:
            response = h11.Response(status_code=status, headers=fields, reason=reason)
        except h11.LocalProtocolError as exc:
            raise ValueError(f"a {status} response can't be framed: {exc}") from exc
        parts = [conn.send(response)]
        if body:
            parts.append(conn.send(h11.Data(data=body)))
        # The end of a stream is written by the caller; h11 says now what it will mean.
        end = conn.send(_END)
        self._closes = conn.our_state is not h11.DONE
        return b"".join([*parts, end] if with_end else parts)

    def _has_begun(self) -> None:
        self.answer = Answer.BEGUN
        self._let_go()

    def stream_ended(self) -> None:
        """Note that the caller has sent the last chunk, or the head alone in answer to HEAD."""
        self._has_ended()

    def _has_ended(self) -> None:
        self.answer = Answer.LAST if self._closes else Answer.COMPLETE
        self._let_go()

    def abandon(self, *, orderly: bool = False) -> None:
        """Note that the answer was given up: the connection can't be used again.

        `orderly` if its last bytes were whole ones, so that an orderly end may follow.
        """
        self.answer = Answer.LAST if orderly else Answer.CUT

    @property
    def can_respond(self) -> bool:
        """Whether a response can still be started."""
        return self.answer is Answer.DUE

    @property
    def keeps_alive(self) -> bool:
        """Whether our side, its response complete, leaves the connection open."""
        return self.answer is Answer.COMPLETE and self.reading is not Reading.CLOSED

    def next_cycle(self) -> bool:
        """Get ready for the next request; `False` if the connection must close."""
        if not self.keeps_alive or self.reading is not Reading.COMPLETE:
            return False
        self.reading, self.answer = Reading.HEAD, Answer.DUE
        self._conn = None
        self._is_head = self._closes = False
        self._version = ""
        self._gate.next_request()
        return True


@cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {reason_phrase(status)}\r\n".encode("ascii")


def _with_length(status: int, headers: RawHeaders, body: bytes, *, is_head: bool) -> RawHeaders:
    """Add the body's length, or check the one that is there."""
    if body and status in _BODILESS:
        raise ValueError(f"a {status} response has no body: its Content-Length is not {len(body)}")
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
