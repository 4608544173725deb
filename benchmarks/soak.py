"""Steady load with churn for minutes: is memory level, and does everything arrive?

    python benchmarks/soak.py --minutes 5 --folder docs

A hub with an SQLite store serves subscribers that come and go (some close, some reset) and
publishers that don't. Each subscriber sees every event, so the positions in the ids that it gets
must count up by one. Once a second the server is looked at from outside. The record goes to
`soak.json` and, where matplotlib is there, `soak.png`; the exit status is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import random
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import h11
import trio

from h3trio import SSEParser

SUBSCRIBERS: Final = 100
PUBLISHERS: Final = 5
PAUSE: Final = 0.1
"""Seconds between two events of one publisher."""
STAY: Final = 10.0
"""Mean of the seconds that a subscriber stays."""
KEPT: Final = 1000
"""Events that the hub keeps: few, so that its store is full before memory is judged."""
SETTLE: Final = 0.2
"""Share of the time that isn't judged."""
LEVEL: Final = 0.01
"""Growth of memory over the time judged that counts as none."""
_RESET: Final = struct.pack("ii", 1, 0)
_GONE: Final = (OSError, trio.BrokenResourceError)


@final
@dataclass
class Record:
    """What happened: totals, and a value of each column for each second."""

    published: int = 0
    delivered: int = 0
    connections: int = 0
    errors: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)

    def sample(self, start: float, pid: int, delivered_before: int) -> None:
        """Add one second."""
        self.seconds.append(round(trio.current_time() - start, 1))
        self.memory.append(_memory(pid))
        self.descriptors.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
        self.rate.append(self.delivered - delivered_before)
        self.latency.append(statistics.median(self.latencies) if self.latencies else 0)
        self.latencies.clear()

    def growth(self) -> float:
        """Return the growth of memory over the time judged, as a share of its mean."""
        first = round(len(self.memory) * SETTLE)
        times, sizes = self.seconds[first:], self.memory[first:]
        slope = statistics.linear_regression(times, sizes).slope
        return slope * (times[-1] - times[0]) / statistics.fmean(sizes)


def _memory(pid: int) -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None, "Linux tells it"
    return 1024 * int(found[1])


# -- the load


class Client:
    """One HTTP connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def ask(self, method: str, target: str, body: bytes = b"") -> int:
        """Send a request; return the status of the answer."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        headers = [("Host", "localhost"), ("Content-Length", str(len(body)))]
        parts = [
            self._http.send(h11.Request(method=method, target=target, headers=headers)),
            self._http.send(h11.Data(data=body)),
            self._http.send(h11.EndOfMessage()),
        ]
        await self.stream.send_all(b"".join(filter(None, parts)))
        head = await self._next()
        assert isinstance(head, h11.Response)
        return head.status_code

    async def piece(self) -> bytes:
        """Return the next piece of the body, `b""` at its end."""
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self.stream.receive_some()))
        return event


