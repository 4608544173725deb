"""`CORS`: lets pages of other sites read the answers (WHATWG Fetch, "CORS protocol").

An origin is compared with the list as a whole, byte by byte, and only one that is listed is written
back. There are no patterns: they let in domains of others.

A hook adds the headers as a head is sent: that of a response, an event stream, or an error of the
handler or the router. A change of the response wouldn't do, as a stream has none.

A preflight from an origin that isn't listed is answered 403. A browser refuses any answer without
CORS headers, but the 403 shows the reason in the developer tools.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final, final

from h3trio._http.errors import HTTPError
from h3trio._http.headers import is_token
from h3trio._http.response import Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from h3trio._http.headers import MutableHeaders
    from h3trio._server.event import H3Event


# RFC 6454 section 6.2, as browsers write it: lower case, no path, no default port.
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:[a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_HIGHEST_PORT: Final = 65535

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
HEADERS: Final = ("Last-Event-ID", "Cache-Control", "Content-Type")
"""The headers of `EventSource` and its replacements on `fetch`, and of a body."""
EXPOSED: Final = ("Last-Event-ID", "History-Truncated")
"""The headers by which a hub's stream says where it begins."""


@final
class CORS:
    """Middleware that lets pages of other origins read: `app.use(CORS(["https://a.example"]))`.

    Add it first: an answer that doesn't pass it has no CORS headers, and to a page looks like a
    broken network.

    Args:
        allow_origins: exact origins, `scheme://host[:port]` as browsers send them; or `"*"` alone,
            for every page. `"null"` is the origin of anybody's sandboxed frames and files.
        allow_credentials: let them send cookies, and read what comes back.
        allow_methods: methods beyond the simple ones.
        allow_headers: request headers beyond the simple ones.
        expose_headers: response headers that scripts may read beyond the simple ones.
        max_age: seconds for which a browser needn't ask again; most stop at 7200.

    Raises:
        ValueError: an origin no browser sends, `"*"` together with another or with credentials,
            or a name that is no token.
    """

    def __init__(
        self,
        allow_origins: Iterable[str],
        *,
        allow_credentials: bool = False,
        allow_methods: Iterable[str] = METHODS,
        allow_headers: Iterable[str] = HEADERS,
        expose_headers: Iterable[str] = EXPOSED,
        max_age: int = 600,
    ) -> None:
        self._origins: Final = _check_origins(allow_origins, credentials=allow_credentials)
        self._credentials: Final = allow_credentials
        self._exposed: Final = _join(expose_headers, wildcard=not allow_credentials)
        if isinstance(max_age, bool) or not isinstance(max_age, int) or max_age < 0:
            raise ValueError(f"max_age is a whole number of seconds, not {max_age!r}")
        preflight = {
            "Access-Control-Allow-Methods": _join(allow_methods, wildcard=not allow_credentials),
            "Access-Control-Allow-Headers": _join(allow_headers, wildcard=not allow_credentials),
            "Access-Control-Max-Age": str(max_age),
        }
        self._preflight: Final = {name: value for name, value in preflight.items() if value}

    def __repr__(self) -> str:
        return f"CORS({sorted(self._origins)!r}, allow_credentials={self._credentials!r})"

    @property
    def allows_any(self) -> bool:
        """Whether pages of every origin may read, though without credentials."""
        return "*" in self._origins

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may read: it is listed itself, or all are."""
        return origin in self._origins or self.allows_any

    def lists(self, origin: str) -> bool:
        """Whether this origin is listed itself."""
        return origin in self._origins and origin != "*"

    def before(self, event: H3Event) -> Response | None:
        """Answer a preflight; mark the answer to anything else."""
        origin = event.headers.get("origin")
        # Fetch, "CORS-preflight fetch": only these two together; other OPTIONS are the app's.
        asks = event.method == "OPTIONS" and "access-control-request-method" in event.headers
        if asks and origin is not None:
            return self._answer_preflight(event, origin)
        event.on_head(partial(self._mark, origin))
        return None

    def _answer_preflight(self, event: H3Event, origin: str) -> Response:
        if not self.allows(origin):
            event.on_head(self._vary)
            raise HTTPError(403, "CORS: this origin is not listed")
        event.on_head(partial(self._allow, origin))
        # What isn't in these lists the browser refuses by itself.
        return Response(status=204, headers=self._preflight)

    def _mark(self, origin: str | None, headers: MutableHeaders) -> None:
        if self.allows_any or (origin is not None and self.allows(origin)):
            self._allow(origin or "*", headers)
            if self._exposed:
                headers.setdefault("Access-Control-Expose-Headers", self._exposed)
        else:
            self._vary(headers)

    def _allow(self, origin: str, headers: MutableHeaders) -> None:
        headers.set("Access-Control-Allow-Origin", "*" if self.allows_any else origin)
        if self._credentials:
            headers.set("Access-Control-Allow-Credentials", "true")
        self._vary(headers)

    def _vary(self, headers: MutableHeaders) -> None:
        """Keep caches from giving one origin's answer to another (Fetch, "HTTP caches")."""
        if self.allows_any:
            return
        vary = headers.get("vary", "")
        listed = {name.strip().lower() for name in vary.split(",")}
        if not listed & {"origin", "*"}:
            headers.set("Vary", f"{vary}, Origin" if vary else "Origin")


def _check_origins(origins: Iterable[str], *, credentials: bool) -> frozenset[str]:
    if isinstance(origins, str):
        raise ValueError(f"allow_origins is a list of origins, not the string {origins!r}")  # noqa: TRY004 - every bad origin is one kind of error
    checked = frozenset(map(check_origin, origins))
    if "*" in checked and len(checked) > 1:
        raise ValueError('"*" allows every origin: list nothing beside it')
    if "*" in checked and credentials:
        raise ValueError(
            'allow_credentials with "*" would let every page act as its visitor: list the origins'
        )
    return checked


def check_origin(text: str) -> str:
    """Return an origin as it stands in a list of them.

    Raises:
        ValueError: no browser sends it in this form.
    """
    if text in ("*", "null"):
        return text
    found = _ORIGIN.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is not an origin: write scheme://host or scheme://host:port as browsers do, "
            "in lower case, without a path, patterns or characters beyond ASCII"
        )
    port = found["port"]
    if port is not None and int(port) > _HIGHEST_PORT:
        raise ValueError(f"{text!r} has a port above {_HIGHEST_PORT}")
    if port is not None and port == _DEFAULT_PORTS.get(found["scheme"]):
        raise ValueError(f"{text!r} never comes: browsers leave out the default port {port}")
    return text


def _join(names: Iterable[str], *, wildcard: bool) -> str:
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if not is_token(name):
            raise ValueError(f"{name!r} is not a token (RFC 9110 section 5.6.2)")
        if name == "*" and not wildcard:
            # Fetch, "CORS protocol and credentials": there it is the name of a header.
            raise ValueError('"*" means nothing where credentials are allowed: list the names')
    return ", ".join(names)
