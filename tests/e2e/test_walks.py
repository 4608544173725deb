"""Three strangers with nothing but the README: what it tells them to type works as it stands.

Strategy: the lines and files are taken from the README's own blocks, and a shell runs them in an
empty folder. Only what has to differ between machines is replaced: ports, and the name of a host. A
line that is no longer there is an error, so the walks and the README can't drift apart.

Installing takes longest, so one of the three does it, into an environment of its own; the others
take the one that the tests run in.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import trio
from e2e.browser import ARGS, TIMEOUT
from e2e.process import PATIENCE
from e2e.test_cli_publish_tail import ENVIRON, Lines
from tools import missing, require_tool

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).parents[2]
FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES: Final = "\n".join(
    (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/how-to/tls.md")
)


def block(text: str) -> str:
    """Return the one block that has this text in it."""
    (found,) = (content for _, content in FENCE.findall(PAGES) if text in content)
    return str(found)


def line(text: str) -> str:
    """Return the first line of a block that has this text in it, without a prompt."""
    found = (line for line in block(text).splitlines() if text in line)
    return next(found).removeprefix("$ ")


@final
class Shell:
    """Runs lines of the README in a folder; what it started ends with the nursery.

    Args:
        nursery: where the processes run.
        folder: where the reader's files are.
        python: the folder with the programs `python` and `pytest`.
        replace: texts of the README and what stands for them here.
    """

    def __init__(
        self, nursery: trio.Nursery, folder: Path, *, python: Path, replace: Mapping[str, str]
    ) -> None:
        self._nursery = nursery
        self._folder = folder
        self._replace = replace
        self.environ = {**ENVIRON, "PATH": f"{python}{os.pathsep}{os.environ['PATH']}"}

    def write(self, name: str, content: str) -> None:
        """Save a file."""
        (self._folder / name).write_text(self._replaced(content), encoding="utf-8")

    async def run(self, script: str, *, status: int = 0, patience: float = PATIENCE) -> str:
        """Run lines to their end; return what they print."""
        with trio.fail_after(patience):
            done = await trio.run_process(
                self._command(script),
                check=False,
                capture_stdout=True,
                capture_stderr=True,
                cwd=self._folder,
                env=self.environ,
            )
        assert done.returncode == status, (script, done.stdout.decode(), done.stderr.decode())
        return (done.stdout + done.stderr).decode()

    async def start(self, script: str) -> Running:
        """Start a line that goes on."""
        run = partial(
            trio.run_process,
            self._command(f"exec {script}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            cwd=self._folder,
            env=self.environ,
            deliver_cancel=_kill,
        )
        return Running(await self._nursery.start(run))

    async def serve(self, script: str) -> Running:
        """Start a server; return when it listens."""
        running = await self.start(script)
        await running.err.find("^h3trio: https?://")
        return running

    def _command(self, script: str) -> list[str]:
        return ["bash", "-euc", self._replaced(script)]

    def _replaced(self, text: str) -> str:
        for old, new in self._replace.items():
            text = text.replace(old, new)
        return text


@final
class Running:
    """A process, and what it writes."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self.out = Lines(process.stdout)
        self.err = Lines(process.stderr)

    async def kill(self) -> None:
        """Do what `kill -9` does."""
        self._process.kill()
        await self._process.wait()


async def _kill(process: trio.Process) -> None:
    process.kill()


def free_port() -> str:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return str(taken.getsockname()[1])


HERE: Final = Path(sys.executable).parent


async def test_someone_who_writes_a_stream(nursery: trio.Nursery, tmp_path: Path) -> None:
    """The README's app is served and read by curl, and its test passes."""
    require_tool("curl")
    port = free_port()
    shell = Shell(nursery, tmp_path, python=HERE, replace={"localhost:3000": f"localhost:{port}"})
    shell.environ["H3TRIO_PORT"] = port
    shell.write("app.py", block("await trio.sleep(1)"))
    shell.write("test_stream.py", block("def test_counts_to_ten"))
    await shell.serve(line("serve app.py:app"))
    served, asked = block("serve app.py:app").splitlines()
    assert "serve" in served
    reader = await shell.start(asked)
    assert [await reader.out.next() for _ in range(5)] == [
        ":",
        "event: counter",
        "id: 0",
        "data: 0",
        "",
    ]
    # What the reader has installed, and no more of what these tests need.
    shell.write("pytest.ini", "[pytest]\n")
    shell.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_trio.plugin"}
    told = await shell.run(line("pytest -o") + " -vv --durations=0 --durations-min=0")
    assert "1 passed" in told
    (seconds,) = re.findall(r"([\d.]+)s call", told)
    assert float(seconds) < 1, "README says milliseconds: its nine seconds must be the clock's"


