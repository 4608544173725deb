"""The clients that people read a hub's streams with: each sees exactly what was published.

All are used with their defaults, and parse the data of each event as JSON without looking at its
type, as code on pages and in programs does.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
from e2e.browser import Browser
from e2e.packages import npm_modules
from e2e.process import PATIENCE
from tools import missing

from h3trio import CORS, App, H3Event, HTTPError, Response, Server, Settings, serve
from h3trio.hub import Hub, HubSettings
from h3trio.hubserver import AnonymousAccess, create_app
from h3trio.runs import Run, Runs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

    import httpx
    from e2e.browser import Visit

pytestmark = pytest.mark.slow

EVENTS: Final = 4
"""Events of a test: three are there before the client comes, one comes after two heartbeats."""
HEARTBEAT: Final = 0.2
PACKAGE: Final = "@microsoft/fetch-event-source"
VERSION: Final = "2.0.1"

FETCH_PAGE: Final = """
<!doctype html><script type="module">
import { fetchEventSource } from "/lib/index"
window.got = []
window.types = []
window.errors = []
fetchEventSource(new URLSearchParams(location.search).get("url"), {
  openWhenHidden: true,
  onmessage(event) { got.push(JSON.parse(event.data)); types.push(event.event) },
  onerror(error) { errors.push(String(error)) },
})
</script>
"""
# How the documentation has it come back, run as it stands there.
BROWSER_PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "browser.md"
SNIPPET: Final = next(
    code
    for code in BROWSER_PAGE.read_text("utf-8").split("```js\n")[1:]
    if "fetchEventSource(" in code
).partition("```")[0]
RUNS_PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "runs.md"
RUN_SNIPPET: Final = RUNS_PAGE.read_text("utf-8").partition("```js\n")[2].partition("```")[0]
RUN_PAGE: Final = f"""
<!doctype html><p id="answer"></p><script type="module">
import {{ fetchEventSource }} from "/lib/index"
const url = "/answers/" + new URLSearchParams(location.search).get("run")
{RUN_SNIPPET}
</script>
"""
COMING_BACK_PAGE: Final = f"""
<!doctype html><script type="module">
import {{ fetchEventSource }} from "/lib/index"
const url = new URLSearchParams(location.search).get("url")
window.got = []
window.stopped = ""
window.addEventListener("unhandledrejection", (event) => {{
  event.preventDefault()
  stopped = event.reason.message
}})
const show = (event) => got.push(JSON.parse(event.data))
{SNIPPET}
</script>
"""
EVENT_SOURCE_PAGE: Final = """
<!doctype html><script>
window.got = []
window.opened = 0
const source = new EventSource(new URLSearchParams(location.search).get("url"))
source.onopen = () => opened++
source.onmessage = (event) => got.push(JSON.parse(event.data))
</script>
"""


async def serve_app(nursery: trio.Nursery, app: App, *, lease: float | None = None) -> str:
    """Serve an app on a free port; return its URL."""
    settings = Settings(heartbeat_interval=HEARTBEAT, reconnect_delay=0.2, lease=lease)
    server: Server = await nursery.start(partial(serve, app, port=0, settings=settings))
    return server.addresses[0]


@asynccontextmanager
async def serving(
    *, origin: str | None = None, lease: float | None = None
) -> AsyncGenerator[tuple[Hub, str]]:
    """Run a hub; give it, and the URL of a topic with three events."""
    hub = Hub(settings=HubSettings(reconnect_delay=0.2))
    origins = frozenset[str]() if origin is None else frozenset({origin})
    cors = None if origin is None else CORS(origins)
    app = create_app(hub, anonymous=AnonymousAccess(allowed_origins=origins), cors=cors)
    async with trio.open_nursery() as nursery:
        url = await serve_app(nursery, app, lease=lease)
        for n in range(EVENTS - 1):
            await publish(hub, n)
        yield hub, f"{url}/events/news"
        nursery.cancel_scope.cancel()


async def publish(hub: Hub, n: int) -> None:
    """Publish one event, of JSON."""
    await hub.publish(json.dumps({"n": n}), topics=["news"])


async def publish_later(hub: Hub) -> None:
    """Publish one more event, once somebody is live and has had heartbeats."""
    while not hub.statistics().ready:  # noqa: ASYNC110 - the client is in a thread, or a browser
        await trio.sleep(0.02)
    await trio.sleep(2.5 * HEARTBEAT)
    await publish(hub, EVENTS - 1)


# -- Python


def read_httpx_sse(client: httpx.Client, url: str) -> Iterator[str]:
    """Read with httpx-sse."""
    try:
        import httpx_sse  # noqa: PLC0415 - may be missing
    except ImportError:
        missing("httpx-sse is not installed")
    with httpx_sse.connect_sse(client, "GET", url) as source:
        for event in source.iter_sse():
            yield event.data


def read_openai(client: httpx.Client, url: str) -> Iterator[str]:
    """Read with the decoder of OpenAI's client."""
    from openai._streaming import SSEDecoder  # noqa: PLC0415 - it takes a second

    with client.stream("GET", url) as response:
        for event in SSEDecoder().iter_bytes(response.iter_bytes()):
            yield event.data


