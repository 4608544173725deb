"""Servers under measurement: how each is started, and what is read off while it runs.

A `Recipe` knows how to start one server; `Servers.start` runs it on the server's core, on a free
port, and kills its whole tree of processes at the end. Each peer is set up the way somebody who
knows it would: no access log, keep-alive without a small cap, a message buffer.
"""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import trio

from .load import HERE, FailedError
from .machine import (
    MissingError,
    core_seconds,
    cpu_seconds,
    open_sockets,
    process_tree,
    resident_bytes,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

APPS: Final = HERE / "apps"
_PORTS: Final = range(20_000, 30_000)
_START_SECONDS: Final = 20.0
_QUIET: Final = ("--log-level", "warning", "--max-connections", "15000")
_MODULES: Final = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/libexec/nginx")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to start one server."""

    name: str
    argv: Callable[[int, Path], Sequence[str]]
    """From a port and an empty folder to a command."""
    environ: Mapping[str, str] = field(default_factory=dict[str, str])


def hub(*flags: str, name: str = "h3trio") -> Recipe:
    """`python -m h3trio serve`: our hub."""
    return _ours(name, [], flags)


def hub_over_tls(certificate: Path) -> Recipe:
    """Our hub with TLS; makes its certificate, the key in the same file, if it isn't there.

    Raises:
        MissingError: openssl is not installed.
    """
    if shutil.which("openssl") is None:
        raise MissingError("openssl is not installed")
    if not certificate.exists():
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]
        names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        out = ["-nodes", "-days", "2", "-keyout", str(certificate), "-out", f"{certificate}.crt"]
        subprocess.run([*command, *names, *out], check=True, capture_output=True)
        with certificate.open("a") as both:
            both.write(Path(f"{certificate}.crt").read_text())
    return hub(
        "--tls-cert", str(certificate), "--tls-key", str(certificate), name="h3trio, hub, TLS"
    )


def app(*flags: str, target: str = "app", name: str = "h3trio") -> Recipe:
    """Our server with a handler of `apps/ours.py`."""
    return _ours(name, [f"{APPS / 'ours.py'}:{target}"], flags)


def runs(count: int) -> Recipe:
    """`apps/runs.py`: so many runs, and as many topics beside them."""
    environ = {"H3TRIO_BENCH_RUNS": str(count)}
    return replace(_ours("h3trio", [f"{APPS / 'runs.py'}:app"], ()), environ=environ)


def _ours(name: str, target: Sequence[str], flags: Sequence[str]) -> Recipe:
    def argv(port: int, _scratch: Path) -> Sequence[str]:
        command = [sys.executable, "-m", "h3trio", "serve", *target, "--port", str(port)]
        return [*command, *_QUIET, *flags]

    return Recipe(name=name, argv=argv)


def redis() -> Recipe:
    """Debian's Redis, which keeps nothing on a disk.

    Raises:
        MissingError: it is not installed.
    """
    found = shutil.which("redis-server")
    if found is None:
        raise MissingError("redis-server is not installed")

    def argv(port: int, scratch: Path) -> Sequence[str]:
        quiet = ["--save", "", "--appendonly", "no", "--loglevel", "warning"]
        return [found, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(scratch), *quiet]

    return Recipe(name="Redis", argv=argv)


def floor(programs: Path) -> Recipe:
    """`floor.c`, a loop of bare sends."""
    argv = [str(programs / "floor"), "--port"]
    return Recipe(name="C floor", argv=lambda port, _scratch: [*argv, str(port)])


def loop() -> Recipe:
    """Trio and h11 and nothing else, `apps/loop.py`."""
    argv = [sys.executable, str(APPS / "loop.py")]
    return Recipe(name="bare Trio + h11", argv=lambda port, _scratch: [*argv, str(port)])


def hypercorn(venv: Path, target: str) -> Recipe:
    """Hypercorn's Trio worker with an application of `apps/peers.py`."""

    def argv(port: int, _scratch: Path) -> Sequence[str]:
        command = [str(venv / "bin" / "hypercorn"), "--worker-class", "trio", "--workers", "1"]
        return [*command, "--backlog", "1024", "--bind", f"127.0.0.1:{port}", f"peers:{target}"]

    return Recipe(name="hypercorn-trio", argv=argv, environ={"PYTHONPATH": str(APPS)})


def uvicorn(venv: Path, target: str) -> Recipe:
    """Uvicorn with h11, which is what we stand on too, with an application of `apps/peers.py`."""

    def argv(port: int, _scratch: Path) -> Sequence[str]:
        command = [str(venv / "bin" / "uvicorn"), "--http", "h11", "--loop", "asyncio"]
        quiet = ["--no-access-log", "--log-level", "warning"]
        return [*command, *quiet, "--port", str(port), f"peers:{target}"]

    return Recipe(name="uvicorn (h11)", argv=argv, environ={"PYTHONPATH": str(APPS)})


def aiohttp(venv: Path) -> Recipe:
    """Aiohttp with aiohttp-sse, `apps/aiohttp_peer.py`."""
    argv = [str(venv / "bin" / "python"), str(APPS / "aiohttp_peer.py")]
    return Recipe(name="aiohttp-sse", argv=lambda port, _scratch: [*argv, str(port)])


