"""`SecurityHeaders`: what tells a browser to do less with an answer.

Defaults, never the last word: a header that a handler sets itself goes out as it set it. They
are put together and checked once; a request costs a copy of them.

`Strict-Transport-Security` is sent only if asked for, as a browser that has heard it comes by TLS
for as long as it says, and there is no taking it back; and only over TLS, as RFC 6797
section 7.2 demands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from h3trio._http.headers import MutableHeaders

if TYPE_CHECKING:
    from h3trio._server.event import H3Event


CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)
"""What a page of one's own needs, and no inline script or style."""


@final
class SecurityHeaders:
    """Middleware that adds security headers to every answer: `app.use(SecurityHeaders())`.

    Each argument is the value of its header, `None` to leave that out.

    Args:
        content_security_policy: what a page may load and run (CSP level 3).
        referrer_policy: how much of its address a page tells others.
        frame_options: for browsers that don't know `frame-ancestors`.
        cross_origin_opener_policy: whether pages of other origins keep a handle to ours.
        cross_origin_resource_policy: whether pages of other origins may embed the answer
            without CORS. What CORS allows is not affected.
        strict_transport_security: such as `"max-age=31536000"`; sent over TLS only.

    Raises:
        ValueError: a value can't be sent in a header.
    """

    __slots__ = ("_always", "_over_tls")

    def __init__(
        self,
        *,
        content_security_policy: str | None = CONTENT_SECURITY_POLICY,
        referrer_policy: str | None = "no-referrer",
        frame_options: str | None = "DENY",
        cross_origin_opener_policy: str | None = "same-origin",
        cross_origin_resource_policy: str | None = "same-origin",
        strict_transport_security: str | None = None,
    ) -> None:
        values = {
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": content_security_policy,
            "Referrer-Policy": referrer_policy,
            "X-Frame-Options": frame_options,
            "Cross-Origin-Opener-Policy": cross_origin_opener_policy,
            "Cross-Origin-Resource-Policy": cross_origin_resource_policy,
        }
        given = {name: value for name, value in values.items() if value is not None}
        self._always: Final = MutableHeaders(given)
        self._over_tls: Final = MutableHeaders(given)
        if strict_transport_security is not None:
            self._over_tls.set("Strict-Transport-Security", strict_transport_security)

    def before(self, event: H3Event) -> None:
        """Add the headers."""
        event.response_headers.add_missing(
            self._over_tls if event.scheme == "https" else self._always
        )
