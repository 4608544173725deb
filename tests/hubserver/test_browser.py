"""The hub towards browsers: its security headers, its CORS, and what other sites can't do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import trio
from helpers import connect, post, request

from h3trio import H3Event, HTTPError
from h3trio.hub import Hub
from h3trio.hubserver import AccessControl, AnonymousAccess, create_app, hub_cors
from h3trio.hubserver._monitoring.dashboard import PAGE_HEADERS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from helpers import Head

    from h3trio import App

    Make = Callable[..., App]

GOOD = "https://a.example"
TRUSTED = "https://trusted.example"
EVERYTHING = AnonymousAccess(
    allow_anonymous_publish=True,
    allow_anonymous_subscribe=True,
    allow_anonymous_operate=True,
    allowed_origins=frozenset({TRUSTED}),
)


@pytest.fixture
async def make(nursery: trio.Nursery) -> AsyncGenerator[Make]:
    """Make the app of a running hub, in which everything is allowed, for some CORS origins."""
    async with Hub() as hub:
        yield lambda *origins: create_app(
            hub, anonymous=EVERYTHING, cors=hub_cors(frozenset(origins))
        )
        nursery.cancel_scope.cancel()


async def ask(nursery: trio.Nursery, app: App, raw: bytes) -> Head:
    """Return the head of the answer to one request."""
    client = connect(nursery, app)
    await client.send(raw)
    return await client.head()


async def test_everything_has_security_headers(nursery: trio.Nursery, make: Make) -> None:
    """The API, a stream, an error and a preflight are data from which nothing runs."""
    for raw in (post(b"x", "/events/a"), request("/events/a"), request("/nowhere")):
        head = await ask(nursery, make(), raw)
        assert head.headers["content-security-policy"] == (
            "default-src 'none'; frame-ancestors 'none'"
        )
        assert head.headers["x-content-type-options"] == "nosniff"
        assert head.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in head.headers
    lines = (f"Origin: {GOOD}", "Access-Control-Request-Method: POST")
    for origins, status in (([GOOD], 204), ([TRUSTED], 403)):
        preflight = request("/events/a", *lines, method="OPTIONS")
        head = await ask(nursery, make(*origins), preflight)
        assert (head.status, head.headers["x-content-type-options"]) == (status, "nosniff")


async def test_the_page_has_a_policy_of_its_own(nursery: trio.Nursery, make: Make) -> None:
    """The page's policy lets it load and ask the hub alone, and run no code that is in a text."""
    head = await ask(nursery, make(), request("/"))
    policy = head.headers["content-security-policy"]
    assert policy == PAGE_HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert head.headers["x-frame-options"] == "deny"
    assert head.headers["referrer-policy"] == "no-referrer"
    assert head.headers["cross-origin-opener-policy"] == "same-origin"
    assert head.headers["x-content-type-options"] == "nosniff"


OTHER_SITES = [
    "https://evil.example",
    "null",
    "http://test.evil.example",
    "http://test:81",
    "test",
]


async def test_other_sites_change_nothing(
    subtests: pytest.Subtests, nursery: trio.Nursery, make: Make
) -> None:
    """A request that would change something is 403 if it comes from another site's page."""
    for method in ["POST", "DELETE", "PUT"]:
        for cors in [(), (GOOD,)]:
            for origin in OTHER_SITES:
                with subtests.test(method=method, cors=cors, origin=origin):
                    raw = post(b"x", "/events/a", f"Origin: {origin}").replace(
                        b"POST", method.encode()
                    )
                    assert (await ask(nursery, make(*cors), raw)).status == 403


async def test_own_and_listed_sites_may(
    subtests: pytest.Subtests, nursery: trio.Nursery, make: Make
) -> None:
    """The hub's own page, behind TLS too, a CORS origin and a trusted one may publish."""
    for origin in ["http://test", "https://test", "http://TEST", GOOD, TRUSTED]:
        with subtests.test(origin=origin):
            raw = post(b"x", "/events/a", f"Origin: {origin}")
            assert (await ask(nursery, make(GOOD), raw)).status == 200


async def test_no_host_is_nobodys_site(nursery: trio.Nursery, make: Make) -> None:
    """Without a Host there is no own origin that another could look like."""
    raw = post(b"x", "/events/a", "Origin: http://").replace(b"Host: test\r\n", b"")
    raw = raw.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert (await ask(nursery, make(), raw)).status == 403


@pytest.mark.parametrize(("lines", "status"), [([], 200), (["Cookie: a=1"], 403)])
async def test_any_site_without_cookies(
    nursery: trio.Nursery, make: Make, lines: list[str], status: int
) -> None:
    """`*` lets every page publish, but never with its visitor's cookies."""
    raw = post(b"x", "/events/a", "Origin: https://b.example", *lines)
    head = await ask(nursery, make("*"), raw)
    assert head.status == status
    assert head.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(("origin", "allowed"), [(GOOD, True), ("https://evil.example", False)])
async def test_streams_are_readable_for_listed_origins(
    nursery: trio.Nursery, make: Make, origin: str, *, allowed: bool
) -> None:
    """A GET stream runs for any page, and is readable for a listed one, cookies included."""
    head = await ask(nursery, make(GOOD), request("/events/a", f"Origin: {origin}"))
    assert head.status == 200
    assert head.headers["vary"] == "origin"
    assert head.headers.get("access-control-allow-origin") == (origin if allowed else None)
    assert head.headers.get("access-control-allow-credentials") == ("true" if allowed else None)