def better_sse(folder: Path) -> Recipe:
    """Node's HTTP server with better-sse, `apps/better_sse.mjs`."""

    def argv(port: int, _scratch: Path) -> Sequence[str]:
        # It finds the package from the working directory.
        start = (
            f"cd {shlex.quote(str(folder))} && exec node {shlex.quote(str(APPS))}/better_sse.mjs"
        )
        return ["sh", "-c", f"{start} {port}"]

    return Recipe(name="better-sse", argv=argv)


_NCHAN: Final = """\
load_module {module};
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/pid;
error_log {folder}/error.log crit;
events {{ worker_connections {files}; multi_accept on; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    nchan_shared_memory_size 512m;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location ~ ^/events/(.+)$ {{
            nchan_publisher http;
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
            nchan_message_buffer_length {messages};
            nchan_message_timeout 10m;
            nchan_eventsource_ping_interval 15s;
        }}
    }}
}}
"""


def nchan(*, messages: int = 1000) -> Recipe:
    """Nginx with its module nchan, one worker.

    Raises:
        MissingError: one of them is not installed.
    """
    found = [Path(folder) / "ngx_nchan_module.so" for folder in _MODULES]
    module = next((path for path in found if path.exists()), None)
    nginx = next((p for p in ("/usr/sbin/nginx", "/usr/bin/nginx") if Path(p).exists()), None)
    if nginx is None or module is None:
        raise MissingError("nginx with nchan is not installed (nginx, libnginx-mod-nchan)")

    def argv(port: int, scratch: Path) -> Sequence[str]:
        text = _NCHAN.format(
            module=module, folder=scratch, port=port, files=20_000, messages=messages
        )
        # As another user than root nginx can't change to one, and warns of the line.
        text = text if os.geteuid() == 0 else text.replace("user root;\n", "")
        config = scratch / "nginx.conf"
        config.write_text(text)
        return [nginx, "-p", str(scratch), "-c", str(config), "-e", str(scratch / "error.log")]

    return Recipe(name="nchan", argv=argv)


@final
class Server:
    """A running server."""

    def __init__(self, name: str, process: trio.Process, port: int) -> None:
        self.name = name
        self.port = port
        self._process = process

    @property
    def pid(self) -> int:
        """The first of its processes."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return cpu_seconds(self.pid)

    def resident_bytes(self) -> int:
        """Resident memory now."""
        return resident_bytes(self.pid)

    def open_sockets(self) -> int:
        """Sockets held now."""
        return open_sockets(self.pid)


@final
class Servers:
    """Starts servers on one core."""

    def __init__(self, scratch: Path, core: int) -> None:
        self._scratch = scratch
        self._core = core
        self._count = 0
        self._seconds = 0.0
        self._foreign = 0.0

    def take_foreign_share(self) -> float:
        """Share of the core that other programs took while servers ran, since the last call."""
        share = self._foreign / self._seconds if self._seconds else 0.0
        self._seconds = self._foreign = 0.0
        return share

    @asynccontextmanager
    async def start(self, recipe: Recipe, *, core: int | None = None) -> AsyncGenerator[Server]:
        """Run a server for the length of the block, on another core if one is given.

        Raises:
            FailedError: it ended, or did not listen in time. What it said last is added to this
                and to any such error that leaves the block.
        """
        self._count += 1
        folder = self._scratch / f"{self._count}"
        folder.mkdir()
        port = _free_port()
        place = self._core if core is None else core
        argv = ["taskset", "-c", str(place), *recipe.argv(port, folder)]
        with (folder / "output").open("wb") as output:
            process = await trio.lowlevel.open_process(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **recipe.environ},
            )
        began, busy = time.monotonic(), core_seconds(self._core)
        try:
            await _listens(process, port, recipe.name)
            yield Server(recipe.name, process, port)
        except FailedError as exc:
            exc.add_note(f"{recipe.name} said: {_end_of(folder / 'output')!r}")
            raise
        finally:
            if core is None:
                self._seconds += time.monotonic() - began
                self._foreign += core_seconds(self._core) - busy - cpu_seconds(process.pid)
            _kill(process)
            # They were killed: this ends at once, and leaves no child behind.
            with trio.CancelScope(shield=True):
                await process.wait()


async def _listens(process: trio.Process, port: int, name: str) -> None:
    with trio.move_on_after(_START_SECONDS):
        while process.poll() is None:
            with contextlib.suppress(OSError):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.aclose()
                return
            # Nothing else tells when somebody else's server is ready.
            await trio.sleep(0.05)
    raise FailedError(f"{name} did not start")


def _end_of(output: Path) -> str:
    return output.read_text(errors="replace")[-2000:]


def _kill(process: trio.Process) -> None:
    if process.poll() is None:
        for pid in process_tree(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _free_port() -> int:
    """Find a port below those that the kernel gives to clients, ours by the ten thousand."""
    for port in random.sample(_PORTS, k=100):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise FailedError("no free port found")
