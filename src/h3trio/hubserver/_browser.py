"""The middleware of the hub server about browsers: security headers, names of hosts, CORS, CSRF.

Security headers and CORS tell a browser what a page may do with an answer. That comes too late for
a request that changes something, which any page can have a browser send (CSRF): such a request is
refused when it comes in, by its `Origin`. Browsers send that header with every method but GET and
HEAD (WHATWG Fetch, "append a request `Origin` header"). A request without it comes from no browser,
and carries nobody's cookies unless its sender was told to.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, final

from h3trio import CORS, App, H3Event, HTTPError, Response

from ._access.origin import is_own_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._access.access import AccessControl

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CORS_HEADERS: Final = (
    *("Last-Event-ID", "Cache-Control", "Content-Type", "Content-Encoding"),
    *("Authorization", "Idempotency-Key"),
)
"""Request headers that the hub reads."""
SECURITY_HEADERS: Final = Response(
    headers={
        "X-Content-Type-Options": "nosniff",
        # An answer is data, unless it is the dashboard: nothing in it is to be loaded or run.
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
).headers
"""Headers of every answer; the dashboard sets its own policy instead."""


def hub_cors(origins: frozenset[str]) -> CORS | None:
    """Make the hub's CORS, `None` if no origin is given.

    Raises:
        ValueError: no browser sends one of the origins in this form.
    """
    if not origins:
        return None
    # Cookies only for origins that were named: "*" and credentials exclude each other.
    return CORS(origins, allow_credentials="*" not in origins, allow_headers=CORS_HEADERS)


def add_browser_safety(app: App, access: AccessControl, *, cors: CORS | None = None) -> None:
    """Add the middleware in front of every route of the hub; call it before `app.use`."""
    trusted = access.anonymous.allowed_origins
    app.use(_Check(_add_security_headers))
    if access.has_allowed_hosts:
        app.use(_Check(access.check_host))
    if cors is not None:
        app.use(cors)
    app.use(_Check(partial(_refuse_other_sites, cors, trusted)))


@final
class _Check:
    """Middleware that calls a function with each request, and lets it pass unless that raises."""

    def __init__(self, check: Callable[[H3Event], None]) -> None:
        self._check = check

    def before(self, event: H3Event, /) -> None:
        """Check a request."""
        self._check(event)


def _add_security_headers(event: H3Event) -> None:
    event.response_headers.add_missing(SECURITY_HEADERS)


def _refuse_other_sites(cors: CORS | None, trusted: frozenset[str], event: H3Event) -> None:
    """Raise `HTTPError` 403 if another site's page would change something."""
    origin = event.headers.get("origin")
    if origin is None or event.method in _SAFE_METHODS or is_own_page(event, trusted):
        return
    # "*" allows pages without credentials, so it allows requests without cookies.
    if cors is None or not (
        cors.lists(origin) or (cors.allows_any and "cookie" not in event.headers)
    ):
        raise HTTPError(403, "Origin is another site (--cors-origin or --allow-origin admits it)")
