"""Debian's `redis-server` (or `valkey-server`) as a process with a folder and a port of its own.

    async with redis_server(tmp_path, appendonly="yes", appendfsync="always") as server:
        async with open_redis(parse_address(server.url)) as connection: ...
        await server.kill()
        await server.start()

Keyword arguments are the directives of `redis.conf`, with `_` for `-`; a list is one line for each.
Its log is read all the time, as that of `ServeProcess`, and everything has a deadline. Without
options nothing is kept, and nothing waits for a disk.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from functools import partial
from typing import TYPE_CHECKING, final

import trio
from e2e.fronts import free_port
from e2e.process import PATIENCE
from tools import require_tool

from h3trio._nursery import OwnedNursery

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

    import trustme

READY = "[Rr]eady to accept connections|Sentinel ID is"


@final
class RedisServer:
    """A server, which can be stopped and started again with the same folder and port."""

    def __init__(self, nursery: trio.Nursery, folder: Path, command: Sequence[str]) -> None:
        self.folder = folder
        self.port = 0
        self.url = ""
        self._nursery = nursery
        self._command = command
        self._process: trio.Process | None = None
        self._log = ""
        self._more = trio.Event()
        self._over = trio.Event()

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything that it has said since it was started last."""
        return self._log

    async def start(self) -> None:
        """Start it; return when it listens, and has read what it kept."""
        self._log, self._over = "", trio.Event()
        run = partial(
            trio.run_process,
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            cwd=self.folder,
            deliver_cancel=_kill,
        )
        process: trio.Process = await self._nursery.start(run)
        self._process = process
        self._nursery.start_soon(self._read_log, process, self._over)
        await self.wait_line(READY)

    async def _read_log(self, process: trio.Process, over: trio.Event) -> None:
        assert process.stdout is not None
        async for data in process.stdout:
            self._log += bytes(data).decode()
            self._tell()
        over.set()
        self._tell()

    def _tell(self) -> None:
        self._more.set()
        self._more = trio.Event()

    async def wait_line(self, pattern: str) -> None:
        """Wait until the pattern is found in its log."""
        with trio.move_on_after(PATIENCE):
            while not re.search(pattern, self._log):
                assert not self._over.is_set(), f"ended without {pattern!r}:\n{self._log}"
                await self._more.wait()
            return
        raise AssertionError(f"no {pattern!r} in time:\n{self._log}")

    async def stop(self) -> None:
        """Ask it to end, which lets it write what is to be kept; wait for it."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it at once; wait for it."""
        await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        with trio.fail_after(PATIENCE):
            await self._over.wait()
            await self._process.wait()

    async def restart(self) -> None:
        """Kill it and start it again."""
        await self.kill()
        await self.start()

    def freeze(self) -> None:
        """Stop its time: it keeps its sockets, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


async def _kill(process: trio.Process) -> None:
    with contextlib.suppress(OSError):
        process.kill()


@contextlib.asynccontextmanager
async def redis_server(
    folder: Path,
    *,
    unix: bool = False,
    tls: trustme.CA | None = None,
    replica_of: RedisServer | None = None,
    **settings: str | Sequence[str],
) -> AsyncGenerator[RedisServer]:
    """Start a server on a free port of 127.0.0.1; it is killed with the block.

    Args:
        folder: for its files; made if it isn't there.
        unix: on the socket `redis.sock` in its folder instead.
        tls: the authority that issues its certificate, for `localhost`; the folder gets `ca.pem`.
        replica_of: follow this server, and wait for its data.
        settings: directives, such as `maxmemory="4mb"` or `user=["name on >password ~* +@all"]`.
    """
    port = free_port()
    port_name = "tls-port" if tls is not None else "port"
    defaults = {"port": "0", "bind": "127.0.0.1", "save": '""', "dir": str(folder)}
    if unix:
        defaults |= {"unixsocket": str(folder / "redis.sock")}
    else:
        defaults |= {port_name: str(port)}
    if tls is not None:
        defaults |= _certify(folder, tls)
    if replica_of is not None:
        defaults |= {"replicaof": f"127.0.0.1 {replica_of.port}", "repl-diskless-sync-delay": "0"}
    given = {name.replace("_", "-"): value for name, value in settings.items()}
    async with _running(folder, defaults | given, is_sentinel=False) as server:
        server.port = 0 if unix else port
        server.url = f"redis://127.0.0.1:{port}"
        if unix:
            server.url = f"unix://{folder}/redis.sock"
        elif tls is not None:
            server.url = f"rediss://localhost:{port}?ca={folder}/ca.pem"
        if replica_of is not None:
            await server.wait_line("sync: Finished with success")
        yield server


@contextlib.asynccontextmanager
async def redis_sentinel(
    folder: Path, name: str, primary: RedisServer, *, quorum: int = 1
) -> AsyncGenerator[RedisServer]:
    """Start a sentinel that watches a primary, whose replicas are there already.

    It takes 1.5 s of silence for the primary's end: on a busy machine less may be no end at all.
    Its `url` is one for `open_redis`.
    """
    port = free_port()
    settings = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder),
        "sentinel": [
            f"monitor {name} 127.0.0.1 {primary.port} {quorum}",
            f"down-after-milliseconds {name} 1500",
            f"failover-timeout {name} 5000",
        ],
    }
    async with _running(folder, settings, is_sentinel=True) as server:
        server.port = port
        server.url = f"redis+sentinel://127.0.0.1:{port}/{name}"
        yield server


@contextlib.asynccontextmanager
async def _running(
    folder: Path, settings: Mapping[str, str | Sequence[str]], *, is_sentinel: bool
) -> AsyncGenerator[RedisServer]:
    """Run it in a nursery that is left with its death."""
    lines = [
        f"{name} {value}\n"
        for name, values in settings.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    config = _write(folder, "".join(lines))
    options = ["--sentinel"] if is_sentinel else []
    command = [require_tool("redis-server"), str(config), *options]
    async with OwnedNursery() as nursery:
        server = RedisServer(nursery, folder, command)
        await server.start()
        yield server


def _write(folder: Path, text: str) -> Path:
    """Write a configuration into a folder, which is made if it isn't there."""
    folder.mkdir(exist_ok=True)
    config = folder / "redis.conf"
    config.write_text(text)
    return config


def _certify(folder: Path, authority: trustme.CA) -> dict[str, str]:
    """Write a certificate into a folder; return the directives that name it."""
    folder.mkdir(exist_ok=True)
    pem, ca = str(folder / "server.pem"), str(folder / "ca.pem")
    authority.cert_pem.write_to_path(ca)
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(pem)
    files = {"tls-cert-file": pem, "tls-key-file": pem, "tls-ca-cert-file": ca}
    return {**files, "tls-auth-clients": "no"}