def read_sseclient(client: httpx.Client, url: str) -> Iterator[str]:
    """Read with sseclient-py; its readme asks with this header, its namesake with both."""
    try:
        import sseclient  # noqa: PLC0415 - may be missing
    except ImportError:
        missing("sseclient-py is not installed")
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    with client.stream("GET", url, headers=headers) as response:
        for event in sseclient.SSEClient(response.iter_bytes()).events():
            yield event.data


@pytest.mark.parametrize("read", [read_httpx_sse, read_openai, read_sseclient])
async def test_libraries_see_what_was_published(
    read: Callable[[httpx.Client, str], Iterator[str]],
) -> None:
    """No event of the hub's own reaches the code that reads with a library."""
    try:
        import httpx  # noqa: PLC0415 - may be missing
    except ImportError:
        missing("httpx is not installed")

    def read_all(url: str) -> list[Any]:
        with httpx.Client(timeout=PATIENCE) as client:
            events = read(client, f"{url}?first=oldest")
            return [json.loads(next(events)) for _ in range(EVENTS)]

    async with serving() as (hub, url), trio.open_nursery() as nursery:
        nursery.start_soon(publish_later, hub)
        with trio.fail_after(PATIENCE):
            got = await trio.to_thread.run_sync(read_all, url)
        assert got == [{"n": n} for n in range(EVENTS)]


# -- browsers


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """Start Chromium once."""
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def library(request: pytest.FixtureRequest) -> Path:
    """Install the package; return the folder of its modules."""
    return npm_modules(request.config, PACKAGE, VERSION) / PACKAGE / "lib" / "esm"


def pages(library: Path | None = None) -> App:
    """Make the app of the other origin: two pages, and the library as modules."""
    app = App()

    @app.get("/fetch")
    async def fetch_page(_event: H3Event) -> Response:
        return Response(FETCH_PAGE, headers={"Content-Type": "text/html"})

    @app.get("/coming-back")
    async def coming_back_page(_event: H3Event) -> Response:
        return Response(COMING_BACK_PAGE, headers={"Content-Type": "text/html"})

    @app.get("/refused")
    async def refused(_event: H3Event) -> Response:
        raise HTTPError(403, "no")

    @app.get("/closed")
    async def closed(_event: H3Event) -> None:
        pass  # 204

    @app.get("/event-source")
    async def event_source_page(_event: H3Event) -> Response:
        return Response(EVENT_SOURCE_PAGE, headers={"Content-Type": "text/html"})

    @app.get("/lib/:name")
    async def module(event: H3Event) -> Response:
        name = event.params["name"].removesuffix(".js")
        if library is None or name not in ("index", "fetch", "parse"):
            raise HTTPError(404)
        code = await trio.Path(library / f"{name}.js").read_bytes()
        return Response(code, headers={"Content-Type": "text/javascript"})

    return app


def wait_until(visit: Visit, condition: str) -> None:
    """Wait until something holds on a page."""
    visit.page.wait_for_function(condition, timeout=1000 * PATIENCE)


@pytest.mark.parametrize("has_cache", [True, False])
async def test_fetch_event_source_sees_what_was_published(
    browser: Browser, library: Path, nursery: trio.Nursery, *, has_cache: bool
) -> None:
    """All come over one stream; without its cache it looks like an `EventSource`, and gets JSON."""
    origin = await serve_app(nursery, pages(library))

    async with serving(origin=origin) as (hub, url):

        def look(visit: Visit) -> None:
            if not has_cache:
                session = visit.page.context.new_cdp_session(visit.page)
                session.send("Network.enable")
                session.send("Network.setCacheDisabled", {"cacheDisabled": True})
            visit.page.goto(f"{origin}/fetch?url={url}?first=oldest")
            visit.run(publish_later, hub)
            wait_until(visit, f"got.some((event) => event.n === {EVENTS - 1})")
            got, types, errors = visit.page.evaluate("[got, types, errors]")
            cursors = types.count("cursor")
            assert got[cursors:] == [{"n": n} for n in range(EVENTS)]
            assert got[:cursors] == [{}] * cursors
            assert cursors == (0 if has_cache else 1)
            assert errors == []

        await browser.visit(look, f"{origin}/fetch?url=about:blank")
        assert sum(hub.statistics().ended.values()) + hub.statistics().subscribers == 1
    nursery.cancel_scope.cancel()


