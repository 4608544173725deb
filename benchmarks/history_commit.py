"""`history_commit`: durable publishes a second from 64 publishers, and what grouping them buys.

A hub commits all who wait in one transaction. Beside it, in the same round and on the same disk, as
many publishers that commit each event for itself, which is what a store without group commit does.
`python benchmarks/history_commit.py [FOLDER]` runs it alone; the folder must be on a real disk, as
in memory a sync costs nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

if not __package__:
    # Run as a file: the parent of its folder is what the modules are named from.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.report import Report
from h3trio import SSEEvent
from h3trio.hub import Hub, SQLiteHistory, Update

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.bench import Bench
    from benchmarks.report import Round

_PUBLISHERS: Final = 64
_SECONDS: Final = 3.0
_EVENT: Final = SSEEvent("x" * 100)
_GROUPED: Final = "a hub: all who wait in one commit"
_SINGLE: Final = "one commit per event"
_LEAST: Final = 10.0


async def run(bench: Bench) -> Report:
    """Measure."""
    report = _report()
    for this in bench.rounds(report):
        await bench.begin(this)
        await _round(this, bench.programs, bench.options.seconds(_SECONDS))
    return _judged(report)


def _report() -> Report:
    return Report(
        title=f"Durable publishes from {_PUBLISHERS} publishers, each waiting for its answer",
        columns={"rate": "acks/s", "cpu": "CPU µs each", "p50": "p50 ms", "p99": "p99 ms"},
    )


def _judged(report: Report) -> Report:
    ratios = report.ratios("rate", _GROUPED, _SINGLE)
    report.check("acks/s, grouped ÷ one commit per event", ratios, least=_LEAST)
    return report


async def _round(this: Round, folder: Path, seconds: float) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        async with Hub(SQLiteHistory(Path(place) / "grouped.db")) as hub:
            grouped = partial(hub.publish, _EVENT, topics=["news"])
            this.add(_GROUPED, **await _publish(grouped, seconds))
        async with SQLiteHistory(Path(place) / "single.db") as history:
            single = partial(history.append, [Update(event=_EVENT, topics=("news",))])
            this.add(_SINGLE, **await _publish(single, seconds))


async def _publish(publish: Callable[[], Awaitable[object]], seconds: float) -> dict[str, float]:
    """Let all publish at once for so long; return what is in the table."""
    waits: list[float] = []

    async def publisher() -> None:
        while True:
            before = time.perf_counter()
            await publish()
            waits.append(time.perf_counter() - before)

    started, cpu = time.perf_counter(), time.process_time()
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(_PUBLISHERS):
                nursery.start_soon(publisher)
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    waits.sort()
    return {
        "rate": len(waits) / took,
        "cpu": cpu / len(waits) * 1e6,
        "p50": waits[len(waits) // 2] * 1000,
        "p99": waits[len(waits) * 99 // 100] * 1000,
    }


async def _alone(folder: Path) -> Report:
    report = _report()
    for number in range(3):
        await _round(report.round(number), folder, _SECONDS)
    return _judged(report)


if __name__ == "__main__":
    print(trio.run(_alone, Path(sys.argv[1] if sys.argv[1:] else tempfile.gettempdir())).as_text())
