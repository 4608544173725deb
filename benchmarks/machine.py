"""What the machine tells about itself and about a server: cores, processor time, memory.

All of it is read from /proc, so all of it is Linux's. A server is a tree of processes, as some
peers start a worker below a master; every figure is the sum over the tree.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED: Final = 2  # linux/posix-timers.h: the time a process was on a core
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class MissingError(Exception):
    """Something that a measurement needs is not on this machine; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Where things run: the server alone on one core, all that loads it on another."""

    server: int
    load: int


def two_cores() -> Cores:
    """Choose two of the cores that this process may use.

    Raises:
        MissingError: there is one only, or no `taskset`.
    """
    if shutil.which("taskset") is None:
        raise MissingError("taskset (util-linux) is not installed")
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise MissingError("one core only: server and load would measure each other")
    return Cores(server=allowed[0], load=allowed[1])


def describe() -> dict[str, str]:
    """Name the machine, for the record."""
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        "load": " ".join(f"{average:.2f}" for average in os.getloadavg()),
    }


def raise_open_file_limit() -> int:
    """Take all open files we may have, for us and what we start; return how many."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextlib.contextmanager
def priority(nice: int) -> Generator[None]:
    """Run the block, and all that is started in it, at this nice level; zero changes nothing.

    Where the kernel groups processes by session (sched(7), "The autogroup feature"), a nice level
    means something only inside the group: so the group gets the same, and its own back afterwards.

    Raises:
        MissingError: we may not.
    """
    if not nice:
        yield
        return
    group = _PROC / "self" / "autogroup"
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        before = group.read_text().split()[-1] if group.exists() else None
        if before is not None:
            group.write_text(str(nice))
    except PermissionError as exc:
        raise MissingError(f"a nice level of {nice} is not for this user") from exc
    try:
        yield
    finally:
        if before is not None:
            group.write_text(before)


def process_tree(root: int) -> list[int]:
    """List a process and all below it that are alive."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int(_stat(int(entry.name))[1])
                children.setdefault(parent, []).append(int(entry.name))
    tree = [root]
    for pid in tree:
        tree += children.get(pid, [])
    return tree


def _stat(pid: int) -> list[str]:
    # proc_pid_stat(5): the second field, the name, is in parentheses and may hold anything.
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def cpu_seconds(root: int) -> float:
    """Processor time that a tree of processes has used, in and outside the kernel.

    From each process's clock, which counts nanoseconds; /proc has ticks of 10 ms, too coarse for a
    run of a few seconds at a low rate.
    """
    seconds = 0.0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            # clock_getcpuclockid(3): the clock of all threads of a process, from its number.
            seconds += time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    return seconds


def core_seconds(core: int) -> float:
    """Time that a core was not idle since it was started."""
    for line in (_PROC / "stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            # proc_stat(5): user, nice, system, then behind idle and iowait the interrupts, for
            # which a process is charged that had nothing to do with them.
            user, nice, system, _idle, _iowait, hard, soft = map(int, line.split()[1:8])
            return (user + nice + system + hard + soft) / _TICKS
    raise MissingError(f"/proc/stat has no core {core}")


def resident_bytes(root: int) -> int:
    """Resident memory of a tree of processes, pages they share counted in each."""
    size = 0
    for pid in process_tree(root):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                size += int(line.split()[1]) * 1024
    return size


def tcp_memory_bytes() -> int:
    """What all TCP sockets of this machine hold in the kernel."""
    for line in (_PROC / "net" / "sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            words = line.split()
            return int(words[words.index("mem") + 1]) * _PAGE
    raise MissingError("/proc/net/sockstat has no line for TCP")


def open_sockets(root: int) -> int:
    """Count the sockets that a tree of processes holds."""
    count = 0
    for pid in process_tree(root):
        for link in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                count += str(link.readlink()).startswith("socket:")
    return count
