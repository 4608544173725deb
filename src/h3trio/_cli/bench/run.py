"""`BenchRun`: starts the processes of the generator, tells them when, and adds up their counts.

Streams open first, all of them; only then does the count begin, and the publisher. With a
publisher, the end is when nothing more comes, so what was published can arrive; without one it is
the end of the time.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, final

import trio

from h3trio._cli.common import CommandError
from h3trio.client._errors import reason_of

from .job import DRAIN, END, GO, Published, PublishJob, Received, SubscribeJob
from .outcome import EXIT_UNREACHED, Outcome
from .publish import publish
from .subscribe import subscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .job import Pipe

_SPAWN: Final = multiprocessing.get_context("spawn")

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
    """The parts of a run; times are in seconds."""

    url: str
    subscribe: SubscribeJob
    """The streams of all processes."""
    processes: int
    duration: float
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
    why = "timed out"
    with trio.move_on_after(patience):
        try:
            async with await trio.open_tcp_stream(host, port) as stream:
                return stream.socket.family, str(stream.socket.getpeername()[0])
        except OSError as exc:
            why = reason_of(exc)
    raise UnreachedError(f"can't reach {host} at port {port}: {why}")


def work(job: SubscribeJob | PublishJob, pipe: Pipe) -> None:
    """Do a job, in a process that ends with the pipe: nothing is left running if `bench` goes."""
    # An interrupt goes to all processes of the terminal; `bench` turns it into a command.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError):
        if isinstance(job, PublishJob):
            publish(job, pipe)
        else:
            subscribe(job, pipe)


@final
class Worker:
    """A process that works for us."""

    def __init__(self, job: SubscribeJob | PublishJob) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=work, args=(job, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._result: Received | Published | None = None
        self.ready = trio.Event()  # its streams are open, or refused
        self.going = trio.Event()  # it counts
        self.over = trio.Event()
        self.opened = 0  # streams, once it is ready
        self.progress: Counter[str] = Counter()

    def tell(self, command: str) -> None:
        """Send a command; one that is gone is not told."""
        with contextlib.suppress(OSError):
            self._pipe.send(command)

    async def end(self) -> Any:  # noqa: ANN401 - `Received` or `Published`, after its job
        """End it at once, unless it ended; return its result.

        Raises:
            CommandError: it has none.
        """
        self.tell(END)
        with trio.move_on_after(LATE):
            await self.over.wait()
        if self._result is None:
            raise CommandError("a process of the generator ended without a result")
        return self._result

    async def follow(self) -> None:
        """Take its messages, to its end; cancelled, it is killed."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._pipe.fileno())
                self._take(*self._pipe.recv())
        except (EOFError, OSError):
            for event in (self.ready, self.going, self.over):
                event.set()
        finally:
            self._process.kill()
            self._pipe.close()

    def _take(self, kind: str, value: Any) -> None:  # noqa: ANN401 - after its kind
        match kind:
            case "ready":
                self.opened = value
                self.ready.set()
            case "going":
                self.going.set()
            case "progress":
                self.progress = value
            case _:
                self._result = value


@final
class BenchRun:
    """A run under way."""

    def __init__(self, plan: BenchPlan, show: Callable[[str], None]) -> None:
        self._plan = plan
        self._show = show
        self._workers: list[Worker] = []
        self._interrupted = False
        self._waiting = trio.CancelScope()

    async def run(self) -> Outcome:
        """Measure.

        Raises:
            CommandError: it can't be done.
        """
        plan = self._plan
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch_signals)
            for count in shares(plan.subscribe.connections, plan.processes):
                self._workers.append(Worker(replace(plan.subscribe, connections=count)))
            publisher = plan.publish and Worker(plan.publish)
            for worker in (*self._workers, *([publisher] if publisher else [])):
                nursery.start_soon(worker.follow)
            nursery.start_soon(self._show_steps)
            ready = [worker.ready for worker in self._workers]
            patience = plan.subscribe.ramp + 2 * plan.subscribe.timeout + LATE
            await self._until(ready, patience)
            outcome = await self._measure(publisher)
            nursery.cancel_scope.cancel(reason="the run is over")
        return outcome

    async def _measure(self, publisher: Worker | None) -> Outcome:
        published = None
        if any(worker.opened for worker in self._workers):
            published = await self._load(publisher)
        received = Received()
        for worker in self._workers:
            received.add(await worker.end())
        return Outcome(
            url=self._plan.url,
            received=received,
            published=published,
            interrupted=self._interrupted,
        )

    async def _load(self, publisher: Worker | None) -> Published | None:
        """Let it run its time; return the counts of the publisher, if there is one."""
        for worker in self._workers:
            worker.tell(GO)
        # An event that is published before they count would be missing.
        await self._until([worker.going for worker in self._workers], LATE)
        if publisher is not None:
            publisher.tell(GO)
        await self._until([trio.Event()], self._plan.duration)  # which nobody sets
        if publisher is None:
            return None
        publisher.tell(DRAIN)
        await self._until([publisher.over], LATE)
        for worker in self._workers:
            worker.tell(DRAIN)
        await self._until([worker.over for worker in self._workers], LATE)
        published: Published = await publisher.end()
        return published

    async def _until(self, events: Iterable[trio.Event], seconds: float) -> None:
        """Wait for events, for the end of the time, or for an interrupt."""
        with trio.move_on_after(0 if self._interrupted else seconds) as self._waiting:
            for event in events:
                await event.wait()

    async def _watch_signals(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _number in signals:
                # A second signal ends the run as a whole.
                if self._interrupted:
                    raise CommandError("interrupted twice")
                self._interrupted = True
                self._waiting.cancel(reason="interrupted")

    async def _show_steps(self) -> None:
        before = 0
        while True:
            await trio.sleep(STEP)
            line, before = step_line([worker.progress for worker in self._workers], before)
            self._show(line)


def step_line(progress: Sequence[Counter[str]], before: int) -> tuple[str, int]:
    """Return a line of progress, and the events it counts: the next line shows what was added."""
    total = sum(progress, Counter[str]())
    events = total["events"]
    rate = max(0, events - before) / STEP
    gone = f", {total['gone']:,} gone" if total["gone"] else ""
    line = f"{total['opened']:,} opened{gone}; {events:,} events, {rate:,.0f}/s"
    return f"{line}, {total['bytes'] / 1e6:,.1f} MB", events
