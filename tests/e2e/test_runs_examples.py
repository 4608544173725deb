"""Answers that outlive their connections, read by the clients that their examples are for.

A page with `EventSource`, and the package `ai` of npm; OpenAI's client is in test_llm_clients.py.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio
from e2e.browser import Browser, Visit
from e2e.packages import npm_modules
from e2e.process import PATIENCE, ServeProcess, connect, fetch
from tools import missing, require_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = ROOT / "examples"
LONG: Final = " ".join(str(n) for n in range(400))
"""A prompt whose answer is still under way when a test is through with it."""


async def serve(nursery: trio.Nursery, name: str) -> ServeProcess:
    """Serve an example."""
    return await ServeProcess.start(nursery, f"{EXAMPLES / name}.py:app")


# -- EventSource, on a page


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """Start Chromium once."""
    with Browser() as running:
        yield running


class Relay:
    """A relay of TCP in front of a server, whose connections can all be cut."""

    def __init__(self, nursery: trio.Nursery, port: int) -> None:
        self._nursery = nursery
        self._port = port
        self._open: list[trio.CancelScope] = []

    async def start(self) -> str:
        """Listen; return the URL."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await self._nursery.start(partial(trio.serve_listeners, self._relay, listeners))
        return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"

    async def cut(self) -> None:
        """Break all connections off."""
        for scope in self._open:
            scope.cancel()
        self._open.clear()

    async def _relay(self, client: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._open.append(scope)
            server = await trio.open_tcp_stream("127.0.0.1", self._port)
            async with client, server, trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, client, server, scope)
                nursery.start_soon(self._copy, server, client, scope)

    async def _copy(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


def words(count: int) -> str:
    """Return how the answer to `LONG` begins."""
    return " ".join(["You", "said:", *LONG.split()][:count])


def two_tabs(relay: Relay, folder: Path) -> Callable[[Visit], None]:
    """Return what to do on the page: ask, open a second tab, cut the lines, reload, stop."""

    def look(visit: Visit) -> None:
        page = visit.page
        page.get_by_label("Prompt").fill(LONG)
        page.get_by_role("button", name="Ask").click()
        visit.wait_text("#answer", words(5))
        other = Visit(page.context.new_page(), page.url, visit.token)
        other.open()
        second, tabs = other.page, [visit, other]
        for tab in tabs:
            tab.wait_text("#answer", words(12))
        visit.run(relay.cut)
        for tab in tabs:
            tab.wait_text("#answer", words(40))
            tab.wait_text("output", "running")
        second.reload()
        other.wait_text("#answer", words(45))
        page.screenshot(path=folder / "running.png")
        second.get_by_role("button", name="Stop").click()
        for tab in tabs:
            tab.wait_texts("output", ["stopped"])
        texts = [tab.page.locator("#answer").inner_text() for tab in tabs]
        assert texts[0] == texts[1]
        assert words(402).startswith(texts[0])
        assert len(texts[0]) < len(words(402))
        second.reload()
        other.wait_texts("output", ["stopped"])
        assert second.locator("#answer").inner_text() == texts[0]
        page.screenshot(path=folder / "stopped.png")
        # All that went wrong is what the browser itself says of the lines that were cut.
        assert {"ERR_" in text for text in visit.take_complaints()} <= {True}

    return look


async def test_an_answer_is_read_in_two_tabs_and_over_a_cut(
    browser: Browser, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Two tabs show the same answer, whole over a cut and a reload, until one of them stops it."""
    served = await serve(nursery, "runs_minimal")
    relay = Relay(nursery, served.port)
    await browser.visit(two_tabs(relay, tmp_path), await relay.start())
    assert await served.stop() == 0
    nursery.cancel_scope.cancel()


async def test_a_page_says_so_where_its_answer_is_gone(
    browser: Browser, nursery: trio.Nursery
) -> None:
    """After `kill -9` a hub in memory knows no answer: the page says so, and offers no stop."""
    served = await serve(nursery, "runs_minimal")
    start = ("--port", str(served.port), f"{EXAMPLES / 'runs_minimal'}.py:app")

    async def kill_and_restart() -> None:
        await served.stop(signal.SIGKILL)
        await ServeProcess.start(nursery, *start)

    def look(visit: Visit) -> None:
        visit.page.get_by_label("Prompt").fill(LONG)
        visit.page.get_by_role("button", name="Ask").click()
        visit.wait_text("#answer", words(5))
        visit.run(kill_and_restart)
        visit.wait_texts("output", ["the server has no such answer now"])
        assert not visit.page.locator("#stop").is_visible()

    await browser.visit(look, f"http://127.0.0.1:{served.port}/")
    nursery.cancel_scope.cancel()


TUTORIAL: Final = ROOT / "docs" / "tutorial" / "runs.md"
SERVE: Final = "python -m h3trio serve ask.py:app"


async def run_shell(folder: Path, command: str) -> str:
    """Run a line of shell; return what it printed."""
    with trio.fail_after(5 * PATIENCE):
        done = await trio.run_process(
            ["bash", "-c", command],
            cwd=folder,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    if done.returncode:
        missing(f"{command}: {done.stderr.decode()[-200:]}")
    return done.stdout.decode()


async def test_the_tutorial_leads_from_nothing_to_two_tabs(
    browser: Browser, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Five commands and 60 lines, blank ones not counted, are all that it takes, in a new clone."""
    text = TUTORIAL.read_text(encoding="utf-8")
    commands = re.findall(r"^\$ (.+)$", text, re.MULTILINE)
    files = dict(re.findall(r"^`(ask\.\w+)`.*?```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(commands) <= 5
    assert sum(bool(line.strip()) for code in files.values() for line in code.splitlines()) <= 60
    assert files["ask.html"] == (EXAMPLES / "runs_minimal.html").read_text(encoding="utf-8")

    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        source, kept = ROOT / name, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=kept)
        else:
            shutil.copy(source, tmp_path / name)
    for name, code in files.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    at = commands.index(SERVE)
    await run_shell(tmp_path, "\n".join(["set -e", *commands[:at]]))
    # In place of this test's own Python, which the arguments begin with.
    venv = ("bash", "-c", '. .venv/bin/activate; shift; exec python "$@"', "bash")
    served = await ServeProcess.start(nursery, "ask.py:app", folder=tmp_path, prefix=venv)
    start, watch = (
        line.replace("localhost:3000", f"localhost:{served.port}") for line in commands[at + 1 :]
    )
    told = json.loads(await run_shell(tmp_path, start))
    seen = await run_shell(tmp_path, watch.replace("ID", told["id"]))
    assert [line for line in seen.splitlines() if line.startswith("data: ")] == [
        *(f"data: {word} " for word in ["You", "said:", "Tell", "me", "a", "long", "story"]),
        "data: {}",
    ]
    relay = Relay(nursery, served.port)
    await browser.visit(two_tabs(relay, tmp_path), await relay.start())
    assert await served.stop() == 0
    nursery.cancel_scope.cancel()


# -- a file


async def test_what_was_killed_is_interrupted_for_its_owner(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """After `kill -9` and a new start the list of the owner has it, and all that there was."""
    environ, alice = {"HUB_DB": str(tmp_path / "answers.db")}, {"X-Session": "red"}
    app = f"{EXAMPLES / 'runs_owners.py'}:app"
    first = await ServeProcess.start(nursery, app, environ=environ)
    asking = alice | {"Accept": "text/event-stream"}
    async with await connect(first.port) as connection:
        head = await connection.ask("POST", "/answers", headers=asking, body=LONG.encode())
        path = dict(head.headers)[b"content-location"].decode()
        await connection.until(b"data: 3 \n\n")
        await first.stop(signal.SIGKILL)
    second = await ServeProcess.start(nursery, app, environ=environ)
    (listed,) = json.loads((await fetch(second.port, "GET", "/answers", headers=alice)).body)
    assert (listed["status"], path) == ("interrupted", f"/answers/{listed['id']}")
    told = await fetch(second.port, "GET", path, headers=alice)
    seen = [line for line in told.body.splitlines() if line.startswith(b"data: ")]
    assert seen[:6] == [b"data: %s " % word for word in b"You said: 0 1 2 3".split()]
    assert told.body.count(b"event: ") == told.body.count(b"event: interrupted\n") == 1
    bob = {"X-Session": "blue"}
    assert (await fetch(second.port, "GET", path, headers=bob)).status == 404
    assert await second.stop() == 0


# -- the AI SDK

AI: Final = ("ai", "6.0.326")
CHAT: Final = """
import { DefaultChatTransport, readUIMessageStream } from "ai"

const url = process.argv[1], out = {}
const transport = new DefaultChatTransport({ api: url + "api/chat" })
const send = (chatId, text, abortSignal) => transport.sendMessages({
  chatId, abortSignal, trigger: "submit-message", messageId: undefined,
  messages: [{ id: "1", role: "user", parts: [{ type: "text", text }] }],
})
const textOf = (message) => message.parts.map(({ text }) => text).join("")

async function read(stream, enough = () => false) {
  const seen = { text: "", errors: [], state: "" }
  try {
    const onError = (error) => seen.errors.push(error.message)
    for await (const message of readUIMessageStream({ stream, onError })) {
      seen.text = textOf(message)
      seen.state = message.parts.at(-1)?.state
      if (enough(seen.text)) break
    }
  } catch (error) { seen.errors.push(error.name) }
  return seen
}

async function kinds(stream, begun = () => {}) {
  const told = []
  for await (const { type, errorText } of stream) {
    if (type === "text-delta") begun()
    else told.push(errorText ?? type)
  }
  return told
}

out.none = await transport.reconnectToStream({ chatId: "a" })
out.whole = await read(await send("a", "hello there"))
out.ended = await transport.reconnectToStream({ chatId: "a" })

// The tab is closed amid the answer; two others come back to it.
const leaving = new AbortController()
const left = await read(await send("b", Array(40).fill("word").join(" "), leaving.signal),
  (text) => text.includes("word"))
leaving.abort()
out.left = left.text
const [second, third] = await Promise.all([1, 2].map(async () =>
  read(await transport.reconnectToStream({ chatId: "b" }))))
Object.assign(out, { second, third })

// Somebody stops it: all are told, and there is nothing to come back to.
const told = kinds(await send("c", Array(1000).fill("word").join(" ")))
const joined = await transport.reconnectToStream({ chatId: "c" })
out.joined = await kinds(joined, async () => {
  out.status = (await fetch(url + "api/chat/c/stop", { method: "POST" })).status
})
out.told = await told
out.stopped = await transport.reconnectToStream({ chatId: "c" })
out.failed = await read(await send("d", "please fail"))
console.log(JSON.stringify(out))
"""


async def test_ai_sdk_comes_back_to_an_answer(
    nursery: trio.Nursery, request: pytest.FixtureRequest
) -> None:
    """The package `ai` comes back to an answer from its first word, and is told of each end."""
    served = await serve(nursery, "runs_ai_sdk")
    folder = npm_modules(request.config, *AI)
    command = [require_tool("node"), "--input-type=module", "--eval", CHAT, f"{served.url}/"]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            command, cwd=folder, capture_stdout=True, capture_stderr=True, check=False
        )
    assert done.returncode == 0, done.stderr.decode()
    long = f"You said: {'word ' * 40}"
    stopped = ["start", "text-start", "abort"]
    assert json.loads(done.stdout) == {
        "none": None,
        "whole": {"text": "You said: hello there ", "errors": [], "state": "done"},
        "ended": None,
        "left": "You said: word ",
        "second": {"text": long, "errors": [], "state": "done"},
        "third": {"text": long, "errors": [], "state": "done"},
        "status": 204,
        "joined": stopped,
        "told": stopped,
        "stopped": None,
        "failed": {
            "text": "You said: please ",
            "errors": ["the model lost its thread"],
            "state": "streaming",
        },
    }
    assert await served.stop() == 0
