"""Cookies: read leniently and bounded, set strictly; nothing can be injected by either."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from helpers import connect, request
from hypothesis import example, given
from hypothesis import strategies as st
from tables import table

from h3trio import H3Event, Response, ResponseStateError
from h3trio._http.cookies import MAX_COOKIE_BYTES, MAX_COOKIES, MAX_PAIR_BYTES, parse_cookies

if TYPE_CHECKING:
    import trio

COOKIE_OCTETS = "".join(map(chr, (0x21, *range(0x23, 0x2C), *range(0x2D, 0x3B)))) + "".join(
    map(chr, (*range(0x3C, 0x5C), *range(0x5D, 0x7F)))
)
TOKENS = st.text("!#$%&'*+-.^_`|~azAZ09", min_size=1, max_size=20)


def set_cookie(name: str, value: str, **attributes: Any) -> str:  # noqa: ANN401 - whatever `set_cookie` takes
    """Return the field that a response sends for a cookie."""
    response = Response()
    response.set_cookie(name, value, **attributes)
    return response.headers["set-cookie"]


def attributes_of(pair: str, field: str) -> set[str]:
    """Return the attributes of a cookie with this pair, their names in lower case."""
    first, *attributes = field.split("; ")
    assert first == pair
    assert len(set(attributes)) == len(attributes)
    parts = (attribute.partition("=") for attribute in attributes)
    return {name.lower() + equals + value for name, equals, value in parts}


DEFAULTS = {"path=/", "secure", "httponly", "samesite=Lax"}


# -- reading


@table(
    "fields, expected",
    [
        ([], {}),
        (["a=1"], {"a": "1"}),
        (["a=1; b=2;c=3"], {"a": "1", "b": "2", "c": "3"}),
        (["a=1", "b=2"], {"a": "1", "b": "2"}),
        (["a=first; a=second"], {"a": "first"}),
        (["a=", "b==x="], {"a": "", "b": "=x="}),
        ([' a\t=\t"q x" '], {"a": '"q x"'}),
        (["junk; =v; b ad=1; é=1; x=é; \x7f=1; ;;; good=1"], {"good": "1"}),
        (["$Version=1; a=1"], {"$Version": "1", "a": "1"}),
    ],
)
def test_reading(fields: list[str], expected: dict[str, str]) -> None:
    """The first of a name counts, quotes stay, and what is malformed hides nothing behind it."""
    assert parse_cookies(fields) == expected


def test_reading_is_bounded_in_count() -> None:
    """As many cookies as a browser keeps are read, and not one more."""
    names = [f"c{n}" for n in range(MAX_COOKIES + 1)]
    assert list(parse_cookies(["; ".join(f"{name}=1" for name in names)])) == names[:-1]


def test_reading_is_bounded_in_bytes() -> None:
    """What lies beyond so many bytes isn't looked at."""
    last = "z=1"
    for excess, found in ((0, {"z": "1"}), (1, {"z": ""})):
        filler = ";" * (MAX_COOKIE_BYTES - len(last) + excess)
        assert parse_cookies([filler + last]) == found


@given(st.lists(st.text(max_size=60), max_size=3))
def test_reading_never_fails(fields: list[str]) -> None:
    """Whatever comes, reading gives text that could have been a cookie."""
    for name, value in parse_cookies(fields).items():
        assert (name + value).isascii()
        assert (name + value).isprintable()
        assert not set(";") & set(name + value)


# -- setting


def test_defaults_are_the_careful_ones() -> None:
    """Without a word a cookie is for TLS, for no script, and for this site."""
    assert attributes_of("a=1", set_cookie("a", "1")) == DEFAULTS


