"""`LateTLS`, `check_proxies` and `proxy_note`: what the environment says to a client, or one line.

Variables such as `SSL_CERT_FILE` and `HTTP_PROXY` are set for all programs of a machine, so a wrong
one is met where nobody thinks of it. Its error names it. httpx2 reads them, and says what is wrong
in other words or, of what isn't a URL, nothing at all; here they are looked at in front of it.

The certificates of the authorities are loaded for the first request by TLS: a client of `http://`
needs none, and to load them takes as long as many a command.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from ._errors import RequestError, reason_of
from ._redirect import checked_url

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    import httpx2

    Trust: TypeAlias = "ssl.SSLContext | LateTLS"
    """What says whom to trust: a context, or what makes it when it is needed."""

_FILE: Final = "SSL_CERT_FILE"
_FOLDER: Final = "SSL_CERT_DIR"
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # the names by which OpenSSL finds them
_PROXY_SCHEMES: Final = ("http", "https", "socks5", "socks5h")


# -- certificates


@final
class LateTLS:
    """Takes the place of an `ssl.SSLContext`, which it makes when it is needed.

    A client's connections need two of its methods, and these it has.
    """

    def __init__(self) -> None:
        self._protocols: Sequence[str] = ()
        self._context: ssl.SSLContext | None = None

    def set_alpn_protocols(self, protocols: Sequence[str]) -> None:
        """Say what to offer by ALPN (RFC 7301)."""
        self._protocols = protocols

    def load(self) -> ssl.SSLContext:
        """Make the context, once.

        Raises:
            RequestError: the environment names certificates that can't be loaded.
        """
        if self._context is None:
            self._context = load_authorities()
        return self._context

    async def before(self, request: httpx2.Request) -> None:
        """Load what a request needs, as a hook of httpx2: an error later leaves its socket open."""
        if request.url.scheme == "https":
            self.load()

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:  # noqa: ANN401 - those of ssl
        """Begin a handshake; raises as `load`."""
        context = self.load()
        context.set_alpn_protocols(list(self._protocols))
        return context.wrap_bio(*args, **kwargs)


def load_authorities() -> ssl.SSLContext:
    """Make a context that trusts whom the environment says, or else the system.

    Raises:
        RequestError: the environment names certificates that can't be loaded.
    """
    import httpx2  # noqa: PLC0415 - comes with an extra

    file, folder = os.environ.get(_FILE), os.environ.get(_FOLDER)
    if folder and not file and not any(map(_has_certificates, folder.split(os.pathsep))):
        raise RequestError(f"{_FOLDER}: no certificates by their hash (c_rehash) in {folder!r}")
    try:
        return httpx2.create_ssl_context()
    except OSError as exc:
        if not file:
            raise
        raise RequestError(f"{_FILE}: can't load {file!r}: {reason_of(exc)}") from exc


def _has_certificates(folder: str) -> bool:
    try:
        return any(_HASHED.fullmatch(path.name) for path in Path(folder).iterdir())
    except OSError:
        return False


# -- proxies


def check_proxies() -> None:
    """Look at the proxies of the environment, and at whom to ask without one.

    Raises:
        RequestError: one isn't what it should be.
    """
    proxies = getproxies_environment()
    named = [scheme for scheme in ("http", "https", "all") if proxies.get(scheme)]
    for scheme in named:
        try:
            _check_proxy(proxies[scheme])
        except ValueError as exc:
            raise RequestError(f"{_variable(scheme)}: {exc}") from exc
    for entry in proxies.get("no", "").split(",") if named else ():
        if not _is_exception(entry.strip()):
            raise RequestError(f"{_variable('no')}: {entry.strip()!r} is neither a host nor a net")


def _check_proxy(text: str) -> None:
    url = checked_url(text if "://" in text else f"http://{text}", schemes=_PROXY_SCHEMES)
    if url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ValueError("a SOCKS proxy needs socksio: pip install 'httpx2[socks]'")
    if url.scheme == "https":
        load_authorities()  # httpx2 does so late, with an error of its own


def _is_exception(entry: str) -> bool:
    """Tell whether httpx2 understands an entry of `NO_PROXY`; it passes over what it doesn't."""
    import httpx2  # noqa: PLC0415 - comes with an extra

    try:
        if "/" in entry and "://" not in entry:
            ipaddress.ip_network(re.sub(r"[\[\]]", "", entry), strict=False)
        elif entry.count(":") < 2:  # noqa: PLR2004 - more are an IPv6 address
            httpx2.URL(entry if "://" in entry else f"all://{entry.lstrip('*.')}")
        elif "://" not in entry and not entry.startswith("["):
            ipaddress.ip_address(entry)
        else:
            httpx2.URL(entry if "://" in entry else f"all://{entry}")
    except (ValueError, httpx2.InvalidURL):
        return False
    return True


def proxy_note(url: str) -> str:
    """Return what to add where a URL can't be reached: which variable names a proxy for it."""
    parts, proxies = urlsplit(url), getproxies_environment()
    used = [scheme for scheme in (parts.scheme, "all") if proxies.get(scheme)]
    if not used or proxy_bypass(parts.hostname or ""):
        return ""
    return f" ({_variable(used[0])} names a proxy)"


def _variable(name: str) -> str:
    """Return how the variable is written: the small letters count first, as in `urllib`."""
    small = f"{name}_proxy"
    written = [key for key, value in os.environ.items() if key.lower() == small and value]
    return small if small in written or not written else written[0]
