"""Traffic of a small shop, for a hub that is to have something to show."""

from __future__ import annotations

import contextlib
import math
import socket
from functools import partial
from itertools import count
from typing import Final

import h11
import trio
from e2e.process import Connection, connect

READERS: Final = (("orders", 40), ("news", 25), ("sensors/hall", 12), ("chat/42", 3))
EVENTS: Final = (
    ("orders", "created", '{"order": N, "total": 39.90, "currency": "EUR"}'),
    ("sensors/hall", "", '{"celsius": 21.N, "trace": "' + 1000 * "8f3a1c0b92de47" + '"}'),
    ("orders", "paid", '{"order": N}'),
    ("news", "", "Release N is out"),
    ("orders", "shipped", '{"order": N,\n "carrier": "post",\n "parcels": 2}'),
    ("chat/42", "", "N people are here"),
)


async def run_shop(port: int) -> None:
    """Publish and subscribe until cancelled; three of the subscribers hardly read."""
    async with trio.open_nursery() as nursery:
        for topic, readers in READERS:
            for _ in range(readers):
                nursery.start_soon(read, port, topic)
        nursery.start_soon(partial(read, port, "sensors/hall", pause=2))
        nursery.start_soon(partial(read, port, "*", pause=1000))
        nursery.start_soon(partial(read, port, "sensors/hall", pause=1000))
        async with await connect(port) as publisher:
            for n in count(1):
                topic, kind, data = EVENTS[n % len(EVENTS)]
                target = f"/events/{topic}" + (f"?event={kind}" if kind else "")
                await publisher.ask("POST", target, body=data.replace("N", str(n)).encode())
                await publisher.rest()
                # Tides, and now and then a crowd.
                await trio.sleep(0.05 / (1 + 0.6 * math.sin(n / 150) + (n % 900 > 800)))


async def read(port: int, topic: str, *, pause: float = 0) -> None:
    """Read a stream, with a pause behind each piece, and come back when it ends."""
    while True:
        async with await _connect(port, small=pause > 0) as reader:
            with contextlib.suppress(h11.RemoteProtocolError, trio.BrokenResourceError):
                await reader.ask(target=f"/events?topic={topic}")
                while await reader.piece():  # noqa: ASYNC110 - it is slow, not waiting for a state
                    await trio.sleep(pause)


async def _connect(port: int, *, small: bool) -> Connection:
    client = trio.socket.socket()
    if small:
        # What the kernel would take in for it wouldn't be behind.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await client.connect(("127.0.0.1", port))
    return Connection(trio.SocketStream(client))
