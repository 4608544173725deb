"""The hub behind proxies, on real sockets: whom it believes, and what rights that gives."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
import trio
from e2e.process import Connection, ServeProcess, connect, fetch

if TYPE_CHECKING:
    from pathlib import Path

APP = """
from h3trio import App

app = App()

@app.get("/")
async def who(event):
    return f"{event.client} {event.scheme}"
"""

LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


@pytest.fixture
def app(tmp_path: Path) -> str:
    """An app that says who asks."""
    (tmp_path / "who.py").write_text(APP)
    return f"{tmp_path / 'who.py'}:app"


async def test_forwarded(nursery: trio.Nursery, app: str) -> None:
    """Headers of a proxy that was named are believed, in the access log too; others' are not."""
    told = {"X-Forwarded-For": "9.9.9.9, 192.0.2.1", "X-Forwarded-Proto": "https"}
    served = await ServeProcess.start(nursery, app, "--forwarded-allow-ips", "127.0.0.1,10.0.0.0/8")
    assert (await fetch(served.port, headers=told)).body == b"192.0.2.1 https"
    await served.wait_line(r'192\.0\.2\.1 "GET /" 200')
    others = await ServeProcess.start(nursery, app, "--forwarded-allow-ips", "10.0.0.0/8")
    assert (await fetch(others.port, headers=told)).body == b"127.0.0.1 http"
    assert await served.stop() == await others.stop() == 0


async def test_a_proxy_at_a_unix_socket(nursery: trio.Nursery, app: str, tmp_path: Path) -> None:
    """A proxy that comes by the unix socket is named `unix` in the list."""
    path = tmp_path / "sock"
    arguments = ("--unix", str(path), "--forwarded-allow-ips", "unix")
    served = await ServeProcess.start(nursery, app, *arguments)
    async with Connection(await trio.open_unix_socket(str(path))) as connection:
        await connection.ask(headers={"Forwarded": 'for="[2001:db8::1]:5";proto=https'})
        assert await connection.piece() == b"2001:db8::1 https"
    assert await served.stop() == 0


async def test_the_proxy_protocol(nursery: trio.Nursery) -> None:
    """Whom a header names has the rights of where it is; a proxy's own request has the proxy's."""
    arguments = ("--forwarded-allow-ips", "127.0.0.1", "--proxy-protocol")
    served = await ServeProcess.start(nursery, *arguments)
    for header, status in (
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 5 80\r\n", 403),
        (b"PROXY UNKNOWN\r\n", 403),
        (LOCAL, 200),
    ):
        async with await connect(served.port) as connection:
            await connection.stream.send_all(header)
            head = await connection.ask("POST", "/events/news", body=b"hi")
            assert head.status_code == status
    async with await connect(served.port) as connection:
        await connection.stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        # What is unread at a close makes it a reset.
        with contextlib.suppress(trio.BrokenResourceError):
            assert await connection.stream.receive_some() == b""
    await served.wait_line(r"127\.0\.0\.1: PROXY header failed: no PROXY header")
    assert await served.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--proxy-protocol",), "--proxy-protocol needs --forwarded-allow-ips"),
        (("--forwarded-allow-ips", "localhost"), "'localhost' is no address, network, unix or *"),
        (("--unix-mode", "888"), "'888' is not a file mode, such as 660"),
        (("--unix-mode", "7777"), "'7777' is not a file mode, such as 660"),
    ],
)
async def test_bad_flags(nursery: trio.Nursery, arguments: tuple[str, ...], said: str) -> None:
    """What makes no sense is one line, and the status is 2."""
    served = await ServeProcess.launch(nursery, *arguments)
    assert await served.wait() == 2
    (line,) = served.log
    assert said in line
