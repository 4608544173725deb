"""`Heartbeat`: one task for the heartbeats of all streams of a server.

Streams stand in a heap by the time of their next check. At that time a stream
that was silent for the interval gets a comment; one that wasn't is checked
again when it would have been. So each stream costs one heap move per interval,
and no stream has a timer or a task of its own.

The first check of each stream is drawn from the last fifth of the interval:
streams that opened together don't beat together.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, final

import trio

from .send_queue import State

if TYPE_CHECKING:
    import random

    from .send_queue import SendQueue

_SPREAD: Final = 0.2
# Beats due within this part of the interval after a wake-up are done in it: ten
# thousand streams cost some wake-ups a second, not ten thousand.
_GRAIN: Final = 0.003
# After so many, every other task gets its turn: a beat is a system call.
_TURN_BEATS: Final = 32


@final
class Heartbeat:
    """The streams of one server and when each was last heard."""

    def __init__(self, interval: float, rng: random.Random) -> None:
        self._interval = interval
        self._random = rng
        # A stream's number and not the stream, as its place outlives it.
        self._due: list[tuple[float, int]] = []
        self._streams: dict[int, SendQueue] = {}
        self._numbers: dict[SendQueue, int] = {}
        self._count = 0
        self._wake = trio.Event()

    def __len__(self) -> int:
        return len(self._streams)

    def streams(self) -> tuple[SendQueue, ...]:
        """Return all open streams, the oldest first."""
        return tuple(self._streams.values())

    def add(self, queue: SendQueue) -> None:
        """Watch a stream that opened now."""
        self._count += 1
        self._numbers[queue] = self._count
        self._streams[self._count] = queue
        delay = self._interval * self._random.uniform(1 - _SPREAD, 1)
        self._push(trio.current_time() + delay, self._count)

    def discard(self, queue: SendQueue) -> None:
        """Forget a stream; its place in the heap goes when half of the heap is such."""
        if (number := self._numbers.pop(queue, None)) is not None:
            del self._streams[number]
        if len(self._due) > 2 * len(self._streams) + 64:
            self._due = [entry for entry in self._due if entry[1] in self._streams]
            heapq.heapify(self._due)

    def _push(self, due: float, number: int) -> None:
        heapq.heappush(self._due, (due, number))
        if self._due[0][1] == number:
            self._wake.set()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._wake = trio.Event()
            next_due = self._due[0][0] if self._due else float("inf")
            with trio.move_on_at(next_due):
                await self._wake.wait()
            while self._beat(trio.current_time()):
                await trio.lowlevel.checkpoint()

    def _beat(self, now: float) -> bool:
        """Do what is due, a turn of it; `True` if there is more."""
        horizon = now + self._interval * _GRAIN
        for _ in range(_TURN_BEATS):
            if not self._due or self._due[0][0] > horizon:
                return False
            _due, number = heapq.heappop(self._due)
            if number in self._streams:
                self._beat_one(number, now, horizon)
        return True

    def _beat_one(self, number: int, now: float, horizon: float) -> None:
        queue = self._streams[number]
        silent_since = queue.last_write
        if silent_since + self._interval > horizon + self._interval * _SPREAD:
            self._push(silent_since + self._interval, number)
            return
        # First: an error in one beat is no end of the stream's heartbeats.
        self._push(now + self._interval, number)
        if queue.state is State.IDLE:
            queue.heartbeat_nowait()
