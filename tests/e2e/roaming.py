"""Clients and publishers that go to another node when theirs ends, and a look at what they have.

Strategy: a client keeps the bytes of its stream and reads them when all is over, so that hundreds
of them cost this process little. It asks by HTTP/1.0, whose bodies have no frames of their own. A
publisher posts an event again, with its key, until somebody acknowledges it: so all of them count.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, Self, final

import h11
import trio
from e2e.process import PATIENCE, connect

if TYPE_CHECKING:
    from collections.abc import Sequence

PATH: Final = "/events/roaming"
END: Final = b"data: end\n\n"
PAUSE: Final = 0.05
"""Seconds until the next node is tried: no node is away for longer than it takes to start one."""


@final
class Site:
    """The nodes, by their ports, and what was counted."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = list(ports)
        self.reconnects = 0


class Found(NamedTuple):
    """The outcome of many logs."""

    acknowledged: int
    missing: int
    """Events that one of the logs lacks at least."""
    told: int
    """Gaps that were told."""

    def __str__(self) -> str:
        return f"{self.acknowledged} acknowledged, {self.missing} missing, {self.told} told"


async def read_all(site: Site, number: int, logs: list[bytes]) -> None:
    """Read the whole log, at one node or another, up to its end; add it to `logs`."""
    log = b""
    node = number
    while not log.endswith(END):
        last_id = re.findall(rb"^id: (.+)$", log[log.rfind(b"\nid: ") + 1 :], re.MULTILINE)
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            stream = await trio.open_tcp_stream("127.0.0.1", site.ports[node % len(site.ports)])
            async with stream:
                log += await _read(stream, last_id[-1] if last_id else b"")
        node += 1
        site.reconnects += 1
        await trio.sleep(PAUSE)
    site.reconnects -= 1
    logs.append(log)


async def _read(stream: trio.SocketStream, last_id: bytes) -> bytes:
    """Read one stream to its end, or that of the log; return its whole events."""
    head = b"Last-Event-ID: " + last_id if last_id else b"X-First: 1"
    first = b"" if last_id else b"&first=oldest"
    await stream.send_all(
        b"GET %s?cursor=off%s HTTP/1.0\r\nHost: localhost\r\n%s\r\n\r\n"
        % (PATH.encode(), first, head)
    )
    parts: list[bytes] = []
    with contextlib.suppress(trio.BrokenResourceError):
        while part := await stream.receive_some():
            parts.append(bytes(part))
            if part.endswith(END):
                break
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        return b""
    return body[: body.rfind(b"\n\n") + 2] if b"\n\n" in body else b""


@final
class Publishers:
    """Publishers that post numbered events, one after the other, while the block runs."""

    def __init__(self, site: Site, *, count: int) -> None:
        self.site = site
        self.acknowledged: list[bytes] = []
        self._count = count
        self._nursery = trio.open_nursery()
        self._more = trio.Event()
        self._over = False

    async def __aenter__(self) -> Self:
        nursery = await self._nursery.__aenter__()
        for publisher in range(self._count):
            nursery.start_soon(self._publish_all, publisher)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._over = True
        await self._nursery.__aexit__(*exc)  # type: ignore[arg-type]  # as it was given

    async def wait_more(self, count: int) -> None:
        """Wait until so many more events are acknowledged."""
        goal = len(self.acknowledged) + count
        with trio.fail_after(PATIENCE):
            while len(self.acknowledged) < goal:
                await self._more.wait()

    async def end(self) -> None:
        """Publish the last event."""
        await self._publish(b"end", node=0)

    async def _publish_all(self, publisher: int) -> None:
        number = 0
        while not self._over:
            await self._publish(b"%d-%d" % (publisher, number), node=publisher)
            number += 1

    async def _publish(self, data: bytes, *, node: int) -> None:
        """Post an event until it is acknowledged, at one node after the other."""
        headers = {"Idempotency-Key": f'"{data.decode()}"'}
        with trio.fail_after(PATIENCE):
            while True:
                port = self.site.ports[node % len(self.site.ports)]
                with contextlib.suppress(
                    OSError, trio.BrokenResourceError, h11.RemoteProtocolError
                ):
                    async with await connect(port) as connection:
                        head = await connection.ask("POST", PATH, headers=headers, body=data)
                        if head.status_code == 200:
                            break
                node += 1
                await trio.sleep(PAUSE)
        self.acknowledged.append(data)
        self._more.set()
        self._more = trio.Event()


def check_logs(logs: Sequence[bytes], acknowledged: Sequence[bytes]) -> Found:
    """Check that all logs have the same events in one order, each once, and what each needs."""
    wanted = set(acknowledged)
    missing: set[bytes] = set()
    told = 0
    orders = Counter[tuple[bytes, ...]]()
    for log in logs:
        told += log.count(b"event: reset")
        data = tuple(re.findall(rb"^data: (.+)$", log, re.MULTILINE))
        assert len(set(data)) == len(data), "an event came twice"
        missing |= wanted - set(data)
        orders[data] += 1
    assert len(orders) == 1, f"{len(orders)} orders"
    (order,) = orders
    for publisher in {data.partition(b"-")[0] for data in order}:
        own = [int(data.partition(b"-")[2] or 0) for data in order if data.startswith(publisher)]
        assert own == sorted(own), "a publisher's events changed their order"
    return Found(len(acknowledged), len(missing), told)
