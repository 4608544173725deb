"""Listening on a unix socket: its file comes and goes with the server, and with no other."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import stat
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from e2e.process import Connection, ServeProcess

from h3trio import H3Event, Server, Settings, serve
from h3trio._server.sockets.unix import open_unix

if TYPE_CHECKING:
    from pathlib import Path

    from h3trio._server.sockets.listeners import SocketSource


async def hello(event: H3Event) -> str:
    """Say who asks."""
    return event.client


def open_at(path: Path, mode: int = 0o600) -> SocketSource:
    """Listen at a path."""
    return open_unix(str(path), mode=mode, settings=Settings())


def names(folder: Path) -> list[str]:
    """List a folder."""
    return [found.name for found in folder.iterdir()]


async def ask(path: Path) -> bytes:
    """Send one request; return the answer's body."""
    async with Connection(await trio.open_unix_socket(str(path))) as connection:
        assert (await connection.ask()).status_code == 200
        return (await connection.rest())[0]


async def test_serving(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A server at a path knows its clients as `unix`, and takes its file away at the end."""
    path = tmp_path / "h3trio.sock"
    server: Server = await nursery.start(partial(serve, hello, unix=str(path), unix_mode=0o640))
    assert server.addresses == (f"unix:{path}",)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert await ask(path) == b"unix"
    await server.drain()
    assert names(tmp_path) == []


async def test_a_stale_file_is_replaced(tmp_path: Path) -> None:
    """A file that nobody listens behind makes way."""
    path = tmp_path / "h3trio.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    source = open_at(path)
    async with await trio.open_unix_socket(str(path)):
        transport, client = await source.accept()
        await transport.aclose()
    assert client == "unix"
    await source.aclose()
    assert not path.exists()


async def test_a_living_server_is_left_alone(tmp_path: Path) -> None:
    """Where somebody listens nobody else does, also while the other's backlog is full."""
    path = tmp_path / "h3trio.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen(0)
        for _ in range(2):
            with pytest.raises(OSError, match=r"can't listen on unix:.*: Address"):
                open_at(path)
            probe = socket.socket(socket.AF_UNIX)
            probe.settimeout(0)
            with probe:
                probe.connect_ex(str(path))
        assert names(tmp_path) == ["h3trio.sock"]


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    """A file that is no socket is never replaced."""
    path = tmp_path / "important"
    path.write_text("data")
    with pytest.raises(OSError, match="the file exists and is no socket") as caught:
        open_at(path)
    assert caught.value.errno == errno.EEXIST
    assert path.read_text() == "data"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["no/such/folder", "x" * 120])
def test_a_path_that_cannot_be(tmp_path: Path, name: str) -> None:
    """A path without its folder, or too long for a socket, is named."""
    gc.collect()  # what earlier tests left would go at any time
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only their number matters
    with pytest.raises(OSError, match="can't listen on unix:"):
        open_at(tmp_path / name)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


async def test_a_successor_keeps_its_file(tmp_path: Path) -> None:
    """A server that ends leaves a file alone that isn't its own any more."""
    path = tmp_path / "h3trio.sock"
    first = open_at(path)
    path.unlink()
    second = open_at(path)
    await first.aclose()
    assert path.is_socket()
    await second.aclose()
    assert not path.exists()


async def test_the_command_line(nursery: trio.Nursery, tmp_path: Path) -> None:
    """The hub at a path: named in the ready line, usable without a key, gone with the process."""
    path = tmp_path / "hub.sock"
    served = await ServeProcess.start(nursery, "--unix", str(path), "--unix-mode", "660")
    assert served.ready_line.startswith(f"h3trio: unix:{path} (store: ")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    async with Connection(await trio.open_unix_socket(str(path))) as connection:
        head = await connection.ask("POST", "/events/news", body=b"hi")
        assert head.status_code == 200
    assert await served.stop() == 0
    assert not path.exists()
    killed = await ServeProcess.start(nursery, "--unix", str(path))
    await killed.stop(signal.SIGKILL)
    assert path.exists()
    again = await ServeProcess.start(nursery, "--unix", str(path))
    assert await again.stop() == 0
