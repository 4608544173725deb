"""Who counts as one client, and what each one holds: connections and streams.

One dict, one entry for each address that holds something, gone with the last of
it. Whoever takes a place keeps the key it was given and hands that back, so the
books stay exact whatever a handler does to `H3Event.client` meanwhile.

An IPv6 client owns a whole /64 (RFC 4291 section 2.5.4, RFC 6177 section 2), so
that counts as one address; an IPv4 address that is written as IPv6 counts as
what it is. What comes from this machine isn't counted: a proxy without a
`TrustedProxies`, and tools beside the server, look like one client that is many.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Mapping

    IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

UNIX: Final = "unix"
MEMORY: Final = "memory"
UNKNOWN: Final = "unknown"

_HOST_BITS: Final = 64


def parse_address(text: str) -> IPAddress | None:
    """Read an address; an IPv4 one inside IPv6 as itself; `None` for anything else."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def is_local(client: str) -> bool:
    """Whether a client is on this machine."""
    if client in (UNIX, MEMORY):
        return True
    address = parse_address(client)
    return address is not None and address.is_loopback


def address_key(client: str) -> str | None:
    """What a client is counted under, `None` for what isn't counted.

    All clients without a known address share one key: being nobody is no way around a limit.
    """
    if client in (UNIX, MEMORY):
        return None
    # Names come from the kernel or from `parse_address`, so one that begins as IPv4 is that, in
    # its only form; to parse it for each connection and stream would cost ten times as much.
    if client[:1].isdigit() and ":" not in client:
        return None if client.startswith("127.") else client
    address = parse_address(client)
    if address is None:
        return UNKNOWN
    if address.is_loopback:
        return None
    if address.version == 4:  # noqa: PLR2004 - of the protocol
        return str(address)
    return f"{ipaddress.IPv6Address(int(address) >> _HOST_BITS << _HOST_BITS)}/{_HOST_BITS}"


@final
class _Load:
    """What one address holds."""

    __slots__ = ("connections", "streams")

    def __init__(self) -> None:
        self.connections = 0
        self.streams = 0


@final
class AddressBook:
    """The addresses of one server's clients, and the limits of each."""

    __slots__ = ("_loads", "_max_connections", "_max_streams")

    def __init__(self, *, max_connections: int, max_streams: int) -> None:
        self._loads: dict[str, _Load] = {}
        self._max_connections = max_connections
        self._max_streams = max_streams

    def __len__(self) -> int:
        return len(self._loads)

    @property
    def loads(self) -> Mapping[str, tuple[int, int]]:
        """Connections and streams by address: a copy."""
        return {key: (load.connections, load.streams) for key, load in self._loads.items()}

    def take_connection(self, key: str | None) -> bool:
        """Count one more connection, unless that is one too many."""
        if key is None:
            return True
        load = self._loads.get(key) or self._loads.setdefault(key, _Load())
        if load.connections >= self._max_connections:
            return False
        load.connections += 1
        return True

    def leave_connection(self, key: str | None) -> None:
        """Give back what `take_connection` gave."""
        if key is not None:
            self._loads[key].connections -= 1
            self._forget(key)

    def take_stream(self, key: str | None) -> bool:
        """Count one more stream, unless that is one too many."""
        if key is None:
            return True
        load = self._loads.get(key) or self._loads.setdefault(key, _Load())
        if load.streams >= self._max_streams:
            return False
        load.streams += 1
        return True

    def leave_stream(self, key: str | None) -> None:
        """Give back what `take_stream` gave."""
        if key is not None:
            self._loads[key].streams -= 1
            self._forget(key)

    def _forget(self, key: str) -> None:
        load = self._loads[key]
        if not load.connections and not load.streams:
            del self._loads[key]
