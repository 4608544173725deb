"""What one connection can make the server hold: never more than the limits add up to.

Each kind of client fills what it may: its head, its headers, its body, its stream's queue, or all
of them. What the process grows by, for each connection, is held against a sum of `Settings`, the
same that docs/reference/limits-memory.md shows.
"""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
import trio
from e2e.process import PATIENCE, ServeProcess, fetch
from e2e.vitals import complaints, memory

from h3trio import Settings
from h3trio._server.send_queue import _JOIN_BYTES
from h3trio._server.sockets.transport import RECEIVE_SIZE

if TYPE_CHECKING:
    from pathlib import Path

KIB: Final = 1024
SETTINGS: Final = Settings()
CONNECTIONS: Final = 100

# Two tasks, h11's state, the request: 9 KiB; a stream is 4 more; the allocator rounds up.
BASE: Final = 20 * KIB
# A `bytearray` that grows has an eighth to spare.
GROWN: Final = 9 / 8
# A header is two `bytes` in a tuple: 160 and what it holds.
HEADERS: Final = SETTINGS.max_head_bytes + 160 * SETTINGS.max_header_count
# What waits for its turn: unfinished heads, pipelined requests.
HEAD: Final = GROWN * SETTINGS.max_head_bytes
# Reading pauses when the buffer is full: one read earlier it wasn't quite.
UNREAD: Final = GROWN * (SETTINGS.body_buffer_bytes + RECEIVE_SIZE)
COLLECTED: Final = GROWN * SETTINGS.max_body_bytes + UNREAD
# The queue, and what was taken from it: joined, and framed as a chunk.
STREAM: Final = SETTINGS.queue_bytes + 2 * _JOIN_BYTES + HEAD

APP: Final = """
import trio
from h3trio import App

app = App()

@app.all("/wait")
async def wait(event):
    await trio.sleep_forever()

@app.post("/body")
async def body(event):
    await event.body()

@app.all("/stream")
async def stream(event):
    await event.body()
    async with event.start_sse() as writer:
        while True:
            await writer.send("x" * 1000)
"""


class Kind(NamedTuple):
    """What a client sends, and the bytes that it may make the server hold."""

    sent: bytes
    least: float
    most: float


def request(target: str, *, headers: bytes = b"", body: bytes = b"", length: int = 0) -> bytes:
    """Write a request."""
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
    return head.encode() + headers + b"\r\n" + body


