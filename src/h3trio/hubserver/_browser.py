"""What the hub tells browsers, and what it doesn't let other sites make them do.

Two sides: `SecurityHeaders` and CORS say what a page may do with an answer; that comes too late
for a request that changes something, which any page can have a browser send (CSRF). So those are
looked at when they come in. Browsers name the page's origin with every method but GET and HEAD
(WHATWG Fetch, "append a request `Origin` header"); what names none is no browser, and carries
nobody's cookies unless it was told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from h3trio import CORS, App, H3Event, HTTPError, SecurityHeaders

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    _Next = Callable[[], Awaitable[object]]

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CORS_HEADERS: Final = (
    *("Last-Event-ID", "Cache-Control", "Content-Type"),
    *("Authorization", "Idempotency-Key"),
)
"""Request headers that the hub reads."""
API_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
"""What isn't the dashboard is data: nothing in it is to be loaded or run."""


def hub_cors(origins: frozenset[str]) -> CORS | None:
    """Make the hub's CORS, `None` where no origin is given.

    Raises:
        ValueError: an origin no browser sends.
    """
    if not origins:
        return None
    # Cookies only for those that were named: "*" and credentials exclude each other.
    return CORS(origins, allow_credentials="*" not in origins, allow_headers=CORS_HEADERS)


def add_browser_safety(
    app: App, *, cors: CORS | None = None, trusted: frozenset[str] = frozenset()
) -> None:
    """Add the middleware that every route of the hub is behind; before other middleware."""
    app.use(
        SecurityHeaders(
            content_security_policy=API_POLICY,
            # These are about pages; the dashboard has them itself.
            referrer_policy=None,
            frame_options=None,
            cross_origin_opener_policy=None,
        )
    )
    if cors is not None:
        app.use(cors)
    app.use(OwnPages(cors, trusted))


@final
class OwnPages:
    """Middleware that refuses what another site's page would have a browser change (403)."""

    __slots__ = ("_cors", "_trusted")

    def __init__(self, cors: CORS | None, trusted: frozenset[str]) -> None:
        self._cors = cors
        self._trusted = trusted

    def before(self, event: H3Event) -> None:
        """Let a request pass, or raise `HTTPError` 403."""
        if event.method not in _SAFE_METHODS:
            self._check(event)

    def _check(self, event: H3Event) -> None:
        origin = event.headers.get("origin")
        if origin is None or origin in self._trusted or _is_own(origin, event.authority):
            return
        # "*" is said of pages without credentials, and so are requests.
        if self._cors is not None and (
            self._cors.lists(origin) or (self._cors.allows_any and "cookie" not in event.headers)
        ):
            return
        raise HTTPError(403, "Origin is another site (--cors-origin or --allow-origin admits it)")


def _is_own(origin: str, authority: str) -> bool:
    # Without the scheme: behind a proxy that ends TLS the page's is https, and ours is not.
    scheme, _, host = origin.partition("://")
    return scheme in ("http", "https") and bool(host) and host.lower() == authority.lower()
