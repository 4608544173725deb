"""The hub behind nginx, HAProxy and Caddy, each with the configuration that deploy/ ships."""

from __future__ import annotations

import json
import re
import signal
import ssl
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
import trustme
from e2e.fronts import MAKERS, NAME, Curl, Site, ask, free_port, haproxy, issue, run_front
from e2e.process import PATIENCE, Connection, ServeProcess
from tools import require_tool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STREAM = ("-H", "Accept: text/event-stream")
ANYONE = ("--allow-anonymous-publish", "--allow-anonymous-subscribe")
AWAY = ": the hub is away\n"
every_front = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture
def authority() -> trustme.CA:
    """Sign certificates."""
    return trustme.CA()


class House(NamedTuple):
    """A proxy and the hub behind it."""

    site: Site
    hub: ServeProcess


async def build(
    name: str, nursery: trio.Nursery, authority: trustme.CA, folder: Path, *args: str
) -> House:
    """Start a hub and a proxy before it: nginx before a unix socket, the others before a port."""
    require_tool(name)
    where = f"127.0.0.1:{free_port()}" if name != "nginx" else f"unix:{folder / 'hub.sock'}"
    hub = await start_hub(nursery, *flags(where), *args)
    issue(authority, folder)
    site = Site(folder, where)
    await run_front(nursery, MAKERS[name](site), site)
    return House(site, hub)


def flags(where: str) -> Sequence[str]:
    """Tell a hub to listen there."""
    host, _, port_or_path = where.partition(":")
    return ["--unix" if host == "unix" else "--port", port_or_path]


async def start_hub(nursery: trio.Nursery, *args: str) -> ServeProcess:
    """Start a hub that believes proxies of this machine."""
    believed = ("--forwarded-allow-ips", "127.0.0.1,unix")
    return await ServeProcess.start(nursery, *ANYONE, *believed, *args)


@every_front
async def test_a_stream_through_it(
    name: str, nursery: trio.Nursery, authority: trustme.CA, tmp_path: Path
) -> None:
    """By HTTP/2, events pass as they are sent, both ways; the hub sees who comes, and leaves."""
    args = ("--heartbeat-interval", "600")
    site, hub = await build(name, nursery, authority, tmp_path, *args)
    # What a client claims isn't believed.
    claims = ("-H", "X-Forwarded-For: 192.0.2.9", "-H", "Forwarded: for=192.0.2.9")
    source = ("--interface", "127.0.0.5")
    stream = await Curl.start(nursery, site, "/events/news", *STREAM, *claims, *source)
    await stream.until("\nretry: ")
    assert re.match(
        r"HTTP/2 200 .*\ncontent-type: text/event-stream; charset=utf-8\r\n", stream.text, re.DOTALL
    )
    # A body without end: each event in it is published when it is whole.
    events = ("-X", "POST", "-T", "-", "-H", "Content-Type: text/event-stream")
    publisher = await Curl.start(nursery, site, "/events/news", *events, stdin=True)
    for data in ("one", "two"):
        await publisher.write(f"data: {data}\n\n")
        await stream.until(f"data: {data}\n\n")
    # Resuming.
    first = re.findall(r"^id: (.+)\ndata: one$", stream.text, re.MULTILINE)[0]
    again = await Curl.start(nursery, site, "/events/news", "-H", f"Last-Event-ID: {first}")
    await again.until("data: two\n\n")
    assert "data: one" not in again.text
    # Leaving: known at once, and not by a heartbeat that can't be written.
    stream.terminate()
    line = await hub.wait_line(r"127\.0\.0\.5 .GET /events/news")
    assert re.search(r"200 (client_closed|connection_lost) ", line)
    # Nothing that comes through a proxy has the rights of this machine.
    assert (await ask(site, "/metrics")).startswith("HTTP/2 403")


