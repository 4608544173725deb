"""URLs of a Redis: what they say, what is refused, and that no password is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio._redis.address import (
    MAX_SECRET_BYTES,
    HostPort,
    Login,
    RedisAddress,
    TLSFiles,
    parse_address,
)

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN = "s3cret"


def login(password: str, user: str | None = None) -> Login:
    """Make a login."""
    return Login(user=user, password=password)


A, B = HostPort("a", 6379), HostPort("b", 26379)


@table(
    "url, wanted, shown",
    [
        ("redis://a", RedisAddress(places=(A,)), "redis://a:6379/0"),
        ("redis://a:1/2", RedisAddress(places=(HostPort("a", 1),), db=2), "redis://a:1/2"),
        ("redis://a/?db=7", RedisAddress(places=(A,), db=7), "redis://a:6379/7"),
        (
            "redis://[::1]:1",
            RedisAddress(places=(HostPort("::1", 1),)),
            "redis://[::1]:1/0",
        ),
        ("redis://[::1]", RedisAddress(places=(HostPort("::1", 6379),)), "redis://[::1]:6379/0"),
        (
            "redis://h%40b:s%2F3%3A@a?prefix=x",
            RedisAddress(places=(A,), login=login("s/3:", "h@b"), prefix="x"),
            "redis://h@b@a:6379/0",
        ),
        (
            "redis://:s@3/@a",
            RedisAddress(places=(A,), login=login("s@3/")),
            "redis://a:6379/0",
        ),
        ("rediss://a", RedisAddress(places=(A,), tls=TLSFiles()), "rediss://a:6379/0"),
        (
            "unix:///run/my%20redis.sock?db=1",
            RedisAddress(places=("/run/my redis.sock",), db=1),
            "unix:///run/my redis.sock?db=1",
        ),
        (
            "unix://hub:s@/run/r.sock",
            RedisAddress(places=("/run/r.sock",), login=login("s", "hub")),
            "unix://hub@/run/r.sock?db=0",
        ),
        (
            "redis+sentinel://:s@b,c:1/main/3?sentinel-user=x",
            RedisAddress(
                places=(B, HostPort("c", 1)),
                sentinel_name="main",
                login=login("s"),
                sentinel_login=Login(user="x"),
                db=3,
            ),
            "redis+sentinel://b:26379,c:1/main/3",
        ),
        (
            "rediss+sentinel://b/main",
            RedisAddress(places=(B,), sentinel_name="main", tls=TLSFiles()),
            "rediss+sentinel://b:26379/main/0",
        ),
    ],
)
def test_a_url_is_read(url: str, wanted: RedisAddress, shown: str) -> None:
    """Each part is where it belongs, percent-decoded, and `str` shows all but passwords."""
    assert parse_address(url) == wanted
    assert str(parse_address(url)) == shown


@table(
    "url, reason",
    [
        ("", "begins with one of redis, rediss, unix"),
        ("a:6379", "begins with one of"),
        ("http://a", "begins with one of"),
        ("redis:a", "begins with one of"),
        ("redis://", "needs a host"),
        ("redis://:1", "needs a host"),
        ("redis://a b", "needs a host"),
        ("redis://[::1", "needs a host"),
        ("redis://[::1]1", "needs a host"),
        ("redis://a:", "from 1 to 65535"),
        ("redis://a:0", "from 1 to 65535"),
        ("redis://a:65536", "from 1 to 65535"),
        ("redis://a:1e3", "from 1 to 65535"),
        ("redis://a:٣", "from 1 to 65535"),
        ("redis://::1", "needs a host"),
        ("redis://a,b", "several sentinels"),
        ("redis://a/x", "is a number"),
        ("redis://a/-1", "is a number"),
        ("redis://a/1/2", "names one database"),
        ("redis://a/1?db=1", "names one database"),
        ("redis://a?db=", "has no value"),
        ("redis://a?db=1&db=1", "twice"),
        ("redis://a?dp=1", "unknown"),
        ("redis://a?db", "NAME=VALUE"),
        ("redis://a#1", "no fragment"),
        ("redis://a?prefix={a}", "no braces"),
        ("redis://a?prefix=a%20b", "no space"),
        (f"redis://a?prefix={'x' * 101}", "100"),
        ("redis://a?ca=/x", "for rediss"),
        ("redis://a?sentinel-user=x", "for sentinel"),
        ("rediss://a?cert=/x", "together"),
        ("rediss://a?ca=/nowhere/ca.pem", "can't use /nowhere/ca.pem for TLS"),
        ("unix://run/redis.sock", "whole path"),
        ("unix://", "whole path"),
        ("redis+sentinel://a", "ends with the name"),
        ("redis+sentinel://a,/main", "needs a host"),
        ("redis+sentinel://a/main/x", "is a number"),
        ("redis://a?password-file=/nowhere/p", "can't read the Redis password from /nowhere/p"),
    ],
)
def test_a_wrong_url_is_refused(url: str, reason: str) -> None:
    """One clear line says what is wrong."""
    with pytest.raises(ValueError, match=reason) as caught:
        parse_address(url)
    assert "\n" not in str(caught.value)


def test_anything_but_text_is_refused() -> None:
    """A `bytes` or `None` is the caller's error."""
    with pytest.raises(TypeError, match="not bytes"):
        parse_address(b"redis://a")  # type: ignore[arg-type]  # it is what is tested


