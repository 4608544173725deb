"""The gate: heads and chunks that are let through, held or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers import request
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio import Settings
from h3trio._http.strict import (
    CHUNKS_AT_ONCE,
    Gate,
    ProtocolError,
    check_expectations,
    check_host,
    is_authority,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

SETTINGS = Settings(max_head_bytes=400, max_target_bytes=20, max_header_count=5)
CHUNKED = request("/", "Transfer-Encoding: chunked", method="POST")


def gate(sent: bytes, settings: Settings = SETTINGS) -> Gate:
    """Make a gate that has been sent this."""
    made = Gate(settings)
    made.receive(sent)
    return made


def status_of(sent: bytes, *pieces: bytes) -> int:
    """Return what a head is refused with, 0 if it isn't."""
    made = Gate(SETTINGS)
    try:
        for piece in (sent, *pieces):
            made.receive(piece)
            made.take_head()
    except ProtocolError as error:
        return error.status
    return 0


# -- heads


def test_a_head_is_held_until_it_is_whole() -> None:
    """A head comes out whole, as it was sent, and what is behind it stays."""
    head = request("/a?b", "X-Y:  z\t")
    made = Gate(SETTINGS)
    for byte in head[:-1]:
        made.receive(bytes([byte]))
        assert made.take_head() is None
    made.receive(head[-1:] + b"behind")
    assert made.take_head() == head
    assert made.take_body() == b""
    assert len(made) == len(b"behind")


@table(
    "lines, length",
    [
        ([], 0),
        (["Content-Length: 3"], 3),
        (["content-length:\t003 "], 3),
        (["X-Content-Length: 3"], 0),
        (["X: Content-Length: 3"], 0),
    ],
)
def test_no_byte_behind_a_body_is_shown(lines: list[str], length: int) -> None:
    """The length of the body is as the head says."""
    made = gate(request("/", *lines, method="POST") + b"0123456789")
    made.take_head()
    assert made.take_body() == b"0123456789"[:length]
    assert made.take_body() == b""
    assert len(made) == 10 - length


def test_limits() -> None:
    """Heads and targets are bounded in bytes and fields in number: at the bound, and above it."""
    room = SETTINGS.max_head_bytes - len(request("/", "X: "))
    assert status_of(request("/", "X: " + "x" * room)) == 0
    assert status_of(request("/", "X: " + "x" * (room + 1))) == 431
    assert status_of(request("/" + "x" * 19)) == 0
    assert status_of(request("/" + "x" * 20)) == 414
    assert status_of(request("/", *["X: y"] * 4)) == 0
    assert status_of(request("/", *["X: y"] * 5)) == 431


def test_a_start_that_cannot_become_a_head() -> None:
    """The start of a head is refused as soon as it can't become one."""
    assert status_of(b"GET /" + b"x" * 29) == 0
    assert status_of(b"GET /" + b"x" * 30) == 414
    assert status_of(b"x" * 400) == 0
    assert status_of(b"x" * 401) == 431
    assert status_of(b"GET / HTTP/1.1\r\nX: y\r") == 0
    assert status_of(b"GET / HTTP/1.1\nX: y") == 400
    assert status_of(b"GET / FTP/1.1\r\n") == 400
    assert status_of(b"\x16\x03") == 400


def test_a_start_is_refused_at_the_seam_of_two_reads() -> None:
    """A CR or LF that comes alone with the next read is seen."""
    assert status_of(b"G", b"\0") == 400
    assert status_of(b"GET / HTTP/1.1\r", b"X") == 400
    assert status_of(b"GET / HTTP/1.1\r", b"\n") == 0
    assert status_of(b"GET / FTP/1.1\r", b"\n") == 400


def test_details_hold_nothing_of_the_client() -> None:
    """A refusal never quotes what was sent: it goes to a log and to whoever sent it."""
    for line in ("X: SECRET\0", "SECRET", " SECRET: x", "Content-Length: SECRET"):
        with pytest.raises(ProtocolError) as caught:
            gate(request("/", line)).take_head()
        assert "SECRET" not in str(caught.value)
    with pytest.raises(ProtocolError) as caught:
        check_host([b"SECRET/"], b"/")
    assert "SECRET" not in str(caught.value)
    with pytest.raises(ProtocolError) as caught:
        check_expectations([b"SECRET"])
    assert "SECRET" not in str(caught.value)


# -- chunks

BODY_SETTINGS = Settings(max_head_bytes=100, max_header_count=3)


def read(pieces: Iterable[bytes]) -> tuple[bytes, bytes]:
    """Send a body in pieces; return what was shown of it, and what wasn't."""
    made = gate(CHUNKED, BODY_SETTINGS)
    made.take_head()
    shown = b""
    for piece in pieces:
        made.receive(piece)
        while taken := made.take_body():
            shown += taken
    held = made._buffer  # noqa: SLF001 - nothing else shows it
    return shown, held


def body_status(sent: bytes) -> int:
    """Return what a body is refused with, whole and byte by byte, 0 if it isn't."""
    statuses = set()
    for size in (len(sent), 1):
        try:
            read(sent[i : i + size] for i in range(0, len(sent), size))
        except ProtocolError as error:
            statuses.add(error.status)
        else:
            statuses.add(0)
    (status,) = statuses
    return status


@table("behind", [b"", b"GET /", b"\0\xff"])
@table("size", [1, 2, 5, 1000])
def test_body(size: int, behind: bytes) -> None:
    """A chunked body is shown to its end, however it is cut, and what comes behind it is held."""
    sent = b'3\r\nabc\r\n0A;x="\\"y"\r\n0123456789\r\n00\r\nT: u\r\n\r\n'
    whole = sent + behind
    assert read(whole[i : i + size] for i in range(0, len(whole), size)) == (sent, behind)


