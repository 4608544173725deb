"""Connections that are reset as soon as they are made."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

import pytest
import trio
from e2e.process import fetch
from e2e.vitals import complaints, serve_hub, vitals, wait_at_rest

if TYPE_CHECKING:
    from pathlib import Path

CONNECTIONS: Final = 10_000
# As many at once as the kernel surely holds for us.
BURST: Final = 100
# SO_LINGER on, for no time: closing sends RST instead of FIN.
RESET: Final = struct.pack("ii", 1, 0)


def connect_and_reset(port: int, count: int, sent: bytes) -> None:
    """Make connections, send something, and reset them all at once."""
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.send(sent)
    for sock in socks:
        sock.close()


@pytest.mark.slow
@pytest.mark.alone
async def test_ten_thousand_resets(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Reset before or after they are accepted, they leave no task, descriptor or complaint."""
    served = await serve_hub(nursery, tmp_path)
    baseline = await vitals(served)
    for number in range(CONNECTIONS // BURST):
        sent = b"" if number % 2 else b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        # One by one they are reset before the server wakes up, in bursts also after it.
        for count in [BURST] if number % 4 < 2 else [1] * BURST:
            connect_and_reset(served.port, count, sent)
        await trio.lowlevel.checkpoint()
    await wait_at_rest(served, baseline)
    assert not complaints(served)
    assert (await fetch(served.port, target="/healthz/ready")).status == 200
    assert await served.stop() == 0
