"""`BenchRun`: starts the processes of the generator, tells them when, and adds up their counts.

Streams open first, all of them; only then does the count begin, and the publisher. With a
publisher, the end is when nothing more comes, so what was published can arrive; without one it is
the end of the time.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio

from h3trio._cli.common import CommandError

from .job import (
    DRAIN,
    GO,
    Published,
    PublishJob,
    Received,
    SubscribeJob,
    Target,
    published_from,
    received_from,
    to_json,
)
from .outcome import EXIT_UNREACHED, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

SPARE_FILES: Final = 32  # what a process needs beside its connections
LATE: Final = 30.0  # seconds a process may be late with what it has to say
STEP: Final = 1.0  # seconds between two lines of progress


@final
class UnreachedError(CommandError):
    """There is no server."""

    status = EXIT_UNREACHED


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What is asked for; times in seconds."""

    url: str
    target: Target
    connections: int
    processes: int
    ramp: float
    duration: float
    timeout: float
    publish: PublishJob | None = None


def check_limits(connections: int, processes: int) -> None:
    """Take all open files that we may have, for our processes too.

    Raises:
        CommandError: they aren't enough.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    each = -(-connections // processes)
    if hard != resource.RLIM_INFINITY and each > hard - SPARE_FILES:
        raise CommandError(
            f"{each:,} connections a process are more than the {hard:,} open files that it may "
            "have (ulimit -Hn) allow: raise the limit, or use more --processes"
        )


def shares(connections: int, processes: int) -> list[int]:
    """Divide connections among processes."""
    least, more = divmod(connections, processes)
    return [least + (number < more) for number in range(processes)]


async def resolve(host: str, port: int, patience: float) -> tuple[int, str]:
    """Return the family and address at which a server answers within so many seconds.

    Raises:
        UnreachedError: there is none.
    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except OSError as exc:
        raise UnreachedError(f"can't reach {host}: {exc.strerror}") from exc
    why = "timed out"
    for family, _kind, _protocol, _name, address in found:
        with trio.move_on_after(patience), trio.socket.socket(family) as sock:
            try:
                await sock.connect(address)
            except OSError as exc:
                why = os.strerror(exc.errno) if exc.errno else str(exc)
            else:
                return family, str(address[0])
    raise UnreachedError(f"can't reach {host} at port {port}: {why}")


