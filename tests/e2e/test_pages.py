"""The examples with pages, in a browser as their docstrings say, with the scripts they are for."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio
from e2e.browser import Browser, Visit
from e2e.packages import datastar, npm_modules
from e2e.process import ServeProcess, fetch
from tools import missing

from h3trio import CORS, App, H3Event, Response, Server, serve

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
SECRET: Final = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of these tests alone
HTMX: Final = ("htmx.org", "4.0.1")
TOKEN_SECONDS: Final = 3
"""Life of a token: its end is what a page waits for."""


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """Start Chromium once."""
    with Browser() as running:
        yield running


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


# -- a page, the site that it is from, and a hub on a neighbouring name


async def start_shop(nursery: trio.Nursery, folder: Path) -> tuple[ServeProcess, str]:
    """Start the site and the hub; return the hub, and where the page is."""
    (folder / "hub.key").write_text(SECRET)
    site = f"http://app.shop.localhost:{free_port()}"
    hub = await ServeProcess.start(
        nursery,
        *("--jwt-key-file", "hub.key", "--cors-origin", site),
        *("--reconnect-delay", "200ms", "--max-topic-events", "3"),
        folder=folder,
    )
    environ = {"SITE": site, "HUB": f"http://hub.shop.localhost:{hub.port}"}
    environ |= {"TOKEN_SECONDS": str(TOKEN_SECONDS)}
    await ServeProcess.start(
        nursery,
        *("--port", site.rpartition(":")[2], f"{EXAMPLES / 'hub_browser.py'}:app"),
        environ=environ,
        folder=folder,
    )
    return hub, f"{site}/"


async def publish(hub: ServeProcess, topic: str, *events: tuple[str, str]) -> None:
    """Publish events, each a type and its data, privately."""
    try:
        import jwt  # noqa: PLC0415 - may be missing
    except ImportError:
        missing("PyJWT is not installed")
    claims = {"mercure": {"publish": ["*"]}, "exp": 2**31}
    headers = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}
    for kind, data in events:
        target = f"/events/{topic}?private=on" + (f"&event={kind}" if kind else "")
        answer = await fetch(hub.port, "POST", target, headers=headers, body=data.encode())
        assert answer.status == 200, answer


def log_in(visit: Visit) -> None:
    """Fill in the form when it is there, and wait until the page is live."""
    visit.page.get_by_label("User").fill("alice")
    visit.page.get_by_role("button", name="Log in").click()
    visit.wait_texts("#state", ["live"])


async def test_a_page_logs_in_and_goes_on(
    browser: Browser, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """When its token ends the page asks to log in, and shows what it missed, or that it can't."""
    hub, url = await start_shop(nursery, tmp_path)

    def look(visit: Visit) -> None:
        def say(topic: str, *events: tuple[str, str]) -> None:
            visit.run(publish, hub, topic, *events)

        say("orders", ("paid", "1"))
        visit.wait_texts("#state", ["log in to go on"])
        visit.wait_texts("#list li", [])
        log_in(visit)
        visit.wait_texts("#list li", ["paid: 1"])
        visit.page.get_by_label("News").fill("good news")
        visit.page.get_by_role("button", name="Publish").click()
        visit.wait_texts("#list li", ["good news", "paid: 1"])
        say("news", ("", "hello"))  # private, and no topic of hers
        say("orders", ("unheard", "2"), ("", "3"))
        visit.wait_texts("#list li", ["3", "good news", "paid: 1"])

        visit.wait_texts("#state", ["log in to go on"])
        say("orders", ("shipped", "4"))
        log_in(visit)
        visit.wait_texts("#list li", ["shipped: 4", "3", "good news", "paid: 1"])
        assert not visit.page.locator("#gap").is_visible()

        visit.wait_texts("#state", ["log in to go on"])
        say("orders", *(("", str(n)) for n in range(5, 10)))
        log_in(visit)
        visit.wait_texts("#list li", ["9", "8", "7", "good news"])
        assert visit.page.locator("#gap").is_visible()
        # Nothing is wrong but what the browser itself says of each 401.
        assert {"401" in text for text in visit.take_complaints()} == {True}

    await browser.visit(look, url)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("status", "told"), [(400, "refused: 400"), (204, "that was all")])
