"""`Requester`: from a last event id to the head of an answer, and httpx2's errors made into ours.

httpx2 comes with an extra and takes a moment to import, so it is imported where it is used.

Redirects are followed here and not by httpx2, which reads the body of each, however long it is.
What goes along to another origin (`_redirect`) is the same where the target of a permanent redirect
is asked at once the next time.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Final, cast, final
from urllib.parse import quote

import trio

from h3trio._extras import install
from h3trio._version import __version__

from ._environment import LateTLS, check_proxies, proxy_note
from ._errors import (
    DamagedError,
    LostError,
    RedirectError,
    RequestError,
    SilentError,
    reason_of,
    without_secret,
)
from ._policy import MIME_TYPE
from ._redirect import checked_url, following, public

if TYPE_CHECKING:
    import ssl
    from collections.abc import Generator, Mapping, Sequence

    import httpx2

    from ._environment import Trust
    from ._options import Limits

    HeaderFields = Mapping[str, str] | Sequence[tuple[str, str]]

CONNECT_TIMEOUT: Final = 10.0
_KEEPALIVE: Final = 60.0  # seconds; shorter than what servers commonly grant, ours included
_PERMANENT: Final = (301, 308)
# A compressor keeps back what it hasn't filled a block with: `identity` lets events come at once.
_DEFAULTS: Final = {
    "Accept": MIME_TYPE,
    "Cache-Control": "no-store",
    "Accept-Encoding": "identity",
}


def require_httpx2() -> None:
    """Raise `ImportError`, naming the extra, if httpx2 is missing."""
    try:
        importlib.import_module("httpx2")
    except ImportError as exc:
        raise ImportError(f"h3trio.client needs httpx2: {install('client')}") from exc


def new_client(
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    tls: Trust | None = None,
) -> httpx2.AsyncClient:
    """Make a client that says who it is, and takes no compression unless a request asks for it.

    Args:
        timeout: longest silence, in seconds; a connection has 10 s at most.
        headers: of each request.
        tls: how servers are checked; by whom the environment or the system trusts if not given.

    Raises:
        RequestError: the proxy that the environment asks for can't be used.
    """
    import httpx2  # noqa: PLC0415 - see this module's docstring

    check_proxies()

    tls = LateTLS() if tls is None else tls
    ours = {"User-Agent": f"h3trio/{__version__}", "Accept-Encoding": "identity"}
    try:
        return httpx2.AsyncClient(
            headers={**ours, **(headers or {})},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
            limits=httpx2.Limits(keepalive_expiry=_KEEPALIVE),
            verify=cast("ssl.SSLContext", tls),
            event_hooks={"request": [tls.before]} if isinstance(tls, LateTLS) else None,
        )
    except (ImportError, ValueError, httpx2.InvalidURL) as exc:  # the system's, of no variable
        raise RequestError(f"can't use the system's proxy: {exc}") from exc


@final
class Requester:
    """Asks for one stream, as often as it takes.

    Attributes:
        url: what the next request asks for: as given, or where permanent redirects led.
        asked: what the last request asked for.
        redirects: how many were followed.
    """

    def __init__(
        self,
        url: str | httpx2.URL,
        *,
        method: str,
        headers: HeaderFields | None,
        params: Mapping[str, str] | None,
        content: bytes | str | None,
        limits: Limits,
    ) -> None:
        import httpx2  # noqa: PLC0415 - see this module's docstring

        self.url: httpx2.URL = checked_url(url)
        # Held apart, so that no redirect loses it or carries it to another origin.
        self._auth = None
        if self.url.username or self.url.password:
            self._auth = httpx2.BasicAuth(self.url.username, self.url.password)
            self.url = self.url.copy_with(username=None, password=None)
        if params:
            self.url = self.url.copy_merge_params(dict(params))
        self._origin = self.url.origin
        self._method = method
        self._headers = httpx2.Headers(_DEFAULTS)
        self._headers.update(httpx2.Headers(headers))
        self._content = content
        self._limits = limits
        self.asked: str = without_secret(str(self.url))
        self.redirects = 0

    async def open(self, client: httpx2.AsyncClient, last_event_id: str) -> httpx2.Response:
        """Ask for what comes after an event, `""` for none; return the answer, its body unread.

        Raises:
            LostError: there is no answer.
            RedirectError: there were too many redirects, or one can't be followed.
            RequestError: the request can't be made.
        """
        # No header can hold a space at an end, or a control character.
        in_query = last_event_id != last_event_id.strip(" ") or any(c < " " for c in last_event_id)
        with translated(self.asked, self._limits.read_timeout):
            request = self._first(client, last_event_id, in_query=in_query)
            # An id in the query is no part of the new address.
            permanent = not in_query
            is_home = self._is_home(request)
            for _ in range(self._limits.max_redirects + 1):
                response = await self._send(client, request, is_home=is_home)
                try:
                    after = following(client, response)
                except RedirectError:
                    await response.aclose()
                    raise
                if after is None:
                    return response
                await response.aclose()
                self.redirects += 1
                permanent = permanent and response.status_code in _PERMANENT
                # After a POST became a GET, the next attempt has to be a POST again; and where a
                # foreign server has sent us home, the next must not be asked as if we came so.
                permanent = permanent and after.method == request.method
                permanent = permanent and (is_home or not self._is_home(after))
                if permanent:
                    self.url = after.url
                is_home = is_home and self._is_home(after)
                request = after
        raise RedirectError(f"more than {self._limits.max_redirects} redirects")

    def _first(
        self, client: httpx2.AsyncClient, last_event_id: str, *, in_query: bool
    ) -> httpx2.Request:
        import httpx2  # noqa: PLC0415 - see this module's docstring

        url, headers, limits = self.url, self._headers.copy(), self._limits
        if last_event_id and in_query:
            headers.pop("Last-Event-ID", None)
            field = b"last_event_id=" + quote(last_event_id, safe="").encode()
            url = url.copy_with(query=b"&".join(filter(None, (url.query, field))))
        elif last_event_id:
            headers.pop("Last-Event-ID", None)
            # In UTF-8, as 9.2.3 says, whatever the other fields are in.
            headers = httpx2.Headers([*headers.raw, (b"Last-Event-ID", last_event_id.encode())])
        timeout = httpx2.Timeout(
            limits.read_timeout, connect=limits.connect_timeout, pool=limits.connect_timeout
        )
        request = client.build_request(
            self._method, url, headers=headers, content=self._content, timeout=timeout
        )
        if self._is_home(request):
            return request
        request.url = url  # without the client's own `params`
        return public(client, request)

    def _is_home(self, request: httpx2.Request) -> bool:
        return request.url.origin == self._origin

    async def _send(
        self, client: httpx2.AsyncClient, request: httpx2.Request, *, is_home: bool
    ) -> httpx2.Response:
        import httpx2  # noqa: PLC0415 - see this module's docstring

        self.asked = without_secret(str(request.url))
        auth = (self._auth or httpx2.USE_CLIENT_DEFAULT) if is_home else None
        patience = self._limits.read_timeout
        # Transports other than httpx2's own may take no notice of its timeouts.
        with (
            translated(self.asked, patience),
            trio.move_on_after(self._limits.connect_timeout + patience),
        ):
            return await client.send(request, stream=True, auth=auth, follow_redirects=False)
        raise silent(patience)


def silent(seconds: float) -> SilentError:
    """Return the error for silence."""
    return SilentError(f"the server was silent for {seconds:g} s")


@contextlib.contextmanager
def translated(url: str, read_timeout: float) -> Generator[None]:
    """Turn httpx2's errors into ours.

    Raises:
        LostError: the server can't be reached, is silent, or the connection broke; `DamagedError`
            if the compression is damaged.
        RequestError: the request can't be made.
    """
    import httpx2  # noqa: PLC0415 - see this module's docstring

    try:
        yield
    except (httpx2.ConnectTimeout, httpx2.ConnectError, httpx2.PoolTimeout) as exc:
        reason = reason_of(exc) + proxy_note(url)
        raise LostError(f"can't reach {url}: {reason}", connected=False) from exc
    except httpx2.ProxyError as exc:
        reason = f"the proxy says {exc}{proxy_note(url)}"
        raise LostError(f"can't reach {url}: {reason}", connected=False) from exc
    except httpx2.TimeoutException as exc:
        raise silent(read_timeout) from exc
    except (
        httpx2.LocalProtocolError,
        httpx2.UnsupportedProtocol,
        httpx2.InvalidURL,
        UnicodeError,  # of IDNA, for the name of a host; a redirect's too, which httpx2 looks at
    ) as exc:
        raise RequestError(f"can't ask {url}: {exc}") from exc
    except httpx2.DecodingError as exc:
        raise DamagedError(f"the stream's compression is damaged: {exc}") from exc
    except httpx2.RequestError as exc:
        raise LostError(f"the connection was lost: {reason_of(exc)}") from exc
