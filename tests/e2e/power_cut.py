"""A disk that loses power: what was asked of it, and what may be found on it afterwards.

`recorded` runs a program with `record_writes.c` in front of the C library and returns what it did
to the files of one folder. `Disk` replays that up to a moment, and then makes a folder of what a
power cut at that moment may leave:

* what was synced is there, with everything that was done to the file before it;
* of what was done to a file since, any part: a write may be missing, whole, or torn, so that some
  of its 512-byte sectors are there and others aren't;
* a file that was made or deleted is so for certain only after a sync of the folder.
"""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tools import require_tool

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

SECTOR: Final = 512
FOLDER: Final = ""
"""The folder's own name in the records."""

_HEAD: Final = struct.Struct("=cQQQ")


class Step(NamedTuple):
    """One thing done to a file: (c)reate, (w)rite, (t)runcate, (u)nlink or (s)ync."""

    kind: str
    name: str
    offset: int
    data: bytes


def recorder(folder: Path) -> Path:
    """Build the library that records."""
    library = folder / "record_writes.so"
    source = Path(__file__).with_name("record_writes.c")
    flags = ["-shared", "-fPIC", "-o", str(library), str(source), "-ldl", "-lpthread"]
    subprocess.run([require_tool("gcc"), *flags], check=True)
    return library


def recorded(command: Sequence[str], library: Path, folder: Path, log: Path) -> list[Step]:
    """Run a program to its end; return what it did to the files of a folder."""
    names = {"LD_PRELOAD": library, "RECORD_FOLDER": folder, "RECORD_LOG": log}
    environ = {**os.environ, **{key: str(value) for key, value in names.items()}}
    subprocess.run(command, env=environ, check=True)
    return list(_steps(log.read_bytes()))


def _steps(log: bytes) -> Iterator[Step]:
    place = 0
    while place < len(log):
        kind, name_length, offset, size = _HEAD.unpack_from(log, place)
        place += _HEAD.size
        name = log[place : place + name_length].decode()
        place += name_length
        yield Step(kind.decode(), name, offset, log[place : place + size])
        place += size


@final
class _File:
    """What is on the disk for certain, and what was asked of it since."""

    def __init__(self) -> None:
        self.durable = bytearray()
        self.pending: list[Step] = []

    def sync(self) -> None:
        for step in self.pending:
            _apply(self.durable, step)
        self.pending.clear()

    def after_cut(self, chance: random.Random, kept: float) -> bytearray:
        content = bytearray(self.durable)
        for step in self.pending:
            fate = chance.random()
            if fate < kept:
                _apply(content, step)
            elif fate < (1 + kept) / 2 and step.kind == "w":
                _tear(content, step, chance)
        return content


def _apply(content: bytearray, step: Step) -> None:
    if step.kind == "t":
        del content[step.offset :]
        content.extend(bytes(step.offset - len(content)))
    else:
        content.extend(bytes(max(0, step.offset - len(content))))
        content[step.offset : step.offset + len(step.data)] = step.data


def _tear(content: bytearray, step: Step, chance: random.Random) -> None:
    """Write some of the sectors that a write touches."""
    start, end = step.offset, step.offset + len(step.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        if chance.random() < 0.5:
            piece = step.data[start - step.offset : stop - step.offset]
            _apply(content, Step("w", step.name, start, piece))
        start = stop


@final
class Disk:
    """The files of one folder."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        # What the folder holds for certain, and what was made or deleted since.
        self._durable: dict[str, _File] = {}
        self._pending: list[tuple[str, _File | None]] = []

    def do(self, step: Step) -> None:
        """Go on by one step."""
        if step.name == FOLDER:
            if step.kind == "s":
                self._apply_names(self._durable, self._pending)
                self._pending.clear()
        elif step.kind == "c":
            self._files[step.name] = _File()
            self._pending.append((step.name, self._files[step.name]))
        elif step.kind == "u":
            del self._files[step.name]
            self._pending.append((step.name, None))
        elif step.kind == "s":
            self._files[step.name].sync()
        else:
            self._files[step.name].pending.append(step)

    def _apply_names(
        self, names: dict[str, _File], changes: Sequence[tuple[str, _File | None]]
    ) -> None:
        for name, file in changes:
            if file is None:
                names.pop(name, None)
            else:
                names[name] = file

    def cut(self, into: Path, chance: random.Random) -> None:
        """Write what a power cut may leave into an empty folder."""
        # Nearly nothing, nearly all, or a mixture: each kind of loss shows other faults.
        kept = chance.choice([0.0, 0.2, 0.5, 0.9, 1.0])
        names = dict(self._durable)
        self._apply_names(names, [change for change in self._pending if chance.random() < kept])
        for name, file in names.items():
            (into / name).write_bytes(file.after_cut(chance, kept))
