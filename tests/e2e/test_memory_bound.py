"""What one connection can make the server hold: never more than the limits add up to.

Each kind of client fills what it may: its head, its headers, its body, its stream's queue, or all
of them. What the process grows by, for each connection, is held against a sum of `Settings`, the
same that docs/reference/limits-memory.md shows.
"""

from __future__ import annotations

import socket
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