@table(
    "held, wanted",
    [
        (b"s/@ 3\n", "s/@ 3"),
        (b"s\r\n", "s"),
        (b" s ", " s "),
        ("é".encode(), "é"),
        (b"x" * MAX_SECRET_BYTES, "x" * MAX_SECRET_BYTES),
        (b"", "must hold a password"),
        (b"\n", "must hold a password"),
        (b"x" * (MAX_SECRET_BYTES + 1), "must hold a password"),
        (b"\xff", "isn't UTF-8"),
    ],
)
def test_a_password_may_stand_in_a_file(tmp_path: Path, held: bytes, wanted: str) -> None:
    """It is the file's content without the line end; a file that can't be one is refused."""
    path = tmp_path / "password"
    path.write_bytes(held)
    url = f"redis+sentinel://hub@a/main?password-file={path}&sentinel-password-file={path}"
    if (" " in wanted and "password" in wanted) or "UTF" in wanted:
        with pytest.raises(ValueError, match=wanted):
            parse_address(url)
    else:
        address = parse_address(url)
        assert address.login == Login(user="hub", password=wanted)
        assert address.sentinel_login == Login(password=wanted)


def test_a_password_comes_from_one_place(tmp_path: Path) -> None:
    """From the URL, a file or an argument: two of them are refused."""
    path = tmp_path / "password"
    path.write_text(HIDDEN)
    wanted = login(HIDDEN)
    assert parse_address(f"redis://:{HIDDEN}@a").login == wanted
    assert parse_address(f"redis://a?password-file={path}").login == wanted
    assert parse_address("redis://a", password=HIDDEN).login == wanted
    for url, password in (
        (f"redis://:{HIDDEN}@a?password-file={path}", None),
        (f"redis://:{HIDDEN}@a", HIDDEN),
        (f"redis://a?password-file={path}", HIDDEN),
    ):
        with pytest.raises(ValueError, match="twice"):
            parse_address(url, password=password)


@pytest.mark.slow
def test_files_for_tls_are_read_at_once(tmp_path: Path) -> None:
    """Good ones make a context that checks certificate and host name; others are refused."""
    authority = trustme.CA()
    ca, pem, wrong = tmp_path / "ca.pem", tmp_path / "me.pem", tmp_path / "wrong.pem"
    authority.cert_pem.write_to_path(str(ca))
    authority.issue_cert("me").private_key_and_cert_chain_pem.write_to_path(str(pem))
    wrong.write_text("no certificate")
    tls = parse_address(f"rediss://a?ca={ca}&cert={pem}&key={pem}").tls
    assert tls is not None
    assert tls == TLSFiles(ca=str(ca), cert=str(pem), key=str(pem))
    assert tls.context().check_hostname
    for query in (f"ca={wrong}", f"cert={wrong}&key={pem}", f"cert={pem}&key={wrong}"):
        with pytest.raises(ValueError, match=r"can't use .*wrong\.pem.* for TLS"):
            parse_address(f"rediss://a?{query}")


PIECES = st.lists(
    st.sampled_from([*"/?#@:,[]=&%", "a", "1", "db=", "prefix=", "main", " ", "%2F"]), max_size=4
).map("".join)
SCHEMES = st.sampled_from(["redis", "rediss", "unix", "redis+sentinel", "http"])


@given(scheme=SCHEMES, before=PIECES, middle=PIECES, behind=PIECES)
def test_no_password_is_shown(scheme: str, before: str, middle: str, behind: str) -> None:
    """However it is mangled, neither the address nor an error shows a part of the password."""
    url = f"{scheme}://{before}:{HIDDEN}{middle}{HIDDEN}@{behind}"
    shown: list[object] = []
    try:
        address = parse_address(url)
    except ValueError as exc:
        shown += [exc, exc.__cause__, None if exc.__suppress_context__ else exc.__context__]
    else:
        shown += [address, repr(address)]
    assert all(HIDDEN not in str(each) for each in shown)


def test_passwords_of_both_logins_are_hidden() -> None:
    """Neither `str` nor `repr` has them."""
    address = parse_address(
        f"redis+sentinel://hub:{HIDDEN}@a/main", sentinel_password=f"other {HIDDEN}"
    )
    assert address.login.password == HIDDEN
    assert HIDDEN not in f"{address} {address!r} {address.login!r} {address.sentinel_login}"
