"""The head of a request, read strictly: what two readers could take for two things is refused.

Requests are smuggled where a proxy and the server behind it disagree about where a message ends.
So this reads by the grammar of RFC 9112 and by nothing more lenient that it allows: lines end with
CRLF, nothing is folded, a length is given once and a transfer coding is `chunked`. The whole head
is matched by two regular expressions, so what isn't in the grammar has no way through; only a head
that fails is looked at again, to say why.

`check_start` finds out early that a head which isn't complete can't become one, so that nobody
waits for a blank line that a client with other line ends will never send.

No bytes of the client's go into a detail: it is sent back, and logged.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .settings import Settings

    RawHeaders = Sequence[tuple[bytes, bytes]]

_MAX_LENGTH: Final = 2**63 - 1
"""Largest length: what a signed 64-bit number holds, as in most that read it beside us."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 section 5.6.2
_TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]*+"  # section 5.5: no control character but HTAB

# RFC 9112 section 3: "request-line = method SP request-target SP HTTP-version". The RFC lets a
# recipient split it at any whitespace; here a single space is meant as it is written.
_REQUEST_LINE: Final = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])\r\n" % _TOKEN)
_FIELD_LINES: Final = re.compile(rb"(?:%b:%b\r\n)*+" % (_TOKEN, _TEXT))
_FIELD_NAME: Final = re.compile(_TOKEN + rb":")

# What no head holds: a CR or LF alone, or a control character. The last byte may be half a CRLF.
STRAY: Final = re.compile(rb"[^\t\x20-\x7e\x80-\xff\r\n]|(?<!\r)\n|\r[^\n]")

_LENGTH: Final = re.compile(rb"[0-9]{1,20}")
# The codings of RFC 9112 section 7.2 and their aliases. `identity` is none: it "is not" registered.
_CODINGS: Final = frozenset({b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"})
# RFC 9110 section 7.2: "Host = uri-host [ ":" port ]", with the host of RFC 3986 section 3.2.2.
_AUTHORITY: Final = re.compile(
    rb"(?:((?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*+)"
    rb"|\[([0-9A-Fa-f:.]+)\]|\[[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+\])(?::[0-9]{0,5})?"
)

_READ_HERE: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"}
)
_FRAMING: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})

_LONGEST_REST: Final = len(b" HTTP/1.1\r")


@final
class ProtocolError(Exception):
    """The client broke HTTP or a limit; `status` is what to answer, `limit` the setting met."""

    def __init__(self, status: int, detail: str, *, limit: str | None = None) -> None:
        super().__init__(f"{status}: {detail}")
        self.limit: Final = limit
        self.status: Final = status
        self.detail: Final = detail


class RequestHead(NamedTuple):
    """A parsed request line and its headers (names in lower case)."""

    method: str
    target: bytes
    headers: RawHeaders
    http_version: str
    """`"1.0"` or `"1.1"`."""


class Framing(NamedTuple):
    """What a head says of the message and its connection."""

    length: int | None = 0
    """Bytes of the body; `None` if it is chunked."""
    closes: bool = False
    """Whether the client asks to close."""
    waits: bool = False
    """Whether it waits for `100 Continue`."""


NO_BODY: Final = Framing()


def check_start(start: bytes, scanned: int, settings: Settings) -> None:
    """See that the start of a head can still become one; the first `scanned` bytes were seen.

    Raises:
        ProtocolError: it can't.
    """
    if STRAY.search(start, max(0, scanned - 1)) or start[0] <= 0x20:  # noqa: PLR2004 - a space
        raise ProtocolError(400, _stray_detail(start))
    line_end = start.find(b"\r\n")
    if line_end < 0:
        target = start.find(b" ") + 1
        if target and len(start) - target > settings.max_target_bytes + _LONGEST_REST:
            raise _too_long()
    elif line_end >= scanned - 1:
        _request_line(start, settings)
    if len(start) > settings.max_head_bytes:
        raise ProtocolError(431, "the request head is too large", limit="max_head_bytes")


def parse_head(head: bytes, settings: Settings) -> tuple[RequestHead, Framing]:
    """Take apart a head, with its blank line.

    Raises:
        ProtocolError: 400 for what isn't in the grammar or has more than one meaning; 414, 417,
            431, 501 or 505 as in docs/reference/http.md.
    """
    method, target, version, start = _request_line(head, settings)
    if len(head) > settings.max_head_bytes:
        raise ProtocolError(431, "the request head is too large", limit="max_head_bytes")
    headers = parse_fields(head[start:-2], settings.max_header_count)
    framing = _framing(_values(headers), target, version)
    return RequestHead(method, target, headers, version), framing


def parse_fields(lines: bytes, max_count: int) -> list[tuple[bytes, bytes]]:
    """Return the fields of header or trailer lines, each with its CRLF; names in lower case.

    Raises:
        ProtocolError: 400 for a line that isn't `name:value`; 431 for more than `max_count`.
    """
    if not _FIELD_LINES.fullmatch(lines):
        raise ProtocolError(400, _field_detail(lines))
    split = lines.split(b"\r\n")
    del split[-1]
    if len(split) > max_count:
        raise ProtocolError(431, f"more than {max_count} header fields", limit="max_header_count")
    fields: list[tuple[bytes, bytes]] = []
    for line in split:
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" \t")))
    return fields


