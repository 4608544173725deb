"""Where a request carries its token, and how it is told that the token won't do.

RFC 6750: in the header `Authorization`; in a cookie, which is all that an
`EventSource` sends by itself; or, where that is allowed, in the query.

A browser sends a cookie whichever page asked for the request. So with a cookie,
what changes something needs an `Origin` that shows it was ours: a page elsewhere
can make a browser post, but not say that it is another page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from h3trio import HTTPError

if TYPE_CHECKING:
    from h3trio import H3Event

COOKIE_NAME: Final = "mercureAuthorization"
"""The name that Mercure gives it, and so the one that existing applications set."""

QUERY_NAME: Final = "authorization"

_SAFE: Final = ("GET", "HEAD")
_REALM: Final = 'Bearer realm="h3trio"'


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Carriers:
    """Where a token may be, beyond the header."""

    cookie_name: str = COOKIE_NAME
    """The cookie that may hold one; this is Mercure's name for it."""
    allow_query: bool = False
    """Whether `?authorization=` counts for GET. URLs are logged and shared: off."""
    allowed_origins: frozenset[str] = frozenset()
    """Other sites whose pages may change something with a cookie."""

    def find(self, event: H3Event) -> Credential | None:
        """Return a request's token, `None` if it has none.

        Raises:
            HTTPError: 400, it has several ("clients MUST NOT use more than one method",
                RFC 6750 section 2), or the one is empty; 403, it is a cookie's, and the
                page that sent the request isn't known to be ours.
        """
        found = [
            *_in_header(event),
            *_in_cookies(event, self.cookie_name),
            *(_in_query(event) if self.allow_query else ()),
        ]
        if len(found) > 1:
            raise bad_request("the request has more than one token")
        if found and not found[0].token:
            raise bad_request("the token is empty")
        if found and found[0].by_cookie and event.method not in _SAFE:
            self._check_origin(event)
        return found[0] if found else None

    def _check_origin(self, event: H3Event) -> None:
        origin = event.headers.get("origin", "")
        # TLS ends at a proxy, so whether the page was https can't be told by our own side of it.
        own = (f"http://{event.authority}".lower(), f"https://{event.authority}".lower())
        if origin not in self.allowed_origins and origin.lower() not in own:
            what = "is another site (--allow-origin would admit it)" if origin else "is missing"
            raise HTTPError(403, f"Origin {what}: a cookie alone doesn't allow this")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A token as it came."""

    token: str
    by_cookie: bool = False
    """Whether a browser sent it by itself, whichever page asked for that."""

    def __repr__(self) -> str:
        return f"<Credential: by_cookie={self.by_cookie}>"


def _in_header(event: H3Event) -> list[Credential]:
    parts = (value.partition(" ") for value in event.headers.get_list("authorization"))
    return [
        # A scheme of another kind is for a proxy in front of us.
        Credential(token=token.strip(" "))
        for scheme, _, token in parts
        if scheme.lower() == "bearer"
    ]


def _in_cookies(event: H3Event, name: str) -> list[Credential]:
    """Find each cookie of a name (RFC 6265 section 4.2.1); an empty one was deleted."""
    pairs = ";".join(event.headers.get_list("cookie")).split(";")
    parts = (pair.partition("=") for pair in pairs)
    values = (value.strip(' \t"') for key, _, value in parts if key.strip(" \t") == name)
    return [Credential(token=value, by_cookie=True) for value in values if value]


def _in_query(event: H3Event) -> list[Credential]:
    if event.method not in _SAFE:
        return []
    return [Credential(token=value) for value in event.query.get_list(QUERY_NAME)]


# -- answers, RFC 6750 section 3


def bad_request(why: str) -> HTTPError:
    """400: the request can't be understood."""
    return _answer(400, "invalid_request", why)


def unauthorized(why: str | None = None, *, needed: str = "a token is needed") -> HTTPError:
    """401: the token isn't good, or there is none ("SHOULD NOT include an error code" then)."""
    if why is not None:
        return _answer(401, "invalid_token", why)
    return HTTPError(401, needed, headers={"WWW-Authenticate": _REALM})


def forbidden(why: str) -> HTTPError:
    """403: the token is good, but doesn't allow this."""
    return _answer(403, "insufficient_scope", why)


def _answer(status: int, error: str, why: str) -> HTTPError:
    # All descriptions are ours, so none holds what a quoted string can't.
    value = f'{_REALM}, error="{error}", error_description="{why}"'
    return HTTPError(status, why, headers={"WWW-Authenticate": value})
