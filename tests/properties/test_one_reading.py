"""A request that we take is the same request for another reader.

The other reader is h11, which is more lenient: so of the bytes that we accept it must make the
same method, target, fields and body, and find the same end. A difference would be a place where a
request can be smuggled.
"""

from __future__ import annotations

import h11
from conformance.http1_driver import SETTINGS
from hypothesis import example, given
from hypothesis import strategies as st

from h3trio._http.http1 import Http1, RequestHead, Signal
from h3trio._http.strict import ProtocolError

LINES = [
    b"Host: a",
    b"X: y",
    b"X:\t y z ",
    b"x-Y:",
    b"Connection: close",
    b"Content-Length: 3",
    b"Content-Length: 03",
    b"Content-Length: +3",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding : chunked",
    b" folded",
    b"Expect: 100-continue",
    b"X: \x80\xff",
    b"X: \x01",
]
ENDS = st.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b"\r\r\n"])
FIRST = st.sampled_from([b"GET / HTTP/1.1", b"POST /x?y HTTP/1.1", b"PUT /\x7f HTTP/1.1", b"GET /"])
BODIES = [
    b"abc",
    b"0\r\n\r\n",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"3;a=b\r\nabc\r\n",
    b"3;\nabc\r\n",
    b"00\r\nX: y\r\n\r\n",
]
BEHIND = st.lists(st.sampled_from([*BODIES, b"GET / HTTP/1.1\r\n", b"\r\n"]), max_size=3)
LINE = st.tuples(st.sampled_from(LINES), ENDS).map(b"".join)
HEADS = st.builds(
    lambda first, end, host, lines, last: first + end + host + b"".join(lines) + last,
    FIRST,
    ENDS,
    st.sampled_from([b"Host: a\r\n"] * 5 + [b""]),
    st.lists(LINE, max_size=4),
    ENDS,
)

Reading = tuple[str, bytes, list[tuple[bytes, bytes]], bytes, bytes]


def ours(sent: bytes) -> Reading | None:
    """Read one request; `None` if it is refused or not complete."""
    http, head, body = Http1(SETTINGS), None, b""
    http.receive(sent)
    try:
        while (value := http.next()) is not Signal.END_OF_REQUEST:
            if isinstance(value, RequestHead):
                head = value
            elif isinstance(value, bytes):
                body += value
            else:
                return None
    except ProtocolError:
        return None
    assert head is not None
    behind = sent[len(sent) - http.buffered :]
    return head.method, head.target, list(head.headers), body, behind


def theirs(sent: bytes) -> Reading:
    """Read the same with h11, which must not refuse it."""
    conn, body = h11.Connection(h11.SERVER, 10**6), b""
    conn.receive_data(sent)
    head = conn.next_event()
    assert isinstance(head, h11.Request), head
    while isinstance(event := conn.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage), event
    return head.method.decode(), head.target, list(head.headers), body, conn.trailing_data[0]


@given(st.builds(lambda head, behind: head + b"".join(behind), HEADS, BEHIND))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + BODIES[2] + b"x")
@example(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX: y\r\n\r\nabcGET")
def test_what_is_accepted_has_one_reading(sent: bytes) -> None:
    """A request that we accept is the same request to h11, with the same bytes behind it."""
    reading = ours(sent)
    if reading is not None:
        assert theirs(sent) == reading
