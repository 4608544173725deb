"""What a served process holds: descriptors, memory, tasks; and that it is what it was before.

`APP` is a hub that can also be asked for the number of its tasks. What the kernel knows of the
process (its descriptors, its memory) is read from outside.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
from e2e.process import PATIENCE, ServeProcess, fetch

if TYPE_CHECKING:
    from collections.abc import Mapping

HISTORY: Final = 20
"""Events that the hub of `APP` keeps."""

APP = """
import ctypes
import gc
import sys

import trio
from h3trio.hub import Hub, MemoryHistory
from h3trio.hubserver import create_app

app = create_app(Hub(MemoryHistory(max_events=HISTORY)))

@app.get("/tasks")
async def tasks(event):
    return str(trio.lowlevel.current_statistics().tasks_living)

class MallInfo2(ctypes.Structure):
    # mallinfo(3): sizes, of which these are bytes in use, in heaps and in mappings of their own
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = MallInfo2

@app.post("/held")
async def held(event):
    gc.collect()
    libc.malloc_trim(0)
    info = libc.mallinfo2()
    return {"blocks": sys.getallocatedblocks(), "allocated": info.uordblks + info.hblkhd}
"""


class Vitals(NamedTuple):
    """What a server at rest holds, as one more client sees it."""

    tasks: int
    descriptors: int


async def serve_hub(
    nursery: trio.Nursery, folder: Path, *args: str, environ: Mapping[str, str] | None = None
) -> ServeProcess:
    """Serve `APP`, without an access log."""
    (folder / "app.py").write_text(f"HISTORY = {HISTORY}\n{APP}")
    options = ("--no-access-log", *args)
    return await ServeProcess.start(nursery, "app:app", *options, environ=environ, folder=folder)


def descriptors(pid: int) -> int:
    """Count the open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - only their number matters


class Held(NamedTuple):
    """What a process hasn't given back, whatever its allocators keep for later of busier times."""

    blocks: int
    """Of Python's own allocator."""
    allocated: int
    """Bytes, by `malloc`."""
    resident: int
    """Bytes, with what the allocators keep."""


async def held(served: ServeProcess) -> Held:
    """Collect its garbage, then measure."""
    answer = json.loads((await fetch(served.port, "POST", "/held")).body)
    return Held(**answer, resident=memory(served.pid))


def memory(pid: int) -> int:
    """Return the bytes of memory that a process has of its own (RSS without files)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])


async def fill_history(served: ServeProcess) -> None:
    """Publish what it can hold, as large as anything that comes later: from here on it is level."""
    for _ in range(HISTORY):
        answer = await fetch(served.port, "POST", "/events/a", body=b"x" * 50_000)
        assert answer.status == 200


async def vitals(served: ServeProcess) -> Vitals:
    """Take them: the asking connection is among the tasks, and gone from the descriptors."""
    tasks = int((await fetch(served.port, target="/tasks")).body)
    await trio.sleep(0.02)  # it is closed once the server has seen that we have
    return Vitals(tasks, descriptors(served.pid))


async def wait_at_rest(served: ServeProcess, baseline: Vitals) -> None:
    """Wait until a server holds exactly what it did."""
    now = await vitals(served)
    with trio.move_on_after(PATIENCE):
        while now != baseline:
            await trio.sleep(0.05)  # a process of its own: nothing tells when it is done
            now = await vitals(served)
    assert now == baseline


def complaints(served: ServeProcess) -> list[str]:
    """Return the lines of its log that tell of an error."""
    signs = ("ERROR", "CRITICAL", "Traceback", "Warning")
    return [line for line in served.log if any(sign in line for sign in signs)]