async def test_a_page_stops_where_a_later_try_fares_no_better(
    browser: Browser, nursery: trio.Nursery, tmp_path: Path, *, status: int, told: str
) -> None:
    """It says that the hub refuses for good, or that all topics are closed, and asks no more."""
    port = free_port()
    site = f"http://app.shop.localhost:{port}"
    refusing = App()
    refusing.use(CORS([site], allow_credentials=True))

    @refusing.get("/events")
    async def refuse(_event: H3Event) -> Response:
        return Response(status=status)

    server: Server = await nursery.start(partial(serve, refusing, port=0))
    (tmp_path / "hub.key").write_text(SECRET)
    hub = f"http://hub.shop.localhost:{server.addresses[0].rpartition(':')[2]}"
    await ServeProcess.start(
        nursery,
        *("--port", str(port), f"{EXAMPLES / 'hub_browser.py'}:app"),
        environ={"SITE": site, "HUB": hub},
        folder=tmp_path,
    )

    def look(visit: Visit) -> None:
        visit.wait_texts("#state", [told])

    await browser.visit(look, f"{site}/")
    nursery.cancel_scope.cancel()


async def test_the_login_is_for_the_page_alone(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A form of another site logs nobody in, nor does a wrong name."""
    _, url = await start_shop(nursery, tmp_path)
    port = int(url.rstrip("/").rpartition(":")[2])
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Origin": "http://other.example",
    }
    assert (await fetch(port, "POST", "/login", headers=headers, body=b"user=alice")).status == 403
    assert (await fetch(port, "POST", "/logout", headers=headers)).status == 403
    headers["Origin"] = url.rstrip("/")
    assert (await fetch(port, "POST", "/login", headers=headers, body=b"user=bob")).status == 401
    answer = await fetch(port, "POST", "/login", headers=headers, body=b"user=alice")
    assert answer.status == 200
    assert "; Domain=shop.localhost;" in answer.headers["set-cookie"]
    nursery.cancel_scope.cancel()


# -- frameworks whose pages are made of what the server sends


async def check_chat(
    browser: Browser, nursery: trio.Nursery, name: str, environ: Mapping[str, str]
) -> None:
    """See that a page shows what was said, comes back after a restart, and begins anew at a gap."""
    port = free_port()
    app = f"{EXAMPLES / name}.py:app"
    start = ("--port", str(port), "--drain-soft", "200ms", app)
    served = await ServeProcess.start(nursery, *start, environ=environ)

    async def say(*texts: str) -> None:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        for text in texts:
            body = f"text={text}".encode()
            assert (
                await fetch(port, "POST", "/messages", headers=headers, body=body)
            ).status == 204

    async def restart() -> None:
        nonlocal served
        assert await served.stop() == 0
        served = await ServeProcess.start(nursery, *start, environ=environ)
        await say("anew")

    def look(visit: Visit) -> None:
        visit.wait_texts("#list li", ["earlier"])
        visit.page.get_by_label("Message").fill("a <b>\tc")
        visit.page.get_by_role("button", name="Send").click()
        visit.wait_texts("#list li", ["earlier", "a <b> c"])
        visit.run(say, "later")
        visit.wait_texts("#list li", ["earlier", "a <b> c", "later"])
        assert visit.foreign == []
        # The hub was in memory: the page is told that what it knew is gone, and gets what there is.
        visit.run(restart)
        visit.wait_texts("#list li", ["anew"])
        visit.run(say, "again")
        visit.wait_texts("#list li", ["anew", "again"])

    await say("earlier")
    await browser.visit(look, f"http://localhost:{port}/")
    nursery.cancel_scope.cancel()


def htmx_scripts(config: pytest.Config) -> Mapping[str, Path]:
    """Return the scripts of htmx, by the names that pages load them by."""
    folder = npm_modules(config, *HTMX) / "htmx.org" / "dist"
    return {
        "htmx.min.js": folder / "htmx.min.js",
        "hx-sse.min.js": folder / "ext" / "hx-sse.min.js",
    }


async def test_htmx(
    browser: Browser, nursery: trio.Nursery, request: pytest.FixtureRequest
) -> None:
    """Htmx 4 shows each event once, comes back after a restart, and begins anew at a `reset`."""
    environ = {"NODE_MODULES": str(npm_modules(request.config, *HTMX))}
    await check_chat(browser, nursery, "hub_htmx", environ)


async def test_datastar(
    browser: Browser, nursery: trio.Nursery, request: pytest.FixtureRequest
) -> None:
    """Datastar 1.0 shows each event once, comes back after a restart, and begins anew at a gap."""
    environ = {"DATASTAR": str(datastar(request.config))}
    await check_chat(browser, nursery, "hub_datastar", environ)


# -- the same frameworks, on a page that reads a hub server of another origin

HTMX_PAGE: Final = """<!doctype html>
<meta name="htmx-config" content='{"mode": "cors"}'>
<link rel="icon" href="data:,">
<script src="/htmx.min.js"></script><script src="/hx-sse.min.js"></script>
<ul id="list" hx-sse:connect="HUB/events?topic=chat&amp;cursor=on&amp;first=20"
  hx-config='{"credentials": "include"}' hx-swap="beforeend"></ul>
"""
DATASTAR_PAGE: Final = """<!doctype html>
<link rel="icon" href="data:,">
<script type="module" src="/datastar.js"></script>
<ul id="list" data-init="@get('HUB/events?topic=chat&amp;first=20', {retry: 'always'})"></ul>
"""


def site_of(page: str, scripts: Mapping[str, Path]) -> App:
    """Make a site with one page and the scripts that it loads."""
    app = App()

    @app.get("/")
    async def send_page(_event: H3Event) -> Response:
        return Response.html(page)

    @app.get("/:name")
    async def send_script(event: H3Event) -> Response:
        code = await trio.Path(scripts[event.params["name"]]).read_bytes()
        return Response(code, content_type="text/javascript")

    return app


@pytest.mark.parametrize("framework", ["htmx", "datastar"])
async def test_a_hub_of_another_origin(
    browser: Browser, nursery: trio.Nursery, request: pytest.FixtureRequest, framework: str
) -> None:
    """A page reads a hub server itself: what there was, and what comes while it looks."""
    if framework == "htmx":
        page, scripts = HTMX_PAGE, htmx_scripts(request.config)
        kind, data = "", "<li>{}</li>"
    else:
        page, scripts = DATASTAR_PAGE, {"datastar.js": datastar(request.config)}
        kind = "datastar-patch-elements"
        data = "selector #list\nmode append\nelements <li>{}</li>"
    port = free_port()
    site = f"http://localhost:{port}"
    hub = await ServeProcess.start(nursery, "--cors-origin", site)
    pages = site_of(page.replace("HUB", f"http://localhost:{hub.port}"), scripts)
    await nursery.start(partial(serve, pages, port=port))

    async def say(text: str) -> None:
        target = "/events/chat" + (f"?event={kind}" if kind else "")
        answer = await fetch(hub.port, "POST", target, body=data.format(text).encode())
        assert answer.status == 200, answer

    def look(visit: Visit) -> None:
        visit.wait_texts("#list li", ["earlier"])
        visit.run(say, "later")
        visit.wait_texts("#list li", ["earlier", "later"])
        assert visit.take_complaints() == []

    await say("earlier")
    await browser.visit(look, f"{site}/")
    nursery.cancel_scope.cancel()
