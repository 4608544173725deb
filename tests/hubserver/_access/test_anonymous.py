"""`AnonymousAccess`: only what is surely a program on this machine has rights."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from auth_helpers import LOCAL, OTHER_USER, local_request
from tables import table

from h3trio import H3Event, HTTPError
from h3trio.hubserver import AnonymousAccess, TokenSources


def refusal(event: H3Event, rights: AnonymousAccess | None = None) -> str | None:
    """Return why a request may not publish, or None if it may."""
    try:
        (rights or AnonymousAccess()).check_publish(event)
    except HTTPError as error:
        return f"{error.status}: {error.detail}"
    return None


LOOPBACK_HOSTS = [
    *("localhost", "localhost:3000", "LOCALHOST:3000", "localhost.", "a.localhost:3000"),
    *("127.0.0.1", "127.0.0.1:3000", "127.8.8.8", "[::1]", "[::1]:3000"),
    "[::ffff:127.0.0.1]:3000",
]


def test_a_program_on_this_machine_may(subtests: pytest.Subtests) -> None:
    """A loopback peer that asks for a loopback host may do everything."""
    for host in LOOPBACK_HOSTS:
        for client in ["127.0.0.1", "::1", "unix", "memory", "::ffff:127.0.0.1"]:
            with subtests.test(host=host, client=client):
                event = local_request({"host": host}, client=client)
                AnonymousAccess().check_publish(event)
                AnonymousAccess().check_subscribe(event)
                AnonymousAccess().check_operate(event)


FOREIGN_HOSTS = [
    *("example.com", "localhost.example.com", "notlocalhost", "192.168.0.7:3000", "[fe80::1]"),
    *("0.0.0.0", "127.0.0.1.example.com", "evil@localhost", "localhost/x", "[::1", "", ":3000"),
    *("127.1", "2130706433", "localhost#.example.com", "localhost\\.example.com"),
    "a." * 130 + "localhost",  # no name is as long
]


def test_a_foreign_host_may_not(subtests: pytest.Subtests) -> None:
    """A name that isn't surely this machine's is refused: DNS rebinding brings such."""
    for host in FOREIGN_HOSTS:
        with subtests.test(host=host):
            assert refusal(local_request({"host": host})) == (
                "403: Host is not a loopback name: anonymous access is for programs of the hub's "
                "own user on this machine; see --allow-anonymous-publish"
            )


def test_no_host_may_not() -> None:
    """HTTP/1.0 goes without a Host header, and then without rights."""
    assert "Host is not" in str(refusal(local_request({})))


def test_the_host_of_an_absolute_target_counts() -> None:
    """A target in absolute form takes the place of the Host header."""
    assert refusal(local_request({"host": "example.com"}, target=b"http://localhost/")) is None
    assert "Host is not" in str(refusal(local_request(target=b"http://example.com/")))


def test_a_foreign_client_may_not(subtests: pytest.Subtests) -> None:
    """A peer that isn't surely this machine is refused."""
    for client in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "unknown", ""]:
        with subtests.test(client=client):
            assert "the client is on another machine" in str(refusal(local_request(client=client)))


PROXY_HEADERS = [
    *("Forwarded", "Via", "via", "X-Forwarded-For", "x-forwarded-host", "X-FORWARDED-PROTO"),
    *("X-Forwarded-Port", "X-Forwarded-"),
]


def test_a_proxied_request_may_not(subtests: pytest.Subtests) -> None:
    """A proxy on this machine looks like loopback; the headers that proxies set give it away."""
    for name in PROXY_HEADERS:
        with subtests.test(name=name):
            detail = str(refusal(local_request({**LOCAL, name: ""})))
            assert f"the request came through a proxy ({name.lower()})" in detail


def test_another_users_program_may_not(subtests: pytest.Subtests) -> None:
    """What a proxy with its defaults sends is as from here, but another user's: it has no right."""
    rights = AnonymousAccess()
    for client in ["127.0.0.1", "unix", "memory"]:
        event = local_request(client=client, user=OTHER_USER)
        for check in [rights.check_publish, rights.check_subscribe, rights.check_operate]:
            with (
                subtests.test(client=client, check=check.__name__),
                pytest.raises(HTTPError, match="the client is another user's program"),
            ):
                check(event)


def test_without_the_kernels_word_one_may_subscribe() -> None:
    """Where the kernel doesn't say whose program the client is, there is no more than that."""
    rights, event = AnonymousAccess(), local_request(user=None)
    rights.check_subscribe(event)
    for check in [rights.check_publish, rights.check_operate]:
        with pytest.raises(HTTPError, match="the kernel doesn't say whose program"):
            check(event)


OTHER_ORIGINS = [
    *("http://example.com", "https://localhost:3000", "http://localhost", "null", ""),
    *("http://localhost:3001", "http://127.0.0.1:3000", "http://localhost:3000.example.com"),
]


def test_another_origin_may_not(subtests: pytest.Subtests) -> None:
    """A page of another site may not use its visitor's rights; the port is part of a site."""
    for origin in OTHER_ORIGINS:
        with subtests.test(origin=origin):
            assert "Origin is another site (--cors-origin would admit it, and" in str(
                refusal(local_request({**LOCAL, "origin": origin}))
            )


def test_same_and_allowed_origins_may() -> None:
    """A page of our own may, and one of an origin that was allowed."""
    assert refusal(local_request({**LOCAL, "origin": "http://localhost:3000"})) is None
    assert refusal(local_request({"host": "LocalHost", "origin": "http://localhost"})) is None
    event = local_request({**LOCAL, "origin": "https://app.example"})
    assert (
        refusal(event, AnonymousAccess(allowed_origins=frozenset({"https://app.example"}))) is None
    )
    assert refusal(event, AnonymousAccess(allowed_origins=frozenset({"https://app.exampl"})))


@table("origin", ["*", "http://localhost:1/", "localhost:1", "https://a:443", "HTTPS://a"])
def test_origins_that_no_browser_sends(origin: str) -> None:
    """An origin that would admit nobody, or everybody, is refused when it is given."""
    with pytest.raises(ValueError, match=r"origin|port"):
        AnonymousAccess(allowed_origins=frozenset({origin}))
    with pytest.raises(ValueError, match=r"origin|port"):
        TokenSources(allowed_origins=frozenset({origin}))


def test_each_right_has_its_flag() -> None:
    """Rights for anyone are given one by one, and the refusal names the one that is missing."""
    foreign = local_request({"host": "example.com", "via": "1.1 x"}, client="192.0.2.1")
    names = ("publish", "subscribe", "operate")
    for given in names:
        flag: dict[str, Any] = {f"allow_anonymous_{given}": True}
        rights = AnonymousAccess(**flag)
        for wanted in names:
            expected = (
                nullcontext()
                if wanted == given
                else pytest.raises(HTTPError, match=f"see --allow-anonymous-{wanted}$")
            )
            with expected:
                getattr(rights, f"check_{wanted}")(foreign)
