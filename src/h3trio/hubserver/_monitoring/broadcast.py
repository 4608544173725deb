"""The same news to whoever watches, made once for all and only while somebody does.

One task ticks every half second, as long as there are watchers; at a tick that somebody waits
for it makes the news. A watcher holds the newest alone: whoever is slow skips some and is never
behind. Were each stream's task to make its own, a hundred open pages would take a hundred
snapshots a second, of all feeds each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

TICK: Final = 0.5
"""Seconds: no watcher is told more often, and intervals are rounded up to whole ticks."""


@final
class Watcher(Generic[T]):
    """One who watches: `await watcher.next()` for the newest."""

    __slots__ = ("_changed", "_news", "due", "make", "ticks")

    def __init__(self, make: Callable[[], T], *, ticks: int, due: int, first: T) -> None:
        self.make = make
        self.ticks = ticks
        self.due = due
        self._news: T | None = first
        self._changed = trio.lowlevel.ParkingLot()

    def give(self, news: T) -> None:
        """Leave the newest for it, instead of what it hasn't taken."""
        self._news = news
        self._changed.unpark_all()

    async def next(self) -> T:
        """Return the newest that it hasn't had; wait for one."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._news is None:
            await self._changed.park()
        news, self._news = self._news, None
        return news


@final
class Broadcast(Generic[T]):
    """Makes news for all watchers."""

    def __init__(self) -> None:
        self._watchers: dict[Watcher[T], None] = {}
        self._tick = 0
        self._last: tuple[float, T] | None = None
        self._idle = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._watchers)

    def join(self, make: Callable[[], T], *, interval: float) -> Watcher[T]:
        """Begin to watch, with the news of now and then of every so many seconds.

        Args:
            make: makes the news, the same for whoever asks; never waits.
            interval: seconds.
        """
        ticks = max(1, math.ceil(interval / TICK))
        watcher = Watcher(make, ticks=ticks, due=self._tick + ticks, first=self._news(make))
        self._watchers[watcher] = None
        self._idle.unpark_all()
        return watcher

    def leave(self, watcher: Watcher[T]) -> None:
        """Watch no more."""
        del self._watchers[watcher]

    def _news(self, make: Callable[[], T]) -> T:
        """What there is, if it is no older than a tick: a crowd that comes is no load."""
        if self._last is None or trio.current_time() - self._last[0] >= TICK:
            return self._make(make)
        return self._last[1]

    def _make(self, make: Callable[[], T]) -> T:
        news = make()
        self._last = (trio.current_time(), news)
        return news

    async def run(self) -> None:
        """Tell them until cancelled."""
        while True:
            while not self._watchers:
                await self._idle.park()
            await trio.sleep(TICK)
            self._tick += 1
            due = [watcher for watcher in self._watchers if watcher.due <= self._tick]
            if due:
                # Anew, however young the last: who joined with that would be told it twice, and
                # between the two nothing would seem to have happened.
                news = self._make(due[0].make)
                for watcher in due:
                    watcher.due = self._tick + watcher.ticks
                    watcher.give(news)