WHOLE: Final = b"x" * SETTINGS.max_body_bytes
AHEAD: Final = b"x" * (SETTINGS.max_head_bytes - 1)
FIELDS: Final = SETTINGS.max_header_count - 3
MANY: Final = (b"a:" + b"x" * (SETTINGS.max_head_bytes // FIELDS - 6) + b"\r\n") * FIELDS

KINDS: Final = {
    "head": Kind(b"GET / HTTP/1.1\r\n" + MANY, SETTINGS.max_head_bytes / 2, BASE + HEAD),
    "headers": Kind(request("/wait", headers=MANY), SETTINGS.max_head_bytes, BASE + HEAD + HEADERS),
    "unread": Kind(
        request("/wait", body=WHOLE[:-1], length=len(WHOLE)),
        SETTINGS.body_buffer_bytes,
        BASE + UNREAD,
    ),
    "body": Kind(
        request("/body", body=WHOLE[:-1], length=len(WHOLE)),
        SETTINGS.max_body_bytes,
        BASE + COLLECTED,
    ),
    "stream": Kind(request("/stream", body=AHEAD), SETTINGS.queue_bytes, BASE + STREAM),
    "everything": Kind(
        request("/stream", headers=MANY, body=WHOLE + AHEAD, length=len(WHOLE)),
        SETTINGS.max_body_bytes + SETTINGS.queue_bytes,
        BASE + HEADERS + COLLECTED + STREAM,
    ),
}


async def settled_memory(pid: int) -> int:
    """Return the memory of a process when it hasn't grown for a while."""
    size, quiet = memory(pid), 0
    with trio.fail_after(PATIENCE):
        while quiet < 10:
            await trio.sleep(0.1)
            now = memory(pid)
            quiet, size = (0, now) if now > size else (quiet + 1, size)
    return size


async def send(sock: trio.socket.SocketType, data: bytes) -> None:
    """Send what the server takes, and wait with the rest."""
    view = memoryview(data)
    while view:
        view = view[await sock.send(view) :]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("kind", KINDS)
async def test_memory_of_a_connection(nursery: trio.Nursery, tmp_path: Path, *, kind: str) -> None:
    """Whatever it sends, a connection costs no more than the limits say."""
    sent, least, most = KINDS[kind]
    (tmp_path / "app.py").write_text(APP)
    # Nobody is thrown out while it is measured.
    patience = [word for name in ("head", "body", "write") for word in (f"--{name}-timeout", "999")]
    options = ("app:app", "--no-access-log", *patience)
    served = await ServeProcess.start(nursery, *options, folder=tmp_path)
    assert (await fetch(served.port, "POST", "/body", body=b"warm")).status == 204
    before = memory(served.pid)
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            sock = stack.enter_context(trio.socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            await sock.connect(("127.0.0.1", served.port))
            nursery.start_soon(send, sock, sent)
        grown = await settled_memory(served.pid) - before
        nursery.cancel_scope.cancel()
    assert least <= grown / CONNECTIONS <= most, f"{grown / CONNECTIONS / KIB:.0f} KiB"
    assert not complaints(served)


TOPICS: Final = 900
# A topic of a subscription: its name, and its place in sets and dictionaries; two while they grow.
SUBSCRIBED: Final = BASE + HEAD + TOPICS * 220


@pytest.mark.slow
@pytest.mark.alone
async def test_memory_of_a_stream_of_many_topics(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A stream holds the names of its topics once, and little beside each."""
    served = await ServeProcess.start(nursery, "--no-access-log", folder=tmp_path)
    assert (await fetch(served.port, "GET", "/healthz/live")).status == 200
    before = memory(served.pid)
    with ExitStack() as stack:
        for stream in range(CONNECTIONS):
            sock = stack.enter_context(trio.socket.socket())
            await sock.connect(("127.0.0.1", served.port))
            query = "&".join(f"topic={stream}-{n}" for n in range(TOPICS))
            head = f"GET /events?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await send(sock, head.encode())
            assert (await sock.recv(1000)).startswith(b"HTTP/1.1 200")
        grown = await settled_memory(served.pid) - before
    assert TOPICS * 100 <= grown / CONNECTIONS <= SUBSCRIBED, f"{grown / CONNECTIONS / KIB:.0f} KiB"
    assert not complaints(served)


MIB: Final = 1024 * KIB
HUB: Final = """
import gc, os, sys, trio
from pathlib import Path
from h3trio import SSEEvent
from h3trio.hub import Hub, HubSettings, MemoryHistory, SQLiteHistory
from h3trio.runs import Runs, RunsSettings
from trio.testing import wait_all_tasks_blocked

class Sink:
    def send_batch_nowait(self, batch):
        return True

    async def flush(self):
        await trio.lowlevel.checkpoint()

def text(size):
    return os.urandom(size // 2).hex()

def grown(before=0):
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0]) - before

async def events(hub, nursery):  # given to one live, and replayed to another
    nursery.start_soon(hub.subscribe, Sink(), ["a"])
    await wait_all_tasks_blocked()
    for _ in range(80):
        await hub.publish(text(1_000_000), topics=["a"])
    async with hub.subscription(["a"], first="oldest") as events:
        await events.receive()

async def topics(hub, nursery):  # of events with many
    for n in range(2000):
        await hub.publish("x", topics=[f"{n}/{i}/{'☃' * 300}" for i in range(60)])

async def gaps(hub, nursery):  # a thousand are left of many topics
    for n in range(70_000):
        hub.publish_nowait("x", topics=[f"{n}/{'☃' * 300}"])

async def secrets(hub, nursery):  # the same of private events, under two topics each
    for n in range(70_000):
        hub.publish_nowait("x", topics=[f"{n}/{'☃' * 300}", "all"], private=True)

async def asked(hub, nursery):  # by many, who have rights of their own
    await secrets(hub, nursery)
    for n in range(10_000):
        topics = [f"{n}/{'☃' * 300}"]
        await hub.locate(topics, first="oldest", allow=topics)

async def runs(hub, nursery):  # a thousand of them, and another that waits for its result
    settings = RunsSettings(max_runs=1001, max_run_bytes=3 * 2**20)
    async with Runs(hub, settings=settings) as runs:
        async def idle(run):
            await trio.sleep_forever()
        async def long(run):
            for _ in range(10_000):
                await run.send(text(200))
        for _ in range(1000):
            await runs.start(idle)
        run = await runs.start(long)
        await run.result()
        print(grown(before))
        sys.stdout.flush()
        os._exit(0)

async def waiting(hub, nursery):  # for a disk
    hub._history._writing.acquire_nowait()
    refused = 0
    async def one(n):
        nonlocal refused
        try:
            await hub.publish(text(500_000), topics=["a"])
        except Exception:
            refused += 1
    for n in range(200):
        nursery.start_soon(one, n)
        await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()
    assert refused > 50

async def main(kind, folder):
    global before
    history = MemoryHistory(max_events=1000 if kind in ("gaps", "secrets", "asked") else 10_000)
    if kind == "waiting":
        history = SQLiteHistory(Path(folder, "hub.db"))
    async with Hub(history) as hub, trio.open_nursery() as nursery:
        await hub.publish("warm", topics=["a"])
        before = grown()
        await globals()[kind](hub, nursery)
        print(grown(before))
        sys.stdout.flush()
        os._exit(0)

trio.run(main, *sys.argv[1:])
"""

# What the history keeps, what is kept of it beside it, and a tenth for the allocator.
RECORD: Final = 2 * KIB
HUBS: Final = {
    "events": (60 * MIB, 1.1 * (64 + 8 + 4 + 4) * MIB),
    "topics": (20 * MIB, 1.1 * (20 + 16) * MIB),
    "gaps": (10 * MIB, 1.1 * (16 * MIB + 1000 * RECORD)),
    "secrets": (10 * MIB, 1.1 * (16 * MIB + 1000 * RECORD)),
    "asked": (12 * MIB, 1.1 * ((16 + 4) * MIB + 1000 * RECORD)),
    # A thousand of 12 KiB, the events of one in the history, and those parsed with their text.
    "runs": (7 * MIB, 1.1 * (12 + 4 + 10_000 * (2 * KIB + 200) / MIB + 6) * MIB),
    "waiting": (30 * MIB, 1.1 * 64 * MIB),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUBS)
async def test_memory_of_a_hub(tmp_path: Path, *, kind: str) -> None:
    """What it keeps of events, of topics, of gaps and of what waits is what its limits say."""
    least, most = HUBS[kind]
    command = [sys.executable, "-c", HUB, kind, str(tmp_path)]
    done = await trio.run_process(command, capture_stdout=True)
    grown = int(done.stdout)
    assert least <= grown <= most, f"{grown / MIB:.1f} MiB of {most / MIB:.1f}"
