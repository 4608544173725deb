"""`RedisAddress`: the server to connect to, and as whom; `parse_address` reads it from a URL.

    redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]
    rediss://…                                   the same with TLS; ?ca=FILE &cert=FILE &key=FILE
    unix://[USER[:PASSWORD]@]/PATH[?db=DB]
    redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT]/NAME[/DB]
    rediss+sentinel://…                          the same with TLS, to the sentinels too

A URL with a password shows it to whoever reads the process list, so the password may come from a
file (`?password-file=`) or as an argument of its own. No error of this file quotes a part of a URL
that may hold one: a forgotten `%2F` moves the rest of a password into what looks like a path.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
PREFIX: Final = "h3trio"
MAX_SECRET_BYTES: Final = 4096
"""The most that a file with a password may hold."""
MAX_PREFIX: Final = 100
"""Characters of a prefix, which stands in each key."""
MAX_DB: Final = 1_000_000
MAX_PORT: Final = 65535

_SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_TLS_OPTIONS: Final = ("ca", "cert", "key")
_SENTINEL_OPTIONS: Final = ("sentinel-user", "sentinel-password-file")
_OPTIONS: Final = ("db", "prefix", "password-file", *_TLS_OPTIONS, *_SENTINEL_OPTIONS)


class HostPort(NamedTuple):
    """A TCP address."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


Place: TypeAlias = HostPort | str
"""One server: a TCP address, or the path of a Unix socket."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user of the server's, by name and password; without a name it is `default`."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFiles:
    """Files for TLS: the authorities to trust, and a certificate of our own with its key."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def context(self) -> ssl.SSLContext:
        """Read the files; the context checks the server's certificate and its host name.

        Raises:
            ValueError: a file can't be read, or holds something else.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as exc:
            files = ", ".join(name for name in (self.ca, self.cert, self.key) if name)
            raise ValueError(f"can't use {files} for TLS: {exc}") from exc
        return context


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Everything that says how to reach a server; `str` and `repr` show no password."""

    places: tuple[Place, ...]
    """The server, or the sentinels that know it."""
    sentinel_name: str | None = None
    """The name by which the sentinels know the server; `None` without them."""
    login: Login = Login()
    sentinel_login: Login = Login()
    db: int = 0
    prefix: str = PREFIX
    """How the names of all keys and channels begin."""
    tls: TLSFiles | None = None

    def __str__(self) -> str:
        user = f"{self.login.user}@" if self.login.user else ""
        places = ",".join(map(str, self.places))
        if self.sentinel_name is not None:
            scheme = "rediss+sentinel" if self.tls else "redis+sentinel"
            return f"{scheme}://{user}{places}/{self.sentinel_name}/{self.db}"
        if isinstance(self.places[0], str):
            return f"unix://{user}{places}?db={self.db}"
        return f"{'rediss' if self.tls else 'redis'}://{user}{places}/{self.db}"


def parse_address(
    url: str, *, password: str | None = None, sentinel_password: str | None = None
) -> RedisAddress:
    """Read a URL.

    Args:
        url: as at the top of this file; percent-encoded.
        password: instead of one in the URL.
        sentinel_password: the sentinels' own.

    Raises:
        ValueError: the URL is wrong, or a file that it names can't be read.
    """
    if not isinstance(url, str):
        raise TypeError(f"a Redis URL must be a str, not {type(url).__name__}")
    scheme, found, rest = url.partition("://")
    if not found or scheme not in _SCHEMES:
        raise ValueError(f"a Redis URL begins with one of {', '.join(_SCHEMES)}, and ://")
    if "#" in rest:
        raise ValueError("a Redis URL has no fragment: a # inside is written %23")
    rest, _, query = rest.partition("?")
    options = _options(query, scheme)
    before, at, rest = rest.rpartition("@")
    places: tuple[Place, ...]
    login = _login(before if at else "", options.get("password-file"), password)
    sentinel_login, sentinel_name = Login(), None
    if scheme == "unix":
        places = (_unix_path(rest),)
        path: list[str] = []
    else:
        hosts, _, tail = rest.partition("/")
        path = [unquote(part) for part in tail.split("/") if part]
        with_sentinel = scheme.endswith("sentinel")
        places = _hosts(hosts, SENTINEL_PORT if with_sentinel else PORT)
        if with_sentinel:
            if not path:
                raise ValueError("a Sentinel URL ends with the name of the server: …/NAME")
            sentinel_name = path.pop(0)
            name = options.get("sentinel-user", "")
            sentinel_login = _login(name, options.get("sentinel-password-file"), sentinel_password)
        elif len(places) > 1:
            raise ValueError("several hosts are several sentinels: redis+sentinel://…/NAME")
    return RedisAddress(
        places=places,
        sentinel_name=sentinel_name,
        login=login,
        sentinel_login=sentinel_login,
        db=_database(path, options),
        prefix=_prefix(options.get("prefix", PREFIX)),
        tls=_tls(options) if scheme.startswith("rediss") else None,
    )


