"""`AddressBook`: the connections and streams that each client address holds.

The caller that takes a place keeps its key and hands that back, so the counts stay exact whatever
a handler does to `H3Event.client` meanwhile.

An IPv6 client owns a whole /64 (RFC 4291 section 2.5.4, RFC 6177 section 2), so that counts as one
address; an IPv4 address that is written as IPv6 counts as IPv4. Clients on this machine aren't
counted: a proxy without a `TrustedProxies`, and tools beside the server, look like one client that
is many.
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
    """Return the key that a client is counted under, `None` for one that isn't counted.

    All clients without a known address share one key.
    """
    if client in (UNIX, MEMORY):
        return None
    # Names come from the kernel or from `parse_address`, so one that begins as IPv4 is that, in
    # its only form; to parse it for each connection and stream would be slow.
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
class Places(dict[str, int]):
    """Places that are taken, by address key; an address that has none isn't in here."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def take(self, key: str | None) -> bool:
        """Count one more, unless that is one too many."""
        if key is None:
            return True
        taken = self.get(key, 0)
        if taken >= self._most:
            return False
        self[key] = taken + 1
        return True

    def leave(self, key: str | None) -> None:
        """Give back what `take` gave."""
        if key is not None:
            self[key] -= 1
            if not self[key]:
                del self[key]


@final
class AddressBook:
    """The connections and streams of each address, and how many it may have."""

    def __init__(self, *, max_connections: int, max_streams: int) -> None:
        self.connections: Places = Places(max_connections)
        self.streams: Places = Places(max_streams)

    @property
    def loads(self) -> Mapping[str, tuple[int, int]]:
        """Connections and streams by address: a copy."""
        keys = self.connections.keys() | self.streams.keys()
        return {key: (self.connections.get(key, 0), self.streams.get(key, 0)) for key in keys}