async def publish(port: int, record: Record) -> None:
    """Publish at a steady rate; each event says when."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = Client(stream)
        while True:
            status = await client.ask("POST", "/events/soak", b"%r" % trio.current_time())
            while await client.piece():
                pass
            if status != 200:
                record.errors.append(f"a publish was answered {status}")
            record.published += 1
            await trio.sleep(PAUSE)


async def subscribe(port: int, record: Record, chance: random.Random) -> None:
    """Come, stay for a while, leave in some way, and come again."""
    while True:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            record.connections += 1
            with trio.move_on_after(chance.expovariate(1 / STAY)):
                try:
                    await _follow(Client(stream), record)
                except (*_GONE, h11.RemoteProtocolError) as exc:
                    record.errors.append(f"a stream broke: {exc!r}")
                else:
                    record.errors.append("a stream ended")
            if chance.random() < 0.5:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


async def _follow(client: Client, record: Record) -> None:
    status = await client.ask("GET", "/events")
    if status != 200:
        record.errors.append(f"a subscriber was answered {status}")
    parser, last = SSEParser(), 0
    while piece := await client.piece():
        for event in parser.feed(piece):
            now = int((event.id or "0").rpartition("-")[2])
            if last and now != last + 1:
                record.errors.append(f"{now} came after {last}")
            last = now
            record.delivered += 1
            record.latencies.append(trio.current_time() - float(event.data or "nan"))


# -- running


async def soak(minutes: float, folder: Path) -> Record:
    """Serve a hub, load it, and look at it once a second."""
    record = Record()
    store = f"sqlite:{folder / 'hub.db'}"
    options = ["--port", "0", "--store", store, "--max-events", str(KEPT), "--no-access-log"]
    command = [sys.executable, "-m", "h3trio", "serve", *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: ASYNC220 - at once
    assert server.stderr is not None
    port = int(re.findall(r"http://\S+:(\d+)", server.stderr.readline())[0])
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(PUBLISHERS):
                nursery.start_soon(publish, port, record)
            for number in range(SUBSCRIBERS):
                chance = random.Random(number)  # noqa: S311 - it spreads load
                nursery.start_soon(subscribe, port, record, chance)
            await _watch(server.pid, record, 60 * minutes)
            nursery.cancel_scope.cancel()
    finally:
        server.terminate()
        log = await trio.to_thread.run_sync(server.stderr.read)
        status = await trio.to_thread.run_sync(server.wait)
        server.stderr.close()
    record.errors += [line for line in log.splitlines() if "ERROR" in line or "Error" in line]
    if status:
        record.errors.append(f"the server ended with {status}")
    return record


async def _watch(pid: int, record: Record, seconds: float) -> None:
    start = trio.current_time()
    while trio.current_time() < start + seconds:
        before = record.delivered
        await trio.sleep(1)
        record.sample(start, pid, before)


def save(record: Record, minutes: float, folder: Path) -> None:
    """Write the record, and the plot if there is something to draw it with."""
    figures = {
        "minutes": minutes,
        "published": record.published,
        "delivered": record.delivered,
        "connections": record.connections,
        "errors": record.errors,
        "growth": round(record.growth(), 5),
        "seconds": record.seconds,
        "memory": record.memory,
        "descriptors": record.descriptors,
        "rate": record.rate,
        "latency": [round(value, 6) for value in record.latency],
    }
    (folder / "soak.json").write_text(json.dumps(figures) + "\n")
    with contextlib.suppress(ImportError):
        plot(figures, folder / "soak.png")


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw memory, descriptors, rate and latency over time."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    rows = (
        ("memory, MiB", [size / 2**20 for size in figures["memory"]]),
        ("descriptors", figures["descriptors"]),
        ("events/s delivered", figures["rate"]),
        ("latency, ms (median)", [1000 * value for value in figures["latency"]]),
    )
    figure, axes = pyplot.subplots(len(rows), 1, sharex=True, figsize=(8, 8))
    for axis, (title, values) in zip(axes, rows, strict=True):
        axis.plot(figures["seconds"], values, linewidth=0.8)
        axis.set_ylabel(title)
        axis.set_ylim(0, 1.2 * max(values, default=1))
    axes[-1].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> int:
    """Run; return 1 if there were errors or memory grew."""
    parser = argparse.ArgumentParser(description="steady load with churn")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, default=Path("docs"), help="where the record goes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = trio.run(partial(soak, arguments.minutes, Path(folder)))
    save(record, arguments.minutes, arguments.folder)
    growth = record.growth()
    print(
        f"{record.published} published, {record.delivered} delivered to {record.connections} "
        f"connections, {len(record.errors)} errors, memory {growth:+.2%}"
    )
    print(*record.errors[:20], sep="\n", end="\n" if record.errors else "")
    return int(bool(record.errors) or growth > LEVEL)


if __name__ == "__main__":
    sys.exit(main())
