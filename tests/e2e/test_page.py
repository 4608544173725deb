"""The page at `/`, in a browser: what its form publishes appears in its list."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from e2e.process import ServeProcess, fetch
from tools import missing, require_tool

if TYPE_CHECKING:
    from playwright.sync_api import Page

ARGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT: Final = 30_000


def use_page(url: str, screenshot: Path) -> list[str]:
    """Publish by the form, wait until it is listed, take a picture; return what went wrong."""
    try:
        from playwright.sync_api import expect, sync_playwright  # noqa: PLC0415 - may be missing
    except ImportError:
        missing("playwright is not installed")
    chromium = require_tool("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGS))
        page: Page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: errors.append(message.text) if message.type == "error" else None,
        )
        page.goto(url)
        expect(page.locator("#state")).to_contain_text("live", timeout=TIMEOUT)
        for topic, data in (("news", "first <b>news</b>"), ("a/b c", "second"), ("é", "trois")):
            page.locator("[name=topic]").fill(topic)
            page.locator("[name=data]").fill(data)
            page.get_by_role("button", name="Publish").click()
            # The newest comes first, as text and not as markup.
            expect(page.locator("#events li").first).to_contain_text(data, timeout=TIMEOUT)
        expect(page.locator("#events li")).to_have_count(3)
        page.screenshot(path=screenshot, full_page=True)
        browser.close()
    return errors


async def test_the_page_shows_what_is_published(nursery: trio.Nursery, tmp_path: Path) -> None:
    """An event published by the page's form is listed on it, and no script complains."""
    require_tool("chromium")
    served = await ServeProcess.start(nursery)
    # Kept where a person can look at it, if there is such a place.
    screenshot = Path(os.environ.get("SCREENSHOTS", tmp_path)) / "page.png"
    assert await trio.to_thread.run_sync(use_page, f"{served.url}/", screenshot) == []
    assert screenshot.stat().st_size > 10_000
    assert await served.stop() == 0


async def test_the_page_is_not_for_everyone(nursery: trio.Nursery) -> None:
    """The page is there for this machine, and says in what it is written."""
    served = await ServeProcess.start(nursery)
    answer = await fetch(served.port)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
