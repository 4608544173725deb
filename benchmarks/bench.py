"""What every workload is given: servers, load, peers, and how long to take."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import trio

from .load import complain
from .machine import MissingError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from .load import Load, Published, Received, Subscribers
    from .report import Report, Round
    from .servers import Recipe, Server, Servers

# What a Trio user has today, and a widely used server on h11; on our versions of Trio and h11.
PEERS: Final = (
    "hypercorn==0.18.0",
    "sse-starlette==3.7.0",
    "starlette==1.10.0",
    "uvicorn==0.54.0",
    "aiohttp==3.14.5",
    "aiohttp-sse==3.0",
    f"trio=={version('trio')}",
    f"h11=={version('h11')}",
)
NODE_PEERS: Final = ("better-sse@0.16.1",)
_SETTLE: Final = 0.5


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much to do."""

    rounds: int
    quick: bool
    """A smoke test: everything runs, the figures mean nothing."""
    pause: float
    """Seconds of rest between rounds, for those who share the machine."""
    nice: int
    """Priority of servers and load alike; below zero is root's, on a machine with other work."""

    def scaled(self, number: int) -> int:
        """Reduce a count for a quick run."""
        return max(1, number // 20) if self.quick else number

    def seconds(self, seconds: float) -> float:
        """Reduce a length of time for a quick run."""
        return min(seconds, 1.0) if self.quick else seconds


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One publisher's run and what it caused."""

    published: Published
    received: Received
    cpu: float
    """Processor seconds that the server used."""
    seconds: float
    """From the first request to the last delivery."""

    @property
    def cpu_per_delivery(self) -> float:
        """Microseconds."""
        return self.cpu / max(1, self.received.events) * 1e6


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The means of a workload."""

    servers: Servers
    load: Load
    programs: Path
    options: Options

    def recipes(self, report: Report, *makers: Callable[[], Recipe]) -> list[Recipe]:
        """Make recipes; those that need what is missing are left out, with a note."""
        recipes: list[Recipe] = []
        for make in makers:
            try:
                recipes.append(make())
            except MissingError as exc:
                report.notes.append(f"left out: {exc}")
        return recipes

    async def begin(self, this: Round) -> None:
        """Say which round begins, and rest before all but the first."""
        if this.number:
            await trio.sleep(self.options.pause)
        complain(f"  round {this.number + 1} of {self.options.rounds}")

    def rounds(self, report: Report) -> list[Round]:
        """List the rounds of a report."""
        return [report.round(number) for number in range(self.options.rounds)]

    async def measure(
        self,
        server: Server,
        subscribers: Subscribers,
        path: str,
        *,
        grace: float = 5.0,
        port: int | None = None,
        **options: object,
    ) -> Measured:
        """Publish to a group of subscribers until it has everything; at their server, or a port."""
        await subscribers.mark()
        before, began = server.cpu_seconds(), trio.current_time()
        published = await self.load.publish(port or server.port, path, **options)
        events = published.acked * subscribers.count
        received = await subscribers.wait(events, seconds=grace, published=published)
        cpu, took = server.cpu_seconds() - before, trio.current_time() - began
        return Measured(published=published, received=received, cpu=cpu, seconds=took)

    @asynccontextmanager
    async def subscribed(
        self, recipe: Recipe, path: str, count: int, *, topic: str | None = None
    ) -> AsyncGenerator[tuple[Server, Subscribers]]:
        """Run a hub with subscribers on it, warm: some events went to `topic` or the path."""
        async with (
            self.servers.start(recipe) as server,
            self.load.subscribers(server.port, path, count) as group,
        ):
            await trio.sleep(_SETTLE)
            seconds = self.options.seconds(1)
            await self.load.publish(server.port, topic or path, rate=20, seconds=seconds)
            await trio.sleep(_SETTLE)
            yield server, group


def peer_environment() -> Path:
    """Make, once, a virtual environment with the peers written in Python.

    It is kept in the user's cache, under a name that tells what is in it.

    Raises:
        MissingError: the packages can't be had.
    """
    place = _cached(PEERS, sys.version)
    if not (place / "ready").exists():
        _clear(place)
        _run([sys.executable, "-m", "venv", str(place)])
        _run([str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", *PEERS])
        (place / "ready").touch()
    return place


def node_environment() -> Path:
    """Make, once, a folder with the peers written for Node.js; where it is kept is as above.

    Raises:
        MissingError: Node.js isn't installed, or the packages can't be had.
    """
    if shutil.which("node") is None or (npm := shutil.which("npm")) is None:
        raise MissingError("node and npm are not installed")
    place = _cached(NODE_PEERS, "node")
    if not (place / "ready").exists():
        _clear(place)
        place.mkdir(parents=True)
        _run([npm, "install", "--silent", "--no-audit", "--prefix", str(place), *NODE_PEERS])
        (place / "ready").touch()
    return place


def _cached(packages: Sequence[str], interpreter: str) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    contents = " ".join([interpreter, *packages])
    return base / "h3trio-bench" / hashlib.sha256(contents.encode()).hexdigest()[:16]


def _clear(place: Path) -> None:
    complain(f"  making {place} for the peers")
    shutil.rmtree(place, ignore_errors=True)


def _run(argv: Sequence[str]) -> None:
    try:
        subprocess.run(argv, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as exc:
        last = (exc.stderr.strip().splitlines() or ["no message"])[-1]
        raise MissingError(f"the peers' packages: {last}") from exc
