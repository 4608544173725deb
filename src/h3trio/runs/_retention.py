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
from contextlib import ExitStack, suppress
from itertools import count
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio.hub import PinnedFullError

if TYPE_CHECKING:
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
        self._kept: dict[ExitStack, None] = {}
        """The pins of runs that have ended."""

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

    async def keep(self, pins: ExitStack) -> None:
        """Hold the pins of a run that has ended for its time, or until they are given up."""
        self._kept[pins] = None
        try:
            await trio.sleep(self._seconds)
        finally:
            self._kept.pop(pins, None)
            pins.close()

    def release(self) -> bool:
        """Give up what is pinned of runs that have ended; return whether there was anything."""
        kept, self._kept = self._kept, {}
        for pins in kept:
            pins.close()
        return bool(kept)


@final
class Retention:
    """Removes runs when they are due.

    Args:
        ledger: has the runs.
        seconds: how long one is kept behind its end.
    """

    def __init__(self, ledger: Ledger, *, seconds: float) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._due: list[tuple[float, int, About, bool]] = []
        self._serial = count()
        self._added = trio.Event()

    def clear(self) -> None:
        """Forget all; they are found again in the history."""
        self._due.clear()

    def add(self, about: About, *, ended: float | None = None) -> None:
        """Remove a run when its time is over.

        Args:
            about: the run.
            ended: Unix time at which it ended; now, if not given.
        """
        past = 0.0 if ended is None else max(0.0, self._ledger.clock() - ended)
        self._push(max(0.0, self._seconds - past), about, hidden=False)

    def _push(self, seconds: float, about: About, *, hidden: bool) -> None:
        due = trio.current_time() + seconds
        heapq.heappush(self._due, (due, next(self._serial), about, hidden))
        self._added.set()

    async def run(self, viewing: Viewing, nodes: Nodes | None) -> None:
        """Remove what is due, until cancelled.

        Args:
            viewing: cuts off who still watches.
            nodes: the others, which do the same.
        """
        while True:
            self._added = trio.Event()
            due = self._due[0][0] if self._due else float("inf")
            with trio.move_on_at(due):
                await self._added.wait()
                continue
            _due, _serial, about, hidden = item = heapq.heappop(self._due)
            try:
                if hidden:
                    await self._ledger.purge_hidden(about)
                    viewing.cut_off(about.id)
                    if nodes is not None:
                        await nodes.tell("removed", about.id)
                else:
                    await self._ledger.hide(about)
                    self._push(_GRACE, about, hidden=True)
            except BaseException:
                heapq.heappush(self._due, item)  # it is tried again
                raise
