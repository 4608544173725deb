"""Proxies on the hub's own machine that nobody told of it: a stranger behind one has no rights.

nginx, HAProxy and Caddy run as Debian starts them, as users of their own, with the least that
passes requests on; Caddy is told to leave out the headers that would give it away. Nothing that the
hub is sent tells such a request from one of this machine; the kernel does. The hub runs as a user
of its own, so that root is another one too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
import trio
from e2e.fronts import NGINX_MAIN, Site, run_front
from e2e.process import PATIENCE, Connection, ServeProcess, connect, fetch
from tools import missing, require_tool

from h3trio._server.peers.users import open_netlink, user_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OWN: Final = 10_001
NOBODY: Final = 65_534
STRANGER: Final = {"Host": "localhost"}
WHY: Final = b"another user's program"
ESTABLISHED: Final = "01"
CLOSE_WAIT: Final = "08"

HAPROXY: Final = """
global
    user haproxy
    group haproxy
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
frontend all
    bind 127.0.0.1:{port}
    default_backend hub
backend hub
    server hub {hub}
"""
CADDYFILE: Final = """
{{
    admin off
    auto_https off
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy {hub} {{
        header_up -X-Forwarded-For
        header_up -X-Forwarded-Proto
        header_up -X-Forwarded-Host
        header_up Host localhost
    }}
}}
"""


def as_user(name: str | int, *more: str) -> Sequence[str]:
    """Return what to write in front of a command to run it as another user."""
    if os.geteuid() != 0:
        missing("only root can run programs as other users")
    both = (f"--reuid={name}", f"--regid={name}")
    return (require_tool("setpriv"), *both, "--clear-groups", *more)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that each user may enter: pytest's own is for one alone."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def nginx(site: Site) -> Sequence[str]:
    """Write nginx's files, workers of which run as www-data; return the command."""
    upstream = f"http://{site.hub}"
    server = f"server {{ listen 127.0.0.1:{site.port}; location / {{ proxy_pass {upstream}; }} }}"
    (site.folder / "h3trio.conf").write_text(server)
    main = NGINX_MAIN.format(user="user www-data;", folder=site.folder)
    (site.folder / "nginx.conf").write_text(main)
    paths = ("-p", str(site.folder), "-c", str(site.folder / "nginx.conf"), "-e", "stderr")
    return [require_tool("nginx"), *paths]


def haproxy(site: Site) -> Sequence[str]:
    """Write HAProxy's file; return the command."""
    path = site.folder / "haproxy.cfg"
    path.write_text(HAPROXY.format(port=site.port, hub=site.hub.replace("unix:", "unix@")))
    return [require_tool("haproxy"), "-db", "-f", str(path)]


def caddy(site: Site) -> Sequence[str]:
    """Write Caddy's file; return the command, which is run as its user."""
    path = site.folder / "Caddyfile"
    path.write_text(CADDYFILE.format(port=site.port, hub=site.hub.replace("unix:", "unix/")))
    command = [require_tool("caddy"), "run", "--config", str(path), "--adapter", "caddyfile"]
    return [*as_user("caddy"), *command]


MAKERS: Final = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy}


class Served(NamedTuple):
    """A hub with a user of its own, and how to reach it."""

    hub: ServeProcess
    address: str

    async def counts(self) -> tuple[int, int]:
        """Return how many events were published, and how many requests refused."""
        if self.address.startswith("unix:"):
            stream = await trio.open_unix_socket(self.address.removeprefix("unix:"))
            connection = Connection(stream)
        else:
            connection = await connect(self.hub.port)
        async with connection:
            await connection.ask(target="/statistics", headers={"Accept": "application/json"})
            found = json.loads((await connection.rest())[0])
        return found["hub"]["published"], found["access"]["forbidden"]

    async def counts_at_last(self) -> tuple[int, int]:
        """Return both once a request was refused: nobody is left whom the answer could reach."""
        with trio.fail_after(PATIENCE):
            while (found := await self.counts())[1] < 1:  # noqa: ASYNC110 - another process
                await trio.sleep(0.01)
        return found


async def start_hub(nursery: trio.Nursery, folder: Path, *, unix: bool) -> Served:
    """Start a hub of its own user, which shows its counts to anyone."""
    path = folder / "hub"
    path.mkdir()
    os.chown(path, OWN, OWN)
    where = ("--unix", str(path / "sock"), "--unix-mode", "666") if unix else ()
    args = ("--allow-anonymous-operate", *where)
    # Whose folder Python and we are in, who knows: this capability may read all of them.
    reads = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    hub = await ServeProcess.start(nursery, *args, prefix=as_user(OWN, *reads))
    return Served(hub, f"unix:{path / 'sock'}" if unix else f"127.0.0.1:{hub.port}")


every_front = pytest.mark.parametrize("name", list(MAKERS))
by_both = pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])


