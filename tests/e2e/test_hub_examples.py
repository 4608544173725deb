"""The hub's examples, as anyone runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from e2e.process import PATIENCE, ServeProcess, connect, fetch
from e2e.redis_server import redis_server
from tools import require_tool

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
async def test_survive_kill_loses_nothing() -> None:
    """`examples/survive_kill.py` kills a hub under load, and finds all that was acknowledged."""
    script = [sys.executable, str(EXAMPLES / "survive_kill.py")]
    with trio.fail_after(60):
        done = await trio.run_process(script, capture_stdout=True, check=False)
    text = done.stdout.decode()
    assert done.returncode == 0, text
    assert "read back in order: True; lost: 0" in text


@pytest.mark.slow
@pytest.mark.alone
async def test_many_machines_lose_nothing() -> None:
    """`examples/many_machines.py` kills a hub and Redis, and all readers have all there is."""
    require_tool("redis-server")
    require_tool("nginx")
    script = [sys.executable, str(EXAMPLES / "many_machines.py")]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(script, capture_stdout=True, check=False)
    text = done.stdout.decode()
    assert done.returncode == 0, text
    assert re.search(r"missing, twice +0, 0\n", text), text
    assert "the same order for all: True; twice: 0; gaps told: 0; lost: 0" in text
    acknowledged = re.search(r"(\d+) events acknowledged; (\d+) attempts weren't", text)
    assert acknowledged is not None
    assert int(acknowledged[1]) >= 600
    assert int(acknowledged[2]) > 0


@pytest.mark.slow
async def test_shared_hub_is_read_by_another_process(nursery: trio.Nursery, tmp_path: Path) -> None:
    """`examples/shared_hub.py`: one reads, one publishes, and one ends what the first reads."""
    script = [sys.executable, str(EXAMPLES / "shared_hub.py")]
    async with redis_server(tmp_path) as server:
        run = partial(trio.run_process, env=os.environ | {"H3TRIO_STORE": server.url})
        reader: trio.Process = await nursery.start(
            partial(run, [*script, "read"], stdout=subprocess.PIPE)
        )
        assert reader.stdout is not None
        with trio.fail_after(PATIENCE):
            assert await line_of(reader.stdout) == b"reading\n"
            done = await run([*script, "publish", "hello"], capture_stdout=True)
            assert await line_of(reader.stdout) == done.stdout.strip() + b" hello\n"
            done = await run([*script, "kick", "alice"], capture_stdout=True)
            assert done.stdout == b"ended: 1; nodes that didn't answer: 0\n"
            assert await reader.wait() == 0


async def line_of(stream: trio.abc.ReceiveStream) -> bytes:
    """Read a line, which may come in parts."""
    line = b""
    while not line.endswith(b"\n"):
        data = bytes(await stream.receive_some())
        assert data, line
        line += data
    return line


@pytest.mark.slow
async def test_hub_durable_keeps_events_over_a_restart(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """`examples/hub_durable.py` gives a client that reconnects what it missed, after a restart."""
    environ = {"HUB_DB": str(tmp_path / "hub.db")}
    app = f"{EXAMPLES / 'hub_durable.py'}:app"
    first = await ServeProcess.start(nursery, app, environ=environ)
    seen = (await fetch(first.port, "POST", "/news/sport", body=b"seen")).body
    await fetch(first.port, "POST", "/news/sport", body=b"missed")
    assert await first.stop() == 0
    second = await ServeProcess.start(nursery, app, environ=environ)
    last_id = seen.decode().split('"')[3]
    async with await connect(second.port) as connection:
        await connection.ask("GET", "/news/sport", headers={"Last-Event-ID": last_id})
        got = await connection.until(b"data: missed\n\n")
        assert b"seen" not in got
    assert await second.stop() == 0
