"""The middleware of the hub server about browsers: security headers, names of hosts, CORS, CSRF.

Security headers and CORS tell a browser what a page may do with an answer. That comes too late for
a request that changes something, which any page can have a browser send (CSRF): such a request is
refused when it comes in, by its `Origin`. Browsers send that header with every method but GET and
HEAD (WHATWG Fetch, "append a request `Origin` header"). A request without it comes from no browser,
and carries nobody's cookies unless its sender was told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from h3trio import CORS, App, H3Event, HTTPError, Response

from ._access.origin import is_own_page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._access.access import AccessControl

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CORS_HEADERS: Final = (
    *("Last-Event-ID", "Cache-Control", "Content-Type", "Content-Encoding"),
    *("Authorization", "Idempotency-Key"),
)
"""Request headers that the hub reads."""
CLIENT_HEADERS: Final = (
    # W3C Trace Context and Baggage, and Sentry's: added to each request where tracing is on.
    *("traceparent", "tracestate", "baggage", "sentry-trace"),
    "X-Requested-With",
    # htmx 4, https://four.htmx.org/reference/headers ...
    *("HX-Request", "HX-Request-Type", "HX-Current-URL", "HX-Source", "HX-Target"),
    *("HX-Boosted", "HX-History-Restore-Request"),
    # ... and those of htmx 2 that it no longer has.
    *("HX-Trigger", "HX-Trigger-Name", "HX-Prompt"),
    "Datastar-Request",  # https://data-star.dev/reference/actions
)
"""Request headers that libraries of pages add by themselves. The hub reads none of them, but the
browser sends nothing at all if one isn't allowed."""
SECURITY_HEADERS: Final = Response(
    headers={
        "X-Content-Type-Options": "nosniff",
        # An answer is data, unless it is the dashboard: nothing in it is to be loaded or run.
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
).headers
"""Headers of every answer of the hub; the dashboard sets its own policy instead."""


def hub_cors(origins: frozenset[str], *, headers: Iterable[str] = ()) -> CORS | None:
    """Make the hub's CORS, `None` if no origin is given.

    Args:
        origins: those whose pages may read the hub; `*` for all, without cookies.
        headers: request headers that they may send, besides those that the hub reads and those
            that tracing, htmx and Datastar add.

    Raises:
        ValueError: no browser sends one of the origins in this form, or a header is no token.
    """
    if not origins:
        return None
    allowed = {name.lower(): name for name in (*CORS_HEADERS, *CLIENT_HEADERS, *headers)}
    # Cookies only for origins that were named: "*" and credentials exclude each other.
    return CORS(origins, allow_credentials="*" not in origins, allow_headers=allowed.values())


def add_browser_safety(app: App, access: AccessControl, *, cors: CORS | None = None) -> None:
    """Add the middleware in front of the routes of the hub: call it behind the last of them."""
    app.use(_BrowserSafety(app, access, cors))


@final
class _BrowserSafety:
    """Middleware of the routes that an app has when this is made, and of requests without a route.

    Routes that are added later are the application's own, and so is what their answers allow: it
    may send pages, and have other sites post to it. Only a `Host` that isn't ours is refused there
    too: by a name that another site made to lead here, its page reads what is behind them as well.
    """

    def __init__(self, app: App, access: AccessControl, cors: CORS | None) -> None:
        self._app = app
        # By identity: a handler needn't be hashable.
        self._hubs = frozenset(map(id, app.handlers))
        self._count = len(app.handlers)
        self._access = access
        self._cors = cors
        self._trusted = access.anonymous.allowed_origins

    def before(self, event: H3Event, /) -> Response | None:
        """Mark the answer, answer a preflight, or raise `HTTPError` 403 or 421."""
        is_hubs = self._is_hubs(event)
        if is_hubs:
            event.response_headers.add_missing(SECURITY_HEADERS)
        if self._access.has_allowed_hosts:
            self._access.check_host(event)
        if not is_hubs:
            return None
        if self._cors is not None and (response := self._cors.before(event)) is not None:
            return response
        _refuse_other_sites(self._cors, self._trusted, event)
        return None

    def _is_hubs(self, event: H3Event) -> bool:
        """Whether a request goes to a route of the hub, or to none."""
        if len(self._app.handlers) == self._count:
            return True
        # A preflight asks for another request (Fetch, "CORS-preflight fetch").
        asked = event.headers.get("access-control-request-method")
        method = asked if asked and event.method == "OPTIONS" else event.method
        handler = self._app.find_handler(method, event.raw_path)
        return handler is None or id(handler) in self._hubs


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
