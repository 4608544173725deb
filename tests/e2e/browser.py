"""Chromium on one page, and what it complains of: scripts, the policy, requests to elsewhere.

Playwright's loop isn't Trio's, so it has a thread of its own: `browser.visit(look, url)` runs
`look(visit)` there, and what is to be done in between comes back by `visit.run`. To start Chromium
takes longer than most tests, so those of a module share one; each has a profile of its own.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, final

import trio
from tools import missing, require_tool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import playwright.sync_api
    from playwright.sync_api import ConsoleMessage, Page, Request

T = TypeVar("T")

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
# Layout that moves without the user's doing, summed up as browsers do it.
WATCH_SHIFTS: Final = """
window.shifts = 0
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value
}).observe({ type: "layout-shift", buffered: true })
"""


@final
@dataclass
class Visit:
    """A page that is open, and what went wrong on it."""

    page: Page
    url: str
    token: trio.lowlevel.TrioToken
    complaints: list[str] = field(default_factory=list[str])
    requests: list[str] = field(default_factory=list[str])

    def open(self) -> None:
        """Go there, and listen to what it says."""
        self.page.set_default_timeout(TIMEOUT)
        self.page.add_init_script(WATCH_SHIFTS)
        self.page.on("console", self.on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self.on_request)
        self.page.goto(self.url)

    def run(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run an async function of the test, and wait for it."""
        return trio.from_thread.run(function, *args, trio_token=self.token)

    def on_console(self, message: ConsoleMessage) -> None:
        """Note what the page or the browser complains of; violations of the policy are among it."""
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def on_request(self, request: Request) -> None:
        """Note each request."""
        self.requests.append(request.url)

    def take_complaints(self) -> list[str]:
        """Return the complaints so far, and forget them."""
        taken, self.complaints = self.complaints, []
        return taken

    def wait_texts(self, selector: str, texts: Sequence[str]) -> None:
        """Wait until the elements of a selector have these texts, all of them, in this order."""
        from playwright.sync_api import expect  # noqa: PLC0415 - may be missing

        expect(self.page.locator(selector)).to_have_text(list(texts), timeout=TIMEOUT)

    def wait_text(self, selector: str, text: str) -> None:
        """Wait until an element contains a text."""
        from playwright.sync_api import expect  # noqa: PLC0415 - may be missing

        expect(self.page.locator(selector)).to_contain_text(text, timeout=TIMEOUT)

    @property
    def foreign(self) -> list[str]:
        """Requests that went elsewhere."""
        return [url for url in self.requests if not url.startswith(self.url)]

    @property
    def shifts(self) -> float:
        """How much of the layout moved by itself."""
        shifts: float = self.page.evaluate("window.shifts")
        return shifts


@final
class Browser:
    """A Chromium, and the thread that it is driven from: `with Browser() as browser`."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="browser")
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            from playwright.sync_api import sync_playwright  # noqa: PLC0415 - may be missing
        except ImportError:
            missing("playwright is not installed")
        chromium = require_tool("chromium")

        def launch() -> playwright.sync_api.Browser:
            driver = self._stack.enter_context(sync_playwright())
            return driver.chromium.launch(executable_path=chromium, args=list(ARGS))

        self._chromium = self._thread.submit(launch).result()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._thread.submit(self._chromium.close).result()
        self._thread.submit(self._stack.close).result()
        self._thread.shutdown()

    async def visit(
        self, look: Callable[[Visit], object], url: str, *, width: int = 1280, height: int = 900
    ) -> None:
        """Open a page, with nothing left of those before, and run `look` on it in the thread."""
        token = trio.lowlevel.current_trio_token()

        def run() -> None:
            size: Any = {"width": width, "height": height}
            with self._chromium.new_context(viewport=size, color_scheme="light") as context:
                visited = Visit(context.new_page(), url, token)
                visited.open()
                look(visited)

        running = self._thread.submit(run)
        await trio.to_thread.run_sync(running.result, abandon_on_cancel=True)
