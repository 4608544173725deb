"""An answer that the server cuts short, on its way to clients that don't come back for the rest.

In HTTP/1.1 it has no final chunk. In HTTP/1.0, which nginx speaks to a server unless told
otherwise, the end of the connection is the end of the body: there it has to be a reset.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from e2e.fronts import NGINX_MAIN, Site, issue, run_front
from e2e.process import PATIENCE, ServeProcess, connect
from openai._streaming import SSEDecoder
from tools import require_tool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

APP = """
import trio
from h3trio import App

app = App()

@app.all("/answer")
async def answer(event):
    async with event.start_sse() as writer:
        await writer.send("half")
        await trio.sleep_forever()

@app.post("/long")
async def long(event):
    async with event.start_sse() as writer:
        await writer.send("begun")
        await event.draining.wait()
        await trio.sleep(float(event.query["seconds"]))
        await writer.send("done")

@app.all("/whole")
async def whole(event):
    async with event.start_sse() as writer:
        await writer.send("whole")
"""

# As curl says: it ended too early; it was reset.
PARTIAL, RESET = 18, 56
LEASE = ("--lease", "0.3", "--lease-jitter", "0")
EVENT_SOURCE = ("-H", "Accept: text/event-stream")

NGINX_DEFAULTS = """
server {{
    listen 127.0.0.1:{port};
    location / {{
        proxy_pass http://{hub};
    }}
}}
"""


@pytest.fixture
def app(tmp_path: Path) -> str:
    """An app whose answers have no end."""
    (tmp_path / "half.py").write_text(APP)
    return f"{tmp_path / 'half.py'}:app"


async def curl(url: str, *args: str) -> tuple[int, str]:
    """Run a curl; return its exit status and what it printed."""
    command: Sequence[str] = [require_tool("curl"), "-sN", *args, url]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            command, capture_stdout=True, stderr=subprocess.DEVNULL, check=False
        )
    return done.returncode, done.stdout.decode()


async def behind_nginx(nursery: trio.Nursery, port: int, folder: Path) -> str:
    """Start nginx with nothing but a `proxy_pass`; return its URL."""
    site = Site(folder, f"127.0.0.1:{port}")
    server = NGINX_DEFAULTS.format(port=site.port, hub=site.hub)
    (folder / "h3trio.conf").write_text(server)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX_MAIN.format(user=user, folder=folder))
    paths = ("-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr")
    await run_front(nursery, [require_tool("nginx"), *paths], site)
    return f"http://127.0.0.1:{site.port}"


@pytest.mark.parametrize("reason", ["lease", "drain", "kill"])
async def test_curl_sees_that_it_was_cut(
    nursery: trio.Nursery, app: str, tmp_path: Path, reason: str
) -> None:
    """Direct, in HTTP/1.0 and behind nginx it fails, and has what was sent before."""
    limits = LEASE if reason == "lease" else ("--drain-soft", "0.1", "--drain-finish", "0.1")
    served = await ServeProcess.start(nursery, app, *limits)
    proxied = await behind_nginx(nursery, served.port, tmp_path)
    found: dict[str, tuple[int, str]] = {}

    async def ask(name: str, url: str, *args: str) -> None:
        found[name] = await curl(f"{url}/answer", *args)

    async with trio.open_nursery() as asking:
        asking.start_soon(ask, "direct", served.url, "-d", "{}")
        asking.start_soon(ask, "1.0", served.url, "-d", "{}", "--http1.0")
        asking.start_soon(ask, "nginx", proxied, "-d", "{}")
        asking.start_soon(ask, "fetched", proxied)
        if reason != "lease":
            await trio.sleep(0.5)  # nothing tells that nginx has passed all of it on
            served.send_signal(signal.SIGTERM if reason == "drain" else signal.SIGKILL)
    assert {name: status for name, (status, _) in found.items()} == {
        "direct": PARTIAL,
        "1.0": RESET,
        "nginx": PARTIAL,
        "fetched": PARTIAL,
    }
    assert [text for _, text in found.values()] == [":\ndata: half\n\n"] * 4


async def test_curl_sees_that_it_is_whole(nursery: trio.Nursery, app: str, tmp_path: Path) -> None:
    """What the handler ended is whole on each way, and so is what a client comes back for."""
    served = await ServeProcess.start(nursery, app, *LEASE)
    proxied = await behind_nginx(nursery, served.port, tmp_path)
    for url, *args in ((served.url,), (served.url, "--http1.0"), (proxied,)):
        assert await curl(f"{url}/whole", "-d", "{}", *args) == (0, ":\ndata: whole\n\n")
        status, text = await curl(f"{url}/answer", *args, *EVENT_SOURCE)
        assert (status, text.partition("retry: ")[0]) == (0, ":\ndata: half\n\n")
        # OpenAI's reader makes an event of each blank line behind a field.
        (half,) = SSEDecoder().iter_bytes(iter([text.encode()]))
        assert half.data == "half"
    assert await served.stop() == 0


async def test_an_answer_finishes_while_draining(nursery: trio.Nursery, app: str) -> None:
    """A signal lets the answer to a POST come to its end, and then the process."""
    served = await ServeProcess.start(nursery, app, "--drain-soft", "0.1", "--drain-hard", "0.1")
    async with await connect(served.port) as connection:
        await connection.ask("POST", "/long?seconds=1")
        await connection.until(b"begun\n\n")
        served.send_signal(signal.SIGTERM)
        assert await connection.rest() == (b"data: done\n\n", True)
    assert await served.wait() == 0


async def test_a_second_signal_waits_for_no_answer(nursery: trio.Nursery, app: str) -> None:
    """Who signals twice ends the answers too, and their clients see it."""
    served = await ServeProcess.start(nursery, app)
    async with await connect(served.port) as connection:
        await connection.ask("POST", "/long?seconds=50")
        await connection.until(b"begun\n\n")
        served.send_signal(signal.SIGTERM)
        await served.wait_line("draining; once more to exit at once")
        assert await served.stop() == 128 + signal.SIGTERM
        assert await connection.rest() == (b"", False)


async def test_over_tls(nursery: trio.Nursery, app: str, tmp_path: Path) -> None:
    """A cut body in HTTP/1.0 ends without `close_notify`, a whole one with it."""
    issue(trustme.CA(), tmp_path)
    pair = (
        "--tls-cert",
        str(tmp_path / "fullchain.pem"),
        "--tls-key",
        str(tmp_path / "privkey.pem"),
    )
    served = await ServeProcess.start(nursery, app, *pair, *LEASE)
    url = served.url.replace("127.0.0.1", "localhost")
    args = ("--cacert", str(tmp_path / "ca.pem"), "-d", "{}")
    assert await curl(f"{url}/answer", *args, "--http1.0") == (RESET, ":\ndata: half\n\n")
    assert await curl(f"{url}/answer", *args, "--http1.1") == (PARTIAL, ":\ndata: half\n\n")
    assert await curl(f"{url}/whole", *args, "--http1.0") == (0, ":\ndata: whole\n\n")
    assert await served.stop() == 0
