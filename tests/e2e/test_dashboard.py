"""The dashboard in a browser: what it shows, what can be done with it, and how it comes back."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import sys
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
from e2e.browser import Browser, Visit
from e2e.process import ServeProcess, connect, fetch
from e2e.redis_server import redis_server
from e2e.shop import run_shop
from hub_helpers import FakeSink
from trio.testing import wait_all_tasks_blocked

from h3trio import serve
from h3trio.hub import Hub, HubSettings
from h3trio.hubserver import create_app
from h3trio.testing import SharedMemoryHistory, SharedMemoryStore

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from playwright.sync_api import Page

DATA: Final = "#events .data"
FOCUS: Final = """() => {
  const focused = document.activeElement, style = getComputedStyle(focused)
  const name = focused.id || focused.name || focused.textContent.trim()
  return style.outlineStyle === "none" || style.outlineWidth === "0px" ? `${name}, unseen` : name
}"""


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """Give a Chromium that the tests of this module share."""
    with Browser() as shared:
        yield shared


async def publish(served: ServeProcess, topic: str, *texts: str) -> None:
    """Publish from outside of the page."""
    for text in texts:
        answer = await fetch(served.port, "POST", f"/events/{topic}", body=text.encode())
        assert answer.status == 200, answer


def publish_by_form(page: Page, topic: str, data: str, **fields: str) -> None:
    """Fill in the form and press its button."""
    for name, value in {"topic": topic, "data": data, **fields}.items():
        page.locator(f"#publish [name={name}]").fill(value)
    page.get_by_role("button", name="Publish").click()


def take(page: Page, name: str) -> None:
    """Leave pictures where `SCREENSHOTS` says, to be looked at: wide and narrow."""
    if "SCREENSHOTS" in os.environ and (size := page.viewport_size) is not None:
        folder = Path(os.environ["SCREENSHOTS"])
        page.screenshot(path=folder / f"dashboard-{name}.png")
        page.set_viewport_size({"width": 360, "height": 780})
        page.screenshot(path=folder / f"dashboard-{name}-360.png")
        page.set_viewport_size(size)


def subscribe_by_form(page: Page, topic: str, first: str) -> None:
    """Choose a topic, and where to begin."""
    page.locator("#subscribe [name=topic]").fill(topic)
    page.locator("#subscribe [name=from]").select_option(first)
    page.get_by_role("button", name="Subscribe").click()


async def test_publish_and_subscribe(browser: Browser, nursery: trio.Nursery) -> None:
    """What the form publishes is listed, counted, and found again by topic; nothing complains."""
    served = await ServeProcess.start(nursery)

    def look(visit: Visit) -> None:
        page = visit.page
        visit.wait_text("#state", "Live")
        publish_by_form(page, "news", "first <b>news</b>")
        visit.wait_text("#published", "Stored as")
        publish_by_form(page, "a/b c", "second")
        visit.wait_text("#events li:first-child", "second")
        publish_by_form(page, "é", "trois", type="alert", id="own-1")
        visit.wait_texts("#events li:first-child .type", ["alert"])
        visit.wait_texts("#events li:first-child .id", ["own-1"])
        visit.wait_texts("#events .topic", ["é", "a/b c", "news"])
        published = page.locator("#events time").first.get_attribute("datetime") or ""
        assert abs(datetime.fromisoformat(published).timestamp() - time.time()) < 60
        # The newest comes first, as text and not as markup.
        visit.wait_texts(DATA, ["alert trois", "second", "first <b>news</b>"])

        visit.wait_text("#topics", "a/b c")
        visit.wait_text("#history", "memory")
        visit.wait_texts("#published-total", ["3"])
        visit.wait_texts("figure[data-key=published] .value", ["0"])

        subscribe_by_form(page, "news", "last")
        visit.wait_texts("#events-title", ["Events on news"])
        visit.wait_texts(DATA, ["first <b>news</b>"])
        subscribe_by_form(page, "news", "live")
        visit.wait_text("#events-state", "Live")
        visit.wait_texts(DATA, [])
        visit.run(publish, served, "other", "of another topic")
        visit.run(publish, served, "news", "live news")
        visit.wait_texts(DATA, ["live news"])
        page.locator("#subscribe [name=from]").select_option("last")
        page.locator("#subscribe [name=count]").fill("1")
        page.get_by_role("button", name="a/b c").click()
        visit.wait_texts(DATA, ["second"])
        assert visit.complaints == []

        publish_by_form(page, "news", "x", id="fkwr2m7x-41", type="")
        visit.wait_text("#published", "Refused (400)")
        assert "400" in visit.take_complaints()[0]
        assert page.locator("#publish [name=data]").input_value() == "x"
        assert visit.foreign == []
        assert visit.shifts < 0.01

    await browser.visit(look, f"{served.url}/")
    assert await served.stop() == 0


async def test_runs_have_a_panel(browser: Browser, nursery: trio.Nursery, tmp_path: Path) -> None:
    """An app that gives its runs to the hub's app sees them on the page; another has no panel."""
    environ = {"RUNS_DB": str(tmp_path / "runs.db"), "RUNS_LOG": str(tmp_path / "log")}
    site = Path(__file__).with_name("runs_site.py")
    served = await ServeProcess.start(nursery, f"{site}:app", environ=environ)
    for key in ("a", "b"):
        headers = {"Idempotency-Key": key}
        answer = await fetch(served.port, "POST", "/runs", headers=headers, body=b"100000")
        assert answer.status == 202, answer
    without = await ServeProcess.start(nursery)

    def look(visit: Visit) -> None:
        visit.wait_text("#runs-count", "2 under way")
        visit.wait_text("#runs", "Unwatched")
        take(visit.page, "runs")
        assert visit.complaints == []

    def look_without(visit: Visit) -> None:
        visit.wait_text("#history", "memory")
        assert not visit.page.locator("#runs-panel").is_visible()

    await browser.visit(look, f"{served.url}/")
    await browser.visit(look_without, f"{without.url}/")
    assert await served.stop() == 0
    assert await without.stop() == 0