async def test_fetch_event_source_comes_back_as_the_documentation_has_it(
    browser: Browser, library: Path, nursery: trio.Nursery
) -> None:
    """It goes on behind its last event when a stream ended in order, and stops at 403 and 204."""
    origin = await serve_app(nursery, pages(library))

    async with serving(origin=origin, lease=0.5) as (hub, url):

        async def publish_to_a_later_stream() -> None:
            while not sum(hub.statistics().ended.values()):  # noqa: ASYNC110 - as above
                await trio.sleep(0.02)
            await publish(hub, EVENTS - 1)

        def look(visit: Visit) -> None:
            visit.run(publish_to_a_later_stream)
            wait_until(visit, f"got.length >= {EVENTS}")
            got, stopped = visit.page.evaluate("[got, stopped]")
            assert (got, stopped) == ([{"n": n} for n in range(EVENTS)], "")
            for path, told in (("/refused", "403"), ("/closed", "that was all")):
                visit.page.goto(f"{origin}/coming-back?url={path}")
                wait_until(visit, "stopped")
                assert visit.page.evaluate("[got, stopped]") == [[], told]

        await browser.visit(look, f"{origin}/coming-back?url={url}?first=oldest")
    nursery.cancel_scope.cancel()


async def test_an_event_source_that_drops_before_its_first_event_misses_nothing(
    browser: Browser, nursery: trio.Nursery
) -> None:
    """It comes back with its cursor, which its page never sees."""
    origin = await serve_app(nursery, pages())

    async with serving(origin=origin) as (hub, url):

        async def drop_and_publish() -> None:
            while not hub.statistics().ready:  # noqa: ASYNC110 - the client is a browser
                await trio.sleep(0.02)
            assert hub.kick(lambda _subscription: True) == 1
            await publish(hub, 7)

        def look(visit: Visit) -> None:
            visit.run(drop_and_publish)
            wait_until(visit, "got.length > 0")
            visit.run(publish, hub, 8)
            wait_until(visit, "got.length > 1")
            assert visit.page.evaluate("[got, opened]") == [[{"n": 7}, {"n": 8}], 2]

        await browser.visit(look, f"{origin}/event-source?url={url}")
    nursery.cancel_scope.cancel()


async def test_fetch_event_source_asks_again_after_204(
    browser: Browser, library: Path, nursery: trio.Nursery
) -> None:
    """It takes 204 for a failure, and comes back each second."""
    app, asked = pages(library), 0

    @app.get("/nothing")
    async def nothing(_event: H3Event) -> None:
        nonlocal asked
        asked += 1

    origin = await serve_app(nursery, app)

    def look(visit: Visit) -> None:
        wait_until(visit, "errors.length > 1")

    await browser.visit(look, f"{origin}/fetch?url=/nothing")
    assert asked >= 2
    nursery.cancel_scope.cancel()


async def test_fetch_event_source_reads_a_run_as_the_documentation_has_it(
    browser: Browser, library: Path, nursery: trio.Nursery
) -> None:
    """It comes back amid a run, has all of it once, and stays away behind its end."""
    runs = Runs(Hub())
    app, asked = pages(library), 0
    begun, go_on = trio.Event(), trio.Event()

    async def answer(run: Run) -> None:
        await run.send("one ")
        begun.set()
        await go_on.wait()
        await run.send("two")

    @app.get("/run")
    async def run_page(_event: H3Event) -> Response:
        return Response(RUN_PAGE, headers={"Content-Type": "text/html"})

    @app.get("/answers/:id")
    async def watch(event: H3Event) -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            go_on.set()
        await runs.watch(event, event.params["id"])

    async with runs.lifespan():
        origin = await serve_app(nursery, app, lease=0.5)
        run = await runs.start(answer)
        await begun.wait()

        def look(visit: Visit) -> None:
            visit.wait_texts("#answer", ["one two"])
            # Longer than it takes to come back.
            visit.page.wait_for_timeout(1500)
            assert visit.page.inner_text("#answer") == "one two"

        await browser.visit(look, f"{origin}/run?run={run.id}")
        assert asked == 2
    nursery.cancel_scope.cancel()
