"""Request heads: what they say of a message, their limits, and early refusals."""

from __future__ import annotations

import pytest
from helpers import request
from hypothesis import given
from hypothesis import strategies as st

from h3trio import Settings
from h3trio._http.strict import (
    Framing,
    ProtocolError,
    check_start,
    check_trailers,
    is_authority,
    parse_fields,
    parse_head,
)

SETTINGS = Settings(max_head_bytes=400, max_target_bytes=20, max_header_count=5)


def status_of(head: bytes, settings: Settings = SETTINGS) -> int:
    """Return what a head is refused with, 0 if it isn't."""
    try:
        parse_head(head, settings)
    except ProtocolError as error:
        return error.status
    return 0


def start_status(start: bytes, scanned: int = 0) -> int:
    """Return what the start of a head is refused with, 0 if it isn't."""
    try:
        check_start(start, scanned, SETTINGS)
    except ProtocolError as error:
        return error.status
    return 0


def test_head() -> None:
    """A head has a method, a target, its fields in order, and a version."""
    head, framing = parse_head(request("/a?b", "X-Y:  z\t", "x-y:", method="PUT"), SETTINGS)
    assert head == ("PUT", b"/a?b", [(b"host", b"test"), (b"x-y", b"z"), (b"x-y", b"")], "1.1")
    assert framing == Framing(0, closes=False, waits=False)


@pytest.mark.parametrize(
    ("lines", "version", "framing"),
    [
        (["Content-Length: 12"], "1.1", Framing(12)),
        (["Content-Length: 9223372036854775807"], "1.1", Framing(2**63 - 1)),
        (["Transfer-Encoding: Chunked"], "1.1", Framing(None)),
        (["Connection: x,\tClose"], "1.1", Framing(closes=True)),
        (["Connection: keep-alive"], "1.0", Framing(closes=True)),
        (["Expect: 100-Continue", "Content-Length: 1"], "1.1", Framing(1, waits=True)),
        (["Expect: 100-continue", "Content-Length: 1"], "1.0", Framing(1, closes=True)),
        (["Expect:"], "1.1", Framing()),
    ],
)
def test_framing(lines: list[str], version: str, framing: Framing) -> None:
    """A head says how long the body is, whether to close, and whether the client waits."""
    assert parse_head(request("/", *lines, version=version), SETTINGS)[1] == framing


def test_limits() -> None:
    """Heads and targets are bounded in bytes and fields in number: at the bound, and above it."""
    room = SETTINGS.max_head_bytes - len(request("/", "X: "))
    assert status_of(request("/", "X: " + "x" * room)) == 0
    assert status_of(request("/", "X: " + "x" * (room + 1))) == 431
    assert status_of(request("/" + "x" * 19)) == 0
    assert status_of(request("/" + "x" * 20)) == 414
    assert status_of(request("/", *["X: y"] * 4)) == 0
    assert status_of(request("/", *["X: y"] * 5)) == 431


def test_start() -> None:
    """The start of a head is refused as soon as it can't become one."""
    assert start_status(b"GET /" + b"x" * 29) == 0
    assert start_status(b"GET /" + b"x" * 30) == 414
    assert start_status(b"x" * 400) == 0
    assert start_status(b"x" * 401) == 431
    assert start_status(b"GET / HTTP/1.1\r\nX: y\r") == 0
    assert start_status(b"GET / HTTP/1.1\nX: y") == 400
    assert start_status(b"GET / FTP/1.1\r\n") == 400
    assert start_status(b"\x16\x03") == 400


def test_start_is_looked_at_once() -> None:
    """What was seen before isn't looked at again, but for a CR or LF at the seam."""
    assert start_status(b"GET / FTP/1.1\r\nX", 16) == 0
    assert start_status(b"G\0", 1) == 400
    assert start_status(b"GET / HTTP/1.1\rX", 15) == 400
    assert start_status(b"GET / HTTP/1.1\r\n", 15) == 0
    assert start_status(b"GET / FTP/1.1\r\n", 14) == 400


def test_details_hold_nothing_of_the_client() -> None:
    """A refusal never quotes what was sent: it goes to a log and to whoever sent it."""
    for line in ("X: SECRET\0", "SECRET", "Host: SECRET/", "Expect: SECRET", " SECRET: x"):
        with pytest.raises(ProtocolError) as caught:
            parse_head(request("/", line), SETTINGS)
        assert "SECRET" not in str(caught.value)


def test_trailers() -> None:
    """Trailers are fields, and none of those that frame or route."""
    check_trailers(b"X: y\r\n" * 5, 5)
    with pytest.raises(ProtocolError, match="431"):
        check_trailers(b"X: y\r\n" * 6, 5)
    with pytest.raises(ProtocolError, match="400: a trailer"):
        check_trailers(b"X: y\r\nhOST: a\r\n", 5)
    assert parse_fields(b"", 0) == []


@pytest.mark.parametrize(
    ("text", "expected"),
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
