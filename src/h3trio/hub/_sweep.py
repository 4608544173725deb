"""The one task of a hub that writes to ready subscribers.

Feeds that got a record stand in a queue. A turn makes a few sends, going from
feed to feed, and then lets every other task run once: accepting, parsing and
publishing share the scheduler with it, and a request costs them a pass each.
Short turns (32 sends are about a quarter of a millisecond) keep a publish quick
under load, and a topic with one subscriber isn't held up by one with thousands.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

import trio

if TYPE_CHECKING:
    from ._feed import Feed

TURN_SENDS: Final = 32


@final
class Sweep:
    """A queue of feeds with something to send, and the task that sends it."""

    __slots__ = ("_idle", "_queue")

    def __init__(self) -> None:
        self._queue: deque[Feed] = deque()
        self._idle = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Sweep: {len(self._queue)} feeds waiting>"

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, feed: Feed) -> None:
        """Queue a feed that isn't queued."""
        feed.dirty = True
        self._queue.append(feed)
        if self._idle:
            self._idle.unpark()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            if not self._queue:
                await self._idle.park()
            self._turn()
            await trio.lowlevel.checkpoint()

    def _turn(self) -> None:
        sends = TURN_SENDS
        while self._queue and sends > 0:
            feed = self._queue.popleft()
            # A feed without a send still costs a little: count it, or a queue of
            # feeds that everybody has left would be one long turn.
            sends -= feed.sweep(sends) or 1
            if feed.is_waiting:
                self._queue.append(feed)
            else:
                feed.dirty = False
