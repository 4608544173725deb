"""`kill -9` of a process that publishes to a file: nothing acknowledged is lost, no id given twice.

Run as a program this file is the victim: 64 tasks publish at once, one commits for all that wait,
and each acknowledgement goes to standard output. The test kills it in the middle of its work, again
and again, and after each time looks into the file.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import h3trio
from h3trio import SSEEvent
from h3trio.hub import HistoryError, Selection, SQLiteHistory, Update

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h3trio.hub import Record

KILLS = 20
PUBLISHERS = 64
EVERYTHING = Selection(["*"])


# -- the victim


class Committer:
    """Takes all who wait into one append, as a hub does."""

    def __init__(self, history: SQLiteHistory) -> None:
        self.history = history
        self.waiting: deque[tuple[Update, trio.Event]] = deque()
        self.wanted = trio.Event()

    async def publish(self, update: Update) -> None:
        """Wait until the update is stored and its acknowledgement written."""
        stored = trio.Event()
        self.waiting.append((update, stored))
        self.wanted.set()
        await stored.wait()

    async def run(self) -> None:
        """Commit until killed."""
        while True:
            await self.wanted.wait()
            self.wanted = trio.Event()
            batch, self.waiting = self.waiting, deque()
            appended = await self.history.append([update for update, _stored in batch])
            lines = []
            for (id, record, *_rest), (update, stored) in zip(appended, batch, strict=True):
                if record is not None:
                    assert update.event is not None
                    self.history.log.append(record)
                    lines.append(f"{id} {record.position} {update.event.data}\n")
                stored.set()
            # A pipe takes it all, or the process waits: no line is half written when it counts.
            sys.stdout.buffer.write("".join(lines).encode())
            sys.stdout.buffer.flush()


async def publish_for_ever(path: str, run: str) -> None:
    """Publish from many tasks, each update with data of its own."""
    async with SQLiteHistory(path, tail_events=100) as history, trio.open_nursery() as nursery:
        committer = Committer(history)
        nursery.start_soon(committer.run)

        async def publisher(number: int) -> None:
            count = 0
            while True:
                count += 1
                data = f"{run}.{number}.{count}"
                own = data if count % 10 == 0 else None
                topics = (f"topic/{number % 5}", "all")
                event = SSEEvent(data, id=own)
                await committer.publish(Update(event=event, topics=topics, dedup=data))

        for number in range(PUBLISHERS):
            nursery.start_soon(publisher, number)


# -- the test


def start(path: Path, run: int) -> subprocess.Popen[bytes]:
    """Start a victim that finds the library under test."""
    source = Path(h3trio.__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, __file__, str(path), str(run)],
        env={**os.environ, "PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
    )


def kill_after(victim: subprocess.Popen[bytes], lines: int) -> list[list[str]]:
    """Read so many acknowledgements, kill, and return these and what was still in the pipe."""
    assert victim.stdout is not None
    seen = [victim.stdout.readline() for _ in range(lines)]
    victim.kill()
    seen += victim.stdout.readlines()
    victim.stdout.close()
    victim.wait()
    assert seen[lines - 1], "it ended by itself"
    return [line.decode().split() for line in seen if line.endswith(b"\n")]


async def read_all(history: SQLiteHistory, after: int = 0) -> list[Record]:
    """Read the whole file, or all behind a position."""
    records: list[Record] = []
    more = True
    while more:
        page = await history.read(
            after, selection=EVERYTHING, max_records=1000, max_bytes=10_000_000
        )
        records += page.records
        after, more = page.last, page.more
    return records


def data_of(record: Record) -> str:
    """Return the data of the stored event: its last line, as data here has no other."""
    return record.frame.removesuffix(b"\n\n").rpartition(b"\ndata: ")[2].decode()


def check(records: Sequence[Record], acknowledged: dict[str, tuple[str, int]]) -> None:
    """Hold the file against everything that was ever acknowledged."""
    found = {data_of(record): (record.id, record.position) for record in records}
    assert len(found) == len(records), "stored once each"
    assert len({record.id for record in records}) == len(records), "no id is given twice"
    missing = [data for data in acknowledged if data not in found]
    assert not missing, "nothing acknowledged is lost"
    changed = [data for data, place in acknowledged.items() if found[data] != place]
    assert not changed, "id and position are those that were acknowledged"
    # Each publisher waits for one before the next: its own are in the order it published them.
    last: dict[str, int] = {}
    for record in records:
        publisher, _dot, count = data_of(record).rpartition(".")
        assert int(count) == last.get(publisher, 0) + 1, "in order, without a hole"
        last[publisher] = int(count)


async def test_no_acknowledged_update_is_lost(tmp_path: Path) -> None:
    """Killed twenty times under load, the file has all that was acknowledged, in order."""
    path = tmp_path / "hub.db"
    chance = random.Random(20)  # noqa: S311 - the same moments each time, as far as that goes
    acknowledged: dict[str, tuple[str, int]] = {}
    head = 0
    for run in range(KILLS):
        victim = start(path, run)
        lines = chance.randrange(1, 4000)
        seen = await trio.to_thread.run_sync(kill_after, victim, lines)
        new = {data: (id, int(place)) for id, place, data in seen}
        async with SQLiteHistory(path, tail_events=100) as history:
            # What earlier runs stored is held against theirs at the end: all of it each time would
            # be the square of the work.
            before, head = head, history.log.head
            assert head >= before, "positions don't go back"
            records = await read_all(history, after=before)
            assert [r.position for r in records] == list(range(before + 1, head + 1))
            check(records, new)
            for id, position in list(new.values())[-500:]:
                known = history.epochs.resolve(id, head)
                if known is None:
                    known = await history.find(id, selection=EVERYTHING, allow=EVERYTHING)
                assert position == known
        acknowledged |= new
    assert len(acknowledged) > KILLS * PUBLISHERS
    async with SQLiteHistory(path, tail_events=100) as history:
        records = await read_all(history)
        assert [r.position for r in records] == list(range(1, head + 1)), "none is missing"
        check(records, acknowledged)


async def test_a_running_process_is_the_only_owner(tmp_path: Path) -> None:
    """Another process that opens the file is refused while it runs, and not after it was killed."""
    path = tmp_path / "hub.db"
    victim = start(path, 0)
    assert victim.stdout is not None
    try:
        await trio.to_thread.run_sync(victim.stdout.readline)
        with pytest.raises(HistoryError, match="in use by another process"):
            await SQLiteHistory(path).open()
    finally:
        kill_after(victim, 1)
    async with SQLiteHistory(path) as history:
        assert history.statistics().events > 0


if __name__ == "__main__":
    trio.run(publish_for_ever, sys.argv[1], sys.argv[2])
