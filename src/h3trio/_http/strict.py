"""`Gate`: holds the bytes of a connection until h11 may see them.

h11 reads every request, but is lenient where that lets requests be smuggled past a proxy that reads
differently: it takes a bare LF for the end of a line, joins folded lines, takes equal lengths for
one, and lets a transfer coding win over a length. The gate lets through the grammar of RFC 9112,
and nothing that the RFC merely tolerates; for the rest it raises `ProtocolError`.

Strategy: a head is held until its blank line is there. Then one expression matches the request
line, one all field lines, and one finds the fields that frame the body. Only a head that fails is
looked at again, to say why. The length of the body tells which bytes lie behind the request: h11
never sees those. In a chunked body the gate steps over the data and matches each size line.
Everything else, such as the ends of chunks and a missing or second Host, is h11's.

A head is refused as soon as it can't become complete: a client with other line ends never sends the
blank line. No bytes of the client go into a detail, which is sent back, and logged.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from .headers import TOKEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import Settings

_MAX_LENGTH: Final = 2**63 - 1
"""Largest length: what a signed 64-bit number holds, as in most that read it beside us."""

_TOKEN: Final = TOKEN.encode()
_TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]*+"  # section 5.5: no control character but HTAB

# RFC 9112 section 3: "request-line = method SP request-target SP HTTP-version". The RFC lets a
# recipient split it at any whitespace; here a single space is meant as it is written.
_REQUEST_LINE: Final = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])\r\n" % _TOKEN)
_FIELD_LINES: Final = re.compile(rb"(?:%b:%b\r\n)*+" % (_TOKEN, _TEXT))
_FIELD_NAME: Final = re.compile(_TOKEN + rb":")
# Searched for in the bytes as sent: h11 takes a repeated length for one before anybody sees it.
_FRAMING: Final = re.compile(
    rb"\r\n(content-length|transfer-encoding):[ \t]*+([^\r]*+)", re.IGNORECASE
)
_FRAMING_NAME: Final = re.compile(
    rb"(?:^|\r\n)(?:host|content-length|transfer-encoding):", re.IGNORECASE
)

# What no head holds: a CR or LF alone, or a control character. The last byte may be half a CRLF.
_STRAY: Final = re.compile(rb"[^\t\x20-\x7e\x80-\xff\r\n]|(?<!\r)\n|\r[^\n]")

_LENGTH: Final = re.compile(rb"[0-9]{1,20}")
# The codings of RFC 9112 section 7.2 and their aliases. `identity` is none: it "is not" registered.
_CODINGS: Final = frozenset({b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"})
# RFC 9110 section 7.2: "Host = uri-host [ ":" port ]", with the host of RFC 3986 section 3.2.2.
_AUTHORITY: Final = re.compile(
    rb"(?:((?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*+)"
    rb"|\[([0-9A-Fa-f:.]+)\]|\[[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+\])(?::[0-9]{0,5})?"
)
_LONGEST_REST: Final = len(b" HTTP/1.1\r")

# RFC 9110 section 5.6.4, a quoted-pair being a backslash and what may follow it.
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
# RFC 9112 section 7.1. A proxy that reads a CR or LF in an extension as the end of the line would
# see another body: so it is checked. h11 takes no blank in front of a semicolon, and no size of
# more than 20 digits.
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,20})(?:;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*+\r\n"
    % (_TOKEN, _TOKEN, _QUOTED)
)
# Its start. A line without its LF is refused as soon as it can't be one any more.
_SIZE_START: Final = re.compile(rb"[0-9A-Fa-f]{1,20}(?:[;\r]|\Z)")
# A line without extension: many small chunks are no offence.
_FREE: Final = len(b"7fffffffffffffff\r\n")
_HEXDIGITS: Final = frozenset(b"0123456789abcdefABCDEF")

CHUNKS_AT_ONCE: Final = 16
"""Chunks of a body that are let through in one step: with a read of 64 KiB of one-byte chunks, h11
would keep every other connection waiting. So many take less time than a small request: a hundred
clients that send such bodies are to the others what a hundred requests are."""


@final
class ProtocolError(Exception):
    """The client broke HTTP or a limit; `status` is what to answer, `limit` the setting met."""

    def __init__(self, status: int, detail: str, *, limit: str | None = None) -> None:
        super().__init__(f"{status}: {detail}")
        self.limit: Final = limit
        self.status: Final = status
        self.detail: Final = detail


@final
@dataclass(slots=True, eq=False, repr=False)
class Gate:
    """The bytes of one connection that h11 hasn't seen."""

    settings: Settings
    has_more: bool = False
    """Whether the piece of body that was taken last ended at `CHUNKS_AT_ONCE`."""
    is_head_request: bool = False
    """Whether the head under way is that of HEAD, seen before it is complete or checked."""
    _buffer: bytes = b""
    _scanned: int = 0  # so many bytes of the buffer were looked at, and can still become a line
    _skips_line: bool = True
    _is_chunked: bool = False
    _left: int = 0  # bytes to come: of the body, or of the chunk under way with the CRLF behind it
    _overhead: int = 0
    _trailers: bool = False

    def __len__(self) -> int:
        return len(self._buffer)

    def receive(self, data: bytes) -> None:
        """Add bytes from the peer, at least one."""
        self._buffer = self._buffer + data if self._buffer else bytes(data)

    def clear(self) -> None:
        """Drop what is held."""
        self._buffer = b""

    def next_request(self) -> None:
        """Expect another head."""
        self._skips_line = True
        self._skip_empty_line()

    # -- a head

    def take_head(self) -> bytes | None:
        """Return a head with its blank line, `None` until it is there.

        Raises:
            ProtocolError: 400, 414, 431, 501 or 505, as in docs/reference/http.md.
        """
        self._skip_empty_line()
        end = self._buffer.find(b"\r\n\r\n", max(0, self._scanned - 3)) + 4
        # RFC 9110 section 9.3.2: an answer to HEAD "MUST NOT send content", a refusal too.
        self.is_head_request = self._buffer.startswith(b"HEAD ")
        if end < 4:  # noqa: PLR2004 - not found
            if len(self._buffer) > self._scanned and self._buffer != b"\r":
                _check_start(self._buffer, self._scanned, self.settings)
                self._scanned = len(self._buffer)
            return None
        head = self._take(end)
        self._check_head(head)
        return head

    def _skip_empty_line(self) -> None:
        # RFC 9112 section 2.2: a server "SHOULD ignore at least one empty line (CRLF) received
        # prior to the request-line". One is enough for the clients that send any.
        if self._skips_line and len(self._buffer) > 1:
            self._skips_line = False
            self._buffer = self._buffer.removeprefix(b"\r\n")

    def _check_head(self, head: bytes) -> None:
        start, version = _check_request_line(head, self.settings)
        if len(head) > self.settings.max_head_bytes:
            raise ProtocolError(431, "the request head is too large", limit="max_head_bytes")
        _check_fields(head[start:-2], self.settings.max_header_count)
        self._left, self._is_chunked = _framing(head, version)
        self._trailers = False
        self._overhead = 0

    def _take(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        self._scanned = max(0, self._scanned - size)
        return taken

    # -- a body

    def take_body(self) -> bytes:
        """Return what h11 may see of the body under way, `b""` if nothing more is there for now.

        Of a chunked body that is at most `CHUNKS_AT_ONCE` chunks.

        Raises:
            ProtocolError: 400 for what is no chunk or no trailer, 431 for more of extensions and
                trailers than a head may have.
        """
        if self._is_chunked:
            return self._take(self._scan_chunks()) if self._buffer else b""
        size = min(self._left, len(self._buffer))
        self._left -= size
        return self._take(size) if size else b""

    def _scan_chunks(self) -> int:
        """Return how many bytes were looked at, and may be shown."""
        data, at = self._buffer, 0
        self.has_more = False
        for _ in range(CHUNKS_AT_ONCE):
            step = min(self._left, len(data) - at)
            at += step
            self._left -= step
            if at == len(data):
                return at
            try:
                end = self._trailer_end(at) if self._trailers else self._size_line(at)
            except ProtocolError:
                # What lies in front of it is shown first: how the bytes were cut into reads is not
                # to decide what a handler gets. The next call comes back to it.
                if at:
                    return at
                raise
            if not self._is_chunked:
                return end
            if end <= at:
                return at
            at = end
        self.has_more = True
        return at

    def _size_line(self, start: int) -> int:
        """Check the size line that begins here; return its end, 0 if that isn't there yet."""
        data = self._buffer
        # Refused early: the line of a client with other line ends might never come.
        if data[start] not in _HEXDIGITS:
            raise ProtocolError(400, "a chunk has no size")
        scanned = max(start, self._scanned - 1)
        end = data.find(b"\n", scanned) + 1
        if not end:
            if not _SIZE_START.match(data, start) or _STRAY.search(data, scanned):
                raise ProtocolError(400, "the line of a chunk is not size and extensions")
            self._count_overhead(len(data) - start)
            self._scanned = len(data)
            return 0
        found = _SIZE_LINE.fullmatch(data, start, end)
        if found is None:
            raise ProtocolError(400, "the line of a chunk is not size and extensions")
        size = int(found[1], 16)
        if size > _MAX_LENGTH:
            raise ProtocolError(400, "a chunk is not below 2^63")
        self._overhead += self._count_overhead(end - start)
        self._trailers = not size
        self._left = size + 2 if size else 0
        return end

    def _trailer_end(self, start: int) -> int:
        """Return the end of the trailers that begin here, or of what is in front of them."""
        data = self._buffer
        if data.startswith(b"\r\n", start):
            end = start
        else:
            end = data.find(b"\r\n\r\n", max(start, self._scanned - 3)) + 2
            if end < 2:  # noqa: PLR2004 - not found
                if _STRAY.search(data, max(start, self._scanned - 1)):
                    raise ProtocolError(400, "a trailer is not a line of text")
                self._count_overhead(len(data) - start)
                self._scanned = len(data)
                return start
        self._count_overhead(end + 2 - start)
        _check_trailers(data[start:end], self.settings.max_header_count)
        self._is_chunked = False
        return end + 2

    def _count_overhead(self, size: int) -> int:
        """Return what a line of this size counts as, or refuse it if that is too much.

        Extensions and trailers are bounded together as one more head: RFC 9112 section 7.1.1 asks
        to "limit the total length of chunk extensions received in a request".
        """
        cost = max(0, size - _FREE)
        if self._overhead + cost > self.settings.max_head_bytes:
            raise ProtocolError(
                431, "chunk extensions and trailers are too large", limit="max_head_bytes"
            )
        return cost


def _check_start(start: bytes, scanned: int, settings: Settings) -> None:
    """See that the start of a head can still become one; the first `scanned` bytes were seen."""
    if _STRAY.search(start, max(0, scanned - 1)) or start[0] <= 0x20:  # noqa: PLR2004 - a space
        raise ProtocolError(400, _stray_detail(start))
    line_end = start.find(b"\r\n")
    if line_end < 0:
        target = start.find(b" ") + 1
        if target and len(start) - target > settings.max_target_bytes + _LONGEST_REST:
            raise _too_long()
    elif line_end >= scanned - 1:
        _check_request_line(start, settings)
    if len(start) > settings.max_head_bytes:
        raise ProtocolError(431, "the request head is too large", limit="max_head_bytes")


def _check_request_line(head: bytes, settings: Settings) -> tuple[int, bytes]:
    """Return where the next line starts, and the version."""
    found = _REQUEST_LINE.match(head)
    if found is None:
        raise ProtocolError(400, _stray_detail(head[: head.find(b"\r\n")]))
    method, target, version = found.groups()
    if version not in (b"1.1", b"1.0"):
        # RFC 9110 section 15.6.6. A 1.2 would have to be read as 1.1 (section 2.5), but there is
        # none.
        raise ProtocolError(505, "HTTP/1.0 and HTTP/1.1 are spoken here")
    if len(target) > settings.max_target_bytes:
        raise _too_long()
    if method == b"CONNECT":
        # h11 would hand the connection over as a tunnel on any 2xx.
        raise ProtocolError(501, "CONNECT is for proxies")
    if target == b"*" and method != b"OPTIONS":
        # RFC 9112 section 3.2.4: the asterisk is "only used for a server-wide OPTIONS".
        raise ProtocolError(400, "the target * is for OPTIONS")
    return found.end(), version


def _check_fields(lines: bytes, max_count: int) -> None:
    """See that header or trailer lines, each with its CRLF, are fields, and not too many."""
    if not _FIELD_LINES.fullmatch(lines):
        raise ProtocolError(400, _field_detail(lines))
    if lines.count(b"\r\n") > max_count:
        raise ProtocolError(431, f"more than {max_count} header fields", limit="max_header_count")


def _check_trailers(lines: bytes, max_count: int) -> None:
    _check_fields(lines, max_count)
    # RFC 9110 section 6.5.1: fields "cannot be processed outside the header section" if they
    # "describe message framing, routing". A program behind us might merge them into the head.
    if _FRAMING_NAME.search(lines):
        raise ProtocolError(400, "a trailer can't frame or route the request")


def _framing(head: bytes, version: bytes) -> tuple[int, bool]:
    """Return the length of the body, and whether it is chunked instead."""
    fields = _FRAMING.findall(head)
    if not fields:
        return 0, False
    name, value = fields[0]
    is_chunked = len(name) == len(b"transfer-encoding")
    # RFC 9112 section 6.3: both together "ought to be handled as an error"; section 6.1: a coding
    # in HTTP/1.0 "MUST" be treated "as if the framing is faulty". RFC 9110 section 8.6: a repeated
    # length may be refused or taken for one.
    if len(fields) > 1 or (is_chunked and version == b"1.0"):
        raise ProtocolError(400, "the length of the body is told twice, or a coding in HTTP/1.0")
    value = value.rstrip(b" \t")
    if is_chunked:
        _check_coding(value)
        return 0, True
    if not _LENGTH.fullmatch(value) or int(value) > _MAX_LENGTH:
        raise ProtocolError(400, "Content-Length is not one number below 2^63")
    return int(value), False


def _check_coding(value: bytes) -> None:
    *others, last = members([value])
    if last == b"chunked" and not others:
        return
    # RFC 9112 section 6.1: a coding that is not understood "SHOULD" be answered with 501. Section
    # 6.3 has 400 where chunked is not the last. A coding that isn't registered is 400 too: a proxy
    # may take it for "chunked".
    if {last, *others} <= _CODINGS | {b"chunked"} and b"chunked" not in others:
        raise ProtocolError(501 if last == b"chunked" else 400, "only chunked is decoded here")
    raise ProtocolError(400, "Transfer-Encoding is not chunked")


# -- behind h11


def check_host(hosts: Sequence[bytes], target: bytes) -> None:
    """See that a Host header is `host[:port]`; h11 sees to there being one.

    Raises:
        ProtocolError: 400.
    """
    # RFC 9112 section 3.2: 400 "to any request message that contains [...] a Host header field
    # with an invalid field value".
    for host in hosts:
        if not is_authority(host):
            raise ProtocolError(400, "the Host header is not host:port")
        if host[:1] in (b"", b":") and target.startswith(b"/"):
            # RFC 9110 section 4.2.1: a recipient of an http URI with an empty host "MUST reject it
            # as invalid", and of a path this host makes the URI.
            raise ProtocolError(400, "the Host header names no host")


def check_expectations(lines: Sequence[bytes]) -> None:
    """See that nothing but 100-continue is expected.

    Raises:
        ProtocolError: 417.
    """
    # RFC 9110 section 10.1.1: a "member other than 100-continue MAY" be answered with 417.
    if set(members(lines)) - {b"100-continue", b""}:
        raise ProtocolError(417, "only 100-continue can be expected")


def members(lines: Sequence[bytes]) -> list[bytes]:
    """Return the members of a list, which may be on several lines, in lower case."""
    return [member.strip(b" \t") for line in lines for member in line.lower().split(b",")]


def is_authority(text: bytes) -> bool:
    """Whether this is `host[:port]` by RFC 3986; the host may be empty."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return False
    if (literal := found[2]) is not None:
        try:
            ipaddress.IPv6Address(literal.decode("ascii"))
        except ValueError:
            return False
    return True


# -- details


def _too_long() -> ProtocolError:
    return ProtocolError(414, "the request target is too long", limit="max_target_bytes")


def _stray_detail(start: bytes) -> str:
    if re.search(rb"(?<!\r)\n|\r[^\n]", start):
        return "a line ends with CR and LF together"
    return "the request line is not HTTP"


def _field_detail(lines: bytes) -> str:
    """Say what is wrong with the first header line that is."""
    end = _FIELD_LINES.match(lines)
    assert end is not None, "it also matches nothing"
    bad = lines[end.end() :]
    if bad[:1] in (b" ", b"\t"):
        # RFC 9112 section 5.2: a server "MUST either reject the message" or replace the fold by
        # spaces, as some proxy did, or did not.
        return "a header line is folded"
    if _FIELD_NAME.match(bad):
        return "a header value holds a control character"
    # RFC 9112 section 5.1: "MUST reject" whitespace between name and colon.
    return "a header line is not name:value"