@every_front
async def test_a_restart_is_survived(
    name: str, nursery: trio.Nursery, authority: trustme.CA, tmp_path: Path
) -> None:
    """Heartbeats pass, a drain ends the stream cleanly, and no EventSource is told 502 or 503."""
    store = ("--store", f"sqlite:{tmp_path / 'hub.db'}")
    args = (*store, "--drain-soft", "0.2", "--heartbeat-interval", "0.2")
    site, hub = await build(name, nursery, authority, tmp_path, *args)
    stream = await Curl.start(nursery, site, "/events/news", *STREAM)
    await stream.until("\n:\n", 3)
    last = re.findall(r"^last-event-id: (.+)\r$", stream.text, re.MULTILINE)[0]
    hub.send_signal(signal.SIGTERM)
    assert await stream.wait() == 0, "cut off"
    assert await hub.wait() == 0
    answers: dict[str, str] = {}

    async def put(what: str, *options: str) -> None:
        answers[what] = await ask(site, "/events/news", *options)

    async with trio.open_nursery() as both:  # some wait for the hub a while
        both.start_soon(put, "event source", *STREAM, "-H", "Origin: https://other.example")
        both.start_soon(put, "publisher", "-d", "hi")
    head, _, body = answers["event source"].partition("\r\n\r\n")
    assert head.startswith("HTTP/2 200")
    assert "content-type: text/event-stream" in head.splitlines()
    assert "access-control-allow-origin: https://other.example" in head.splitlines()
    assert body == AWAY
    assert re.match("HTTP/2 50[23] ", answers["publisher"])
    await start_hub(nursery, *flags(site.hub), *args)
    published = await ask(site, "/events/news", "-d", "hi")
    assert json.loads(published.partition("\r\n\r\n")[2])["id"]
    again = await Curl.start(nursery, site, "/events/news", *STREAM, "-H", f"Last-Event-ID: {last}")
    await again.until("data: hi\n\n")


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
async def test_plain_http_is_sent_to_https(
    name: str, nursery: trio.Nursery, authority: trustme.CA, tmp_path: Path
) -> None:
    """Who comes by plain HTTP is told the address with https."""
    issue(authority, tmp_path)
    site = Site(tmp_path, "127.0.0.1:9")
    await run_front(nursery, MAKERS[name](site), site)
    stream = await trio.open_tcp_stream("127.0.0.1", site.plain_port)
    async with Connection(stream) as connection:
        answer = await connection.ask(target="/events/news?x=1", headers={"Host": NAME})
    assert answer.status_code == 301
    assert (b"location", f"https://{NAME}/events/news?x=1".encode()) in answer.headers


async def test_proxy_protocol(nursery: trio.Nursery, authority: trustme.CA, tmp_path: Path) -> None:
    """With HAProxy's other lines the client's address comes by the PROXY protocol."""
    hub = await start_hub(nursery, "--proxy-protocol")
    issue(authority, tmp_path)
    site = Site(tmp_path, f"127.0.0.1:{hub.port}")
    plain = "    server hub 127.0.0.1:3000\n"
    # Another balancer in front, so that a client from elsewhere can be told of.
    changes = {f"{plain}    #": "    ", "bind :443 ssl": "bind :443 accept-proxy ssl"}
    # What looks whether it listens is no balancer, and is sent away.
    await run_front(nursery, haproxy(site, changes), site)
    context = ssl.create_default_context(cafile=site.folder / "ca.pem")
    raw = await trio.open_tcp_stream("127.0.0.1", site.port)
    await raw.send_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\r\n")
    stream = trio.SSLStream(raw, context, server_hostname=NAME, https_compatible=True)
    async with Connection(stream) as connection:
        with trio.fail_after(PATIENCE):
            head = await connection.ask(
                target="/events/news",
                headers={"Host": NAME, "Accept": "text/event-stream"},
            )
        assert head.status_code == 200
    await hub.wait_line(r'192\.0\.2\.1 "GET /events/news" 200')
