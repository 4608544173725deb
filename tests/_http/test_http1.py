"""HTTP/1.1 framing as bytes in, values out, and back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from helpers import post, request
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio import Settings
from h3trio._http.http1 import Http1, RequestHead, Signal
from h3trio._http.strict import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_HEAD = 1000

Value = RequestHead | bytes | Signal


def feed(http: Http1, pieces: Iterable[bytes]) -> list[Value]:
    """Take all values out of some bytes; body comes joined, signals that mean "wait" don't."""
    values: list[Value] = []
    for piece in pieces:
        http.receive(piece)
        while (value := http.next()) not in (Signal.NEED_DATA, Signal.PAUSED):
            if isinstance(value, bytes) and values and isinstance(values[-1], bytes):
                values[-1] += value
            else:
                values.append(value)
    return values


def split(data: bytes, size: int) -> list[bytes]:
    """Cut bytes into pieces."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def http(data: bytes = b"") -> Http1:
    """Make a connection that has taken these bytes."""
    made = Http1(Settings(max_head_bytes=MAX_HEAD))
    if data:
        feed(made, [data])
    return made


BODIES = {
    "none": (request("/a", "X-Y:  z "), b""),
    "length": (post(b"abc", "/a"), b"abc"),
    "chunks": (
        request("/a", "Transfer-Encoding: chunked", method="POST")
        + b"2\r\nab\r\n1;ext=1\r\nc\r\n0\r\nTrailer: x\r\n\r\n",
        b"abc",
    ),
}


@table("junk", [b"", b"GET /next", b"\x00\xff"])
@table("size", [1, 3, 10_000])
@table("case", BODIES)
def test_request(case: str, size: int, junk: bytes) -> None:
    """A request is a head, its body, an end, whatever its pieces and whatever comes behind."""
    sent, body = BODIES[case]
    conn = http()
    head, *rest = feed(conn, [*split(sent, size), *split(junk, size)])
    assert isinstance(head, RequestHead)
    assert (head.target, head.http_version) == (b"/a", "1.1")
    assert (b"host", b"test") in head.headers
    if case == "none":
        assert (b"x-y", b"z") in head.headers
    assert rest == ([body] if body else []) + [Signal.END_OF_REQUEST]
    assert conn.buffered == len(junk)


@given(st.sampled_from(sorted(BODIES)), st.lists(st.integers(1, 30)))
def test_request_in_any_pieces(case: str, cuts: list[int]) -> None:
    """Where the bytes are cut changes nothing."""
    sent, body = BODIES[case]
    pieces = []
    for cut in cuts:
        pieces.append(sent[:cut])
        sent = sent[cut:]
    values = feed(http(), [piece for piece in [*pieces, sent] if piece])
    assert values[1:] == ([body] if body else []) + [Signal.END_OF_REQUEST]


REFUSALS = {0, 400, 414, 417, 431, 501, 505}


def status_of(pieces: Iterable[bytes]) -> int:
    """Return what these bytes are refused with, 0 if they aren't."""
    try:
        feed(http(), filter(None, pieces))
    except ProtocolError as error:
        return error.status
    return 0


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_any_bytes(pieces: list[bytes]) -> None:
    """Bytes of any kind are values or a ProtocolError with a status, nothing else."""
    assert status_of(pieces) in REFUSALS


@given(
    st.lists(st.sampled_from([*BODIES["chunks"][0].split(b"\r\n"), b"\r\n", b"\0"]), max_size=12)
)
def test_nearly_requests(parts: list[bytes]) -> None:
    """Requests put together wrongly are values or a ProtocolError, too."""
    assert status_of([b"POST / HTTP/1.1\r\nHost: x\r\n", *parts]) in REFUSALS


BROKEN = [
    b"x\r\n",
    b"3 \r\nxyz\r\n",
    b"8000000000000000\r\n",
    b"1\r\ncXX0\r\n\r\n",
    b"0\r\nHost: a\r\n\r\n",
    b"0\r\n : a\r\n\r\n",
]


