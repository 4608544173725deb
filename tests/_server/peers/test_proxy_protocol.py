"""The PROXY protocol's header: whole, byte by byte, with the client's first bytes behind it."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio._server.peers.proxy_protocol import (
    MAX_V1,
    MAX_V2,
    ProxyHeader,
    ProxyProtocolError,
    parse,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v1(*fields: str) -> bytes:
    """Write a line of version 1."""
    return " ".join(["PROXY", *fields]).encode() + b"\r\n"


def v2(command: int, kind: int, payload: bytes, size: int | None = None) -> bytes:
    """Write a header of version 2."""
    size = len(payload) if size is None else size
    return SIGNATURE + struct.pack("!BBH", command, kind, size) + payload


INET = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2") + b"\x01\x02\x03\x04"
INET6 = ipaddress.ip_address("2001:db8::1").packed * 2 + b"\x01\x02\x03\x04"
TLV = b"\x04\0\x05\0\0\0\0\0"
LONGEST_V1 = v1("TCP6", *["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] * 2, "65535", "65535")

GOOD = [
    (v1("TCP4", "192.0.2.1", "192.0.2.2", "1", "65535"), "192.0.2.1"),
    (v1("TCP6", "2001:db8::1", "::1", "0", "80"), "2001:db8::1"),
    (LONGEST_V1, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    (v1("UNKNOWN"), "unknown"),
    (v1("UNKNOWN", "what", "ever", "1"), "unknown"),
    (b"PROXY UNKNOWN" + b" " * (MAX_V1 - 15) + b"\r\n", "unknown"),
    (v2(0x21, 0x11, INET), "192.0.2.1"),
    (v2(0x21, 0x12, INET), "192.0.2.1"),
    (v2(0x21, 0x11, INET + TLV * 3), "192.0.2.1"),
    (v2(0x21, 0x21, INET6), "2001:db8::1"),
    (v2(0x21, 0x21, INET6 + b"junk that is no TLV"), "2001:db8::1"),
    (v2(0x21, 0x31, b"/client".ljust(108, b"\0") + b"/us".ljust(108, b"\0")), "unix"),
    (v2(0x21, 0x00, b""), "unknown"),
    (v2(0x21, 0x00, TLV), "unknown"),
    (v2(0x21, 0x10, b""), "unknown"),
    (v2(0x20, 0x00, b""), None),
    (v2(0x20, 0x11, INET), None),
    (v2(0x20, 0xFF, b"anything"), None),
    (v2(0x21, 0x11, INET.ljust(MAX_V2 - 16, b"\0")), "192.0.2.1"),
]

BAD = [
    b"GET / HTTP/1.1\r\n",
    b"PROXX",
    b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
    b"\r\n\r\n\0\r\nQUIX",
    b"PROXY \r\n",
    b"PROXY" + b" " * MAX_V1,
    b"PROXY UNKNOWN" + b" " * (MAX_V1 - 14) + b"\r\n",
    v1("TCP4", "192.0.2.1", "192.0.2.2", "1"),
    v1("TCP4", "192.0.2.1", "192.0.2.2", "1", "2", "3"),
    v1("TCP4", "192.0.2.1", "", "192.0.2.2", "1", "2"),
    v1("TCP4", "2001:db8::1", "192.0.2.2", "1", "2"),
    v1("TCP4", "192.0.2.1", "192.0.2", "1", "2"),
    v1("TCP4", "192.0.2.1", "192.0.2.2", "01", "2"),
    v1("TCP4", "192.0.2.1", "192.0.2.2", "1", "65536"),
    v1("TCP4", "192.0.2.1", "192.0.2.2", "+1", "2"),
    v1("TCP6", "192.0.2.1", "::1", "1", "2"),
    v1("UDP4", "192.0.2.1", "192.0.2.2", "1", "2"),
    v2(0x11, 0x11, INET),
    v2(0x22, 0x11, INET),
    v2(0x21, 0x41, INET6 * 10),
    v2(0x21, 0x13, INET),
    v2(0x21, 0x11, INET[:-1]),
    v2(0x21, 0x21, INET6[:-1]),
    v2(0x21, 0x31, b"\0" * 215),
    v2(0x21, 0x11, INET, MAX_V2 - 15),
    v2(0x20, 0x00, b"", 0xFFFF),
]


@table("data, client", GOOD)
def test_good(data: bytes, client: str | None) -> None:
    """A header is read whole, byte by byte, and with anything behind it."""
    expected = ProxyHeader(len(data), client)
    assert parse(data) == expected
    assert [parse(data[:end]) for end in range(len(data))] == [None] * len(data)
    for behind in (b"\0", b"GET / HTTP/1.1\r\n\r\n", data, b"\r\n" * 3000):
        assert parse(data + behind) == expected


@table("data", BAD)
def test_bad(data: bytes) -> None:
    """What is no header is refused, whatever follows; byte by byte too, and never accepted."""
    for behind in (b"", b"\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        with pytest.raises(ProxyProtocolError):
            parse(data + behind)
    outcome: object = None
    for end in range(len(data) + 1):
        try:
            assert parse(data[:end]) is None
        except ProxyProtocolError as exc:
            outcome = exc
            break
    assert outcome is not None


def test_an_error_comes_at_once() -> None:
    """The first byte that can't be part of a header is enough."""
    for data in (b"G", b"PRX", b"\r\n\rX", SIGNATURE + b"\x11"):
        assert parse(data[:-1]) is None
        with pytest.raises(ProxyProtocolError):
            parse(data)


@given(st.ip_addresses(), st.ip_addresses(v=4), st.integers(0, 65535), st.binary(max_size=50))
def test_round_trip(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address,
    other: ipaddress.IPv4Address,
    port: int,
    behind: bytes,
) -> None:
    """Any address comes through both versions as it is, and what follows is left over."""
    is_v4 = source.version == 4
    destination = other if is_v4 else ipaddress.IPv6Address(int(other))
    line = v1("TCP4" if is_v4 else "TCP6", str(source), str(destination), str(port), "80")
    packed = source.packed + destination.packed + struct.pack("!HH", port, 80)
    binary = v2(0x21, 0x11 if is_v4 else 0x21, packed + behind)
    assert parse(line + behind) == (len(line), str(source))
    assert parse(binary + behind) == (len(binary), str(source))


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(SIGNATURE.__add__)))
def test_anything(data: bytes) -> None:
    """Whatever comes is a header within its bounds, part of one, or an error; and splits agree."""
    try:
        whole = parse(data)
    except ProxyProtocolError:
        return
    for end in range(len(data)):
        part = parse(data[:end])
        assert part in (None, whole)
    if whole is not None:
        assert 0 < whole.size <= len(data)
