"""`Pins` and `Retention`: how long runs are kept.

While a run goes on, and shortly behind, it is pinned: no limit of the history takes its events. A
viewer that has lost its connection comes back some seconds later, as do all of them where the
process was killed. Runs that go on come first: where a history has no room for them, what is pinned
of others that have ended is given up.

At the end of its time a run is removed in two steps. First the record of its start, so that nobody
finds it; later its events: whoever has found it meanwhile gets all of them, and the end. Whoever
hasn't by then is cut off, and finds nothing when it comes back. If the process ends between the
two, the events are left to the limits of the history.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from contextlib import ExitStack, suppress
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple, final

import trio

from h3trio.hub import PinnedFullError

if TYPE_CHECKING:
    from collections import Counter

    from h3trio.hub import Hub

    from ._ledger import About, Ledger
    from ._nodes import Nodes
    from ._viewing import Viewing

_GRACE: Final = 60.0
"""Seconds between the two: a slow client gets a whole run in that time."""


@final
class Pins:
    """Pins the topics of runs.

    Args:
        hub: has the topics.
        ledger: has their names.
        seconds: for how long a run stays pinned behind its end.
    """

    def __init__(self, hub: Hub, ledger: Ledger, *, seconds: float) -> None:
        self._hub = hub
        self._ledger = ledger
        self._seconds = seconds
        self._kept = deque[tuple[float, ExitStack]]()
        """The pins of runs that have ended, and when they are given up, in that order."""
        self._added = trio.Event()

    def pin(self, id: str) -> ExitStack:
        """Pin the topics of a run until the stack is closed; not where the history can't.

        Raises:
            PinnedFullError: there is no room, though nothing is pinned of runs that have ended.
        """
        with ExitStack() as pins, suppress(NotImplementedError):
            for topic in (self._ledger.start_topic(id), self._ledger.topic(id)):
                try:
                    pins.enter_context(self._hub.pin(topic))
                except PinnedFullError:
                    if not self.release():
                        raise
                    pins.enter_context(self._hub.pin(topic))
            return pins.pop_all()
        return ExitStack()

    def keep(self, pins: ExitStack) -> None:
        """Hold the pins of a run that has ended for its time, or until they are given up."""
        self._kept.append((trio.current_time() + self._seconds, pins))
        self._added.set()

    async def run(self) -> None:
        """Give up what was kept for its time, until cancelled."""
        while True:
            if not self._kept:
                self._added = trio.Event()
                await self._added.wait()
            await trio.sleep_until(self._kept[0][0])
            while self._kept and self._kept[0][0] <= trio.current_time():
                self._kept.popleft()[1].close()

    def release(self) -> bool:
        """Give up what is pinned of runs that have ended; return whether there was anything."""
        had_some = bool(self._kept)
        while self._kept:
            self._kept.popleft()[1].close()
        return had_some


@final
class _Ended(NamedTuple):
    """A run that is kept. No more is held of it: there may be many."""

    time: float
    """The time of Trio's clock at which it is removed."""
    serial: int
    id: str
    cursor: str
    """That of its start."""


@final
class Retention:
    """Removes runs when they are due.

    Args:
        ledger: has the runs.
        seconds: how long one is kept behind its end.
        most: how many are kept.
        limits: where it is counted that one was removed earlier, as there were too many.
    """

    def __init__(self, ledger: Ledger, *, seconds: float, most: int, limits: Counter[str]) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._most = most
        self._limits = limits
        self._ended: list[_Ended] = []
        """A heap."""
        self._hidden = deque[tuple[float, str]]()
        """Ids of those whose events are removed next, and when, in that order."""
        self._serial = count()
        self._added = trio.Event()

    def clear(self) -> None:
        """Forget all; they are found again in the history."""
        self._ended.clear()
        self._hidden.clear()

    def add(self, about: About, *, ended: float | None = None) -> None:
        """Remove a run when its time is over.

        Args:
            about: the run.
            ended: Unix time at which it ended; now, if not given.
        """
        past = 0.0 if ended is None else max(0.0, self._ledger.clock() - ended)
        time = trio.current_time() + max(0.0, self._seconds - past)
        heapq.heappush(self._ended, _Ended(time, next(self._serial), about.id, about.cursor))
        self._added.set()

    async def run(self, viewing: Viewing, nodes: Nodes | None) -> None:
        """Remove what is due, until cancelled.

        Args:
            viewing: cuts off who still watches.
            nodes: the others, which do the same.
        """
        while True:
            self._added = trio.Event()
            is_full = len(self._ended) > self._most
            times = [queue[0][0] for queue in (self._ended, self._hidden) if queue]
            if not is_full:
                with trio.move_on_at(min(times, default=math.inf)):
                    await self._added.wait()
                    continue
            if is_full or (self._ended and self._ended[0].time <= trio.current_time()):
                due = heapq.heappop(self._ended)
                try:
                    await self._ledger.hide(due.id, due.cursor)
                except BaseException:
                    heapq.heappush(self._ended, due)  # it is tried again
                    raise
                self._hidden.append((trio.current_time() + _GRACE, due.id))
                if is_full:
                    self._limits["max_ended_runs"] += 1
            else:
                id = self._hidden[0][1]
                await self._ledger.purge_hidden(id)
                viewing.cut_off(id)
                if nodes is not None:
                    await nodes.tell("removed", id)
                self._hidden.popleft()  # not before: else it is tried again
