"""`is_own_page`: whether the page that had a browser send a request is one of ours.

Browsers name the page's origin in the header `Origin`, `scheme://host[:port]` (RFC 6454 section 7),
and no page can have them name another. A page is ours if its host and port are those that the
request was sent to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from h3trio import CORS

if TYPE_CHECKING:
    from collections.abc import Collection

    from h3trio import H3Event


def check_trusted(origins: Collection[str]) -> None:
    """Check origins of other sites that are to count as ours.

    Raises:
        ValueError: no browser sends one of them in this form, or it is `*`.
    """
    if "*" in origins:
        raise ValueError('"*" would let every page act as its visitor: list the origins')
    CORS(origins)  # it knows what browsers send


def is_own_page(event: H3Event, trusted: Collection[str], *, scheme: str | None = None) -> bool:
    """Whether a request's `Origin` is this server or a trusted one; `False` if it has none.

    Args:
        event: the request.
        trusted: origins of other sites that count as ours, exactly as browsers send them.
        scheme: that of our pages; `http` and `https` if not given, as a proxy may end TLS, and
            then the page is `https` where the request isn't.
    """
    origin = event.headers.get("origin")
    if origin is None:
        return False
    # Browsers write scheme and host in lower case; other clients may not.
    of_page, _, host = origin.lower().partition("://")
    is_own = of_page in ((scheme,) if scheme else ("http", "https"))
    return origin in trusted or (is_own and bool(host) and host == event.authority.lower())
