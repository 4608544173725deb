"""Proxies in front of a hub: nginx, HAProxy and Caddy, each with the file that deploy/ ships.

Strategy: the shipped file is taken as it is but for addresses, ports and paths, each of which must
be found in it, so that a test runs what an operator copies. What the file leaves to its
surroundings (nginx's main part, the user to run as) is added here.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import trio
from e2e.process import PATIENCE
from tools import require_tool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import trustme

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
NAME: Final = "hub.example.com"

NGINX_MAIN: Final = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/h3trio.conf;
}}
"""


@final
class Site:
    """What a proxy is told.

    Args:
        folder: where its files go, and where `issue` has put the certificate.
        hub: `HOST:PORT` or `unix:PATH`.
    """

    def __init__(self, folder: Path, hub: str) -> None:
        self.folder = folder
        self.hub = hub
        self.port = free_port()
        self.plain_port = free_port()


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Replace each of these texts, all of which must be there."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def nginx(site: Site) -> Sequence[str]:
    """Write nginx's files; return the command."""
    folder = site.folder
    changes = {
        "    listen [::]:80;\n": "",
        "    listen [::]:443 ssl http2;\n": "",
        "listen 80;": f"listen 127.0.0.1:{site.plain_port};",
        "listen 443 ssl http2;": f"listen 127.0.0.1:{site.port} ssl http2;",
        "server 127.0.0.1:3000;": f"server {site.hub};",
        "/etc/ssl/h3trio": str(folder),
    }
    shipped = (DEPLOY / "nginx" / "h3trio.conf").read_text(encoding="utf-8")
    (folder / "h3trio.conf").write_text(replaced(shipped, changes))
    # Else root's workers run as somebody who may not enter the folder.
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX_MAIN.format(user=user, folder=folder))
    paths = ("-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr")
    return [require_tool("nginx"), *paths]


def haproxy(site: Site, changes: Mapping[str, str] | None = None) -> Sequence[str]:
    """Write HAProxy's file; return the command."""
    needed = {
        "    chroot /var/lib/haproxy\n    user haproxy\n    group haproxy\n": "",
        "bind :80": f"bind 127.0.0.1:{site.plain_port}",
        "bind :443": f"bind 127.0.0.1:{site.port}",
        "/etc/haproxy/h3trio.pem": str(site.folder / "h3trio.pem"),
        "127.0.0.1:3000": site.hub,
    }
    shipped = (DEPLOY / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")
    path = site.folder / "haproxy.cfg"
    path.write_text(replaced(replaced(shipped, changes or {}), needed))
    return [require_tool("haproxy"), "-db", "-f", str(path)]


def caddy(site: Site) -> Sequence[str]:
    """Write Caddy's file; return the command."""
    certificate = f"tls {site.folder}/fullchain.pem {site.folder}/privkey.pem"
    changes = {
        "\tgrace_period": "\tadmin off\n\tauto_https disable_redirects\n\tgrace_period",
        f"{NAME} {{": f"https://{NAME}:{site.port} {{\n\tbind 127.0.0.1\n\t{certificate}",
        "127.0.0.1:3000": site.hub,
    }
    shipped = (DEPLOY / "caddy" / "Caddyfile").read_text(encoding="utf-8")
    path = site.folder / "Caddyfile"
    path.write_text(replaced(shipped, changes))
    return [require_tool("caddy"), "run", "--config", str(path), "--adapter", "caddyfile"]


MAKERS: Final = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy}


def free_port() -> int:
    """Find a port that nobody has, outside those that the kernel gives to others by itself."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def issue(authority: trustme.CA, folder: Path) -> None:
    """Write a certificate as each proxy wants it, and the authority's own."""
    issued = authority.issue_cert(NAME, "localhost")
    issued.private_key_pem.write_to_path(str(folder / "privkey.pem"))
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "h3trio.pem"))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(folder / "fullchain.pem"), append=True)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))


async def run_front(nursery: trio.Nursery, command: Sequence[str], site: Site) -> None:
    """Start a proxy, and return when it listens; it ends with the nursery."""
    environ = {**os.environ, "HOME": str(site.folder), "XDG_DATA_HOME": str(site.folder)}
    with (site.folder / "log").open("wb") as log:
        run = partial(
            trio.run_process,
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
            env=environ,
            deliver_cancel=_end,
        )
        process: trio.Process = await nursery.start(run)
    with trio.fail_after(PATIENCE):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", site.port)).aclose()
            except OSError:
                assert process.poll() is None, (site.folder / "log").read_text()
                await trio.sleep(0.01)  # another's program: nothing tells that it listens
            else:
                return


async def _end(process: trio.Process) -> None:
    # At once, and nginx's workers with their master.
    process.terminate()
    with trio.move_on_after(1):
        await process.wait()
        return
    process.kill()


@final
class Curl:
    """A curl that runs, and what it has printed so far: heads and bodies."""

    def __init__(self) -> None:
        self.text = ""
        self._more = trio.Event()
        self._is_over = False
        self._process: trio.Process | None = None

    @classmethod
    async def start(
        cls, nursery: trio.Nursery, site: Site, path: str, *args: str, stdin: bool = False
    ) -> Curl:
        """Start one that asks the proxy for a path, by HTTP/2, perhaps with something to read."""
        self = cls()
        run = partial(
            trio.run_process,
            [require_tool("curl"), "-sSNi", "--http2", *reach(site, path), *args],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self._process = await nursery.start(run)
        nursery.start_soon(self._read)
        return self

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for data in self._process.stdout:
            self.text += bytes(data).decode()
            self._more.set()
            self._more = trio.Event()
        self._is_over = True
        self._more.set()

    async def write(self, text: str) -> None:
        """Give it something to send."""
        assert self._process is not None
        assert self._process.stdin is not None
        await self._process.stdin.send_all(text.encode())

    async def until(self, text: str, count: int = 1) -> None:
        """Wait until this text was printed so many times."""
        with trio.fail_after(PATIENCE):
            while self.text.count(text) < count:
                assert not self._is_over, f"ended without {text!r}:\n{self.text}"
                await self._more.wait()

    async def wait(self) -> int:
        """Wait for its end; return the exit status."""
        assert self._process is not None
        with trio.fail_after(PATIENCE):
            return await self._process.wait()

    def terminate(self) -> None:
        """End it."""
        assert self._process is not None
        self._process.terminate()


def reach(site: Site, path: str) -> Sequence[str]:
    """Return curl's arguments for a path of the site."""
    address = f"{NAME}:{site.port}:127.0.0.1"
    url = f"https://{NAME}:{site.port}{path}"
    return ["--cacert", str(site.folder / "ca.pem"), "--resolve", address, url]


async def ask(site: Site, path: str, *args: str) -> str:
    """Ask the proxy, by HTTP/2; return the head and the body."""
    command = [require_tool("curl"), "-sSi", "--http2", *reach(site, path), *args]
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(command, capture_stdout=True)
    return result.stdout.decode()
