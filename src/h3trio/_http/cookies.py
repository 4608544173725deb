"""Cookies: read leniently from a request, and set strictly in a response.

After RFC 6265 and its successor's draft ("6265bis"). The standard library's `http.cookies` writes
them. Its reader isn't used, as it stops at the first piece it can't read, nor its quoting, with
backslashes that no browser takes back.

Nothing is quoted, encoded or dropped on the way out: a name or value that the grammar has no place
for is a `ValueError`. The caller encodes such a value as its reader expects it.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from datetime import UTC, datetime
from email.utils import format_datetime
from http.cookies import Morsel
from typing import TYPE_CHECKING, Final, Literal, TypedDict, Unpack

from .headers import is_token

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .headers import MutableHeaders

SameSite = Literal["strict", "lax", "none"]

MAX_COOKIES: Final = 180
"""Cookies read of one request: as many as a browser keeps for a site. The rest is ignored."""
MAX_COOKIE_BYTES: Final = 16 * 1024
"""Bytes of `Cookie` fields that are read: a whole head by default. The rest is ignored."""
MAX_PAIR_BYTES: Final = 4096
"""Longest name and value that is set: 6265bis section 5.6 has browsers ignore longer ones."""
MAX_ATTRIBUTE_BYTES: Final = 1024
"""Longest path or domain that is set: 6265bis section 5.6 has browsers ignore longer ones."""

# RFC 6265 section 4.1.1: no control, space, DQUOTE, comma, semicolon or backslash; DQUOTE around.
_OCTETS: Final = r"[!#-+\--:<-\[\]-~]*"
_VALUE: Final = re.compile(rf'{_OCTETS}|"{_OCTETS}"')
_PATH: Final = re.compile(r"/[ -:<-~]*")
_DOMAIN: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_READABLE: Final = re.compile(r"[ -~]*")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_cookies(fields: Iterable[str]) -> dict[str, str]:
    """Return the cookies of a request's `Cookie` fields, of which there should be one.

    Of several with one name the first counts: browsers send the most specific path first
    (RFC 6265 section 5.4). A piece without `=`, with a name that is no token or a value that isn't
    printable ASCII is skipped. Quotes around a value are part of it. Raises nothing.
    """
    cookies: dict[str, str] = {}
    text = ";".join(fields)[:MAX_COOKIE_BYTES]
    for piece in text.split(";"):
        name, equals, value = piece.partition("=")
        name, value = name.strip(" \t"), value.strip(" \t")
        if equals and is_token(name) and _READABLE.fullmatch(value):
            cookies.setdefault(name, value)
            if len(cookies) == MAX_COOKIES:
                break
    return cookies


class _Attributes(TypedDict, total=False):
    path: str
    domain: str | None
    secure: bool
    http_only: bool
    same_site: SameSite


class SetsCookies:
    """An object with response headers, which can set cookies."""

    __slots__ = ()

    @abstractmethod
    def _cookie_headers(self) -> MutableHeaders:
        """Return the headers that a `Set-Cookie` goes to."""

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        expires: datetime | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        http_only: bool = True,
        same_site: SameSite = "lax",
    ) -> None:
        """Have the client keep a cookie (RFC 6265 section 4.1, and 6265bis).

        Args:
            name: a token. `__Host-` and `__Secure-` in front, in any case, demand of the
                attributes what a browser demands.
            value: printable ASCII without space, `"`, `,`, `;` and backslash.
            max_age: seconds it is kept; until the browser ends if neither this nor `expires`
                is given.
            expires: when it ends, a time with a zone.
            path: the paths it is sent to, itself and those below it.
            domain: the host, and those below it, that it is sent to; this host alone if not
                given.
            secure: send it over TLS only (and to loopback, in most browsers).
            http_only: hide it from scripts.
            same_site: whether it goes with requests from other sites.

        Raises:
            ValueError: one of these can't be sent, or no browser would take them together.
            ResponseStateError: the head went out.
        """
        _check_pair(name, value)
        _check_attribute("Path", path, _PATH)
        _check_together(name, path=path, domain=domain, secure=secure, same_site=same_site)
        cookie: Morsel[str] = Morsel()
        cookie["path"] = path
        cookie["secure"] = secure
        cookie["httponly"] = http_only
        cookie["samesite"] = same_site.title()
        if domain is not None:
            _check_attribute("Domain", domain, _DOMAIN)
            cookie["domain"] = domain
        if max_age is not None:
            if isinstance(max_age, bool) or not isinstance(max_age, int):
                raise ValueError(f"max_age is a whole number of seconds, not {max_age!r}")
            cookie["max-age"] = max_age
        if expires is not None:
            if expires.tzinfo is None:
                raise ValueError("expires has no time zone: which moment it means isn't known")
            cookie["expires"] = format_datetime(expires.astimezone(UTC), usegmt=True)
        # A morsel of this name would refuse one that is called as an attribute is, such as "path".
        cookie.set("_", value, value)
        self._cookie_headers().add("Set-Cookie", name + cookie.OutputString()[1:])

    def delete_cookie(self, name: str, **attributes: Unpack[_Attributes]) -> None:
        """Have the client forget a cookie that was set with this name, path and domain.

        The attributes are those of `set_cookie`: `path`, `domain`, `secure`, `http_only` and
        `same_site`.

        Raises:
            ValueError: as `set_cookie`.
            ResponseStateError: the head went out.
        """
        self.set_cookie(name, "", max_age=0, expires=_EPOCH, **attributes)


def _check_pair(name: str, value: str) -> None:
    # The messages don't quote values: errors are logged, and a cookie may be a session.
    if not is_token(name):
        raise ValueError(f"cookie name {name!r} is not a token (RFC 9110 section 5.6.2)")
    if not _VALUE.fullmatch(value):
        raise ValueError(
            f"the value of cookie {name!r} holds what no cookie can: encode it, "
            "to base64url or by percent signs"
        )
    if len(name) + len(value) > MAX_PAIR_BYTES:
        raise ValueError(f"cookie {name!r} is longer than {MAX_PAIR_BYTES} bytes")


def _check_attribute(name: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(value) or len(value) > MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"{value[:MAX_ATTRIBUTE_BYTES]!r} can't be the {name} of a cookie")


def _check_together(
    name: str, *, path: str, domain: str | None, secure: bool, same_site: SameSite
) -> None:
    if same_site not in ("strict", "lax", "none"):
        raise ValueError(f"same_site is strict, lax or none, not {same_site!r}")
    if same_site == "none" and not secure:
        raise ValueError("browsers take SameSite=None with Secure only")
    # 6265bis section 5.7 step 20: browsers match the prefixes without regard to case.
    lowered = name.lower()
    if lowered.startswith(("__secure-", "__host-")) and not secure:
        raise ValueError(f"browsers take {name!r} with Secure only")
    if lowered.startswith("__host-") and (domain is not None or path != "/"):
        raise ValueError(f'browsers take {name!r} with path "/" and without a domain only')
