"""A browser's `EventSource` on topics that end: it gets all of it, comes back once, and stops."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pytest
import trio
from e2e.browser import Browser
from e2e.process import ServeProcess, fetch

from h3trio import App, H3Event, Response, serve

if TYPE_CHECKING:
    from collections.abc import Generator

    from e2e.browser import Visit

LISTEN: Final = """([url, seconds]) => new Promise((resolve) => {
  const source = new EventSource(url), got = []
  let opened = 0
  const done = (how) => (source.close(), resolve({ got, opened, how }))
  source.onopen = () => opened++
  source.onmessage = ({ data, lastEventId }) => got.push([data, lastEventId])
  source.onerror = () => source.readyState === EventSource.CLOSED && done("stopped")
  setTimeout(() => done("goes on"), 1000 * seconds)
})"""


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """Give a Chromium that the tests of this module share."""
    with Browser() as shared:
        yield shared


@pytest.mark.parametrize("last", ["urn:isbn:0451450523", "é ☃"])
async def test_an_event_source_stops(browser: Browser, nursery: trio.Nursery, last: str) -> None:
    """Behind the last event it comes back with the id of that, whatever it is, and meets a 204."""
    site = App()

    @site.get("/")
    async def page(_event: H3Event) -> Response:
        await trio.lowlevel.checkpoint()
        return Response("<!doctype html><p>mine", content_type="text/html")

    origin = (await nursery.start(partial(serve, site, port=0))).addresses[0]
    args = ("--cors-origin", origin, "--reconnect-delay", "0.2")
    served = await ServeProcess.start(nursery, *args)
    url = f"{served.url}/events/run"
    for query, data in (("", "1"), (f"?id={quote(last)}&last=on", "2")):
        target = f"/events/run{query}"
        answer = await fetch(served.port, "POST", target, body=data.encode())
        assert answer.status == 200

    def look(visit: Visit) -> None:
        found = visit.page.evaluate(LISTEN, [f"{url}?first=oldest", 20])
        assert [data for data, _id in found["got"]] == ["1", "2"]
        assert found["got"][-1][1] == last
        assert (found["opened"], found["how"]) == (1, "stopped")
        # Without an id there is nothing to wait for either.
        assert visit.page.evaluate(LISTEN, [url, 20]) == {"got": [], "opened": 0, "how": "stopped"}

    await browser.visit(look, f"{origin}/")
    nursery.cancel_scope.cancel()
