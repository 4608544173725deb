"""The requests that a server must accept or refuse: a table of bytes, answers and sentences.

The rows come from RFC 9110 and 9112 and from what is public about request smuggling: lengths and
codings that two readers take differently (CL.TE, TE.CL, TE.TE, CL.0, 0.CL), line ends and spaces
that only some accept, chunks that only some can count, hosts that only some would route. A row's
bytes often hold a whole request for `/evil` where a lax reader would find one; and whoever runs a
row sends a `CANARY` behind it, which is answered if and only if the connection stays open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

EVIL: Final = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"
CANARY: Final = b"GET /canary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Row(NamedTuple):
    """Bytes, the statuses that they are answered with, and whether the connection closes then."""

    name: str
    sent: bytes
    statuses: tuple[int, ...]
    closes: bool
    rule: str


def get(*lines: bytes, target: bytes = b"/", method: bytes = b"GET", host: bool = True) -> bytes:
    """Write a head, with a Host unless told otherwise."""
    first = b"%b %b HTTP/1.1" % (method, target)
    return b"\r\n".join([first, *([b"Host: a"] if host else []), *lines, b"", b""])


def post(*lines: bytes, body: bytes = b"") -> bytes:
    """Write a request with a body; its length or coding is among the lines."""
    return get(*lines, method=b"POST") + body


def chunked(*lines: bytes) -> bytes:
    """Write a chunked request with these lines (each with its CRLF) for a body."""
    return post(b"Transfer-Encoding: chunked", body=b"".join(lines))


def accepted(name: str, sent: bytes, rule: str, *, answers: int = 1, closes: bool = False) -> Row:
    """Make a row of requests that are answered."""
    return Row(name, sent, (200,) * answers, closes, rule)


def refused(name: str, sent: bytes, rule: str, status: int = 400, *, after: int = 0) -> Row:
    """Make a row that ends in a refusal, after some requests that are answered."""
    return Row(name, sent, (200,) * after + (status,), closes=True, rule=rule)


def label(byte: int) -> str:
    """Name a byte."""
    return f"0x{byte:02x}"


# -- where a message ends

BOTH = (
    'RFC 9112 section 6.3: a request with both "ought to be handled as an error"; section 6.1: '
    '"the server MUST close the connection after responding to such a request"'
)
LAST = (
    'RFC 9112 section 6.3: where chunked "is not the final encoding, [...] the server MUST respond '
    'with the 400 (Bad Request) status code and then close the connection"'
)
UNKNOWN_CODING = (
    "RFC 9112 section 6.1: a server that receives a transfer coding it does not understand "
    '"SHOULD respond with 501 (Not Implemented)"'
)
OLD_CODING = (
    'RFC 9112 section 6.1: with Transfer-Encoding in HTTP/1.0 a server "MUST treat the message as '
    'if the framing is faulty, even if a Content-Length is present, and close the connection"'
)
LENGTH = (
    'RFC 9112 section 6.3: an invalid Content-Length makes the framing invalid: "the server MUST '
    'respond with a 400 (Bad Request) status code and then close the connection"'
)
TWO_LENGTHS = (
    "RFC 9110 section 8.6: a list of equal lengths may be rejected as invalid; it comes of two "
    "senders, of which one may have been believed"
)
OVERFLOW = (
    'RFC 9110 section 8.6: a recipient MUST "prevent parsing errors due to integer overflows"'
)
BODY = "RFC 9112 section 6: a body's presence is told by Content-Length or Transfer-Encoding alone"


def framings() -> Iterator[Row]:
    """Yield the rows about lengths and codings."""
    te, evil_body = b"Transfer-Encoding: chunked", b"0\r\n\r\n" + EVIL
    yield refused("CL.TE", post(b"Content-Length: 6", te, body=evil_body), BOTH)
    yield refused("TE.CL", post(te, b"Content-Length: 5", body=evil_body), BOTH)
    yield refused("CL.0 with TE", post(b"Content-Length: 0", te, body=evil_body), BOTH)
    yield refused("CL with an empty TE", post(b"Content-Length: 3", b"Transfer-Encoding:"), BOTH)
    yield refused(
        "CL with identity", post(b"Content-Length: 3", b"Transfer-Encoding: identity"), BOTH
    )
    for value in (
        b"xchunked", b"chunkedx", b"chunked, identity", b"identity, chunked", b"identity",
        b"chunked, chunked", b"chunked, gzip", b"gzip", b"", b",", b"chunked,", b",chunked",
        b"chunked;q=1", b'"chunked"', b"'chunked'", b"[chunked]", b"chunk", b"chunked-x",
        b"cow", b"cow, chunked", b"chunked\xa0", b"\x85chunked", b"c\xc4\xa7unked",
    ):  # fmt: skip
        line = b"Transfer-Encoding: " + value
        yield refused(f"TE: {value!r}", post(line, body=evil_body), LAST)
    for value in (b"chunked\x0b", b"\x0bchunked", b"chunked\x00", b"chun\x00ked", b"\x0cchunked"):
        line = b"Transfer-Encoding: " + value
        yield refused(f"TE: {value!r}", post(line, body=evil_body), TEXT)
    for value in (b"gzip, chunked", b"deflate,chunked", b"x-gzip,\tchunked"):
        line = b"Transfer-Encoding: " + value
        yield refused(f"TE: {value!r}", post(line, body=evil_body), UNKNOWN_CODING, 501)
    for lines in ((te, te), (te, b"Transfer-Encoding: x"), (b"Transfer-Encoding: gzip", te)):
        yield refused(f"two lines: {lines}", post(*lines, body=evil_body), LAST)
    for name in (b"Transfer-Encoding ", b"Transfer-Encoding\t", b" Transfer-Encoding"):
        rule = NO_FOLD if name[:1] == b" " else NO_SPACE
        yield refused(f"{name!r}", post(name + b": chunked", body=evil_body), rule)
    yield accepted("other name", post(b"Transfer_Encoding: chunked"), BODY)
    yield accepted("in any case", post(b"tRANSFER-eNCODING: CHUNKED", body=b"0\r\n\r\n"), BODY)
    old = b"POST / HTTP/1.0\r\n" + te + b"\r\n\r\n" + evil_body
    yield refused("TE in 1.0", old, OLD_CODING)
    yield from lengths()


def lengths() -> Iterator[Row]:
    """Yield the rows about lengths alone."""
    for value in (
        b"+3", b"-3", b"-0", b"3 ,", b"0x3", b"3.0", b"3e0", b"1_0", b"3;", b'"3"', b"", b"three",
        b"3 3", b"\xd9\xa3", b"\xb2", b"3\xa0",
    ):  # fmt: skip
        yield refused(f"CL: {value!r}", post(b"Content-Length: " + value, body=EVIL), LENGTH)
    yield refused("CL: NUL", post(b"Content-Length: 3\x00", body=EVIL), TEXT)
    yield refused(
        "CL twice", post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), TWO_LENGTHS
    )
    yield refused("CL list", post(b"Content-Length: 3, 3", body=b"abc"), TWO_LENGTHS)
    yield refused(
        "CL differs", post(b"Content-Length: 0", b"Content-Length: 31", body=EVIL), LENGTH
    )
    yield refused("CL differs in a list", post(b"Content-Length: 0, 31", body=EVIL), LENGTH)
    for value in (b"9223372036854775808", b"18446744073709551616", b"9" * 400):
        yield refused(f"CL: {len(value)} digits", post(b"Content-Length: " + value), OVERFLOW)
    yield accepted("CL with zeros", post(b"Content-Length: 0003", body=b"abc"), BODY)
    yield accepted("CL with spaces", post(b"Content-Length: \t 3 \t", body=b"abc"), BODY)
    size = b"Content-Length: %d" % len(EVIL)
    yield accepted("GET with a body (CL.0)", get(size) + EVIL, BODY)
    yield accepted("OPTIONS with a body", get(size, method=b"OPTIONS", target=b"*") + EVIL, BODY)
    yield accepted("HEAD-like body", get(size, method=b"DELETE") + EVIL, BODY)
    yield accepted("no length, no body (0.CL)", post() + get(), BODY, answers=2)


# -- lines and fields

ENDS = (
    'RFC 9112 section 2.2: "a recipient MAY recognize a single LF as a line terminator"; one that '
    "does not can't be made to see a line that nobody in front saw"
)
BARE_CR = (
    'RFC 9112 section 2.2: a recipient of a bare CR "MUST consider that element to be invalid or '
    'replace each bare CR with SP"'
)
EMPTY_LINE = (
    'RFC 9112 section 2.2: a server "SHOULD ignore at least one empty line (CRLF) received prior '
    'to the request-line"'
)
NO_FOLD = (
    'RFC 9112 section 5.2: a server that receives an obs-fold "MUST either reject the message"'
)
NO_SPACE = (
    'RFC 9112 section 5.1: "A server MUST reject, with a response status code of 400 (Bad '
    "Request), any received request message that contains whitespace between a header field name "
    'and colon"'
)
AFTER_START = (
    "RFC 9112 section 2.2: a recipient that receives whitespace between the start-line and the "
    'first header field "MUST either reject the message as invalid or consume" it'
)
NAME = 'RFC 9110 section 5.1: "field-name = token"'
TEXT = (
    'RFC 9110 section 5.5: "Field values containing CR, LF, or NUL characters are invalid and '
    'dangerous"; for other control characters a recipient may retain or reject'
)
VALUE = 'RFC 9110 section 5.5: "field-content" is of VCHAR, obs-text, SP and HTAB'


def fields() -> Iterator[Row]:
    """Yield the rows about header lines."""
    for byte in (*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F):
        yield refused(f"{label(byte)} in a value", get(b"X: a%cb" % byte) + EVIL, TEXT)
    for byte in (*b'\x00\x01\x7f"(),/;<=>?@[\\]{} \t', 0x80, 0xA0, 0xFF):
        yield refused(f"{label(byte)} in a name", get(b"X%cY: a" % byte) + EVIL, NAME)
    for byte in b"!#$%&'*+-.^_`|~":
        yield accepted(f"{label(byte)} in a name", get(b"X%cY: a" % byte), NAME)
    yield refused("bare CR in a value", get(b"X: a\rY: b"), BARE_CR)
    yield refused("bare CR in a name", get(b"X\rY: b"), BARE_CR)
    yield refused("bare LF in a value", get(b"X: a\nContent-Length: 31") + EVIL, ENDS)
    yield refused("CR CR LF", get(b"X: a\r"), BARE_CR)
    yield refused("LF ends lines", b"GET / HTTP/1.1\nHost: a\n\n", ENDS)
    yield refused("LF ends the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", ENDS)
    yield refused("LF ends a header", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", ENDS)
    yield refused("LF ends the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n", ENDS)
    yield refused("CR ends lines", b"GET / HTTP/1.1\rHost: a\r\r", BARE_CR)
    yield refused("LF CR LF ends the head", b"GET / HTTP/1.1\r\nHost: a\n\r\n", ENDS)
    yield refused("fold", get(b"X: a", b" b"), NO_FOLD)
    yield refused("fold with a tab", get(b"X: a", b"\tb"), NO_FOLD)
    yield refused("fold of a coding", get(b"Transfer-Encoding:", b" chunked") + EVIL, NO_FOLD)
    yield refused("fold of nothing", get(b"X: a", b" "), NO_FOLD)
    yield refused("space before the first", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", AFTER_START)
    yield refused(
        "tab before the first", b"GET / HTTP/1.1\r\n\tX: a\r\nHost: a\r\n\r\n", AFTER_START
    )
    yield refused("space before the colon", get(b"X : a"), NO_SPACE)
    yield refused("no colon", get(b"nonsense"), NAME)
    yield refused("no name", get(b": a"), NAME)
    yield accepted("no value", get(b"X:", b"Y: \t"), VALUE)
    yield accepted("obs-text", get(b"X: \x80\xff"), VALUE)
    yield accepted("tab in a value", get(b"X: a\tb"), VALUE)
    yield accepted("colons", get(b"X: a:b: c"), VALUE)
    yield accepted("empty line before", b"\r\n" + get(), EMPTY_LINE)
    yield accepted("empty line between", get() + b"\r\n" + get(), EMPTY_LINE, answers=2)
    yield accepted("empty line behind", post(b"Content-Length: 1", body=b"x\r\n"), EMPTY_LINE)
    yield refused("two empty lines before", b"\r\n\r\n" + get(), EMPTY_LINE)
    yield refused("LF before", b"\n" + get(), ENDS)
    yield refused("CR before", b"\r" + get(), BARE_CR)


# -- the request line

LINE = (
    'RFC 9112 section 3: "request-line = method SP request-target SP HTTP-version"; an invalid one '
    '"SHOULD" be answered with 400'
)
TARGET = (
    'RFC 9112 section 3.2: "request-target = origin-form / absolute-form / authority-form / '
    'asterisk-form"'
)
VERSION = 'RFC 9112 section 2.3: "HTTP-version = HTTP-name "/" DIGIT "." DIGIT", case-sensitive'
SUPPORTED = "RFC 9110 section 15.6.6: 505 for a version that the server does not support"
ASTERISK = 'RFC 9112 section 3.2.4: the asterisk "is only used for a server-wide OPTIONS request"'
USERINFO = (
    'RFC 9110 section 4.2.4: a recipient "SHOULD parse for userinfo and treat its presence as an '
    'error"'
)
METHOD = 'RFC 9110 section 9.1: "method = token", case-sensitive; which are allowed is the app\'s'
LONG = 'RFC 9112 section 3: a longer target "MUST" be answered with 414 (URI Too Long)'
TUNNEL = 'RFC 9110 section 9.3.6: "most origin servers do not implement CONNECT"'


def lines() -> Iterator[Row]:
    """Yield the rows about request lines."""
    for name, line in {
        "two spaces before the target": b"GET  / HTTP/1.1",
        "two spaces before the version": b"GET /  HTTP/1.1",
        "space before the method": b" GET / HTTP/1.1",
        "space behind the version": b"GET / HTTP/1.1 ",
        "tabs": b"GET\t/\tHTTP/1.1",
        "tab before the version": b"GET /\tHTTP/1.1",
        "vertical tab": b"GET /\x0bHTTP/1.1",
        "no target": b"GET HTTP/1.1",
        "empty target": b"GET  HTTP/1.1",
        "space in the target": b"GET /a b HTTP/1.1",
        "NUL in the target": b"GET /a\x00b HTTP/1.1",
        "DEL in the target": b"GET /a\x7fb HTTP/1.1",
        "obs-text in the target": b"GET /\xc3\xa9 HTTP/1.1",
        "bare CR in the target": b"GET /\rX HTTP/1.1",
        "no version (HTTP/0.9)": b"GET /",
        "delimiter in the method": b"GE(T / HTTP/1.1",
        "colon behind the method": b"GET: / HTTP/1.1",
        "NUL in the method": b"GE\x00T / HTTP/1.1",
        "obs-text in the method": b"G\xcbT / HTTP/1.1",
        "only a method": b"GET",
        "a response": b"HTTP/1.1 200 OK",
    }.items():
        yield refused(name, line + b"\r\nHost: a\r\n\r\n" + EVIL, LINE)
    for version in (
        b"HTTP/1", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1,1", b"HTTP/ 1.1", b"HTTP /1.1", b"http/1.1",
        b"HTTP/1.1x", b"HTTP/x.1", b"HTTP/-1.1", b"HTTP/1.", b"HTTP/.1", b"HTTPS/1.1", b"FTP/1.1",
        b"HTTP/111", b"HTTP/\xb9.1", b"RTSP/1.0",
    ):  # fmt: skip
        yield refused(f"{version!r}", b"GET / %b\r\nHost: a\r\n\r\n" % version, VERSION)
    for version in (b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/9.9", b"HTTP/0.0"):
        yield refused(f"{version!r}", b"GET / %b\r\nHost: a\r\n\r\n" % version, SUPPORTED, 505)
    yield refused("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SUPPORTED, 505)
    yield refused("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", LINE)
    for method in (b"get", b"Get", b"BREW", b"-", b"$", b"M-SEARCH"):
        yield accepted(f"method {method!r}", get(method=method), METHOD)
    yield refused("method CONNECT", get(method=b"CONNECT", target=b"a:443"), TUNNEL, 501)
    yield refused("CONNECT to a path", get(method=b"CONNECT"), TUNNEL, 501)
    yield from targets()


def targets() -> Iterator[Row]:
    """Yield the rows about targets."""
    for target in (
        b"evil", b"?q", b"a:443", b"//", b"http:/a/", b"http://", b"http:///", b"http://:80/",
        b"http://a b/", b"ftp://a/", b"http:a", b"**", b"*/", b"mailto:a@b", b"/a#b", b"#", b".",
        b"http://a\\b/", b"http://[::1/", b"http://[1]/", b"http://a:b/", b"http://a:1:2/",
        b"http://a<b>/", b"/%zz", b"/%", b"/%00", b"/%ff", b"\\evil", b"http://a#b/",
    ):  # fmt: skip
        if target not in (b"//", b"http://a b/"):
            yield refused(f"target {target!r}", get(target=target) + EVIL, TARGET)
    for target in (b"http://u@a/", b"http://u:p@a/", b"http://a:80@b/", b"http://@a/"):
        yield refused(f"target {target!r}", get(target=target) + EVIL, USERINFO)
    for target in (
        b"/", b"//", b"//a/b", b"/?", b"/a?b?c", b"/%2F", b"/..", b"/a/../b", b"/*", b"/a:b@c",
        b"http://a/", b"http://a", b"HTTP://A:80/x?y", b"http://[::1]:8080/", b"https://a/",
        b"http://other/", b"/http://a/", b'/"<>\\^`{|}',
    ):  # fmt: skip
        yield accepted(f"target {target!r}", get(target=target), TARGET)
    yield accepted("OPTIONS *", get(method=b"OPTIONS", target=b"*"), ASTERISK)
    for method in (b"GET", b"POST", b"PRI", b"options"):
        yield refused(f"{method!r} *", get(method=method, target=b"*"), ASTERISK)
    yield accepted("target of 12 KiB", get(target=b"/" + b"x" * (12 * 1024 - 1)), LONG)
    yield refused("target above 12 KiB", get(target=b"/" + b"x" * 12 * 1024), LONG, 414)
    yield refused("target without end", b"GET /" + b"x" * 13_000, LONG, 414)


# -- host, expectations, sizes

HOST = (
    'RFC 9112 section 3.2: 400 "to any HTTP/1.1 request message that lacks a Host header field and '
    "to any request message that contains more than one Host header field line or a Host header "
    'field with an invalid field value"'
)
EMPTY_HOST = (
    'RFC 9110 section 4.2.1: who processes an http URI with an empty host "MUST reject it as '
    'invalid"'
)
EXPECT = (
    'RFC 9110 section 10.1.1: a server that receives an expectation other than 100-continue "MAY '
    'respond with a 417 (Expectation Failed)"'
)
LARGE = 'RFC 6585 section 5: 431 if the header fields are too large, "in totality" or one of them'
CLOSE = "RFC 9112 section 9.3: a connection persists by version and by the option close"


def heads() -> Iterator[Row]:
    """Yield the rows about hosts, expectations, sizes and persistence."""
    for value in (
        b"a b", b"a/b", b"a?b", b"a#b", b"u@a", b"http://a", b"a:b", b"a:80:80", b"a:-1", b"a: 80",
        b"[::1", b"::1", b"[::1]x", b"[::g]", b"[1:2]", b"[fe80::1%25eth0]", b"a\\b", b'a"b',
        b"<a>", b"a%", b"a%zz", b"\xc3\xa9", b"a, b", b"a^b", b"{a}", b"a|b", b"a:123456", b"[]",
        b"[v1]",
    ):  # fmt: skip
        yield refused(f"Host: {value!r}", get(b"Host: " + value, host=False) + EVIL, HOST)
    for value in (
        b"a", b"a.example", b"A.EXAMPLE:80", b"a.", b"127.0.0.1:3000", b"[::1]", b"[::1]:80", b"a:",
        b"[::ffff:1.2.3.4]", b"[v1.x:y]", b"a_b", b"a%20b", b"a-b~c", b"localhost",
    ):  # fmt: skip
        yield accepted(f"Host: {value!r}", get(b"Host: " + value, host=False), HOST)
    yield refused("no Host", get(host=False), HOST)
    yield refused("no Host, absolute", get(host=False, target=b"http://a/"), HOST)
    yield refused("two Hosts", get(b"Host: b") + EVIL, HOST)
    yield refused("the same Host twice", get(b"Host: a"), HOST)
    yield refused("two Hosts in other case", get(b"hOST: b"), HOST)
    yield refused("two Hosts in 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", HOST)
    yield refused("invalid Host in 1.0", b"GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", HOST)
    yield refused("empty Host", get(b"Host:", host=False), EMPTY_HOST)
    yield refused("Host of a port", get(b"Host: :80", host=False), EMPTY_HOST)
    options = get(b"Host:", method=b"OPTIONS", target=b"*", host=False)
    yield accepted("empty Host of a server", options, HOST)
    yield accepted("no Host in 1.0", b"GET / HTTP/1.0\r\n\r\n", HOST, closes=True)
    yield from limits()


def limits() -> Iterator[Row]:
    """Yield the rows about expectations, sizes and persistence."""
    for value in (b"200-ok", b"100-continue, x", b"100-continue;q=1", b"x", b"100"):
        yield refused(f"Expect: {value!r}", post(b"Expect: " + value), EXPECT, 417)
    yield accepted("no expectation", post(b"Expect:"), EXPECT)
    old = b"POST / HTTP/1.0\r\nExpect: x\r\n\r\n"
    yield accepted("expectation in 1.0", old, EXPECT, closes=True)
    # With the Host line and the blank one: 16 KiB are the default of max_head_bytes.
    room = 16 * 1024 - len(get(b"X: "))
    yield accepted("head of 16 KiB", get(b"X: " + b"x" * room), LARGE)
    yield refused("head above 16 KiB", get(b"X: " + b"x" * (room + 1)), LARGE, 431)
    yield refused("head without end", get(b"X: " + b"x" * 20_000)[:-4], LARGE, 431)
    yield refused("name without end", get()[:-2] + b"x" * 20_000, LARGE, 431)
    yield accepted("100 headers", get(*[b"X: y"] * 99), LARGE)
    yield refused("101 headers", get(*[b"X: y"] * 100), LARGE, 431)
    yield accepted("close", get(b"Connection: close") + EVIL, CLOSE, closes=True)
    yield accepted("close in a list", get(b"Connection: x, CLOSE") + EVIL, CLOSE, closes=True)
    yield accepted(
        "close on a second line", get(b"Connection: x", b"Connection: close"), CLOSE, closes=True
    )
    yield accepted("no close", get(b"Connection: closed, keep-alive"), CLOSE)
    yield accepted("1.0", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n" + EVIL, CLOSE, closes=True)
    upgrade = get(b"Connection: upgrade, http2-settings", b"Upgrade: h2c", b"HTTP2-Settings: AA")
    yield accepted("upgrade", upgrade, 'RFC 9110 section 7.8: a server "MAY ignore" an Upgrade')
    yield refused("behind a good one", get() + get(b"X : y") + EVIL, NO_SPACE, after=1)


# -- chunks

CHUNK = 'RFC 9112 section 7.1: "chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF"'
SIZE = (
    'RFC 9112 section 7.1: "chunk-size = 1*HEXDIG"; recipients "MUST anticipate potentially large '
    'hexadecimal numerals and prevent parsing errors due to integer conversion overflows"'
)
EXTENSION = (
    'RFC 9112 section 7.1.1: "chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS '
    'chunk-ext-val ] )", to be ignored if unknown, and bounded'
)
TRAILER = (
    'RFC 9110 section 6.5.1: fields "that describe message framing, routing" can\'t be processed '
    "outside the header section"
)
TRAILERS = 'RFC 9112 section 7.1.2: "trailer-section = *( field-line CRLF )"'


def chunks() -> Iterator[Row]:
    """Yield the rows about chunked bodies."""
    end = b"0\r\n\r\n"
    for size in (
        b"+3", b"-3", b"0x3", b"0X3", b"3h", b"3_0", b" 3", b"3 ", b"3\t", b"\t3", b"", b"g", b"3,",
        b"3 3", b"3.0", b"\xb3", b"3\x00", b"\x003", b"0_0", b"-0", b"3\x0b", b"\x0c3", b'"3"',
    ):  # fmt: skip
        yield refused(f"size {size!r}", chunked(size + b"\r\nabc\r\n", end) + EVIL, SIZE)
    for size in (
        b"8000000000000000", b"ffffffffffffffff", b"10000000000000003", b"f" * 40, b"0" * 21 + b"3",
    ):  # fmt: skip
        yield refused(f"size {size!r}", chunked(size + b"\r\nabc\r\n", end), SIZE)
    for size in (b"3", b"03", b"0" * 19 + b"3"):
        yield accepted(f"size {size!r}", chunked(size + b"\r\nabc\r\n", end), SIZE)
    yield accepted("hex digits", chunked(b"A\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n"), SIZE)
    for extension in (
        b";", b";;a", b";a=", b";=b", b";a b", b";a=b c", b';a="b', b';a="b" c', b";a\x00",
        b";a\x7f", b";a=\x07", b';a="\x01"', b';a="\\\x00"', b" a", b";a=b,c", b";a=\xff", b";a ",
        b";(a)", b" ;a", b";a ;b",
    ):  # fmt: skip
        body = b"3%b\r\nabc\r\n" % extension
        yield refused(f"extension {extension!r}", chunked(body, end) + EVIL, EXTENSION)
    for extension in (b";a\rb", b";a\nb", b";a=\r", b";a\r", b'; a="\r"', b";\r", b"\r", b";a\n"):
        body = b"3%b\r\nabc\r\n" % extension
        yield refused(f"extension {extension!r}", chunked(body, end) + EVIL, BARE_CR)
    yield refused("TERM.EXT", chunked(b"2;\n", b"xx\r\n", b"1f\r\n", end, EVIL, b"\r\n", end), ENDS)
    yield refused("EXT.TERM", chunked(b"0;\n", b"\r\n") + EVIL, ENDS)
    for extension in (b";a", b";a=b", b'; a\t=\t"b;\\"c"', b";a;b=c", b';a=""'):
        body = b"3%b\r\nabc\r\n" % extension
        yield accepted(f"extension {extension!r}", chunked(body, end), EXTENSION)
    long = b"3;a=" + b"x" * 9000 + b"\r\nabc\r\n"
    yield accepted("9 KB of extensions", chunked(long, end), EXTENSION)
    yield refused("18 KB of extensions", chunked(long, long, end) + EVIL, EXTENSION, 431)
    yield refused("extension without end", chunked(b"3;" + b"x" * 20_000), EXTENSION, 431)
    yield from ends()


def ends() -> Iterator[Row]:
    """Yield the rows about the ends of chunks and of chunked bodies."""
    end = b"0\r\n\r\n"
    yield refused("LF behind a size", chunked(b"3\nabc\r\n", end), ENDS)
    yield refused("LF behind data", chunked(b"3\r\nabc\n", end) + EVIL, ENDS)
    yield refused("CR behind a size", chunked(b"3\rabc\r\n", end), BARE_CR)
    yield refused("CR behind data", chunked(b"3\r\nabc\r", end) + EVIL, CHUNK)
    yield refused("LF ends the body", chunked(b"0\n\n") + EVIL, ENDS)
    yield refused("LF ends the trailers", chunked(b"0\r\n\n") + EVIL, ENDS)
    yield refused("data too long", chunked(b"3\r\nabcd\r\n", end) + EVIL, CHUNK)
    yield refused("data too short", chunked(b"3\r\nab\r\n", end) + EVIL, CHUNK)
    yield refused("two bytes for a CRLF", chunked(b"3\r\nabcXX", end) + EVIL, CHUNK)
    yield refused("no size", chunked(b"\r\nabc\r\n", end), SIZE)
    yield accepted("pipelined behind", chunked(b"3\r\nabc\r\n", end) + get(), CHUNK, answers=2)
    yield accepted(
        "empty line behind chunks", chunked(end) + b"\r\n" + get(), EMPTY_LINE, answers=2
    )
    many = b"1\r\nx\r\n" * 10_000
    yield accepted("10,000 chunks", chunked(many, end), CHUNK)
    yield accepted("trailers", chunked(b"0\r\nX: a\r\nY:\r\n\r\n"), TRAILERS)
    for name in (b"Content-Length", b"transfer-encoding", b"HOST"):
        trailer = chunked(b"0\r\n%b: 31\r\n\r\n" % name)
        yield refused(f"trailer {name!r}", trailer + EVIL, TRAILER)
    for line in (
        b"X : a",
        b" X: a",
        b"X: a\x00",
        b"X: a\x7f",
        b"X",
        b": a",
        b"X: a\rb",
        b"X: a\nb",
    ):
        yield refused(f"trailer {line!r}", chunked(b"0\r\n%b\r\n\r\n" % line) + EVIL, TRAILERS)
    yield refused("trailer folded", chunked(b"0\r\nX: a\r\n b\r\n\r\n"), NO_FOLD)
    yield accepted("100 trailers", chunked(b"0\r\n", *[b"X: y\r\n"] * 100, b"\r\n"), TRAILERS)
    yield refused("101 trailers", chunked(b"0\r\n", *[b"X: y\r\n"] * 101, b"\r\n"), LARGE, 431)
    large = b"X: " + b"x" * 17_000 + b"\r\n"
    yield refused("trailers above 16 KiB", chunked(b"0\r\n", large, b"\r\n"), LARGE, 431)
    yield refused("trailers without end", chunked(b"0\r\n", large[:-2]), LARGE, 431)


ROWS: Final = [*framings(), *fields(), *lines(), *heads(), *chunks()]
