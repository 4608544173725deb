"""The load: subscribers and publishers, written in C so that they are not what is measured.

Both programs are built with the machine's C compiler, run on the load's core, and speak JSON.
Subscribers live as long as their context and obey commands; a publisher is one run. Each wait has
a limit, so that a server that hangs ends the measurement with a message.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import trio

from .machine import MissingError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

HERE: Final = Path(__file__).resolve().parent
_PATIENCE: Final = 120.0
_ANY: Final = 0


@final
class FailedError(Exception):
    """A load program or a server did not do its part; the message says which."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Quantiles in milliseconds."""

    p50: float = math.nan
    p90: float = math.nan
    p99: float = math.nan
    max: float = math.nan
    buckets: tuple[tuple[float, int], ...] = ()
    """Upper edges and counts, the lowest first."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What one run of requests came to."""

    sent: int
    acked: int
    unsent: int
    """Due when the run ended, and still waiting for a free connection."""
    backlog: int
    """The most that ever waited so."""
    failed: int
    rate: float
    """Acknowledged, a second."""
    sum: int
    latency: Latency


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What a group of subscribers got since it was marked."""

    events: int
    reads: int
    segments: int
    """TCP segments with data: one for each send of the server, unless it waited for the peer."""
    seconds: float
    """From the first event to the last."""
    since_start: float
    """From the first attempt to connect to the last event."""
    open: int
    least: int
    """Events of the stream that got fewest."""
    complete: int
    """Streams that got exactly the events that were published."""
    latency: Latency

    @property
    def events_per_send(self) -> float:
        """How many events the server put into one send."""
        return self.events / self.segments if self.segments else math.nan


def _latency(answer: dict[str, Any]) -> Latency:
    found = answer["latency"] or {}
    quantiles = {name: found[name] for name in ("p50", "p90", "p99", "max") if name in found}
    buckets = tuple((edge, count) for edge, count in found.get("buckets", ()))
    return Latency(**quantiles, buckets=buckets)


def pooled(latencies: Iterable[Latency], share: float) -> float:
    """Return a quantile, in milliseconds, over the samples of several runs."""
    counts: Counter[float] = Counter()
    for latency in latencies:
        for edge, count in latency.buckets:
            counts[edge] += count
    rank, seen = share * counts.total(), 0
    for edge in sorted(counts):
        seen += counts[edge]
        if seen >= rank:
            return edge
    return math.nan


def build(into: Path) -> None:
    """Compile the C programs.

    Raises:
        MissingError: there is no compiler.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise MissingError("gcc is not installed: the load programs are written in C")
    for name in ("client", "publisher", "floor"):
        argv = [compiler, "-O2", "-Wall", "-o", str(into / name), str(HERE / f"{name}.c")]
        subprocess.run(argv, check=True)


@final
class Load:
    """The programs, and the core they run on."""

    def __init__(self, programs: Path, core: int) -> None:
        self._programs = programs
        self.core = core

    def _argv(self, program: str, options: dict[str, object]) -> list[str]:
        argv = ["taskset", "-c", str(self.core), str(self._programs / program)]
        for name, value in options.items():
            if value is not None:
                argv += [f"--{name.replace('_', '-')}", str(value)]
        return argv

    async def publish(self, port: int, path: str, **options: object) -> Published:
        """Run the publisher to its end; its options are those of `publisher.c`.

        Raises:
            FailedError: it could not go on, mostly for want of a server.
        """
        argv = self._argv("publisher", {"port": port, "path": path, **options})
        with trio.fail_after(_PATIENCE):
            done = await trio.run_process(argv, capture_stdout=True, check=False)
        if done.returncode:
            raise FailedError(f"the publisher ended with status {done.returncode}")
        answer = json.loads(done.stdout)
        return Published(
            **{key: answer[key] for key in ("sent", "acked", "unsent", "backlog", "failed")},
            rate=answer["rate"],
            sum=answer["sum"],
            latency=_latency(answer),
        )

    @asynccontextmanager
    async def subscribers(
        self, port: int, path: str, count: int, **options: object
    ) -> AsyncGenerator[Subscribers]:
        """Connect subscribers and keep them; the options are those of `client.c`.

        Raises:
            FailedError: not all of them got a stream.
        """
        argv = self._argv("client", {"port": port, "path": path, "count": count, **options})
        process = await trio.lowlevel.open_process(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            group = Subscribers(process, count)
            await group.opened()
            yield group
        finally:
            process.kill()
            # It was killed: this ends at once, and leaves no child behind.
            with trio.CancelScope(shield=True):
                await process.wait()


@final
class Subscribers:
    """A group of subscribers in one process."""

    def __init__(self, process: trio.Process, count: int) -> None:
        self._process = process
        self._input = b""
        self.count = count
        self.connect_seconds = 0.0

    async def opened(self) -> None:
        """Wait until all streams are open."""
        answer = await self._answer(_PATIENCE)
        if answer["refused"]:
            raise FailedError(f"{answer['refused']} of {self.count} subscribers were refused")
        self.connect_seconds = answer["seconds"]

    async def mark(self) -> None:
        """Forget what came so far."""
        await self._command("mark")
        await self._answer(_PATIENCE)

    async def wait(
        self, events: int, *, seconds: float, published: Published | None = None
    ) -> Received:
        """Wait for so many events in all, so long at most; report what came."""
        count, total = (published.acked, published.sum) if published else (_ANY, _ANY)
        await self._command(f"wait {events} {round(seconds * 1000)} {count} {total}")
        answer = await self._answer(seconds + _PATIENCE)
        counts = ("events", "reads", "segments", "open", "least", "complete")
        keys = (*counts, "seconds", "since_start")
        return Received(**{key: answer[key] for key in keys}, latency=_latency(answer))

    async def _command(self, line: str) -> None:
        assert self._process.stdin is not None, "opened with a pipe"
        await self._process.stdin.send_all(f"{line}\n".encode())

    async def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None, "opened with a pipe"
        with trio.fail_after(seconds):
            while b"\n" not in self._input:
                more = await self._process.stdout.receive_some()
                if not more:
                    raise FailedError(f"the client ended early: {self._input!r}")
                self._input += more
        line, _, self._input = self._input.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


def complain(text: str) -> None:
    """Tell what goes on, beside the results."""
    print(text, file=sys.stderr, flush=True)