def test_few_chunks_at_once() -> None:
    """Of many small chunks a bounded number is shown in one step, and the rest stays."""
    sent = b"1\r\nx\r\n" * 3 * CHUNKS_AT_ONCE
    made = gate(CHUNKED + sent, BODY_SETTINGS)
    made.take_head()
    steps = []
    while step := made.take_body():
        steps.append(step)
    assert b"".join(steps) == sent
    assert max(step.count(b"x") for step in steps) == CHUNKS_AT_ONCE


def test_a_line_that_is_not_complete_is_held() -> None:
    """Neither the start of a size line nor that of the trailers is shown."""
    assert read([b"3\r\nabc\r\n1"]) == (b"3\r\nabc\r\n", b"1")
    assert read([b"0\r\nX: y\r\n"]) == (b"0\r\n", b"X: y\r\n")


@table(
    "line, status",
    [
        (b"7fffffffffffffff", 0),
        (b"8000000000000000", 400),
        (b"0" * 19 + b"3", 0),
        (b"0" * 20 + b"3", 400),
        (b"f" * 20, 400),
        (b"+3", 400),
        (b"-3", 400),
        (b"0x3", 400),
        (b" 3", 400),
        (b"3 ", 400),
        (b"3_0", 400),
        (b"", 400),
        (b"3;", 400),
        (b"3;a", 0),
        (b'3; a = b;c="; \\" \t\xe9"', 0),
        (b"3 ;a", 400),
        (b"3;a ;b", 400),
        (b"3;a=\x01", 400),
        (b"3;a=\xe9", 400),
    ],
)
def test_size_lines(line: bytes, status: int) -> None:
    """A size has up to 20 digits and is below 2^63; extensions are by the grammar."""
    assert body_status(line + b"\r\nabc") == status


@table("start", [b"0" * 21, b"3 ", b"3_", b"+", b"3\rx", b"3;a=\x01", b"3;a\rb"])
@table("piece", [1, 1000])
def test_a_size_line_is_refused_before_its_end(start: bytes, piece: int) -> None:
    """A line that can't become a size and extensions isn't waited for."""
    with pytest.raises(ProtocolError) as caught:
        read(start[i : i + piece] for i in range(0, len(start), piece))
    assert caught.value.status == 400


def test_extensions_are_bounded_in_total() -> None:
    """All extensions of a body together are bounded; the lines of small chunks don't count."""
    # Of each line 18 bytes are free: a size of 16 digits and the CRLF.
    line = b"1;%b\r\nx\r\n" % (b"e" * 64)
    assert body_status(line * 2) == 0
    assert body_status(line * 2 + b"1;0123456789abc\r\n") == 0
    assert body_status(line * 2 + b"1;0123456789abcdef\r\n") == 431
    assert body_status(b"1\r\nx\r\n" * 1000) == 0
    assert body_status(b"1;" + b"e" * 117) == 431


def test_trailers_are_bounded() -> None:
    """Trailers are bounded in bytes and in number, and hold no field that frames or routes."""
    # With the line's name and both ends, and 18 bytes free.
    assert body_status(b"0\r\nX: %b\r\n\r\n" % (b"x" * 111)) == 0
    assert body_status(b"0\r\nX: %b\r\n\r\n" % (b"x" * 112)) == 431
    assert body_status(b"0\r\n" + b"X: y\r\n" * 3 + b"\r\n") == 0
    assert body_status(b"0\r\n" + b"X: y\r\n" * 4 + b"\r\n") == 431
    assert body_status(b"0\r\n" + b"x" * 119) == 431
    for name in (b"hOST", b"Content-Length", b"transfer-encoding"):
        assert body_status(b"0\r\nX: y\r\n%b: a\r\n\r\n" % name) == 400
        assert body_status(b"0\r\n%b: a\r\n\r\n" % name) == 400


CHUNKS = st.lists(st.binary(min_size=1, max_size=20), max_size=5)


@given(CHUNKS, st.binary(max_size=10), st.lists(st.integers(1, 20), max_size=20))
def test_any_body_in_any_pieces(chunks: list[bytes], behind: bytes, cuts: list[int]) -> None:
    """Any chunked body is shown as it was sent, wherever it is cut."""
    lines = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    left = lines + behind
    pieces = []
    for size in cuts:
        pieces.append(left[:size])
        left = left[size:]
    assert read([piece for piece in [*pieces, left] if piece]) == (lines, behind)


PARTS = st.sampled_from([b"1", b"0", b"f", b";a", b"\r", b"\n", b"\r\n", b"x", b" ", b"\0", b": "])


@given(st.lists(PARTS, max_size=15).map(b"".join))
def test_any_bytes_are_let_through_or_refused_alike(sent: bytes) -> None:
    """Whatever is sent, it is let through or refused in the same way however it is cut."""
    assert body_status(sent) in {0, 400, 431} if sent else True


# -- behind h11


@table(
    "text, expected",
    [(b"", True), (b"a:1", True), (b"[::]:1", True), (b"a:x", False), (b"[::x]", False)],
)
def test_authority(text: bytes, *, expected: bool) -> None:
    """A host is a name, an address, or an IPv6 address in brackets; a port is a number."""
    assert is_authority(text) == expected


@given(st.binary(max_size=30))
def test_an_authority_has_no_delimiter_of_a_uri(text: bytes) -> None:
    """Nothing that would end an authority, or its host, in a URI is taken for part of it."""
    if is_authority(text):
        host = text.partition(b"]")[2] if text.startswith(b"[") else text
        assert not set(text) & set(b"/?#@\\ \t\r\n\0")
        assert host.count(b":") <= 1
