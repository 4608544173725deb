"""A page of another site in a browser, which asks the hub before it sends what the page wants."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import trio
from e2e.browser import Browser
from e2e.process import ServeProcess

from h3trio import App, H3Event, Response, serve

if TYPE_CHECKING:
    from collections.abc import Generator

    from e2e.browser import Visit

PUBLISH: Final = """async ([url, headers]) => {
  try {
    const answer = await fetch(url, { method: "POST", body: "x", headers })
    return answer.status
  } catch (error) {
    return String(error)
  }
}"""
ADDED: Final = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "a=1",
    "baggage": "a=1",
    "sentry-trace": "d4cd-1",
    "X-Requested-With": "XMLHttpRequest",
    "Datastar-Request": "true",
    "HX-Request": "true",
    "HX-Request-Type": "partial",
    "HX-Current-URL": "http://a/",
    "HX-Source": "button#a",
    "HX-Target": "div#b",
    "HX-Boosted": "true",
    "HX-History-Restore-Request": "true",
    "HX-Trigger": "a",
    "HX-Trigger-Name": "a",
    "Authorization": "Bearer x",
    "Idempotency-Key": "1",
    "X-Tenant": "mine",
}


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """Give a Chromium that the tests of this module share."""
    with Browser() as shared:
        yield shared


async def test_a_page_sends_what_libraries_add(browser: Browser, nursery: trio.Nursery) -> None:
    """Headers of tracing, htmx and Datastar pass, and those of `--cors-header`; others don't."""
    site = App()

    @site.get("/")
    async def page(_event: H3Event) -> Response:
        await trio.lowlevel.checkpoint()
        return Response("<!doctype html><p>mine", content_type="text/html")

    origin = (await nursery.start(partial(serve, site, port=0))).addresses[0]
    args = ("--cors-origin", origin, "--cors-header", "X-Tenant")
    served = await ServeProcess.start(nursery, *args)
    url = f"{served.url}/events/news"

    def look(visit: Visit) -> None:
        def publish(**headers: str) -> object:
            return visit.page.evaluate(PUBLISH, [url, headers])

        assert publish(**ADDED) == 200
        for name, value in ADDED.items():
            assert (name, publish(**{name: value})) == (name, 200)
        assert publish(**{"X-Other": "1"}) == "TypeError: Failed to fetch"

    await browser.visit(look, f"{origin}/")
    nursery.cancel_scope.cancel()
