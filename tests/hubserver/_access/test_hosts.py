"""The names in `Host`: what is this machine, and what is a name of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from auth_helpers import local_request
from helpers import connect, post, request
from tables import table

from h3trio import HTTPError
from h3trio.hub import Hub
from h3trio.hubserver import AccessControl, AnonymousAccess, create_app, is_loopback
from h3trio.hubserver._access.hosts import AllowedHosts

if TYPE_CHECKING:
    import trio

HOSTS = [
    *((host, True) for host in ("localhost", "Localhost", "127.0.0.1", "127.255.0.1", "::1")),
    *((host, False) for host in ("0.0.0.0", "::", "", "192.168.1.2", "fe80::1%eth0", "host")),
]


def test_is_loopback(subtests: pytest.Subtests) -> None:
    """Only what can't be another machine is loopback; wildcard addresses aren't."""
    for host, expected in HOSTS:
        with subtests.test(host=host, expected=expected):
            assert is_loopback(host) is expected


NAMED = ("hub.example.com", "Other-1.example.", "my_hub")


@table(
    "host, allowed",
    [
        *((host, True) for host in ("hub.example.com", "HUB.example.com:8080", "my_hub:3000")),
        *((host, True) for host in ("hub.example.com.", "other-1.example", "other-1.example.:1")),
        # These can't be rebound.
        *((host, True) for host in ("localhost:3000", "a.localhost", "127.0.0.1:3000", "[::1]")),
        *((host, True) for host in ("10.1.2.3:3000", "192.168.0.7", "[fe80::1]:3000")),
        *((host, False) for host in ("evil.example", "evil.hub.example.com", "hub.example.com.x")),
        *((host, False) for host in ("hub.example.comx", "hub.example.com@evil.example", "hub")),
        *((host, False) for host in ("127.1", "1.2.3", "[::1", "2130706433", ":3000", "x" * 300)),
    ],
)
def test_names_in_host(host: str, allowed: bool) -> None:  # noqa: FBT001 - a column of the table
    """The names that were given, in any case, and what can't be rebound; nothing else."""
    event = local_request({"host": host})
    AllowedHosts().check(event)
    if allowed:
        AllowedHosts(NAMED).check(event)
    else:
        with pytest.raises(HTTPError, match=r"421.*--allowed-host"):
            AllowedHosts(NAMED).check(event)


def test_no_name_misleads_nobody() -> None:
    """A request without a `Host`, as HTTP/1.0 may send it, comes from no browser."""
    AllowedHosts(NAMED).check(local_request({}))


def test_an_absolute_target_is_what_is_asked_for() -> None:
    """Its host counts, and not the one in `Host`."""
    with pytest.raises(HTTPError):
        AllowedHosts(NAMED).check(
            local_request({"host": "localhost"}, target=b"http://evil.example/")
        )


@table("name", ["hub:3000", "http://hub", "", "*", ".example.com", "h\u00fcb.example", "a" * 256])
def test_what_is_no_name(name: str) -> None:
    """A port, a scheme, a pattern or another alphabet is refused where it is given."""
    with pytest.raises(ValueError, match="is not the name of a host"):
        AccessControl(allowed_hosts=[name])


async def test_every_route_asks(nursery: trio.Nursery) -> None:
    """Whatever is open to anyone, a page that has rebound its name reads and changes nothing."""
    anyone = AnonymousAccess(
        allow_anonymous_publish=True, allow_anonymous_subscribe=True, allow_anonymous_operate=True
    )
    access = AccessControl(anonymous=anyone, allowed_hosts=["hub.example.com"])
    raws = [request(path) for path in ("/", "/events/a", "/statistics", "/metrics", "/nowhere")]
    raws += [post(b"x", "/events/a"), request("/events/a", method="DELETE")]
    raws += [request("/healthz/ready"), request("/static/dashboard.js")]
    async with Hub() as hub:
        app = create_app(hub, access=access)
        for raw in raws:
            client = connect(nursery, app)
            await client.send(raw.replace(b"Host: test", b"Host: evil.example"))
            assert (await client.head()).status == 421
            client = connect(nursery, app)
            await client.send(raw.replace(b"Host: test", b"Host: hub.example.com"))
            assert (await client.head()).status in (200, 404)
        assert hub.statistics().published == 1
        nursery.cancel_scope.cancel()
    assert access.statistics().misdirected == len(raws)