async def test_the_charts_begin_before_the_page(browser: Browser, nursery: trio.Nursery) -> None:
    """A page that opens shows what the hub did before, with times and a scale, and not itself."""
    served = await ServeProcess.start(nursery)
    await publish(served, "news", "before")
    async with await connect(served.port) as watching:
        await watching.ask(target="/statistics", headers={"Accept": "text/event-stream"})
        await watching.until(b'"uptime":4')

    def look(visit: Visit) -> None:
        page = visit.page
        line = "document.querySelector('figure[data-key=published] .line').getAttribute('d')"
        page.wait_for_function(f"() => /L/.test({line} ?? '')")
        drawn, age = page.evaluate(f"() => [{line}, performance.now() / 1000]")
        begins = 180 - float(drawn.partition("M")[2].partition(" ")[0])
        assert begins > age + 1
        visit.wait_texts("figure[data-key=published] .axis span", ["3 min ago", "2", "1", "now"])
        visit.wait_texts("figure[data-key=published] .scale span", ["1", "0"])
        visit.wait_texts("#streams", ["0 streams"])
        visit.wait_texts("figure[data-key=subscribers] .value", ["0"])
        visit.wait_texts("#delivered-total", ["0"])

    await browser.visit(look, f"{served.url}/")


async def test_pause_and_a_burst(browser: Browser, nursery: trio.Nursery) -> None:
    """While it is paused the list stands still; of three thousand events the newest are there."""
    served = await ServeProcess.start(nursery)

    def look(visit: Visit) -> None:
        visit.wait_text("#state", "Live")
        visit.run(publish, served, "news", "before")
        visit.wait_texts(DATA, ["before"])
        visit.page.get_by_role("button", name="Pause").click()
        visit.run(publish, served, "news", "meanwhile", '{\n  "long": true\n}')
        visit.wait_texts("#events-count", ["paused, 2 new"])
        visit.wait_texts(DATA, ["before"])
        visit.page.get_by_role("button", name="Pause").click()
        visit.wait_texts("#events > li:nth-child(n + 2) .data", ["meanwhile", "before"])
        visit.wait_text("#events pre", '"long": true')

        visit.run(burst)
        visit.wait_text("#events-count", "the newest 200")
        visit.wait_text("#events li:first-child", "n2999")
        assert visit.page.locator("#events li").count() == 200
        assert visit.complaints == []

    async def burst() -> None:
        body = b"".join(b"data: n%d\n\n" % n for n in range(3000))
        headers = {"Content-Type": "text/event-stream"}
        answer = await fetch(served.port, "POST", "/events/x", headers=headers, body=body)
        assert json.loads(answer.body)["published"] == 3000

    await browser.visit(look, f"{served.url}/")


