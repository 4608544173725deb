"""`checked_url`, `following` and `public`: where a request may go, and what of it goes along.

Strategy: httpx2 says where a redirect leads and by which method, as browsers change it. Here the
rest is decided. An origin is scheme, host and port (RFC 6454 section 4). What was given for one is
for that one alone: its body, its credentials, and every header field that isn't known to be public,
as nobody but the user knows which field holds a key. The Fetch standard, section 4.4, takes only
`Authorization` away; but a page has few other fields to lose, and programs have `X-Api-Key`.

A chain of redirects that has left its origin doesn't get these back where it returns: the foreign
server has chosen what would be asked with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._errors import RedirectError, without_secret

if TYPE_CHECKING:
    from collections.abc import Collection

    import httpx2

_MAX_PORT: Final = 2**16 - 1
# Fields that any server may see, as browsers send them with an EventSource or to ask before.
_PUBLIC: Final = frozenset(
    {
        *("accept", "accept-encoding", "cache-control", "connection", "last-event-id"),
        *("origin", "user-agent"),
        *("access-control-request-method", "access-control-request-headers"),
    }
)


def checked_url(
    url: str | httpx2.URL, *, schemes: Collection[str] = ("http", "https")
) -> httpx2.URL:
    """Check a URL, for HTTP unless said; return it without a fragment, which no server gets.

    Raises:
        ValueError: it is none, or no server can have this name or port.
    """
    import httpx2  # noqa: PLC0415 - comes with an extra

    shown = without_secret(str(url))
    try:
        checked = httpx2.URL(url)
        host = checked.host
        # As `getaddrinfo` does it, which would raise the error of names that no server can have.
        checked.raw_host.decode("ascii").encode("idna")
    except (httpx2.InvalidURL, UnicodeError) as exc:
        raise ValueError(f"{shown!r} is no URL: {exc}") from exc
    if checked.scheme not in schemes or not host:
        raise ValueError(f"{shown!r} is not of the form http://HOST:PORT")
    if checked.port is not None and not 1 <= checked.port <= _MAX_PORT:
        raise ValueError(f"{shown!r} is no URL: its port is not 1 to {_MAX_PORT}")
    return checked.copy_with(fragment=None)


def following(client: httpx2.AsyncClient, response: httpx2.Response) -> httpx2.Request | None:
    """Return the request that follows a redirect, `None` if the answer is no redirect.

    Raises:
        RedirectError: it leads where nothing can be asked, or to another origin with a body.
    """
    request = response.next_request
    if request is None:
        return None
    try:
        url = checked_url(request.url)
    except ValueError as exc:
        raise RedirectError(f"a redirect can't be followed: {exc}") from exc
    # A server doesn't say which user we are.
    request.url = url = url.copy_with(username=None, password=None)
    asked = response.request
    if url.origin == asked.url.origin:
        return request
    if request.method == asked.method and _has_body(asked):
        there = without_secret(str(url))
        raise RedirectError(f"a redirect to another origin, {there}, can't have the body as well")
    return public(client, request)


def public(client: httpx2.AsyncClient, request: httpx2.Request) -> httpx2.Request:
    """Return what may be asked of another origin: without a body, and with public fields only.

    Of the client's cookies go those that this origin's servers have set.
    """
    import httpx2  # noqa: PLC0415 - comes with an extra

    cookies = httpx2.Cookies()
    for cookie in client.cookies.jar:
        # One that the program gave has no domain unless it said one, and would go everywhere.
        if cookie.domain:
            cookies.jar.set_cookie(cookie)
    return httpx2.Request(
        request.method,
        request.url,
        headers=[(name, value) for name, value in request.headers.raw if _is_public(name)],
        cookies=cookies,
        extensions=request.extensions,
    )


def _is_public(name: bytes) -> bool:
    return name.decode("ascii", "replace").lower() in _PUBLIC


def _has_body(request: httpx2.Request) -> bool:
    headers = request.headers
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
