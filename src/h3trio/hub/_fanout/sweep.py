"""The one task of a hub that writes to ready subscribers.

Feeds that got a record stand in a queue. A turn goes round them in slices of a few
subscribers, and then lets every other task run once: accepting, parsing and
publishing share the scheduler with it, and a request costs them a few passes.
Short slices keep a topic with one subscriber from waiting behind one with
thousands, short turns keep a publish quick under load.

Where all that waits is one record, in one feed or in thousands, nobody is in a hurry, and a
turn may be longer: a pass of Trio's costs as much as some sends, as each of them drives it
out of the processor's caches.

A turn is bounded by sends and by time, as a send costs anything from 8 to 40 µs:
the kernel does the receiver's part of a loopback send within it, and a full batch
is copied in it.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Final, final

import trio

from .feed import sweep_lone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .feed import Feed, Windows

SLICE_SENDS: Final = 8
TURN_SENDS: Final = 32
_TURN_SECONDS: Final = 0.0003
CALM_SENDS: Final = 192
_CALM_SECONDS: Final = 0.002


@final
class Sweep:
    """A queue of feeds with something to send, and the task that sends it."""

    __slots__ = ("_flush_interval", "_idle", "_queue", "_windows")

    def __init__(self, windows: Windows, *, flush_interval: float = 0.0) -> None:
        self._windows = windows
        self._flush_interval = flush_interval
        self._queue: deque[Feed] = deque()
        self._idle = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Sweep: {len(self._queue)} feeds waiting>"

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, feeds: Sequence[Feed]) -> None:
        """Queue feeds that aren't queued, at least one."""
        # With others before them, the task is awake.
        if not self._queue:
            self._idle.unpark()
        self._queue.extend(feeds)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            if not self._queue:
                await self._idle.park()
                if self._flush_interval:
                    await trio.sleep(self._flush_interval)
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
            left -= sweep_lone(queue, self._windows, most) or self._slice(most)
            if left <= look_at:  # many feeds of one subscriber make up one slice
                if perf_counter() > until:
                    break
                if calm:
                    # As much again as it had: so the turn is never twice as long as it may be.
                    visits *= 2
                look_at = left - visits

    def _slice(self, visits: int) -> int:
        """Let the first feed go on with its pass; return how many sends that counts for."""
        feed = self._queue.popleft()
        sends = feed.sweep(visits)
        if feed.window:
            self._queue.append(feed)
        else:
            feed.dirty = False
        # A slice without a send still costs a little: count it, or a queue of
        # feeds that everybody has left would be one long turn.
        return sends or 1

    def _is_calm(self) -> bool:
        """Whether all that waits is one record."""
        first, last = self._queue[0].window, self._queue[-1].window
        # They stand in the order in which they got their first: the same at both ends is the
        # same in all of them. (A pass that takes several slices turns them round: then it may
        # be mistaken, and a turn longer than it should be.)
        is_one_each = bool(first and last) and len(self._queue) == self._windows.records
        return is_one_each and first[0] is last[0]
