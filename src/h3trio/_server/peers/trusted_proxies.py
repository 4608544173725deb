"""`TrustedProxies`: the peers that are believed when they name the client of a request.

From a trusted peer the walk goes from hop to hop, as long as each is trusted itself: the first that
isn't is the client. A malformed hop ends the walk at the last address that was believed.

`X-Forwarded-For` and `Forwarded` may both be there, as most proxies write one and pass on the other
as the client sent it. Where they disagree, either may be forged: the client is `unknown`.

A proxy elsewhere that names "127.0.0.1" or "unix" means a program on its own machine: the client is
`unknown`, and without the rights of ours.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, final

from .addresses import UNIX, UNKNOWN, is_local, parse_address
from .forwarded import forwarded_hops, x_forwarded_hops

if TYPE_CHECKING:
    from collections.abc import Iterable

    from h3trio._http.headers import Headers

    from .forwarded import Hop

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_EVERYONE: Final = "*"


@final
class TrustedProxies:
    """The peers whose word on their clients is taken.

    Args:
        allow: addresses (`10.0.0.7`), networks (`10.0.0.0/8`), `unix` for peers on unix sockets,
            `*` for every peer: only where nobody else can connect.
        proxy_protocol: their connections begin with a header of the PROXY protocol, version 1 or 2;
            one without is closed. Other peers' don't.

    Raises:
        ValueError: an entry is none of these, or there is none.
    """

    def __init__(self, allow: Iterable[str], *, proxy_protocol: bool = False) -> None:
        entries = [allow] if isinstance(allow, str) else list(allow)
        if not entries:
            raise ValueError("no proxy is named: addresses, networks, unix or *")
        self._everyone = _EVERYONE in entries
        self._unix = UNIX in entries
        self._networks: tuple[Network, ...] = tuple(
            _network(entry) for entry in entries if entry not in (_EVERYONE, UNIX)
        )
        self.proxy_protocol: bool = proxy_protocol
        """Whether their connections begin with a header of the PROXY protocol."""

    def __repr__(self) -> str:
        names = [*["*"] * self._everyone, *["unix"] * self._unix, *map(str, self._networks)]
        return f"TrustedProxies({names}, proxy_protocol={self.proxy_protocol})"

    def trusts(self, client: str) -> bool:
        """Whether this peer is believed."""
        return self._everyone or self.names(client)

    def believes(self, client: str) -> bool:
        """Whether this one's headers are believed.

        Behind the PROXY protocol `*` means whoever connects, and not whom they name.
        """
        return self.names(client) if self.proxy_protocol else self.trusts(client)

    def names(self, client: str) -> bool:
        """Whether this peer is named, and not only one of everyone."""
        if client == UNIX:
            return self._unix
        address = parse_address(client)
        return address is not None and any(address in network for network in self._networks)

    def origin(self, peer: str, scheme: str, headers: Headers) -> tuple[str, str]:
        """Client and scheme of a request that came from a peer that is trusted."""
        found: list[tuple[str, str]] = []
        if addresses := headers.get("x-forwarded-for"):
            hops = x_forwarded_hops(addresses, headers.get("x-forwarded-proto", ""))
            found.append(self._walk(peer, scheme, hops))
        elif proto := headers.get("x-forwarded-proto"):
            scheme = next(x_forwarded_hops("", proto)).scheme or scheme
        if forwarded := headers.get("forwarded"):
            found.append(self._walk(peer, scheme, forwarded_hops(forwarded)))
        if not found:
            return peer, scheme
        if len(found) > 1 and found[0][0] != found[1][0]:
            return UNKNOWN, found[0][1]
        return found[0]

    def _walk(self, peer: str, scheme: str, hops: Iterable[Hop]) -> tuple[str, str]:
        client = peer
        for hop in hops:
            if hop.client is None:
                break
            client, scheme = seen_through(hop.client, client), hop.scheme or scheme
            if not self.believes(client):
                break
        return client, scheme


def seen_through(client: str, proxy: str) -> str:
    """Return a client that a proxy names: a local one is `unknown` unless the proxy is local."""
    return UNKNOWN if is_local(client) and not is_local(proxy) else client


def _network(entry: str) -> Network:
    try:
        return ipaddress.ip_network(entry)
    except ValueError as exc:
        raise ValueError(f"{entry!r} is no address, network, unix or *: {exc}") from exc
