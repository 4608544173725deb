"""`SecurityHeaders`: on every answer, as defaults, and HSTS over TLS only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from helpers import connect, request

from h3trio import App, H3Event, Response, SecurityHeaders

if TYPE_CHECKING:
    import trio
    from helpers import Head

    from h3trio._app.app import Next

HSTS = "max-age=31536000"
ALWAYS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-frame-options": "deny",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def make_app(headers: SecurityHeaders) -> App:
    """Make an app with several kinds of answer."""
    app = App()
    app.use(headers)

    @app.get("/plain")
    async def plain(_event: H3Event) -> str:
        return "hi"

    @app.get("/own")
    async def own(_event: H3Event) -> Response:
        return Response("hi", headers={"X-Frame-Options": "SAMEORIGIN"})

    @app.get("/stream")
    async def stream(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("hi")

    return app


async def ask(
    nursery: trio.Nursery, headers: SecurityHeaders, path: str, *, scheme: str = "http"
) -> Head:
    """Return the head of the answer to one request, as if it came over TLS or not."""
    client = connect(nursery, make_app(headers), scheme=scheme)
    await client.send(request(path))
    head = await client.head()
    nursery.cancel_scope.cancel()
    return head


@pytest.mark.parametrize(("path", "status"), [("/plain", 200), ("/stream", 200), ("/x", 404)])
async def test_every_answer_has_them(nursery: trio.Nursery, path: str, status: int) -> None:
    """A response, a stream and an error have the headers, and no HSTS."""
    head = await ask(nursery, SecurityHeaders(), path, scheme="https")
    assert head.status == status
    assert head.headers.items() >= ALWAYS.items()
    assert "strict-transport-security" not in head.headers


async def test_a_handlers_own_header_wins(nursery: trio.Nursery) -> None:
    """What a handler says itself is said once, its way."""
    head = await ask(nursery, SecurityHeaders(), "/own")
    assert head.headers["x-frame-options"] == "sameorigin"


async def test_what_is_none_is_left_out(nursery: trio.Nursery) -> None:
    """Each header but `nosniff` can be left out."""
    headers = SecurityHeaders(
        content_security_policy=None,
        referrer_policy=None,
        frame_options=None,
        cross_origin_opener_policy=None,
        cross_origin_resource_policy=None,
    )
    head = await ask(nursery, headers, "/plain")
    assert ALWAYS.keys() & head.headers.keys() == {"x-content-type-options"}


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_hsts_only_over_tls(nursery: trio.Nursery, scheme: str) -> None:
    """If asked for, `Strict-Transport-Security` goes with TLS and with nothing else."""
    headers = SecurityHeaders(strict_transport_security=HSTS)
    head = await ask(nursery, headers, "/plain", scheme=scheme)
    assert head.headers.get("strict-transport-security") == (HSTS if scheme == "https" else None)


async def test_behind_other_middleware(nursery: trio.Nursery) -> None:
    """Wherever it stands, the headers are there."""
    app = App()

    @app.use
    async def passing(_event: H3Event, next: Next) -> Response | None:  # noqa: A002 - the field's name for it
        return await next()

    app.use(SecurityHeaders())
    client = connect(nursery, app)
    await client.send(request())
    head = await client.head()
    assert (head.status, head.headers["x-content-type-options"]) == (404, "nosniff")
    nursery.cancel_scope.cancel()


def test_values_are_checked_at_once() -> None:
    """What can't be sent is an error where it is written."""
    with pytest.raises(ValueError, match="Referrer-Policy"):
        SecurityHeaders(referrer_policy="a\r\nb")