@table("size", [0, 1, 2, 3, 1000])
@table("broken", BROKEN)
def test_what_is_in_front_of_broken_framing_is_given(broken: bytes, size: int) -> None:
    """However a body is cut, its data up to the error comes out, and then the error at once."""
    made = http(request("/a", "Transfer-Encoding: chunked", method="POST"))
    body, start = b"", b"2\r\nab\r\n"
    pieces = split(start + broken, size) if size else [start, broken]
    with pytest.raises(ProtocolError, match="400"):  # noqa: PT012 - both are looked at
        for piece in pieces:
            made.receive(piece)
            while isinstance(value := made.next(), bytes):
                body += value
    assert body == (b"abc" if b"XX" in broken else b"ab")


def test_next_cycle() -> None:
    """Once both sides are done, the next request can come out."""
    conn = http(request("/1") + request("/2"))
    assert not conn.next_cycle()
    conn.response(200, [], b"x")
    assert conn.keeps_alive
    assert conn.next_cycle()
    head = conn.next()
    assert isinstance(head, RequestHead)
    assert head.target == b"/2"


@pytest.mark.parametrize(
    "sent", [request(version="1.0"), request("/", "Connection: close"), post(b"abc")[:-1]]
)
def test_no_next_cycle(sent: bytes) -> None:
    """There is no next request on a connection that closes, or while a body is missing."""
    conn = http(sent)
    conn.response(200, [], b"")
    assert conn.keeps_alive == (b"Length" in sent)
    assert not conn.next_cycle()


def test_large_head() -> None:
    """A head of `max_head_bytes` that isn't complete is as far as it goes: 431."""
    head = request("/", "X: " + "x" * 2000)
    http(head[:MAX_HEAD])
    with pytest.raises(ProtocolError) as caught:
        http(head[: MAX_HEAD + 1])
    assert caught.value.status == 431
    assert "431" in str(caught.value)


@table(
    "sent, status",
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (request("/", "A : b"), 400),
        (request("/", "A: b\r\n folded", "C\0: d"), 400),
        (request("/", "Content-Length: 3", "Transfer-Encoding: chunked", method="POST"), 400),
        (request("/", "Transfer-Encoding: chunked", method="POST", version="1.0"), 400),
        (request("/", "Content-Length: -3"), 400),
        (request("/", "Content-Length: 3", "Content-Length: 4"), 400),
        (request("/", "Transfer-Encoding: gzip, chunked"), 501),
        (request("host:1", method="CONNECT"), 501),
        (request("*"), 400),
        (request(version="2.0"), 505),
        (request(version="0.9"), 505),
    ],
)
def test_refused(sent: bytes, status: int) -> None:
    """What is ambiguous or not served is a ProtocolError, after which one answer can be sent."""
    conn = Http1(Settings(max_head_bytes=MAX_HEAD))
    conn.receive(sent)
    with pytest.raises(ProtocolError) as caught:
        conn.next()
    assert caught.value.status == status
    assert conn.can_respond
    assert conn.response(status, [(b"Connection", b"close")], b"no").endswith(b"\r\n\r\nno")
    assert not conn.can_respond
    assert not conn.keeps_alive


def test_response() -> None:
    """A response has its phrase, its headers in order, its length and its body."""
    sent = http(request()).response(404, [(b"X-A", b"1"), (b"X-B", b"2")], b"body")
    assert sent == b"HTTP/1.1 404 Not Found\r\nX-A: 1\r\nX-B: 2\r\nContent-Length: 4\r\n\r\nbody"


@pytest.mark.parametrize("status", [299, 499, 599])
def test_status_without_a_phrase(status: int) -> None:
    """A status of no name has that of its class."""
    assert http(request()).response(status, [], b"").startswith(b"HTTP/1.1 %d " % status)


