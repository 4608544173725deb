"""Twenty tabs of a real browser stream through the proxies that deploy/ is for.

One browser, one hub and all proxies at once, as opening tabs is what takes the time. Each tab has a
stream through each proxy, and for contrast one that goes to the hub itself, by plain HTTP/1.1.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio
import trustme
from e2e.browser import ARGS
from e2e.fronts import MAKERS, NAME, Site, free_port, issue, run_front
from e2e.process import ServeProcess, fetch
from tools import missing, require_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from playwright.sync_api import Browser, Page

TABS: Final = 20
RESOLVE: Final = f"--host-resolver-rules=MAP {NAME} 127.0.0.1"
PER_SITE: Final = 6  # connections that Chromium opens to one site by HTTP/1.1
TIMEOUT: Final = 30_000

OPEN: Final = """urls => {
    window.sources = {};
    window.seen = {};
    window.lost = [];
    for (const [name, url] of Object.entries(urls)) {
        const source = sources[name] = new EventSource(url);
        seen[name] = [];
        source.onmessage = message => seen[name].push(message.data);
        source.onerror = () => { if (source.readyState === EventSource.CLOSED) lost.push(name); };
    }
}"""
ARE_OPEN: Final = "names => names.every(name => sources[name].readyState === EventSource.OPEN)"
HAVE_SEEN: Final = "([names, n]) => names.every(name => seen[name].length >= n) || lost.length"


def open_tabs(browser: Browser, urls: Mapping[str, str]) -> list[Page]:
    """Open tabs in one context, so that they share connections, and streams in each."""
    # They are at an answer of the hub's, whose policy lets pages do nothing.
    context = browser.new_context(ignore_https_errors=True, bypass_csp=True)
    context.set_default_timeout(TIMEOUT)
    pages = [context.new_page() for _ in range(TABS)]
    for page in pages:
        page.goto(urls["nginx"], wait_until="commit")
    for page in pages:
        page.evaluate(OPEN, {name: f"{url}/events/news" for name, url in urls.items()})
    return pages


def wait_all(pages: list[Page], what: str, arg: object) -> None:
    """Wait until this is so in every tab."""
    for page in pages:
        page.wait_for_function(what, arg=arg, polling=20)


def use_tabs(
    urls: Mapping[str, str], publish: Callable[..., None], restart: Callable[[], None]
) -> tuple[int, list[object]]:
    """Stream; return how many streams plain HTTP allows, and what each tab saw by each proxy."""
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - may be missing
    except ImportError:
        missing("playwright is not installed")
    chromium = require_tool("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*ARGS, RESOLVE])
        pages = open_tabs(browser, urls)
        names = [*MAKERS]
        wait_all(pages, ARE_OPEN, names)
        publish("1", "2", "3")
        wait_all(pages, HAVE_SEEN, [names, 3])
        plain = sum(page.evaluate(ARE_OPEN, ["plain"]) for page in pages)
        for page in pages:
            page.evaluate("sources.plain.close()")
        restart()
        publish("4", "5")
        wait_all(pages, HAVE_SEEN, [names, 5])
        results = [
            page.evaluate("names => names.map(n => seen[n].join())", names) for page in pages
        ]
        browser.close()
    return plain, results


async def test_twenty_tabs(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Twenty tabs stream by HTTP/2 where six can by 1.1; a restart costs and doubles no event."""
    for name in ("chromium", *MAKERS):
        require_tool(name)
    args = ["--allow-anonymous-publish", "--allow-anonymous-subscribe", "--cors-origin", "*"]
    args += ["--store", f"sqlite:{tmp_path / 'hub.db'}", "--forwarded-allow-ips", "127.0.0.1"]
    args += ["--reconnect-delay", "0.5", "--drain-soft", "0.3", "--port", str(free_port())]
    hub = await ServeProcess.start(nursery, *args)
    urls = {"plain": hub.url}
    issue(trustme.CA(), tmp_path)
    for name, make in MAKERS.items():
        site = Site(tmp_path, f"127.0.0.1:{hub.port}")
        await run_front(nursery, make(site), site)
        urls[name] = f"https://{NAME}:{site.port}"

    async def publish(*texts: str) -> None:
        for text in texts:
            answer = await fetch(hub.port, "POST", "/events/news", body=text.encode())
            assert answer.status == 200

    async def restart() -> None:
        assert await hub.stop() == 0
        await ServeProcess.start(nursery, *args)

    plain, results = await trio.to_thread.run_sync(
        use_tabs,
        urls,
        partial(trio.from_thread.run, publish),
        partial(trio.from_thread.run, restart),
    )
    assert plain == PER_SITE
    assert results == [["1,2,3,4,5"] * len(MAKERS)] * TABS
