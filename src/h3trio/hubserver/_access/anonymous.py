"""Who may do what without a key.

A proxy on the same host, a web page posting to localhost and DNS rebinding all
look like a loopback peer. So anonymous rights need every sign of a program on
this machine that speaks to us directly; one sign missing is a 403 that names
the flag to set.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, final
from urllib.parse import urlsplit

from h3trio import HTTPError

if TYPE_CHECKING:
    from h3trio import H3Event

_PROXY_HEADERS: Final = (b"forwarded", b"via")
_PROXY_PREFIX: Final = b"x-forwarded-"
# RFC 1035 section 2.3.4: a name has at most 255 octets. Bounds what is kept of answers, too.
_LONGEST_AUTHORITY: Final = 255 + len(":65535")
# What would make a URL parser find the host elsewhere than a browser put it.
_NOT_IN_AUTHORITY: Final = frozenset("@/?#\\")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What is allowed to anyone, beyond programs on this machine."""

    allow_anonymous_publish: bool = False
    """Publish and purge."""
    allow_anonymous_subscribe: bool = False
    """Read what is public."""
    allow_anonymous_operate: bool = False
    """See the page, the health, the metrics, the statistics: topics, addresses of slow clients."""
    allowed_origins: frozenset[str] = frozenset()
    """Other sites whose pages count as this machine's own."""

    def check_publish(self, event: H3Event) -> None:
        """Raise `HTTPError` 403 unless this request may publish."""
        if not self.allow_anonymous_publish:
            self._check(event, "--allow-anonymous-publish")

    def check_subscribe(self, event: H3Event) -> None:
        """Raise `HTTPError` 403 unless this request may subscribe."""
        if not self.allow_anonymous_subscribe:
            self._check(event, "--allow-anonymous-subscribe")

    def check_operate(self, event: H3Event) -> None:
        """Raise `HTTPError` 403 unless this request may see what operators do."""
        if not self.allow_anonymous_operate:
            self._check(event, "--allow-anonymous-operate")

    def _check(self, event: H3Event, flag: str) -> None:
        if (why := self._foreign(event)) is not None:
            raise HTTPError(403, f"{why}: anonymous access is for this machine only; see {flag}")

    def _foreign(self, event: H3Event) -> str | None:
        """Say why a request isn't surely from a program on this machine."""
        if event.client not in ("unix", "memory") and not is_loopback(event.client):
            return "the client is on another machine"
        authority = event.authority
        if len(authority) > _LONGEST_AUTHORITY or not _names_loopback(authority):
            return "Host is not a loopback name"
        for name, _ in event.headers.raw:
            if name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIX):
                return f"the request came through a proxy ({name.decode('latin-1')})"
        origin = event.headers.get("origin")
        if origin is not None and not self._origin_allowed(origin, event):
            return "Origin is another site (--allow-origin would admit it)"
        return None

    def _origin_allowed(self, origin: str, event: H3Event) -> bool:
        # Browsers write both in lower case; what other clients send may differ.
        own = f"{event.scheme}://{event.authority}"
        return origin in self.allowed_origins or origin.lower() == own.lower()


@lru_cache(maxsize=1024)  # asked of every request, of few names; 10 µs of a POST's 400
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


@lru_cache(maxsize=1024)  # as above; 7 µs
def _names_loopback(authority: str) -> bool:
    """Whether `host:port` can only be this machine."""
    return is_loopback(_host_name(authority))


def _host_name(authority: str) -> str:
    """Return the name or address in `host:port`, or nothing if it is not of that form."""
    if _NOT_IN_AUTHORITY.intersection(authority):
        return ""
    try:
        return (urlsplit(f"//{authority}").hostname or "").rstrip(".")
    except ValueError:
        return ""