LENGTHS = [
    ("GET", 200, None, b"four", b"4"),
    ("GET", 200, None, b"", b"0"),
    ("GET", 200, b"4", b"four", b"4"),
    ("GET", 205, None, b"", b"0"),
    ("GET", 204, None, b"", None),
    ("GET", 304, None, b"", None),
    ("GET", 304, b"9", b"", b"9"),
    ("HEAD", 200, None, b"four", b"4"),
    ("HEAD", 200, b"9", b"", b"9"),
]


@table("method, status, told, body, sent", LENGTHS)
def test_length(  # noqa: PLR0917 - because pytest passes them by name
    method: str, status: int, told: bytes | None, body: bytes, sent: bytes | None
) -> None:
    """A response tells its body's length once, where there is one to tell."""
    conn = http(request(method=method))
    headers = [] if told is None else [(b"Content-Length", told)]
    head, _, rest = conn.response(status, headers, body).partition(b"\r\n\r\n")
    assert head.partition(b"Length: ")[2] == (sent or b"")
    assert rest == (b"" if method == "HEAD" else body)
    assert conn.next_cycle()


@table(
    "method, status, headers, body",
    [
        ("GET", 200, [(b"content-length", b"3")], b"four"),
        ("GET", 200, [(b"Content-Length", b"4"), (b"Content-Length", b"4")], b"four"),
        ("GET", 204, [(b"Content-Length", b"0")], b""),
        ("GET", 304, [(b"Content-Length", b"x")], b""),
        ("HEAD", 200, [(b"Content-Length", b"x")], b""),
        ("HEAD", 200, [(b"Content-Length", b"5")], b"four"),
        ("HEAD", 200, [(b"Content-Length", b"5"), (b"Content-Length", b"6")], b""),
        ("GET", 304, [(b"Content-Length", b"5"), (b"Content-Length", b"6")], b""),
        ("GET", 304, [(b"Content-Length", b"1" * 21)], b""),
        ("GET", 304, [], b"four"),
        ("GET", 200, [(b"transfer-encoding", b"chunked")], b"four"),
    ],
)
def test_framing_is_ours(
    method: str, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Headers that contradict the framing are a ValueError, and then nothing has happened."""
    conn = http(request(method=method))
    with pytest.raises(ValueError, match=r"Length|Encoding"):
        conn.response(status, headers, body)
    assert conn.can_respond
    conn.response(200, [], b"")
    assert conn.next_cycle()


def test_stream() -> None:
    """A stream's head says chunked on 1.1 and close on 1.0; its end is told, not made, here."""
    conn = http(request())
    assert conn.chunks_streams
    head = conn.stream_head(200, [(b"X", b"1")])
    assert head == b"HTTP/1.1 200 OK\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert not conn.keeps_alive
    conn.stream_ended()
    assert conn.next_cycle()
    old = http(request(version="1.0"))
    assert not old.chunks_streams
    assert old.stream_head(200, []) == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    old.stream_ended()
    assert not old.keeps_alive


@table(
    "status, headers",
    [(204, []), (205, []), (304, []), (200, [(b"Content-Length", b"1")])],
)
def test_stream_that_is_none(status: int, headers: list[tuple[bytes, bytes]]) -> None:
    """A stream needs a status with a body, and has no length."""
    conn = http(request())
    with pytest.raises(ValueError, match="stream"):
        conn.stream_head(status, headers)
    assert conn.can_respond


def test_an_idle_stream_holds_no_h11_connection() -> None:
    """h11 is let go once the request is read and its answer has begun, and not before."""
    conn = http(post(b"abc")[:-1])
    assert conn._conn is not None  # noqa: SLF001 - that it goes is the point
    conn.stream_head(200, [])
    assert conn._conn is not None  # noqa: SLF001 - the rest of the body is still to come
    assert feed(conn, [b"c"]) == [b"c", Signal.END_OF_REQUEST]
    assert conn._conn is None  # noqa: SLF001 - both sides are done with it
    conn.stream_ended()
    assert conn.next_cycle()
    assert conn._conn is None  # noqa: SLF001 - nor does an idle connection hold one


def test_abandon() -> None:
    """After a send that failed the connection is of no use."""
    conn = http(request() + request())
    conn.stream_head(200, [])
    conn.abandon()
    assert not conn.can_respond
    assert not conn.keeps_alive
    assert not conn.next_cycle()


def test_continue() -> None:
    """A client that waits is told to go on once; an answer without that closes."""
    head = request("/", "Content-Length: 3", "Expect: 100-continue", method="POST")
    conn = http(head)
    assert conn.wants_continue
    assert conn.continue_head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not conn.wants_continue
    assert feed(conn, [b"abc"]) == [b"abc", Signal.END_OF_REQUEST]
    assert b"close" not in conn.response(200, [], b"")
    assert b"\r\nConnection: close\r\n" in http(head).response(200, [], b"")
    assert b"\r\nConnection: close\r\n" in http(head).stream_head(200, [])
    assert not http(head + b"abc").wants_continue


def test_continue_after_headers_that_could_not_be_framed() -> None:
    """A response that failed leaves the client waiting: what is sent instead closes."""
    conn = http(request("/", "Content-Length: 3", "Expect: 100-continue", method="POST"))
    with pytest.raises(ValueError, match="Length"):
        conn.response(304, [(b"Content-Length", b"5"), (b"Content-Length", b"6")], b"")
    assert conn.wants_continue
    assert b"\r\nConnection: close\r\n" in conn.response(500, [], b"")
    assert not conn.keeps_alive


def head_of(size: int) -> bytes:
    """Write a head of so many bytes."""
    start = b"GET / HTTP/1.1\r\nHost: test\r\nX: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


def read_head(data: bytes, step: int) -> object:
    """Return the first thing of which there is all, with a bound of 100 bytes."""
    http = Http1(Settings(max_head_bytes=100))
    item: object = Signal.NEED_DATA
    for place in range(0, len(data), step):
        http.receive(data[place : place + step])
        if (item := http.next()) is not Signal.NEED_DATA:
            break
    return item


@table("step", [1, 7, 10**6])
@table("junk", [b"", b"junk" * 100])
def test_a_head_at_the_bound_and_above(step: int, junk: bytes) -> None:
    """A head is measured however it arrives, also when it is complete at once."""
    assert isinstance(read_head(head_of(100) + junk, step), RequestHead)
    with pytest.raises(ProtocolError) as caught:
        read_head(head_of(101) + junk, step)
    assert caught.value.status == 431


def test_nothing_is_read_after_an_error() -> None:
    """After a refusal what is there and what comes is dropped, and one answer closes."""
    conn = Http1(Settings())
    conn.receive(request("/", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n" + request())
    assert isinstance(conn.next(), RequestHead)
    with pytest.raises(ProtocolError):
        conn.next()
    conn.receive(request())
    assert conn.buffered == 0
    assert conn.next() is Signal.NEED_DATA
    assert b"\r\nConnection: close\r\n" in conn.response(400, [], b"")
    assert not conn.keeps_alive
    assert not conn.next_cycle()


@table("size", [1, 2, 3, 1000])
def test_one_empty_line_before_each_request(size: int) -> None:
    """One CRLF before a request line is skipped, before each of them, and no second one."""
    conn = http()
    for _ in range(3):
        values = feed(conn, split(b"\r\n" + request(), size))
        assert values[1:] == [Signal.END_OF_REQUEST]
        conn.response(200, [], b"")
        assert conn.next_cycle()
    with pytest.raises(ProtocolError, match="400"):
        feed(conn, split(b"\r\n\r\n" + request(), size))


def test_an_empty_line_behind_a_request_is_none_of_the_next() -> None:
    """A CRLF behind a body doesn't count as a request that has begun."""
    conn = http(request() + b"\r\n")
    conn.response(200, [], b"")
    assert conn.next_cycle()
    assert conn.buffered == 0


ANSWERED = [
    request(),
    request("/", "Connection: close"),
    request(version="1.0"),
    request(method="HEAD"),
    request("/", "Content-Length: 3", "Expect: 100-continue", method="POST"),
    post(b"abc"),
    post(b"abc")[:-1],
    request("/", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n",
]
PLAIN = st.builds(
    lambda fields, last: [*fields, *last],
    st.lists(
        st.sampled_from(
            [
                (b"X", b"y"),
                (b"Set-Cookie", b"a"),
                (b"x", b""),
                (b"X-Z", b"\x80\t\xff"),
                (b"Date", b"1"),
            ]
        ),
        max_size=3,
    ),
    st.lists(st.just((b"Connection", b"close")), max_size=1),
)


def received(sent: bytes) -> Http1:
    """A connection that has read this, whether it is a request or not."""
    conn = http()
    with contextlib.suppress(ProtocolError):
        feed(conn, [sent])
    return conn


def fields_of(wire: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Take a response apart: fields of different names have no order (RFC 9110 section 5.3)."""
    head, _, body = wire.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return first, sorted(lines, key=lambda line: line.partition(b":")[0].lower()), body


@given(st.sampled_from(ANSWERED), st.sampled_from([200, 204, 205, 299, 304, 404, 503]), PLAIN)
def test_a_plain_head_is_what_h11_would_write(
    sent: bytes, status: int, headers: list[tuple[bytes, bytes]]
) -> None:
    """The head that is written here is h11's, and leaves the connection in the same state."""
    ours, theirs = received(sent), received(sent)
    body = b"" if status in {204, 205, 304} else b"body"
    wire = ours.response(status, headers, body)
    framed = theirs._framed_response(status, headers, body)  # noqa: SLF001 - because that is h11's
    assert fields_of(wire) == fields_of(framed)
    assert (ours.can_respond, ours.keeps_alive) == (theirs.can_respond, theirs.keeps_alive)
    assert ours.next_cycle() == theirs.next_cycle()


@given(st.sampled_from(ANSWERED), st.sampled_from([200, 299, 404, 503]), PLAIN)
def test_a_plain_stream_head_is_what_h11_would_write(
    sent: bytes, status: int, headers: list[tuple[bytes, bytes]]
) -> None:
    """The head of a stream that is written here is h11's, and leaves the same state behind."""
    ours, theirs = received(sent), received(sent)
    framed = theirs._framed_stream_head(status, headers)  # noqa: SLF001 - because that is h11's
    assert fields_of(ours.stream_head(status, headers)) == fields_of(framed)
    for conn in (ours, theirs):
        assert not conn.can_respond
        conn.stream_ended()
    assert ours.keeps_alive == theirs.keeps_alive
    assert ours.next_cycle() == theirs.next_cycle()


def test_a_refusal_behind_head_has_a_body() -> None:
    """What is refused is no HEAD request, whatever the one before it was."""
    conn = http(request(method="HEAD"))
    assert conn.response(200, [], b"body").endswith(b"\r\n\r\n")
    assert conn.next_cycle()
    with pytest.raises(ProtocolError):
        feed(conn, [b"nonsense\r\n\r\n"])
    assert conn.response(400, [], b"no").endswith(b"\r\n\r\nno")


@table("size", [1, 10_000])
@table(
    "rest",
    [
        b"/ HTTP/1.1\nHost: a\n\n",
        b"/ HTTP/9.9\r\n",
        b"/ HTTP/1.1\r\nX: " + b"a" * MAX_HEAD,
        b"/" + b"a" * 9000,
    ],
)
def test_a_refused_head_request_has_no_body(rest: bytes, size: int) -> None:
    """HEAD that is refused before its head is complete is answered with a head, GET with a body."""
    for method, body in ((b"HEAD ", b""), (b"GET ", b"no")):
        conn = http()
        with pytest.raises(ProtocolError):
            feed(conn, split(method + rest, size))
        assert conn.response(400, [], b"no").partition(b"\r\n\r\n")[2] == body