async def test_a_store_on_a_server_is_named(
    browser: Browser, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """The page says what the server keeps, and when it is away and back; no label is broken."""
    async with redis_server(tmp_path / "redis", appendonly="yes") as server:
        served = await ServeProcess.start(nursery, "--store", server.url)

        def look(visit: Visit) -> None:
            visit.wait_texts("#store", ["fast"])
            visit.wait_text("#history", "appendfsync everysec")
            take(visit.page, "redis")
            visit.run(server.kill)
            visit.wait_texts("#store", ["fast, away"])
            labels = " ".join(visit.page.locator("#history th").all_inner_texts()).split()
            for width in (1280, 360):
                visit.page.set_viewport_size({"width": width, "height": 900})
                broken = {word.partition(": ")[2] for word in visit.page.evaluate(BROKEN)}
                assert not broken.intersection(labels)
            visit.run(server.start)
            visit.wait_texts("#store", ["fast"])
            visit.wait_text("#history", "Connections lost1")

        await browser.visit(look, served.url)
        assert await served.stop() == 0


async def test_it_comes_back_without_a_gap(
    browser: Browser, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Killed with `kill -9` and started again, the hub gives the page what it missed, once."""
    args = ("--store", f"sqlite:{tmp_path / 'hub.db'}")
    first = await ServeProcess.start(nursery, *args)

    async def kill() -> None:
        assert await first.stop(signal.SIGKILL) == -signal.SIGKILL

    async def start_again() -> None:
        again = await ServeProcess.launch(nursery, "--port", str(first.port), *args)
        await again.wait_line(r"h3trio: http:")
        await publish(first, "news", "missed 1", "missed 2", "missed 3")

    def look(visit: Visit) -> None:
        visit.wait_text("#store", "durable")
        publish_by_form(visit.page, "news", "seen 1")
        publish_by_form(visit.page, "news", "seen 2")
        visit.wait_texts(DATA, ["seen 2", "seen 1"])
        assert visit.take_complaints() == []
        visit.run(kill)
        visit.wait_text("#state", "Connection lost")
        visit.wait_text("#state-more", "next try in")
        publish_by_form(visit.page, "news", "unsent")
        visit.wait_text("#published", "No answer")
        # Away, so that what is published next can't come live.
        visit.page.context.set_offline(True)
        visit.run(start_again)
        visit.page.context.set_offline(False)
        visit.wait_text("#state", "Live")
        visit.page.get_by_role("button", name="Publish").click()
        visit.wait_text("#events li:first-child", "unsent")
        back = visit.page.locator("#events .note .data").text_content() or ""
        assert "lost connection" in back
        missed = ["missed 3", "missed 2", "missed 1"]
        visit.wait_texts(DATA, ["unsent", *missed, back, "seen 2", "seen 1"])
        # The browser tells of each request that found nobody.
        assert {"ERR_" in complaint for complaint in visit.take_complaints()} == {True}

    await browser.visit(look, f"{first.url}/")


async def test_a_gap_is_told(browser: Browser, nursery: trio.Nursery) -> None:
    """Where the history went with the hub, the page says that there is a gap."""
    first = await ServeProcess.start(nursery)

    async def start_again() -> None:
        await first.stop(signal.SIGKILL)
        again = await ServeProcess.launch(nursery, "--port", str(first.port))
        await again.wait_line(r"h3trio: http:")
        await publish(first, "news", "of the new hub")

    def look(visit: Visit) -> None:
        publish_by_form(visit.page, "news", "of the old hub")
        visit.wait_texts(DATA, ["of the old hub"])
        visit.run(start_again)
        visit.wait_text("#events .gap", "Gap: the hub doesn't know the last event")
        back = visit.page.locator("#events .note:not(.gap) .data")
        assert back.all_inner_texts() == ["Back after a lost connection"]
        visit.wait_text("#events li:first-child", "of the new hub")

    await browser.visit(look, f"{first.url}/")


async def test_a_hidden_tab_gives_its_connections_back(
    browser: Browser, nursery: trio.Nursery
) -> None:
    """A tab that nobody sees holds no stream; seen again, it goes on where it was."""
    served = await ServeProcess.start(nursery)

    async def no_stream_but_mine() -> None:
        headers = {"Accept": "text/event-stream"}
        async with await connect(served.port) as watching:
            await watching.ask(target="/statistics?interval=0.5", headers=headers)
            await watching.until(b'"streams":1,')

    def hide(page: Page, *, hidden: bool) -> None:
        page.evaluate(
            """(hidden) => {
              Object.defineProperty(document, "hidden", { value: hidden, configurable: true })
              document.dispatchEvent(new Event("visibilitychange"))
            }""",
            hidden,
        )

    def look(visit: Visit) -> None:
        visit.page.clock.install()
        visit.page.reload()
        publish_by_form(visit.page, "news", "seen")
        visit.wait_texts(DATA, ["seen"])
        hide(visit.page, hidden=True)
        visit.page.clock.fast_forward(31_000)
        visit.run(no_stream_but_mine)
        visit.run(publish, served, "news", "unseen")
        hide(visit.page, hidden=False)
        visit.wait_texts(DATA, ["unseen", "seen"])
        visit.wait_text("#state", "Live")

    await browser.visit(look, f"{served.url}/")


async def serve_with_key(nursery: trio.Nursery, tmp_path: Path) -> ServeProcess:
    """Start a hub that wants tokens."""
    key = tmp_path / "hub.key"
    key.write_bytes(b"a secret of more than thirty-two bytes")
    return await ServeProcess.start(nursery, "--jwt-key-file", str(key))


async def mint(tmp_path: Path, *rights: str) -> str:
    """Make a token for it."""
    args = ("token", "--publish", "*", "--subscribe", "*", "--subject", "alice", *rights)
    key = ("--expires", "1h", "--key-file", str(tmp_path / "hub.key"))
    command = [sys.executable, "-m", "h3trio", *args, *key]
    done = await trio.run_process(command, capture_stdout=True)
    return str(done.stdout.decode())


def enter(page: Page, token: str) -> None:
    """Put a token into the dialog, and close it."""
    page.get_by_role("textbox", name="Token").fill(token)
    page.get_by_role("button", name="Use it").click()


ALL_REFUSED: Final = "The hub refused its statistics and its events (401)"
OF_STATISTICS: Final = "figure:visible, table:visible, .facts:visible"


async def test_a_token_is_asked_for(
    browser: Browser, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Refused for want of a token the page says so, takes one, and forgets it when told."""
    served = await serve_with_key(nursery, tmp_path)

    def look(visit: Visit) -> None:
        page = visit.page
        visit.wait_text("#statistics-refused", ALL_REFUSED)
        page.locator("#token-open").click()
        visit.wait_text("dialog", "token --operate --subscribe '*' --publish '*'")
        page.get_by_role("button", name="Cancel").click()
        publish_by_form(page, "news", "mine")
        visit.wait_text("#published", "Refused (401)")
        page.locator("#published button").click()
        token = visit.run(mint, tmp_path, "--operate")
        enter(page, f"Bearer {token}")
        visit.wait_text("#events-state", "Live")
        visit.wait_texts("#token-open", ["Token ✓"])
        visit.wait_texts("#published", [""])
        page.get_by_role("button", name="Publish").click()
        visit.wait_texts(DATA, ["mine"])
        # What the page itself was refused isn't among it, but the publish is.
        visit.wait_texts("#ended td:last-child", ["1"])

        page.reload()
        visit.wait_texts(DATA, ["mine"])
        page.locator("#token-open").click()
        visit.wait_text("#token-says", "alice, for 59 min")
        take(page, "dialog")
        page.get_by_role("button", name="Remove token").click()
        visit.wait_text("#statistics-refused", ALL_REFUSED)
        visit.wait_texts("#token-open", ["Token…"])
        assert page.evaluate("sessionStorage.length + localStorage.length") == 0
        assert token.strip() not in "".join(visit.requests)

    await browser.visit(look, f"{served.url}/")


async def test_what_is_refused_isnt_shown_empty(
    browser: Browser, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Refused, the page has the reason and no empty panel; a bad token isn't called a good one."""
    served = await serve_with_key(nursery, tmp_path)

    def look(visit: Visit) -> None:
        page = visit.page
        visit.wait_text("#statistics-refused", ALL_REFUSED)
        assert page.locator(f"{OF_STATISTICS}, .events:visible").count() == 0
        take(page, "refused")
        page.get_by_role("button", name="Enter a token").click()
        assert not page.get_by_role("button", name="Remove token").is_visible()
        enter(page, "not.good")
        visit.wait_texts("#token-open", ["Token refused"])
        visit.wait_text("#statistics-refused", ALL_REFUSED)
        assert page.locator(f"{OF_STATISTICS}, .events:visible").count() == 0
        take(page, "bad-token")

        page.locator("#token-open").click()
        enter(page, visit.run(mint, tmp_path))
        visit.wait_text("#events-state", "Live")
        visit.wait_text("#statistics-refused", "The hub refused its statistics (403)")
        visit.wait_texts("#token-open", ["Token ✓"])
        assert page.locator(OF_STATISTICS).count() == 0
        take(page, "subscriber")
        page.set_viewport_size({"width": 360, "height": 780})
        assert page.evaluate(BROKEN) == []

    await browser.visit(look, f"{served.url}/")


async def test_by_keyboard(browser: Browser, nursery: trio.Nursery) -> None:
    """Everything is reached and done by keys, in the order of the page, and the focus is seen."""
    served = await ServeProcess.start(nursery)

    def look(visit: Visit) -> None:
        page = visit.page
        press = page.keyboard.press
        visit.wait_text("#state", "Live")

        def reach(*names: str) -> None:
            for name in names:
                press("Tab")
                assert page.evaluate(FOCUS) == name

        reach("Skip to the events", "token-open")
        press("Enter")
        assert page.evaluate(FOCUS) == "token"
        press("Escape")
        assert page.evaluate(FOCUS) == "token-open"
        reach("pause")
        press("Space")
        assert page.locator("#pause").get_attribute("aria-pressed") == "true"
        press("Space")
        reach("clear", "topic", "from", "count", "Subscribe", "events-list", "topic")
        page.keyboard.type("/keys")
        reach("data")
        page.keyboard.type("typed")
        press("Control+Enter")
        visit.wait_texts(DATA, ["typed"])
        reach("type", "id", "Publish")
        # Whoever wants the events only is there at once.
        page.reload()
        press("Tab")
        press("Enter")
        press("Tab")
        assert page.evaluate(FOCUS) == "topic"
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll("input, select, textarea, button")]
              .filter((control) => !(control.labels?.length || control.textContent.trim()))
              .map((control) => control.outerHTML)"""
        )
        assert unnamed == []

    await browser.visit(look, f"{served.url}/")


# -- as it looks


LONG: Final = "x" * 300
WIDTHS: Final = (320, 360, 640, 641, 760, 761, 900, 901, 1100, 1101, 1280)


async def test_it_fits_a_narrow_screen(browser: Browser, nursery: trio.Nursery) -> None:
    """Nothing is wider than the screen, whatever is published, or moves when the hub is lost."""
    served = await ServeProcess.start(nursery)
    await publish(served, LONG, LONG * 10)

    def look(visit: Visit) -> None:
        page = visit.page
        visit.wait_text("#state", "Live")
        publish_by_form(page, "news", LONG, type="t" * 100, id="i" * 512)
        visit.wait_text("#events li:first-child", LONG)
        visit.wait_text("#topics", LONG)
        live = [measure(page, width) for width in WIDTHS]
        assert [width for width, _top in live] == list(WIDTHS)
        assert visit.complaints == []
        visit.run(served.stop, signal.SIGKILL)
        visit.wait_text("#state-more", "can't be reached")
        assert [measure(page, width) for width in WIDTHS] == live

    await browser.visit(look, f"{served.url}/", width=360, height=780)


# Words that are on two lines, or that reach beyond a box which shows nothing outside of it. What
# was published is as long as it is; of a long event a line is shown, and all of it on a click.
BROKEN: Final = """() => {
  const found = [], range = document.createRange()
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (texts.nextNode()) {
    const text = texts.currentNode, inside = text.parentElement
    if (!inside.checkVisibility() || inside.closest("option, summary, .skip, noscript")) continue
    for (const { 0: word, index } of text.data.matchAll(/\\S+/g)) {
      range.setStart(text, index)
      range.setEnd(text, index + word.length)
      const boxes = [...range.getClientRects()].filter(({ width }) => width > 0)
      if (new Set(boxes.map(({ top }) => Math.round(top))).size > 1) found.push(`broken: ${word}`)
      for (let around = inside; around !== document.body; around = around.parentElement) {
        if (getComputedStyle(around).overflowX === "visible") continue
        const { left, right } = around.getBoundingClientRect()
        const isCut = boxes.some((box) => box.left < left - 1 || box.right > right + 1)
        if (isCut) found.push(`cut: ${word}`)
      }
    }
  }
  return found
}"""


async def test_a_long_topic_takes_two_lines(browser: Browser, nursery: trio.Nursery) -> None:
    """Its beginning is shown, beside the first line of the rest, and the whole is its title."""
    served = await ServeProcess.start(nursery)
    topic = "sensors/" + 20 * "building/"

    def look(visit: Visit) -> None:
        publish_by_form(visit.page, topic, "warm")
        visit.wait_texts(DATA, ["warm"])
        visit.wait_text("#topics", topic)
        for within, titled in ((".topic", ".clamped"), ("#topics tbody th", "button")):
            shown = visit.page.locator(within)
            height = "(one) => one.querySelector('.clamped').getBoundingClientRect().height"
            line = "(one) => parseFloat(getComputedStyle(one).lineHeight)"
            assert 0 < shown.evaluate(height) <= 2.1 * shown.evaluate(line)
            assert topic in str(shown.locator(titled).get_attribute("title"))
        tops = "(one) => [...one.children].map((cell) => cell.getBoundingClientRect().top)"
        time, name, data, _ = visit.page.locator("#events li").evaluate(tops)
        assert max(time, name, data) - min(time, name, data) < 4

    await browser.visit(look, f"{served.url}/")
    nursery.cancel_scope.cancel()


async def test_no_word_is_cut_or_broken(browser: Browser, nursery: trio.Nursery) -> None:
    """Every word that a narrow screen shows is whole."""
    served = await ServeProcess.start(nursery)
    nursery.start_soon(run_shop, served.port)

    def look(visit: Visit) -> None:
        visit.wait_text("#slow", "sensors/hall")
        visit.wait_text("#topics", "chat/42")
        for width in WIDTHS[1:]:
            visit.page.set_viewport_size({"width": width, "height": 780})
            assert (width, visit.page.evaluate(BROKEN)) == (width, [])

    await browser.visit(look, f"{served.url}/", width=360, height=780)
    nursery.cancel_scope.cancel()


async def test_hubs_that_share_a_store_are_listed(browser: Browser, nursery: trio.Nursery) -> None:
    """Each has a row, at every width, with counts, topics, the slowest client; one alone none."""
    store = SharedMemoryStore()
    one, two, three = (
        Hub(SharedMemoryHistory(store), settings=HubSettings(node=name, node_interval=1))
        for name in ("web-1", "web-2", "n" * 64)
    )
    server = await nursery.start(partial(serve, create_app(one), port=0))
    slow = FakeSink()

    async def join() -> None:
        nursery.start_soon(two.run)
        await nursery.start(three.run)
        nursery.start_soon(two.subscribe, FakeSink(), ["chat/42"])
        nursery.start_soon(partial(two.subscribe, slow, [LONG], info={"client": "192.0.2.1"}))
        await wait_all_tasks_blocked()
        slow.stalled = True
        for _ in range(3):
            await one.publish("x", topics=[LONG])
            await wait_all_tasks_blocked()

    def look(visit: Visit) -> None:
        page, panel = visit.page, "#nodes-panel"
        visit.wait_text("#state", "Live")
        assert not page.locator(panel).is_visible()
        visit.run(join)
        visit.wait_texts("#nodes tbody th", ["n" * 64, "web-1 (this)", "web-2"])
        visit.wait_texts("#nodes tr:nth-child(3) td:nth-child(2)", ["2"])
        visit.wait_text("#nodes tr:nth-child(3)", "192.0.2.1, by 2")
        visit.wait_text("#nodes tr:nth-child(3)", f"{'x' * 40}…, chat/42")
        visit.wait_texts("#nodes-count", ["3, with 2 subscribers"])
        page.locator(panel).scroll_into_view_if_needed()
        take(page, "nodes")
        page.emulate_media(color_scheme="dark")
        page.locator(panel).scroll_into_view_if_needed()
        take(page, "nodes-dark")
        for width in WIDTHS[1:]:
            assert measure(page, width)[0] == width
            inner = f"document.querySelector('{panel} .scroll')"
            assert page.evaluate(f"{inner}.scrollWidth <= {inner}.clientWidth"), width
            broken = page.evaluate(BROKEN)
            # Two names are longer than a line.
            assert [word for word in broken if not re.search("nnnn|xxxx", word)] == [], width
        assert visit.complaints == []

    await browser.visit(look, f"{server.addresses[0]}/")
    nursery.cancel_scope.cancel()


def measure(page: Page, width: int) -> tuple[int, int]:
    """Return how wide the page is, and where what is below its bar begins, in pixels."""
    page.set_viewport_size({"width": width, "height": 780})
    wide: int = page.evaluate("document.documentElement.scrollWidth")
    top: int = page.evaluate("document.querySelector('main').offsetTop")
    return wide, top


async def test_it_is_dark_where_one_likes_it(
    browser: Browser, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Its colours are those of the browser's scheme, and nothing moves where nothing shall.

    With `SCREENSHOTS=docs` and `-o faulthandler_timeout=300` it takes three minutes of traffic, and
    leaves its pictures there.
    """
    served = await ServeProcess.start(nursery, "--store", f"sqlite:{tmp_path / 'hub.db'}")
    await publish(served, "news", "hello")
    folder, seconds = Path(os.environ.get("SCREENSHOTS", tmp_path)), 0
    pictures = [folder / f"dashboard{which}.png" for which in ("", "-dark", "-360")]
    if "SCREENSHOTS" in os.environ:
        seconds = 182
        nursery.start_soon(run_shop, served.port)

    def look(visit: Visit) -> None:
        page = visit.page
        visit.wait_text("#events li:last-child", "")
        page.wait_for_timeout(1000 * seconds)
        page.emulate_media(reduced_motion="reduce")
        page.screenshot(path=pictures[0], full_page=True)
        backs = [page.evaluate("getComputedStyle(document.documentElement).backgroundColor")]
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=pictures[1], full_page=True)
        backs += [page.evaluate("getComputedStyle(document.documentElement).backgroundColor")]
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 360, "height": 1180})
        page.screenshot(path=pictures[2])
        brightness = [sum(map(int, re.findall(r"\d+", back))) for back in backs]
        assert brightness[0] > 700
        assert brightness[1] < 100
        moves = "getComputedStyle(document.querySelector('#events li')).animationName"
        assert page.evaluate(moves) == "none"
        assert all(picture.stat().st_size > 10_000 for picture in pictures)

    await browser.visit(look, f"{served.url}/")
    nursery.cancel_scope.cancel()
    if seconds:
        shrink(pictures)


def shrink(pictures: Sequence[Path]) -> None:
    """Leave a picture 256 colours, which nobody sees, and half of its size."""
    pillow: Any = importlib.import_module("PIL.Image")  # comes with matplotlib, group `bench`
    for picture in pictures:
        image = pillow.open(picture).convert("RGB")
        image.quantize(256, dither=0).save(picture, optimize=True)