def _options(query: str, scheme: str) -> Mapping[str, str]:
    """Read the query: each option once, known, and of use with this scheme."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise ValueError("the query of a Redis URL is NAME=VALUE, joined with &") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ValueError("a Redis URL gives one of its options twice")
    if not options.keys() <= set(_OPTIONS):
        # The names aren't quoted: a password with a `?` in it could be among them.
        raise ValueError(f"an option of a Redis URL is unknown: there are {', '.join(_OPTIONS)}")
    for names, kind in ((_TLS_OPTIONS, "rediss"), (_SENTINEL_OPTIONS, "sentinel")):
        if kind not in scheme and (useless := options.keys() & set(names)):
            raise ValueError(f"?{min(useless)}= is for {kind}, and the URL is {scheme}://")
    if empty := sorted(name for name, value in options.items() if not value):
        raise ValueError(f"?{empty[0]}= has no value")
    return options


def _login(text: str, file: str | None, password: str | None) -> Login:
    """Read `USER:PASSWORD`; the password may come from elsewhere, but from one place only."""
    user, _, inside = text.partition(":")
    given = [unquote(inside)] if inside else []
    if file is not None:
        given.append(_read_secret(file))
    if password is not None:
        given.append(password)
    if len(given) > 1:
        raise ValueError("the Redis password is given twice")
    return Login(user=unquote(user) or None, password=given[0] if given else None)


def _read_secret(file: str) -> str:
    """Read a password from a file; a line end behind it is no part of it."""
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(MAX_SECRET_BYTES + 1)
    except OSError as exc:
        raise ValueError(f"can't read the Redis password from {file}: {exc.strerror}") from exc
    secret = data.removesuffix(b"\n").removesuffix(b"\r")
    if not secret or len(data) > MAX_SECRET_BYTES:
        raise ValueError(f"{file} must hold a password of up to {MAX_SECRET_BYTES} bytes")
    try:
        return secret.decode()
    except UnicodeDecodeError:
        raise ValueError(f"the password in {file} isn't UTF-8") from None


def _unix_path(text: str) -> str:
    path = unquote(text)
    if not path.startswith("/"):
        raise ValueError("a Unix socket is named by its whole path: unix:///run/redis.sock")
    return path


def _hosts(text: str, default: int) -> tuple[HostPort, ...]:
    """Read `HOST:PORT,HOST:PORT`; an IPv6 address stands in brackets."""
    return tuple(_host(part, default) for part in text.split(","))


def _host(text: str, default: int) -> HostPort:
    if text.startswith("["):
        host, closed, tail = text[1:].partition("]")
        colon, port = tail[:1], tail[1:]
        is_good = bool(closed) and colon in ("", ":")
    else:
        host, colon, port = text.partition(":")
        is_good = True
    if not is_good or not host or any(char.isspace() for char in host):
        raise ValueError("a Redis URL needs a host: HOST, HOST:PORT or [IPv6]:PORT")
    if not colon:
        return HostPort(unquote(host), default)
    number = _number(port, MAX_PORT)
    if not number:
        raise ValueError(f"the port of a Redis URL is a number from 1 to {MAX_PORT}")
    return HostPort(unquote(host), number)


def _number(text: str, most: int) -> int | None:
    """Read a number in ASCII digits; `None` if it isn't one, or too large."""
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    return int(text) if is_number and int(text) <= most else None


def _database(path: list[str], options: Mapping[str, str]) -> int:
    """Read the database's number, from the path or the query."""
    given = [*path, *([options["db"]] if "db" in options else [])]
    if len(given) > 1:
        raise ValueError("a Redis URL names one database: /DB or ?db=DB")
    number = _number(given[0] if given else "0", MAX_DB)
    if number is None:
        raise ValueError("the database of a Redis URL is a number, such as /0")
    return number


def _prefix(prefix: str) -> str:
    """Check a prefix: braces would change the hash tag that all keys of a hub share."""
    if (
        not prefix.isprintable()
        or any(char in "{} " for char in prefix)
        or len(prefix) > MAX_PREFIX
    ):
        raise ValueError(
            f"?prefix= has up to {MAX_PREFIX} printable characters, no space and no braces"
        )
    return prefix


def _tls(options: Mapping[str, str]) -> TLSFiles:
    if ("cert" in options) != ("key" in options):
        raise ValueError("?cert= and ?key= are given together")
    files = TLSFiles(**{name: options[name] for name in _TLS_OPTIONS if name in options})
    if files != TLSFiles():
        files.context()  # they are read again with each connection, as certificates are renewed
    return files