async def test_routes_of_an_application_are_its_own(
    subtests: pytest.Subtests, nursery: trio.Nursery, make: Make
) -> None:
    """What is added to the hub's app has none of its headers, CORS or refusals; the hub's has."""
    app = make(GOOD)
    site = f"Origin: {GOOD}"
    other = "Origin: https://evil.example"

    for register in (app.get("/page"), app.post("/"), app.get("/events/mine"), app.put("/page")):

        @register
        async def answer(_event: H3Event) -> str:
            await trio.lowlevel.checkpoint()
            return "<b>mine</b>"

    @app.get("/broken")
    async def fail(_event: H3Event) -> str:
        await trio.lowlevel.checkpoint()
        raise HTTPError(418)

    asked = "Access-Control-Request-Method: PUT"
    for raw, status in (
        (request("/page"), 200),
        (request("/page", site), 200),
        (request("/page", method="HEAD"), 200),
        (request("/broken"), 418),
        (request("/events/mine"), 200),
        (post(b"x", "/", other), 200),
        (request("/page", other, method="PUT"), 200),
        # The automatic answer, in which no site is let in.
        (request("/page", site, asked, method="OPTIONS"), 204),
    ):
        with subtests.test(raw=raw):
            head = await ask(nursery, app, raw)
            assert head.status == status
            names = {"content-security-policy", "x-content-type-options", "vary"}
            names |= {"cross-origin-resource-policy", "access-control-allow-origin"}
            assert names & set(head.headers) == set()
    for raw, status in (
        (request("/"), 200),
        (request("/events/other"), 200),
        (request("/nowhere"), 404),
        (request("/page", method="DELETE"), 405),
        (post(b"x", "/events/mine", other), 403),
    ):
        with subtests.test(raw=raw):
            head = await ask(nursery, app, raw)
            assert (head.status, head.headers["x-content-type-options"]) == (status, "nosniff")
            assert head.headers["vary"] == "origin"


async def test_a_name_is_refused_on_all_routes(nursery: trio.Nursery) -> None:
    """A page that made its own name lead here reads nothing of an application's routes either."""
    async with Hub() as hub:
        app = create_app(hub, access=AccessControl(allowed_hosts=["hub.example.com"]))

        @app.get("/page")
        async def answer(_event: H3Event) -> str:
            await trio.lowlevel.checkpoint()
            return "mine"

        for host, status in ((b"hub.example.com", 200), (b"evil.example", 421)):
            raw = request("/page").replace(b"Host: test", b"Host: " + host)
            assert (await ask(nursery, app, raw)).status == status
        nursery.cancel_scope.cancel()


NAMES = [
    *("last-event-id", "cache-control", "content-type", "content-encoding"),
    *("authorization", "idempotency-key"),
    *("traceparent", "tracestate", "baggage", "sentry-trace", "x-requested-with"),
    *("hx-request", "hx-request-type", "hx-current-url", "hx-source", "hx-target"),
    *("hx-boosted", "hx-history-restore-request"),
    *("hx-trigger", "hx-trigger-name", "hx-prompt", "datastar-request"),
]


async def test_preflight_of_a_publish(nursery: trio.Nursery, make: Make) -> None:
    """A page may send a key, and what a publish is repeated by, traced by, or comes with."""
    lines = (f"Origin: {GOOD}", "Access-Control-Request-Method: POST")
    head = await ask(nursery, make(GOOD), request("/events/a", *lines, method="OPTIONS"))
    assert head.status == 204
    assert head.headers["access-control-allow-headers"].split(", ") == NAMES


async def test_more_headers_are_allowed(nursery: trio.Nursery) -> None:
    """Others come behind those, each once; what is no token is refused."""
    cors = hub_cors(frozenset({GOOD}), headers=["X-Tenant", "Baggage"])
    async with Hub() as hub:
        app = create_app(hub, anonymous=EVERYTHING, cors=cors)
        lines = (f"Origin: {GOOD}", "Access-Control-Request-Method: POST")
        head = await ask(nursery, app, request("/events/a", *lines, method="OPTIONS"))
        assert head.headers["access-control-allow-headers"].split(", ") == [*NAMES, "x-tenant"]
        nursery.cancel_scope.cancel()
    assert hub_cors(frozenset(), headers=["X-Tenant"]) is None
    for name in ("", "a b", "*"):
        with pytest.raises(ValueError, match=r"token|means nothing"):
            hub_cors(frozenset({GOOD}), headers=[name])


@pytest.mark.parametrize("event_id", ["é", "à", "☃ 7", "urn:isbn:0451450523", "é" * 256])
async def test_publishers_ids_of_any_script(
    nursery: trio.Nursery, make: Make, event_id: str
) -> None:
    """A page of another site publishes with one, and comes back with it, by header or query."""
    app, site, encoded = make(GOOD), f"Origin: {GOOD}", quote(event_id, safe="")
    asked = ["Access-Control-Request-Method: GET", "Access-Control-Request-Headers: last-event-id"]
    head = await ask(nursery, app, request("/events/a", site, *asked, method="OPTIONS"))
    assert "last-event-id" in head.headers["access-control-allow-headers"].lower()
    client = connect(nursery, app)
    for raw in (
        post(b"1", f"/events?topic=a&id={encoded}", site),
        post(b"2", "/events?topic=a", site),
    ):
        await client.send(raw)
        published, body = await client.response()
        assert published.headers["access-control-allow-origin"] == GOOD
        answer = json.loads(body)["id"]
    for path, lines in (
        ("/events/a", [f"Last-Event-ID: {event_id.encode().decode('latin-1')}"]),
        (f"/events/a?last_event_id={encoded}", []),
    ):
        client = connect(nursery, app)
        await client.send(request(path, site, *lines))
        head = await client.head()
        assert head.headers["access-control-allow-origin"] == GOOD
        event = await client.event()
        assert (event.event, event.data, event.id) == ("message", "2", answer)