@every_front
@by_both
async def test_a_stranger_behind_a_proxy(
    name: str,
    unix: bool,  # noqa: FBT001 - a parameter of the test
    nursery: trio.Nursery,
    folder: Path,
) -> None:
    """Who stays for the answer is refused whatever it asks for, and is told why."""
    served = await start_hub(nursery, folder, unix=unix)
    site = Site(folder, served.address)
    await run_front(nursery, MAKERS[name](site), site)
    for host in ("localhost", "hub.example.com", f"127.0.0.1:{site.port}"):
        for method, body in (("POST", b"x"), ("GET", b""), ("DELETE", b"")):
            answer = await fetch(
                site.port, method, "/events/secret", headers={"Host": host}, body=body
            )
            assert answer.status == 403, (host, method)
    answer = await fetch(site.port, "POST", "/events/x", headers=STRANGER, body=b"x")
    assert WHY in answer.body
    assert (await served.counts())[0] == 0
    nursery.cancel_scope.cancel()


@every_front
async def test_a_stranger_that_hangs_up(name: str, nursery: trio.Nursery, folder: Path) -> None:
    """Who is gone before the hub looks, perhaps with the proxy's own socket, is refused too."""
    served = await start_hub(nursery, folder, unix=False)
    site = Site(folder, served.address)
    await run_front(nursery, MAKERS[name](site), site)
    served.hub.send_signal(signal.SIGSTOP)
    stranger = await connect(site.port)
    request = b"POST /events/secret HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
    await stranger.stream.send_all(request)
    await until_received(served.hub.port)
    await stranger.aclose()
    with trio.move_on_after(1):  # HAProxy's defaults wait for the answer all the same
        await until_received(served.hub.port, state=CLOSE_WAIT)
    served.hub.send_signal(signal.SIGCONT)
    assert await served.counts_at_last() == (0, 1)
    nursery.cancel_scope.cancel()


async def until_received(port: int, *, state: str | None = None) -> None:
    """Wait until the kernel has a request for the port, in a connection of this state."""
    with trio.fail_after(PATIENCE):
        while not has_received(port, state):  # noqa: ASYNC110 - another process
            await trio.sleep(0.01)


def has_received(port: int, state: str | None) -> bool:
    """Whether bytes wait in a connection to the port, as proc(5) tells."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return any(
        local.endswith(f":{port:04X}")
        and found in (state or ESTABLISHED, CLOSE_WAIT)
        and int(queues.partition(":")[2], 16) > 1
        for _, local, _, found, queues, *_ in map(str.split, lines)
    )


async def test_root_is_another_user(nursery: trio.Nursery, folder: Path) -> None:
    """Root's programs have no rights of the hub's user, whose own have all of them."""
    served = await start_hub(nursery, folder, unix=False)
    answer = await fetch(served.hub.port, "POST", "/events/x", headers=STRANGER, body=b"x")
    assert (answer.status, WHY in answer.body) == (403, True)
    url = f"http://localhost:{served.hub.port}/events/x"
    ask = (require_tool("curl"), "-s", "-o", os.devnull, "-w", "%{http_code}", "-d", "x", url)
    for user, status in ((OWN, b"200"), (NOBODY, b"403")):
        found = await trio.run_process([*as_user(user), *ask], capture_stdout=True)
        assert found.stdout == status
    assert (await served.counts())[0] == 1
    nursery.cancel_scope.cancel()


async def test_root_closed_already(nursery: trio.Nursery, folder: Path) -> None:
    """A root peer that hangs up at once is refused, as one that stays is."""
    served = await start_hub(nursery, folder, unix=False)
    served.hub.send_signal(signal.SIGSTOP)
    async with await connect(served.hub.port) as peer:
        request = b"POST /events/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
        await peer.stream.send_all(request)
    await until_received(served.hub.port, state=CLOSE_WAIT)
    served.hub.send_signal(signal.SIGCONT)
    assert await served.counts_at_last() == (0, 1)
    nursery.cancel_scope.cancel()


# -- what the kernel says


@pytest.mark.skipif(sys.platform != "linux", reason="sock_diag is Linux's")
@pytest.mark.parametrize(
    ("family", "host", "to"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "127.0.0.1", "::ffff:127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
        (socket.AF_INET6, "::", "::ffff:127.0.0.1"),
    ],
)
def test_the_user_over_loopback(family: int, host: str, to: str) -> None:
    """By IPv4, IPv6 and one in the other: the user while the peer is there, and nobody after."""
    netlink = open_netlink()
    assert netlink is not None
    with netlink, socket.socket(family) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        listener.bind((host, 0))
        listener.listen()
        with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET) as peer:
            peer.connect((to, listener.getsockname()[1]))
            accepted, _ = listener.accept()
            assert user_of(accepted, netlink) == os.geteuid()
            peer.shutdown(socket.SHUT_WR)
            assert user_of(accepted, netlink) == os.geteuid()
        with accepted:
            assert user_of(accepted, netlink) is None
        assert user_of(accepted, netlink) is None
