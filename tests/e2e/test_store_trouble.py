"""A hub whose store is in trouble goes on, says so, and works again when the trouble is over."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from e2e.process import PATIENCE, ServeProcess, fetch
from e2e.small_disk import occupy, small_disk
from tools import require_tool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

MIB = 1024 * 1024
FAILS, WORKS = "the store fails, the hub isn't ready", "the store works again, the hub is ready"


async def publish(hub: ServeProcess, size: int = 1) -> int:
    """Publish an event of so many bytes; return the status."""
    return (await fetch(hub.port, "POST", "/events/news", body=b"x" * size)).status


async def ready(hub: ServeProcess) -> int:
    """Return the status of the readiness probe."""
    return (await fetch(hub.port, "GET", "/healthz/ready")).status


async def until(
    wanted: int, ask: Callable[[ServeProcess], Awaitable[int]], hub: ServeProcess
) -> None:
    """Ask again and again, as a probe does, until the status is the wanted one."""
    with trio.fail_after(PATIENCE):
        while await ask(hub) != wanted:  # noqa: ASYNC110 - another process: nothing tells
            await trio.sleep(0.2)


def count(hub: ServeProcess, text: str) -> int:
    """Count the lines of the log with a text."""
    return sum(text in line for line in hub.log)


async def test_a_lock_that_another_process_holds_ends_nothing(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Trimming and publishing fail meanwhile, and go on by themselves afterwards."""
    path = tmp_path / "hub.db"
    hub = await ServeProcess.start(nursery, "--store", f"sqlite:{path}", "--max-age", "1s")
    assert await publish(hub) == 200
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await hub.wait_line("trim failed, and is tried again: .*locked")
        assert await publish(hub) == 503
        assert await ready(hub) == 503
        other.execute("ROLLBACK")
    await until(200, ready, hub)
    assert await publish(hub) == 200
    with closing(sqlite3.connect(path)) as other, trio.fail_after(PATIENCE):
        while other.execute("SELECT count(*) FROM records").fetchone() != (0,):  # noqa: ASYNC110 - as above
            await trio.sleep(0.2)
    assert await hub.stop() == 0


@pytest.mark.parametrize("options", [(), ("--max-age", "1h")])
async def test_a_full_disk_that_was_freed_makes_it_ready(
    nursery: trio.Nursery, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Nobody has to publish for it; each change is logged once."""
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        store = f"sqlite:{disk / 'hub.db'}"
        hub = await ServeProcess.start(nursery, "--store", store, *options)
        other = occupy(disk, leave=0)
        with trio.fail_after(PATIENCE):
            while await ready(hub) == 200:
                await publish(hub, 1000)
        for _ in range(3):
            assert await publish(hub, 1000) == 503
            assert await ready(hub) == 503
        other.unlink()
        await until(200, ready, hub)
        assert await publish(hub, 200_000) == 200
        assert (count(hub, FAILS), count(hub, WORKS)) == (1, 1)
        assert await hub.stop() == 0


async def test_one_event_that_is_too_large_for_the_disk_is_refused(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Others go on, so the hub is ready, and nothing is logged."""
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        hub = await ServeProcess.start(nursery, "--store", f"sqlite:{disk / 'hub.db'}")
        occupy(disk, leave=100_000)
        assert await publish(hub, 500_000) == 503
        assert await ready(hub) == 200
        assert await publish(hub, 1000) == 200
        assert (count(hub, FAILS), count(hub, WORKS)) == (0, 0)
        assert await hub.stop() == 0


async def test_a_full_disk_with_an_age_limit_ends_nothing(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """What has become old makes room, by itself."""
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        store = f"sqlite:{disk / 'hub.db'}"
        hub = await ServeProcess.start(nursery, "--store", store, "--max-age", "3s")
        for _ in range(100):
            assert await publish(hub, 10_000) == 200
        occupy(disk, leave=0)
        with trio.fail_after(PATIENCE):
            while await publish(hub, 10_000) == 200:
                pass
        await until(200, partial(publish, size=10_000), hub)
        await until(200, ready, hub)
        assert await hub.stop() == 0


@pytest.mark.parametrize("how", ["removed", "replaced", "wal", "shm", "lock", "moved"])
async def test_files_that_are_not_those_it_writes_to_acknowledge_nothing(
    nursery: trio.Nursery, tmp_path: Path, how: str
) -> None:
    """A publish is refused, the hub is unready, and the log says so once; the process goes on."""
    folder = tmp_path / "store"
    folder.mkdir()
    path = folder / "hub.db"
    hub = await ServeProcess.start(nursery, "--store", f"sqlite:{path}", "--max-age", "1s")
    assert await publish(hub) == 200
    files = [path, *(folder / f"hub.db{suffix}" for suffix in ("-wal", "-shm"))]
    if how == "removed":
        for file in files:
            file.unlink()
    elif how == "replaced":
        copy = tmp_path / "copy.db"
        shutil.copy(path, copy)
        copy.replace(path)
    elif how == "moved":
        folder.rename(tmp_path / "elsewhere")
    else:
        path.with_name(f"hub.db{'.' if how == 'lock' else '-'}{how}").unlink()
    assert await ready(hub) == 503
    for _ in range(3):
        assert await publish(hub) == 503
    answer = await fetch(hub.port, "POST", "/events/news", body=b"x")
    assert b"while in use: " in answer.body
    assert await ready(hub) == 503
    assert count(hub, FAILS) == 1
    if how == "moved":
        (tmp_path / "elsewhere").rename(folder)
        await until(200, ready, hub)
        assert await publish(hub) == 200
    assert await hub.stop() == 0


async def test_a_folder_that_cant_be_read_is_no_end(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A publish is refused as long as it can't be known where it would go."""
    # Root may read everything: so without that capability.
    prefix = (require_tool("setpriv"), "--bounding-set", "-dac_override,-dac_read_search")
    folder = tmp_path / "store"
    folder.mkdir()
    hub = await ServeProcess.start(
        nursery,
        *("--store", f"sqlite:{folder / 'hub.db'}", "--max-age", "1s"),
        prefix=prefix if os.geteuid() == 0 else (),
    )
    assert await publish(hub) == 200
    folder.chmod(0)
    try:
        assert await publish(hub) == 503
        assert await ready(hub) == 503
    finally:
        folder.chmod(0o700)
    await until(200, ready, hub)
    assert await publish(hub) == 200
    assert await hub.stop() == 0


async def test_its_files_are_for_their_owner_alone(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Whatever the umask is, and also those that SQLite makes."""
    before = os.umask(0)
    try:
        hub = await ServeProcess.start(nursery, "--store", f"sqlite:{tmp_path / 'hub.db'}")
    finally:
        os.umask(before)
    assert await publish(hub) == 200
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in os.scandir(tmp_path)}
    suffixes = ("", "-reserve", "-shm", "-wal", ".lock")
    assert modes == {f"hub.db{suffix}": 0o600 for suffix in suffixes}
    assert await hub.stop() == 0