def test_every_attribute() -> None:
    """Each attribute is written as RFC 6265 says, dates in GMT."""
    east = datetime(2030, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    field = set_cookie(
        "a",
        '"q"',
        max_age=60,
        expires=east,
        path="/x",
        domain="a.example",
        secure=False,
        http_only=False,
        same_site="strict",
    )
    assert attributes_of('a="q"', field) == {
        "max-age=60",
        "expires=Wed, 02 Jan 2030 03:04:05 GMT",
        "path=/x",
        "domain=a.example",
        "samesite=Strict",
    }


@table("name", ["path", "Version", "comment", "max-age"])
def test_a_name_may_be_that_of_an_attribute(name: str) -> None:
    """No token is reserved."""
    assert attributes_of(f"{name}=1", set_cookie(name, "1")) == DEFAULTS


def test_deleting() -> None:
    """A cookie is deleted by one of the same name, path and domain that has ended."""
    response = Response()
    response.delete_cookie("__Host-a")
    attributes = attributes_of("__Host-a=", response.headers["set-cookie"])
    assert attributes == DEFAULTS | {"max-age=0", "expires=Thu, 01 Jan 1970 00:00:00 GMT"}


@table(
    "name, value, attributes",
    [
        ("", "1", {}),
        ("a b", "1", {}),
        ("a=b", "1", {}),
        ("é", "1", {}),
        ("a", "1;2", {}),
        ("a", "1,2", {}),
        ("a", "1 2", {}),
        ("a", '1"2', {}),
        ("a", "1\\2", {}),
        ("a", "é", {}),
        ("a", "1\r\nX: y", {}),
        ("a", "1\n", {}),
        ("a", "1", {"path": "x"}),
        ("a", "1", {"path": "/;x"}),
        ("a", "1", {"path": "/\n"}),
        ("a", "1", {"path": "/" * 1025}),
        ("a", "1", {"domain": ""}),
        ("a", "1", {"domain": ".a.example"}),
        ("a", "1", {"domain": "a;b"}),
        ("a", "1", {"max_age": 1.5}),
        ("a", "1", {"max_age": True}),
        ("a", "1", {"expires": datetime(2030, 1, 1)}),  # noqa: DTZ001 - that it has no zone is the point
        ("a", "1", {"same_site": "Lax"}),
        ("a", "1", {"same_site": "none", "secure": False}),
        ("__Secure-a", "1", {"secure": False}),
        ("__Host-a", "1", {"secure": False}),
        ("__Host-a", "1", {"path": "/x"}),
        ("__host-a", "1", {"domain": "a.example"}),
    ],
)
def test_what_no_browser_takes(name: str, value: str, attributes: dict[str, object]) -> None:
    """What would be cut short, or dropped in silence, is an error; it doesn't quote the value."""
    with pytest.raises(ValueError, match=r".{10}") as caught:
        set_cookie(name, value, **attributes)
    assert len(value) < 2 or value not in str(caught.value)


def test_prefixes_with_what_they_ask_for() -> None:
    """Cookies with a prefix are fine if they keep its rules."""
    assert attributes_of("__Host-a=1", set_cookie("__Host-a", "1")) == DEFAULTS
    assert "Domain=a.example" in set_cookie("__Secure-a", "1", domain="a.example", path="/x")


def test_size_is_bounded() -> None:
    """Name and value together have 4096 bytes, and not one more."""
    set_cookie("a", "x" * (MAX_PAIR_BYTES - 1))
    with pytest.raises(ValueError, match="4096"):
        set_cookie("a", "x" * MAX_PAIR_BYTES)


@given(name=st.text(max_size=20), value=st.text(max_size=20), path=st.text(max_size=10))
@example("a", "1\r\n\r\n", "/")
@example("a", "1", "/\0")
def test_nothing_is_injected(name: str, value: str, path: str) -> None:
    """Whatever is passed, one field with the attributes that were meant comes out, or an error."""
    try:
        field = set_cookie(name, value, path=path)
    except ValueError:
        return
    assert not set("\r\n\0") & set(field)
    assert attributes_of(f"{name}={value}", field) == DEFAULTS - {"path=/"} | {f"path={path}"}


@given(st.dictionaries(TOKENS, st.text(COOKIE_OCTETS, max_size=30), max_size=5))
def test_what_is_set_is_read_back(cookies: dict[str, str]) -> None:
    """Every value that can be set comes back as it was."""
    plain = {name: value for name, value in cookies.items() if not name.startswith("__")}
    sent = [set_cookie(name, value).partition(";")[0] for name, value in plain.items()]
    assert parse_cookies(["; ".join(sent)]) == plain


# -- over a connection


async def test_an_event_has_cookies_and_sets_them(nursery: trio.Nursery) -> None:
    """A handler reads cookies, and those it sets go out beside those of its response."""

    async def handler(event: H3Event) -> Response:
        assert event.cookies is event.cookies
        assert event.cookies == {"a": "1", "b": "2"}
        event.set_cookie("event", "1")
        event.delete_cookie("b")
        response = Response("hi")
        response.set_cookie("response", "1")
        return response

    client = connect(nursery, handler)
    await client.send(request("/", "Cookie: a=1; b=2"))
    head, _ = await client.response()
    cookies = head.headers["set-cookie"]
    assert [name in cookies for name in ("response=1;", "event=1;", "b=;")] == [True] * 3
    nursery.cancel_scope.cancel()


async def test_a_stream_sets_cookies(nursery: trio.Nursery) -> None:
    """A cookie set before a stream is entered is on its head; afterwards it is an error."""

    async def handler(event: H3Event) -> None:
        event.set_cookie("a", "1", expires=datetime(2030, 1, 1, tzinfo=UTC))
        async with event.start_sse() as writer:
            with pytest.raises(ResponseStateError):
                event.set_cookie("b", "1")
            await writer.send("hi")

    client = connect(nursery, handler)
    await client.send(request("/"))
    head = await client.head()
    assert head.headers["set-cookie"].startswith("a=1; expires=tue, 01 jan 2030 00:00:00 gmt;")
    assert (await client.event()).data == "hi"
    nursery.cancel_scope.cancel()
