"""Power cuts: what an SQLite history acknowledged is there, whatever the disk lost besides.

Run as a program this file is the victim: it publishes, in several runs with several owners of the
file one after the other, and notes each acknowledgement in a file beside the database. All that it
does to its files is recorded, and then cut off at three hundred moments.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e.power_cut import Disk, recorded, recorder

from h3trio import SSEEvent
from h3trio.hub import Selection, SQLiteHistory, Update

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.power_cut import Step

    from h3trio.hub import Durability, Record

CUTS: Final = 300
RUNS: Final = 3
APPENDS: Final = 100
STEPS_OF_MAKING: Final = 60
"""While the file is being made there is more to go wrong, in fewer steps: each is tried twice."""
EVERYTHING: Final = Selection(["*"])
# What survives a power cut in any case: the test's own notes, not the history's.
ACKNOWLEDGED: Final = "acknowledged"


# -- the victim


async def publish(folder: Path, durability: str) -> None:
    """Publish updates of all sizes, alone and many at once, and note what was acknowledged."""
    chance = random.Random(1)  # noqa: S311 - it picks sizes
    notes = os.open(folder / ACKNOWLEDGED, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _ in range(RUNS):
        async with SQLiteHistory(folder / "hub.db", durability=durability) as history:  # type: ignore[arg-type]  # one of its values
            for _ in range(APPENDS):
                count = chance.choice([1, 1, 1, 5, 20])
                size = chance.choice([10, 300, 3000])
                updates = [
                    Update(event=SSEEvent("x" * size), topics=("a", f"t{n % 3}"))
                    for n in range(count)
                ]
                records = [record for _id, record, *_rest in await history.append(updates)]
                for record in filter(None, records):
                    history.log.append(record)
                os.write(notes, json.dumps([r.id for r in records if r]).encode() + b"\n")
    os.close(notes)


# -- the test


async def read_all(history: SQLiteHistory) -> list[Record]:
    """Read the whole file."""
    records: list[Record] = []
    after, more = 0, True
    while more:
        page = await history.read(
            after, selection=EVERYTHING, max_records=1000, max_bytes=10_000_000
        )
        records += page.records
        after, more = page.last, page.more
    return records


def moments(steps: list[Step], folder: Path, count: int) -> Iterator[list[str]]:
    """Leave in a folder what a cut may leave, at so many random moments, one after the other.

    Gives the ids that were acknowledged by then.
    """
    chance = random.Random(2)  # noqa: S311 - the same cuts each time
    making = [*range(STEPS_OF_MAKING)] * 2
    cuts = sorted(making + chance.choices(range(len(steps)), k=count))
    disk, acknowledged = Disk(), list[str]()
    for number, step in enumerate(steps):
        while cuts and cuts[0] == number:
            del cuts[0]
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            disk.cut(folder, chance)
            yield acknowledged
        if step.name != ACKNOWLEDGED:
            disk.do(step)
        elif step.kind == "w":
            acknowledged += json.loads(step.data)


async def look(folder: Path, everything: list[str]) -> list[str]:
    """Open what a cut left; return the ids that are there, and check that it can go on."""
    async with SQLiteHistory(folder / "hub.db", reserve_bytes=0) as history:
        records = await read_all(history)
        assert [record.position for record in records] == list(range(1, len(records) + 1))
        found = [record.id for record in records]
        assert found == everything[: len(found)], "in order, each once, without a hole"
        ((id, record, *_rest),) = await history.append(
            [Update(event=SSEEvent("on"), topics=("a",))]
        )
        assert id not in everything, "no id is given twice"
        assert record is not None
        assert record.position == len(found) + 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("durability", "count"), [("durable", CUTS), ("fast", CUTS // 3)])
async def test_power_cuts(tmp_path: Path, durability: Durability, count: int) -> None:
    """`durable` loses nothing that was acknowledged, `fast` the newest part; neither is damaged."""
    library, disk, left = recorder(tmp_path), tmp_path / "disk", tmp_path / "left"
    disk.mkdir()
    command = [sys.executable, __file__, str(disk), durability]
    steps = recorded(command, library, disk, tmp_path / "log")
    assert sum(step.kind == "s" for step in steps) > 5, "it is recorded at all"
    notes = (disk / ACKNOWLEDGED).read_text().splitlines()
    everything = [id for line in notes for id in json.loads(line)]
    losses = 0
    for acknowledged in moments(steps, left, count):
        found = await look(left, everything)
        losses += len(found) < len(acknowledged)
    if durability == "durable":
        assert losses == 0
    else:
        assert losses > count // 10, "the cuts do lose what isn't synced"


if __name__ == "__main__":
    trio.run(publish, Path(sys.argv[1]), sys.argv[2])
