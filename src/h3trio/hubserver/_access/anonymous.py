"""`AnonymousAccess`: the rights of requests that come without a token.

A proxy on the same host, a web page that posts to localhost and DNS rebinding all look like a peer
on loopback. So a request has rights only if every sign says that it is from a program on this
machine that speaks to us directly. If one sign is missing the answer is 403, and names the flag
that gives the right to anyone.

No header that a proxy leaves out, or that its client chooses, is a sign against it: with its
defaults nginx names its upstream in `Host` and adds nothing. The kernel's word is: the program at
the other end has to run as the user that we run as (`H3Event.peer_user`). Root is not that user,
unless we are root: proxies and forwarders run as root too. Where the kernel doesn't answer, the
other signs are enough to subscribe and for nothing else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from h3trio import HTTPError

from .hosts import host_of, is_loopback
from .origin import check_trusted, is_own_page

if TYPE_CHECKING:
    from h3trio import H3Event

_PROXY_HEADERS: Final = (b"forwarded", b"via")
_PROXY_PREFIX: Final = b"x-forwarded-"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AnonymousAccess:
    """The rights of anyone without a token.

    Programs on this machine that run as the server's own user have all of them.

    Raises:
        ValueError: no browser sends one of the origins in this form, or it is `*`.
    """

    allow_anonymous_publish: bool = False
    """Publish and purge."""
    allow_anonymous_subscribe: bool = False
    """Read public events."""
    allow_anonymous_operate: bool = False
    """See the page, the health, the metrics, the statistics: topics, addresses of slow clients."""
    allowed_origins: frozenset[str] = frozenset()
    """Origins of other sites whose pages count as this machine's own, as browsers send them."""

    def __post_init__(self) -> None:
        check_trusted(self.allowed_origins)

    def check_publish(self, event: H3Event) -> None:
        """Raise `HTTPError` 403 unless this request may publish."""
        if not self.allow_anonymous_publish:
            self._check(event, "--allow-anonymous-publish")

    def check_subscribe(self, event: H3Event) -> None:
        """Raise `HTTPError` 403 unless this request may subscribe."""
        if not self.allow_anonymous_subscribe:
            self._check(event, "--allow-anonymous-subscribe", needs_answer=False)

    def check_operate(self, event: H3Event) -> None:
        """Raise `HTTPError` 403 unless this request may see how the hub is doing."""
        if not self.allow_anonymous_operate:
            self._check(event, "--allow-anonymous-operate")

    def _check(self, event: H3Event, flag: str, *, needs_answer: bool = True) -> None:
        if (why := self._missing_sign(event, needs_answer=needs_answer)) is not None:
            raise HTTPError(
                403,
                f"{why}: anonymous access is for programs of the hub's own user on this machine;"
                f" see {flag}",
            )

    def _missing_sign(self, event: H3Event, *, needs_answer: bool) -> str | None:
        """Say why a request isn't surely from a program of our own user on this machine."""
        if not is_on_this_machine(event.client):
            return "the client is on another machine"
        host = host_of(event.authority)
        if host is None or not is_loopback(host):
            return "Host is not a loopback name"
        # Each request comes through here, and few have such a header: they are looked for in all
        # names at once.
        names = b"\n".join([name for name, _ in event.headers.raw])
        if b"forwarded" in names or b"via" in names:
            for name in names.split(b"\n"):
                if name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIX):
                    return f"the request came through a proxy ({name.decode('latin-1')})"
        # No proxy is between, so a page of ours has the scheme of the request.
        if (
            b"origin" in names
            and "origin" in event.headers
            and not is_own_page(event, self.allowed_origins, scheme=event.scheme)
        ):
            return "Origin is another site (--cors-origin would admit it, and lets its pages read)"
        # The last, as it asks the kernel: once for each connection.
        if (user := event.peer_user) is None:
            return "the kernel doesn't say whose program the client is" if needs_answer else None
        return None if user == os.geteuid() else "the client is another user's program"


def is_on_this_machine(client: str) -> bool:
    """Whether a request's client is on this machine; it may be a proxy that names nobody."""
    return client in ("unix", "memory") or is_loopback(client)
