"""`Watchdog` and `CancelWatch`: a blocked loop, and a cancellation that goes unheard.

Both are bugs of handlers that nothing else shows.

**A blocked loop.** `time.sleep(2)` in a handler stops every connection, and nothing tells later
who it was. A thread sends the loop a question a few times a second and waits for the answer
(`TrioToken.run_sync_soon`). While there is none, it looks at what the loop's thread is doing:
the stack names the place, and the task whose coroutine is on that stack names itself. An
`Instrument` would be asked twice for every step of every task, and could only tell
afterwards; a timer in the loop would run by Trio's clock, which in tests stands still.

The wait is cut in parts: a process that was stopped, or a machine that slept, loses one part and
isn't taken for a blocked loop.

**An unheard cancellation.** `except BaseException` around an `await` swallows `Cancelled`, and
the handler goes on for a client that is gone. Each exchange that is cancelled is noted
until its handler has ended; one task sleeps until the oldest of them is overdue. All have the
same patience, so the oldest comes first, and nothing is searched or polled.

Both log one warning each, and not more than one in so many seconds; the rest is counted.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Final, final

import trio

from .logs.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

logger = logging.getLogger("h3trio.server")

# Parts of the patience, and between two questions: a block is noticed at most a quarter late.
_PARTS: Final = 4
# Frames of a stack that are shown, from the innermost.
_FRAMES: Final = 20
_QUIET: Final = 10.0
"""Seconds in which one warning of a kind is enough."""


@final
class Pacer:
    """Lets one warning through in so many seconds, and counts the others."""

    def __init__(self, interval: float = _QUIET) -> None:
        self._interval = interval
        self._next = -math.inf
        self._skipped = 0

    def take(self, now: float) -> str | None:
        """Return what to add to a warning, `None` if there is to be none."""
        if now < self._next:
            self._skipped += 1
            return None
        self._next = now + self._interval
        skipped, self._skipped = self._skipped, 0
        return f" ({skipped} more such warnings were held back)" if skipped else ""


@final
class Watchdog:
    """Watches the loop it is started in, from a thread of its own.

    Args:
        patience: seconds the loop may be blocked before that is logged; `None` for ever,
            without a thread.
    """

    def __init__(self, patience: float | None) -> None:
        self._patience = math.inf if patience is None else patience
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._answered = threading.Event()
        self._pacer = Pacer()
        self.blocked: int = 0
        """How often the loop was blocked for that long."""

    def start(self) -> None:
        """Begin to watch the loop that runs this."""
        if self._patience < threading.TIMEOUT_MAX:
            token, root = trio.lowlevel.current_trio_token(), trio.lowlevel.current_root_task()
            # A daemon: a process that ends while the loop is blocked doesn't wait for it.
            self._thread = threading.Thread(
                target=self._watch,
                args=(token, threading.get_ident(), root),
                name="h3trio watchdog",
                daemon=True,
            )
            self._thread.start()

    def stop(self) -> None:
        """End the thread; it is gone when this returns."""
        self._stopped.set()
        self._answered.set()
        if self._thread is not None:
            # It is waiting for one of these, or writing a line: it ends at once.
            self._thread.join()

    def _watch(
        self, token: trio.lowlevel.TrioToken, thread: int, root: trio.lowlevel.Task | None
    ) -> None:
        while not self._stopped.wait(self._patience / _PARTS):
            self._answered.clear()
            try:
                token.run_sync_soon(self._answered.set)
            except trio.RunFinishedError:
                return
            if self._stopped.is_set():  # between the two lines above, and cleared by the first
                return
            if not any(self._answered.wait(self._patience / _PARTS) for _ in range(_PARTS)):
                self.blocked += 1
                self._report(sys._current_frames().get(thread), root)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - documented, underscore and all
                self._answered.wait()

    def _report(self, frame: FrameType | None, root: trio.lowlevel.Task | None) -> None:
        more = self._pacer.take(time.monotonic())
        if more is None or not logger.isEnabledFor(logging.WARNING):
            return
        frames = list(traceback.walk_stack(frame))
        task = _task_on(frames, root)
        # By hand, as this is the stack of another thread.
        record = logger.makeRecord(
            logger.name,
            logging.WARNING,
            __file__,
            0,
            "the event loop is blocked for %g s by %s%s",
            (self._patience, f"the task {_name(task)}" if task else "no task", more),
            None,
            sinfo=_format(frames, task),
        )
        logger.handle(record)


def _task_on(
    frames: list[tuple[FrameType, int]], root: trio.lowlevel.Task | None
) -> trio.lowlevel.Task | None:
    """Find the task that runs on a stack: the frame of its coroutine is there."""
    running = {id(frame) for frame, _ in frames}
    try:
        return next((task for task in _tasks(root) if id(_coroutine_frame(task)) in running), None)
    except RuntimeError:  # the loop goes on, and tasks come and go while we look
        return None


def _coroutine_frame(task: trio.lowlevel.Task) -> object:
    return getattr(task.coro, "cr_frame", None)


def _tasks(root: trio.lowlevel.Task | None) -> Iterator[trio.lowlevel.Task]:
    left = [root] if root is not None else []
    while left:
        yield (task := left.pop())
        left += [child for nursery in task.child_nurseries for child in nursery.child_tasks]


def _name(task: trio.lowlevel.Task) -> str:
    return f"'{printable(task.name)}'"


def _format(frames: list[tuple[FrameType, int]], task: trio.lowlevel.Task | None) -> str:
    """Write the stack, outermost first, from where the task begins."""
    first = _coroutine_frame(task) if task is not None else None
    inner = next((n for n, (frame, _) in enumerate(frames, 1) if frame is first), len(frames))
    stack = traceback.StackSummary.extract(iter(frames[: min(inner, _FRAMES)]))
    stack.reverse()
    return "Where it is (innermost last):\n" + "".join(stack.format()).rstrip()


@final
class CancelWatch:
    """Tells of handlers that were cancelled and go on, by a key for each exchange.

    Args:
        patience: seconds a cancelled handler may take to unwind; `None` for ever.
    """

    def __init__(self, patience: float | None) -> None:
        self._patience = math.inf if patience is None else patience
        self._due: dict[object, tuple[float, trio.lowlevel.Task]] = {}
        self._waiting = trio.lowlevel.ParkingLot()
        self._pacer = Pacer()
        self.overdue: int = 0
        """How many handlers went on for that long."""

    def __len__(self) -> int:
        return len(self._due)

    def cancelled(self, key: object, task: trio.lowlevel.Task) -> None:
        """Note that the handler in this task was cancelled; of two calls the first counts.

        The key is what the log calls it.
        """
        if key not in self._due and self._patience < math.inf:
            self._due[key] = (trio.current_time() + self._patience, task)
            self._waiting.unpark()

    def ended(self, key: object) -> None:
        """Forget a handler: it has unwound."""
        self._due.pop(key, None)

    async def run(self) -> None:
        """Log what is overdue, until cancelled."""
        while True:
            while not self._due:
                await self._waiting.park()
            key, (due, task) = next(iter(self._due.items()))
            if trio.current_time() < due:
                await trio.sleep_until(due)
            else:
                del self._due[key]
                self._report(key, task)

    def _report(self, key: object, task: trio.lowlevel.Task) -> None:
        self.overdue += 1
        more = self._pacer.take(trio.current_time())
        if more is not None:
            message = "%s: cancelled %g s ago, and the handler goes on; still running: %s%s"
            logger.warning(message, key, self._patience, whereabouts(task), more)


def whereabouts(task: trio.lowlevel.Task) -> str:
    """Name the innermost tasks below a task, and where their code waits."""
    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    if children:
        return ", ".join(map(whereabouts, children))
    place = ""
    for frame, line in task.iter_await_frames():
        # Where it waits inside Trio says nothing; who called Trio does.
        if frame.f_globals.get("__name__", "").partition(".")[0] != "trio":
            place = f" at {frame.f_code.co_filename}:{line}, in {frame.f_code.co_name}"
    return f"{task.name}{place}"