def copy_of_the_clone(folder: Path) -> None:
    """Make what a clone has that installing needs."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))


async def test_someone_who_runs_a_hub(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Installed from a clone, the hub keeps events over `kill -9`, and lets tokens in over TLS."""
    require_tool("curl")
    require_tool("openssl")
    port = free_port()
    texts = {"localhost:3000": f"localhost:{port}", "your.host:3000": f"localhost:{port}"}
    shell = Shell(nursery, tmp_path, python=tmp_path / ".venv" / "bin", replace=texts)
    shell.environ |= {"H3TRIO_PORT": port, "H3TRIO_URL": f"http://localhost:{port}"}
    copy_of_the_clone(tmp_path)
    make = line("python -m venv .venv && . .venv/bin/activate").partition(" && ")[0]
    await shell.run(make.replace("python", sys.executable, 1), patience=5 * PATIENCE)
    shell.environ |= {"PIP_QUIET": "1"}
    assert line("pip install '.[hub]'")
    install = line("pip install '.[hub,auth]'")
    await shell.run(install, patience=5 * PATIENCE)

    hub = await shell.serve(line("--store sqlite:hub.db"))
    (publish,) = re.findall(r"`(python -m h3trio publish news hi)`", PAGES)
    first = await shell.run(publish)
    await hub.kill()
    hub = await shell.serve(line("--store sqlite:hub.db"))
    second = await shell.run(publish)
    assert first != second
    tail = await shell.start(line("tail news --first oldest"))
    assert [await tail.out.next() for _ in range(2)] == ["hi", "hi"]
    assert "h3trio_subscribers 1.0" in await shell.run(line("/metrics"))
    await hub.kill()

    await shell.run(line("openssl req"))
    await shell.run(line("openssl rand"))
    await shell.serve(line("--jwt-key-file"))
    shell.environ |= {"SSL_CERT_FILE": "cert.pem"}
    with_token = block("export H3TRIO_TOKEN")
    assert await shell.run(with_token)
    without = next(text for text in with_token.splitlines() if "publish --url" in text)
    assert "the server answered 401" in await shell.run(without, status=1)


def use_page(url: str, between: trio.lowlevel.TrioToken, steps: Steps) -> list[str]:
    """Open the page, and let things happen; return what it shows at last."""
    try:
        from playwright.sync_api import expect, sync_playwright  # noqa: PLC0415 - may be missing
    except ImportError:
        missing("playwright is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=require_tool("chromium"), args=list(ARGS)
        )
        page = browser.new_page()
        page.goto(url)
        page.wait_for_function("source.readyState === EventSource.OPEN", timeout=TIMEOUT)
        shown = page.locator("#list li")
        trio.from_thread.run(steps.publish, trio_token=between)
        expect(shown).to_have_count(1, timeout=TIMEOUT)
        trio.from_thread.run(steps.restart, trio_token=between)
        trio.from_thread.run(steps.publish, trio_token=between)
        expect(shown).to_have_count(2, timeout=TIMEOUT)
        texts = shown.all_text_contents()
        browser.close()
    return texts


@final
class Steps:
    """What the front-end developer does beside the browser."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._hub: Running | None = None

    async def restart(self) -> None:
        """Kill the hub, if there is one, and start it."""
        if self._hub is not None:
            await self._hub.kill()
        self._hub = await self._shell.serve(line("--store sqlite:hub.db"))

    async def publish(self) -> None:
        """Publish once more."""
        await self._shell.run("python -m h3trio publish news hi")


async def test_someone_who_makes_a_page(nursery: trio.Nursery, tmp_path: Path) -> None:
    """The README's page, on another origin, shows events, also what came while the hub was gone."""
    require_tool("chromium")
    port, site = free_port(), free_port()
    texts = {"localhost:3000": f"localhost:{port}", "localhost:8000": f"localhost:{site}"}
    texts |= {"http.server 8000": f"http.server {site}"}
    shell = Shell(nursery, tmp_path, python=HERE, replace=texts)
    shell.environ |= {"H3TRIO_PORT": port, "H3TRIO_URL": f"http://localhost:{port}"}
    shell.environ |= {"PYTHONUNBUFFERED": "1"}
    shell.write("page.html", block("new EventSource("))
    site_process = await shell.start(line("http.server 8000"))
    await site_process.out.find("Serving HTTP")
    steps = Steps(shell)
    await steps.restart()
    (address,) = re.findall(r"<(http://localhost:8000/\S+)>", PAGES)
    url = address.replace("8000", site)
    token = trio.lowlevel.current_trio_token()
    assert await trio.to_thread.run_sync(use_page, url, token, steps) == ["hi", "hi"]
    nursery.cancel_scope.cancel()