def check_trailers(lines: bytes, max_count: int) -> None:
    """See that trailer lines are fields, and none that would frame a message.

    Raises:
        ProtocolError: as `parse_fields`; 400 for a field that a trailer must not hold.
    """
    # RFC 9110 section 6.5.1: fields "cannot be processed outside the header section" if they
    # "describe message framing, routing". They are thrown away like all trailers; who sends one
    # hopes for somebody who merges it into the head.
    if not _FRAMING.isdisjoint([name for name, _ in parse_fields(lines, max_count)]):
        raise ProtocolError(400, "a trailer can't frame or route the request")


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


def _request_line(head: bytes, settings: Settings) -> tuple[str, bytes, str, int]:
    """Return method, target, version, and where the next line starts."""
    found = _REQUEST_LINE.match(head)
    if found is None:
        raise ProtocolError(400, _stray_detail(head[: head.find(b"\r\n")]))
    method, target, version = found.groups()
    if version not in (b"1.1", b"1.0"):
        # RFC 9110 section 15.6.6. A 1.2 would have to be read as 1.1 (section 2.5), but nobody
        # defined one: who sends it doesn't speak HTTP.
        raise ProtocolError(505, "HTTP/1.0 and HTTP/1.1 are spoken here")
    if len(target) > settings.max_target_bytes:
        raise _too_long()
    if method == b"CONNECT":
        # h11 would hand the connection over as a tunnel on any 2xx.
        raise ProtocolError(501, "CONNECT is for proxies")
    if target == b"*" and method != b"OPTIONS":
        # RFC 9112 section 3.2.4: the asterisk is "only used for a server-wide OPTIONS".
        raise ProtocolError(400, "the target * is for OPTIONS")
    return method.decode("ascii"), target, version.decode("ascii"), found.end()


def _values(headers: RawHeaders) -> dict[bytes, list[bytes]]:
    """Return the values of the fields that say what the message is."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _READ_HERE:
            values.setdefault(name, []).append(value)
    return values


def _framing(values: Mapping[bytes, list[bytes]], target: bytes, version: str) -> Framing:
    _check_host(values.get(b"host", []), target, version)
    if len(values) == 1 and version == "1.1" and b"host" in values:
        return NO_BODY
    waits = version == "1.1" and b"expect" in values and _waits(values[b"expect"])
    length: int | None = 0
    if b"transfer-encoding" in values:
        _check_coding(values, version)
        length = None
    elif b"content-length" in values:
        length = _length(values[b"content-length"])
    closes = version == "1.0" or b"close" in _members(values.get(b"connection", ()))
    return Framing(length, closes, waits)


def _check_host(hosts: Sequence[bytes], target: bytes, version: str) -> None:
    # RFC 9112 section 3.2: 400 "to any HTTP/1.1 request message that lacks a Host header field and
    # to any request message that contains more than one Host header field line or a Host header
    # field with an invalid field value".
    if not hosts and version == "1.0":
        return
    if len(hosts) != 1:
        raise ProtocolError(400, "a request has one Host header")
    if not is_authority(hosts[0]):
        raise ProtocolError(400, "the Host header is not host:port")
    if hosts[0][:1] in (b"", b":") and target.startswith(b"/"):
        # RFC 9110 section 4.2.1: a recipient of an http URI with an empty host "MUST reject it as
        # invalid", and of a path this host makes the URI.
        raise ProtocolError(400, "the Host header names no host")


def _members(lines: Sequence[bytes]) -> list[bytes]:
    """Return the members of a list, which may be on several lines, in lower case."""
    return [member.strip(b" \t") for line in lines for member in line.lower().split(b",")]


def _waits(lines: Sequence[bytes]) -> bool:
    # RFC 9110 section 10.1.1: a "member other than 100-continue MAY" be answered with 417, and what
    # HTTP/1.0 expects is to be ignored.
    members = set(filter(None, _members(lines)))
    if members - {b"100-continue"}:
        raise ProtocolError(417, "only 100-continue can be expected")
    return bool(members)


def _check_coding(values: Mapping[bytes, list[bytes]], version: str) -> None:
    # RFC 9112 section 6.3: both together "ought to be handled as an error"; section 6.1: in
    # HTTP/1.0 one "MUST treat the message as if the framing is faulty".
    if b"content-length" in values or version == "1.0":
        raise ProtocolError(400, "Transfer-Encoding with Content-Length, or in HTTP/1.0")
    lines = values[b"transfer-encoding"]
    *others, last = _members(lines)
    if len(lines) == 1 and last == b"chunked" and not others:
        return
    # Section 6.1: a coding that is not understood "SHOULD" be answered with 501. That is said of
    # codings that exist; section 6.3 has 400 where chunked is not the last, and a coding that
    # nobody knows may be somebody else's "chunked".
    if len(lines) == 1 and {last, *others} <= _CODINGS | {b"chunked"} and b"chunked" not in others:
        raise ProtocolError(501 if last == b"chunked" else 400, "only chunked is decoded here")
    raise ProtocolError(400, "Transfer-Encoding is not chunked")


def _length(lines: Sequence[bytes]) -> int:
    # RFC 9110 section 8.6: a repeated length may be refused or taken for one; whoever sends two
    # hopes that somebody takes the other.
    if len(lines) != 1 or not _LENGTH.fullmatch(lines[0]) or int(lines[0]) > _MAX_LENGTH:
        raise ProtocolError(400, "Content-Length is not one number below 2^63")
    return int(lines[0])


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
