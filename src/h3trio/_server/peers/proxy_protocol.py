"""The PROXY protocol's header, versions 1 and 2, without I/O.

A proxy that knows nothing of HTTP sends it first on a connection: it names the client. Source:
"The PROXY protocol", HAProxy Technologies, sections 2.1 and 2.2.

`parse` takes all that has come so far. It raises at the first byte that can't be part of a header,
so that a connection with another protocol doesn't wait for the rest.
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from .addresses import UNIX, UNKNOWN

MAX_V1: Final = 107
"""Section 2.1: the longest line, CRLF included."""

MAX_V2: Final = 4096
"""Bytes of the longest header of version 2 that is taken; its length field would allow 64 KiB.
Addresses need 232; the rest are TLVs (certificate names, endpoint ids), which are skipped."""

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = len(_V2) + 4

_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _STREAM, _DATAGRAM = 0, 1, 2
_INET, _INET6, _UNIX_FAMILY = 1, 2, 3
_ADDRESS_BYTES: Final = {_UNSPEC: 0, _INET: 12, _INET6: 36, _UNIX_FAMILY: 216}


class ProxyProtocolError(ValueError):
    """The bytes are not a header of the PROXY protocol."""


class ProxyHeader(NamedTuple):
    """One header."""

    size: int
    """Bytes it took; what follows is the client's."""
    client: str | None
    """The client's address, `unix`, or `unknown` where the proxy doesn't say; `None` for a
    connection of the proxy's own, such as a health check."""


def parse(data: bytes) -> ProxyHeader | None:
    """Read the header at the beginning of what has arrived; `None` if it isn't complete.

    Raises:
        ProxyProtocolError: there is none, or one too long.
    """
    if data[: len(_V2)] == _V2[: len(data)]:
        return _parse_v2(data)
    if data[: len(_V1)] == _V1[: len(data)]:
        return _parse_v1(data)
    raise ProxyProtocolError("no PROXY header")


# -- version 1: one line of text


def _parse_v1(data: bytes) -> ProxyHeader | None:
    line, ending, _ = data[:MAX_V1].partition(b"\r\n")
    if not ending:
        if len(data) >= MAX_V1:
            raise ProxyProtocolError("the PROXY line is too long")
        return None
    return ProxyHeader(len(line) + len(ending), _client_v1(line.split(b" ")))


def _client_v1(fields: list[bytes]) -> str:
    family = fields[1]
    if family == b"UNKNOWN":
        # "the receiver must ignore anything presented before the CRLF is found"
        return UNKNOWN
    if family not in (b"TCP4", b"TCP6") or len(fields) != 6:  # noqa: PLR2004 - PROXY, family, two addresses, two ports
        raise ProxyProtocolError("malformed PROXY line")
    make = ipaddress.IPv4Address if family == b"TCP4" else ipaddress.IPv6Address
    try:
        source, _ = (make(field.decode("ascii")) for field in fields[2:4])
    except ValueError as exc:
        raise ProxyProtocolError("malformed address in the PROXY line") from exc
    if not all(map(_is_port, fields[4:])):
        raise ProxyProtocolError("malformed port in the PROXY line")
    return str(source)


def _is_port(field: bytes) -> bool:
    # "no leading zero", section 2.1.
    return field.isdigit() and int(field) <= 65535 and str(int(field)).encode() == field  # noqa: PLR2004 - the range of ports


# -- version 2: binary


def _parse_v2(data: bytes) -> ProxyHeader | None:
    if len(data) > len(_V2) and data[len(_V2)] not in (_LOCAL, _PROXY):
        raise ProxyProtocolError("unknown version or command in the PROXY header")
    if len(data) < _V2_FIXED:
        return None
    command, kind = data[len(_V2)], data[len(_V2) + 1]
    size = _V2_FIXED + int.from_bytes(data[len(_V2) + 2 : _V2_FIXED], "big")
    if size > MAX_V2:
        raise ProxyProtocolError("the PROXY header is too long")
    if command == _PROXY:
        _check_v2(kind >> 4, kind & 15, size)
    if len(data) < size:
        return None
    if command == _LOCAL:
        # Section 2.2: family and addresses are ignored, the real endpoints count.
        return ProxyHeader(size, None)
    return ProxyHeader(size, _client_v2(kind >> 4, kind & 15, data[_V2_FIXED:size]))


def _check_v2(family: int, transport: int, size: int) -> None:
    if family not in _ADDRESS_BYTES or transport > _DATAGRAM:
        raise ProxyProtocolError("unknown family in the PROXY header")
    if transport != _UNSPEC and size < _V2_FIXED + _ADDRESS_BYTES[family]:
        raise ProxyProtocolError("the PROXY header is too short for its addresses")


def _client_v2(family: int, transport: int, addresses: bytes) -> str:
    if _UNSPEC in (transport, family):
        return UNKNOWN
    if family == _INET:
        return str(ipaddress.IPv4Address(addresses[:4]))
    if family == _INET6:
        return str(ipaddress.IPv6Address(addresses[:16]))
    return UNIX
