"""`TokenSources`: the places in a request that may hold a token, and the answers of RFC 6750.

A token comes in the header `Authorization`; in a cookie, which is all that an `EventSource` sends
by itself; or in the query, where that is allowed.

A browser sends a cookie whichever page asked for the request. So a request that changes something
with a cookie needs an `Origin` of ours: a page elsewhere can have a browser post, but can't have it
name another page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from h3trio import HTTPError, Response

from .origin import check_trusted, is_own_page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from h3trio import H3Event

COOKIE_NAME: Final = "mercureAuthorization"
"""The cookie's name in Mercure, and so the one that existing applications set."""

QUERY_NAME: Final = "authorization"

_SAFE: Final = ("GET", "HEAD")
_REALM: Final = 'Bearer realm="h3trio"'


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSources:
    """The places where a token may be, beside the header `Authorization`.

    Raises:
        ValueError: no cookie can have this name, or no browser sends one of the origins in this
            form, or it is `*`.
    """

    cookie_name: str = COOKIE_NAME
    """The cookie that may hold a token; Mercure's name for it unless given."""
    allow_query: bool = False
    """Whether `?authorization=` counts for GET. URLs are logged and shared: off."""
    allowed_origins: frozenset[str] = frozenset()
    """Origins of other sites whose pages may change something with a cookie."""

    def __post_init__(self) -> None:
        Response().set_cookie(self.cookie_name, "")
        check_trusted(self.allowed_origins)

    def find(self, event: H3Event) -> str | None:
        """Return a request's token, `None` if it has none.

        Raises:
            HTTPError: 400, it has several ("clients MUST NOT use more than one method",
                RFC 6750 section 2), or the one is empty; 403, it is a cookie's, and the
                page that sent the request isn't known to be ours.
        """
        by_cookie = list(_in_cookies(event, self.cookie_name))
        found = [*_in_header(event), *by_cookie]
        if self.allow_query and event.method in _SAFE:
            found += event.query.get_list(QUERY_NAME)
        if not found:
            return None
        if len(found) > 1:
            raise _answer(400, "invalid_request", "the request has more than one token")
        if not found[0]:
            raise _answer(400, "invalid_request", "the token is empty")
        if by_cookie and event.method not in _SAFE:
            self._check_origin(event)
        return found[0]

    def _check_origin(self, event: H3Event) -> None:
        if not is_own_page(event, self.allowed_origins):
            known = bool(event.headers.get("origin"))
            what = (
                "is another site (--cors-origin or --allow-origin admits it)"
                if known
                else "is missing"
            )
            raise HTTPError(403, f"Origin {what}: a cookie alone doesn't allow this")


def _in_header(event: H3Event) -> Iterator[str]:
    for value in event.headers.get_list("authorization"):
        scheme, _, token = value.partition(" ")
        # Another scheme is for a proxy in front of us.
        if scheme.lower() == "bearer":
            yield token.strip(" ")


def _in_cookies(event: H3Event, name: str) -> Iterator[str]:
    """Find each cookie of a name (RFC 6265 section 4.2.1); an empty one was deleted.

    `event.cookies` has only the first of several, and a second token is an error.
    """
    for pair in ";".join(event.headers.get_list("cookie")).split(";"):
        key, _, value = pair.partition("=")
        if key.strip(" \t") == name and (token := value.strip(' \t"')):
            yield token


# -- answers, RFC 6750 section 3


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