@final
class Worker:
    """A process that works for us."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self.ready = trio.Event()
        self.going = trio.Event()
        self.opened = 0
        self.over = trio.Event()
        self.progress: dict[str, int] = {}
        self.result: dict[str, Any] | None = None

    @classmethod
    async def start(cls, nursery: trio.Nursery, job: SubscribeJob | PublishJob) -> Worker:
        """Start a process with its job; it is killed with the nursery."""
        run = partial(
            trio.run_process,
            [sys.executable, "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            check=False,
            deliver_cancel=_kill,
        )
        self = cls(await nursery.start(run))
        nursery.start_soon(self._read)
        await self.tell(to_json(job))
        return self

    async def tell(self, line: str) -> None:
        """Send a line; one that is gone is not told."""
        assert self._process.stdin is not None, "opened with a pipe"
        try:
            await self._process.stdin.send_all(f"{line}\n".encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self.over.wait()

    async def end(self) -> dict[str, Any]:
        """End it at once, unless it ended; return its result.

        Raises:
            CommandError: it has none.
        """
        assert self._process.stdin is not None, "opened with a pipe"
        await self._process.stdin.aclose()
        with trio.move_on_after(LATE):
            await self.over.wait()
        if self.result is None:
            raise CommandError("a process of the generator ended without a result")
        return self.result

    async def _read(self) -> None:
        assert self._process.stdout is not None, "opened with a pipe"
        held = bytearray()
        try:
            async with self._process.stdout as stdout:
                async for piece in stdout:
                    held += piece
                    *lines, rest = bytes(held).split(b"\n")
                    held = bytearray(rest)
                    for line in lines:
                        self._take(json.loads(line))
        finally:
            for event in (self.ready, self.going, self.over):
                event.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "progress" in message:
            self.progress = message["progress"]
        elif "result" in message:
            self.result = message["result"]
        elif "going" in message:
            self.going.set()
        else:
            self.opened = message["ready"]
            self.ready.set()


async def _kill(process: trio.Process) -> None:
    process.kill()


@final
class BenchRun:
    """A run under way."""

    def __init__(self, plan: BenchPlan, show: Callable[[str], None]) -> None:
        self._plan = plan
        self._show = show
        self._workers: list[Worker] = []
        self._interrupted = trio.Event()

    async def run(self) -> Outcome:
        """Measure.

        Raises:
            CommandError: it can't be done.
        """
        plan = self._plan
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch_signals)
            for count in shares(plan.connections, plan.processes):
                job = SubscribeJob(
                    target=plan.target, connections=count, ramp=plan.ramp, timeout=plan.timeout
                )
                self._workers.append(await Worker.start(nursery, job))
            publisher = plan.publish and await Worker.start(nursery, plan.publish)
            nursery.start_soon(self._show_steps)
            ready = [worker.ready for worker in self._workers]
            await self._until(ready, plan.ramp + 2 * plan.timeout + LATE)
            outcome = await self._measure(publisher)
            nursery.cancel_scope.cancel(reason="the run is over")
        return outcome

    async def _measure(self, publisher: Worker | None) -> Outcome:
        published = None
        if any(worker.opened for worker in self._workers):
            published = await self._load(publisher)
        received = Received()
        for worker in self._workers:
            received.add(received_from(await worker.end()))
        return Outcome(
            url=self._plan.url,
            received=received,
            published=published,
            interrupted=self._interrupted.is_set(),
        )

    async def _load(self, publisher: Worker | None) -> Published | None:
        """Let it run its time; return what the publisher came to, if there is one."""
        for worker in self._workers:
            await worker.tell(GO)
        # What is published before they count would be missing.
        await self._until([worker.going for worker in self._workers], LATE)
        if publisher is not None:
            await publisher.tell(GO)
        await self._until([trio.Event()], self._plan.duration)  # which nobody sets
        if publisher is None:
            return None
        await publisher.tell(DRAIN)
        await self._until([publisher.over], LATE)
        for worker in self._workers:
            await worker.tell(DRAIN)
        await self._until([worker.over for worker in self._workers], LATE)
        return published_from(await publisher.end())

    async def _until(self, events: Iterable[trio.Event], seconds: float) -> None:
        """Wait for events, for the end of the time, or for an interrupt."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_when_interrupted, nursery.cancel_scope)
                for event in events:
                    await event.wait()
                nursery.cancel_scope.cancel(reason="all have come")

    async def _cancel_when_interrupted(self, scope: trio.CancelScope) -> None:
        await self._interrupted.wait()
        scope.cancel(reason="interrupted")

    async def _watch_signals(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _number in signals:
                # A second one ends the run as a whole.
                if self._interrupted.is_set():
                    raise CommandError("interrupted twice")
                self._interrupted.set()

    async def _show_steps(self) -> None:
        before = 0
        while True:
            await trio.sleep(STEP)
            line, before = step_line([worker.progress for worker in self._workers], before)
            self._show(line)


def step_line(progress: Sequence[dict[str, int]], before: int) -> tuple[str, int]:
    """Return a line of progress, and the events it counts: the next line shows what was added."""
    total = {
        name: sum(found.get(name, 0) for found in progress)
        for name in ("opened", "gone", "events", "bytes")
    }
    events = total["events"]
    rate = max(0, events - before) / STEP
    gone = f", {total['gone']:,} gone" if total["gone"] else ""
    line = f"{total['opened']:,} opened{gone}; {events:,} events, {rate:,.0f}/s"
    return f"{line}, {total['bytes'] / 1e6:,.1f} MB", events
