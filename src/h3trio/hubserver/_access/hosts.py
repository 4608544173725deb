"""`AllowedHosts`: the names that requests may ask for, in `Host` or in an absolute target.

By DNS rebinding a page of another site reads and publishes here as if it were ours: its own name is
made to lead to this server, so browsers take both for one origin. Only the name gives it away. An
address can't be rebound: a page at an address comes from there. Nor can a loopback name.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, final

from h3trio import HTTPError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from h3trio import H3Event

# RFC 1035 section 2.3.4: a name has at most 255 octets. It also bounds the cached answers.
_LONGEST_NAME: Final = 255
_LONGEST_AUTHORITY: Final = _LONGEST_NAME + len(":65535")
# No user info, no path: browsers and servers could disagree about where the host is.
_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]*)?")
_NAME: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")


@final
class AllowedHosts:
    """Names of a server, beside the loopback names and all addresses; without any, any name.

    Args:
        names: without a port, in ASCII, as browsers send them (`xn--…`); in any case.

    Raises:
        ValueError: one is no name, such as one with a port or a scheme.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        given = [names] if isinstance(names, str) else list(names)
        found = {name: name.lower().removesuffix(".") for name in given}
        for name, plain in found.items():
            if len(plain) > _LONGEST_NAME or not _NAME.fullmatch(plain):
                raise ValueError(f"{name!r} is not the name of a host, without a port")
        self.names: frozenset[str] = frozenset(found.values())
        """The names in lower case, without a dot at the end."""

    def __repr__(self) -> str:
        return f"AllowedHosts({sorted(self.names)})"

    def check(self, event: H3Event) -> None:
        """Raise `HTTPError` 421 for a request that asks for another name (RFC 9110 15.5.20)."""
        # Each browser sends one: without it, as with HTTP/1.0, there is none to be misled by.
        if self.names and (authority := event.authority):
            host = host_of(authority)
            if host is None or not (host in self.names or is_loopback(host) or _is_address(host)):
                raise HTTPError(421, "Host is not a name of this server: see --allowed-host")


@lru_cache(maxsize=1024)  # each request asks, and few names come
def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    # RFC 6761 section 6.3: "localhost." and names below it are loopback, whatever the DNS says.
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def host_of(authority: str) -> str | None:
    """Return the host of `host:port`, in lower case; `None` if it has another form."""
    return _host_of(authority) if len(authority) <= _LONGEST_AUTHORITY else None


@lru_cache(maxsize=1024)  # as above
def _host_of(authority: str) -> str | None:
    found = _AUTHORITY.fullmatch(authority)
    return found and (found[1] or found[2].rstrip(".")).lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
