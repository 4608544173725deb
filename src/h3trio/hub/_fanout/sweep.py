"""`Sweep`: the one task of a hub that writes to ready subscribers.

Feeds that got a record stand in a queue. A turn goes round them in slices of a few subscribers,
and then lets every other task run once: accepting, parsing and publishing share the scheduler with
it, and a request costs them a few passes of it. Short slices keep a topic with one subscriber from
waiting behind one with thousands, short turns keep a publish quick under load.

While one single record waits, in one feed or in thousands, a turn may be longer: a pass of Trio's
costs as much as some sends, as each of them drives it out of the processor's caches.

A turn is bounded by sends and by time, as the cost of a send varies: the kernel does the
receiver's part of a loopback send within it, and a full batch is copied in it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import KW_ONLY, dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._tasks import own_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h3trio._wire.batch import Batch
    from h3trio.hub._history.record import Record

    from .feed import FanoutState, Feed

SLICE_SENDS: Final = 8
"""Sends of one slice."""
TURN_SENDS: Final = 32
"""Sends of one turn."""
_TURN_SECONDS: Final = 0.0003
CALM_SENDS: Final = 192
"""Sends of one turn while a single record waits."""
_CALM_SECONDS: Final = 0.002


@final
@dataclass(slots=True, eq=False, repr=False)
class Sweep:
    """A queue of feeds with something to send, and the task that sends it."""

    state: FanoutState
    """The state that the feeds share."""
    _: KW_ONLY
    flush_interval: float = 0.0
    """Seconds for which a record that finds the sweep idle waits for others."""
    _queue: deque[Feed] = field(default_factory=deque["Feed"])
    _idle: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def add(self, feeds: Sequence[Feed]) -> None:
        """Queue feeds that aren't queued, at least one."""
        # With others before them, the task is awake.
        if not self._queue:
            self._idle.unpark()
        self._queue.extend(feeds)

    def queued(self) -> tuple[Feed, ...]:
        """List the feeds that have something to send."""
        return tuple(self._queue)

    def clear(self) -> None:
        """Forget all feeds; their windows are dropped, so that nobody waits for their turn."""
        self._queue.clear()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            if not self._queue:
                await self._idle.park()
                if self.flush_interval:
                    await trio.sleep(self.flush_interval)
            self._turn()
            await trio.lowlevel.checkpoint()

    def _turn(self) -> None:
        left, seconds = TURN_SENDS, _TURN_SECONDS
        queue = self._queue
        if calm := self._is_calm():
            left, seconds = CALM_SENDS, _CALM_SECONDS
        # Not Trio's clock, which a test may have stopped: this is about the processor.
        until = perf_counter() + seconds
        visits = SLICE_SENDS
        look_at = left - visits
        while queue and left > 0:
            most = min(visits, left)
            left -= sweep_single_feeds(queue, self.state, most) or self._slice(most)
            if left <= look_at:  # many feeds of one subscriber make up one slice
                if perf_counter() > until:
                    break
                if calm:
                    # As much again as it had: so the turn is never twice as long as it may be.
                    visits *= 2
                look_at = left - visits

    def _slice(self, visits: int) -> int:
        """Let the first feed go on with its pass; return the number of sends that it counts for."""
        feed = self._queue.popleft()
        sends = feed.sweep(visits)
        if feed.window or feed.closing is not None:
            self._queue.append(feed)
        else:
            feed.dirty = False
        # A slice without a send still costs a little: count it, or a queue of
        # feeds that everybody has left would be one long turn.
        return sends or 1

    def _is_calm(self) -> bool:
        """Whether one single record waits."""
        first, last = self._queue[0].window, self._queue[-1].window
        # They stand in the order in which they got their first: the same at both ends is the
        # same in all of them. (A pass that takes several slices turns them round: then it may
        # be mistaken, and a turn longer than it should be.)
        is_one_each = bool(first and last) and len(self._queue) == self.state.records
        return is_one_each and first[0] is last[0]


def sweep_single_feeds(queue: deque[Feed], state: FanoutState, visits: int) -> int:
    """Serve up to `visits` feeds at a queue's front that have one record for one subscriber.

    Return the number of those feeds; they have left the queue. An event may land in ten thousand
    of them, and a pass for each costs more than a send.
    """
    began, visited, given = perf_counter(), 0, 0
    newest: Record | None = None
    batch: Batch | None = None
    while queue and visited < visits:
        feed = queue[0]
        window = feed.window
        is_single = len(window) == 1 and len(feed.ready) == 1
        if not is_single or feed.passing is not None or feed.closing is not None:
            break
        queue.popleft()
        feed.dirty = False
        visited += 1
        (record,), (subscriber,) = window, feed.ready
        if subscriber.position >= record.position:
            feed.clear()
            continue
        if record is not newest or batch is None:
            if batch is not None:
                state.count(batch, given)
            newest, batch, given = record, state.batch_of(record), 0
        try:
            idle = subscriber.send(batch)
        except BaseException as exc:  # noqa: BLE001 - its own task meets it, see `Feed`
            own_error(exc)
            # While the record stands in the window: it is the one that the subscriber lacks.
            subscriber.leave_feed()
            feed.clear()
            continue
        given += 1
        feed.window = ()
        state.records -= 1
        subscriber.position = record.position
        if not idle:
            subscriber.leave_feed()
    if batch is not None:
        state.count(batch, given)
    if visited:
        state.passes.add((perf_counter() - began) / visited, visited)
    return visited
