"""`Inflow`: the one step by which records come into the log and the feeds of a hub.

It has no checkpoint, and it is called in the order of the log: by the committer for a history of
one hub, and by the history's follower, `History.follow`, for one that several hubs share.

There a publish is stored before its own hub has the record, and a client that comes from another
hub may have an id that this one doesn't know yet. Both wait here until the follower has passed a
cursor. The wait is bounded, as a follower may stand still.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heappop, heappush, nlargest
from itertools import count
from typing import TYPE_CHECKING, Final, final

import trio

from ._history.errors import HistoryError
from ._history.selection import ALL

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from ._fanout.feed import Subscriber
    from ._fanout.feeds import Feeds
    from ._fanout.replay import Replay
    from ._fanout.subscription import Start
    from ._history.history import History
    from ._history.record import Appended, Record
    from ._history.selection import Selection

logger = logging.getLogger("h3trio.hub")

_TRIM_SHARE: Final = 0.05
"""The time from one check of an age limit to the next, as a share of the limit."""
_TRIM_SECONDS: Final = (0.5, 60.0)
"""The bounds of that time."""

MAX_COUNTED_TOPICS: Final = 4096
"""Topics whose events are counted: more than anybody reads."""


@final
@dataclass(slots=True, eq=False, repr=False)
class Inflow:
    """Puts records into the log and the feeds, and takes back what a store has lost."""

    history: History
    """The history, whose log it is."""
    feeds: Feeds
    """The feeds that get each record."""
    replay: Replay
    """Has pages of the log, which may be of no use any more."""
    subscribers: Collection[Subscriber]
    """All there are."""
    timeout: float
    """Seconds for which a wait for the follower may last."""
    published: int = 0
    """Records put into the log in total."""
    topic_counts: dict[str, int] = field(default_factory=dict[str, int])
    """Events of the busiest topics; of another perhaps only the latest."""
    timeouts: Counter[str] = field(default_factory=Counter[str])
    """Waits for the follower that ended without it: of a `publish`, a `locate` or a `purge`."""
    published_lot: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    """Whoever waits for the next event."""
    _purges: int = 0
    _waiting: list[tuple[int, int, str, trio.Event]] = field(
        default_factory=list[tuple[int, int, str, trio.Event]]
    )
    """A heap: position, number of the wait, cursor, and what wakes the wait."""
    _numbers: Iterator[int] = field(default_factory=count)
    _ended: int = 0
    """Waits among them that have ended without the follower, about."""

    def publish(self, appended: Iterable[Appended]) -> None:
        """Put what the committer stored into the log and the feeds; not if hubs share the store."""
        log, feeds = self.history.log, self.feeds
        for answer in appended:
            record = answer.record
            if record is not None:
                log.append(record)
                self._count(record.topics)
                feeds.append(record)
        if self.published_lot:
            self.published_lot.unpark_all()

    def deliver(self, records: Sequence[Record], head: int) -> None:
        """Put what the follower got into the log and the feeds; up to `head` that is all."""
        log, feeds = self.history.log, self.feeds
        self._look_at_removals()
        for record in records:
            log.append(record)
            self._count(record.topics)
            feeds.append(record)
        if head > log.head:
            log.head = feeds.state.head = head
        if self._waiting:
            self._wake()
        if self.published_lot:
            self.published_lot.unpark_all()

    def _look_at_removals(self) -> None:
        """See what the follower has removed since it last delivered."""
        gaps = self.history.gaps
        if gaps.newest(ALL, ALL) > self.history.log.head:
            # Something is gone that this hub never had. Feeds know of no gaps: each subscriber
            # looks for its own.
            self.feeds.release()
        if gaps.purges_since(self._purges):
            self.replay.forget_pages()
        self._purges = gaps.serial

    async def purge(self, topic: str) -> int:
        """Remove a topic's records; return how many there were."""
        history = self.history
        before = history.log.head
        if history.is_shared:
            count = await history.purge(topic)
            await self.catch_up("purge")
            return count
        try:
            return await history.purge(topic)
        finally:
            # If it was cut short, a part is removed.
            history.gaps.note_purge(topic, before)
            self.replay.forget_pages()
            self.published_lot.unpark_all()

    async def trim(self) -> None:
        """Trim a history that has an age limit, again and again."""
        low, high = _TRIM_SECONDS
        while True:
            await trio.sleep(min(max((self.history.max_age or 0) * _TRIM_SHARE, low), high))
            if await self.history.trim():
                self.published_lot.unpark_all()

    async def follow(self) -> None:
        """Run the follower of a history that several hubs share."""
        await self.history.follow(self.deliver, self.lose)

    def lose(self, position: int) -> None:
        """Take back what is behind a position: the store has lost it, and goes on from there."""
        logger.error(
            "the store has lost what was behind %s: this hub had %d positions more",
            self.history.epochs.format(position),
            self.history.log.head - position,
        )
        # Before the feeds are left, which brings those to the head who lack nothing.
        had = [one for one in self.subscribers if one.is_placed and one.position > position]
        self.feeds.cut(position)
        self.history.log.cut(position)
        self.history.gaps.cut(position)
        self.replay.cut()
        for subscriber in self.subscribers:
            subscriber.position = min(subscriber.position, position)
        for subscriber in had:
            subscriber.has_lost = True
        self.close()

    def _count(self, topics: Sequence[str]) -> None:
        """Count an event, once in all and once for each of its topics."""
        self.published += 1
        for topic in topics:
            if topic not in self.topic_counts and len(self.topic_counts) >= MAX_COUNTED_TOPICS:
                # The half with fewer events is forgotten. One of them that comes again begins
                # anew: no loss to anybody who looks for the busiest, which keep their counts.
                busiest = nlargest(
                    MAX_COUNTED_TOPICS // 2, self.topic_counts.items(), key=lambda item: item[1]
                )
                self.topic_counts = dict(busiest)
            self.topic_counts[topic] = self.topic_counts.get(topic, 0) + 1

    # -- waiting for the follower

    async def passed(self, cursor: str, reason: str) -> bool:
        """Wait until the follower has passed a cursor; return whether it has, within `timeout`.

        Not longer than until something is lost: then it may never be passed.

        Args:
            cursor: in the syntax of the hub's own ids.
            reason: what is counted if it takes too long.
        """
        with trio.move_on_after(self.timeout):
            return await self._wait(cursor)
        self.timeouts[reason] += 1
        return False

    async def catch_up(self, reason: str) -> bool:
        """Wait until the follower is where the store is now; `passed` says the rest.

        Raises:
            HistoryError: the store can't be asked.
        """
        with trio.move_on_after(self.timeout):
            return await self._wait(await self.history.head())
        self.timeouts[reason] += 1
        return False

    async def locate(
        self,
        topics: Selection,
        allow: Selection,
        last_event_id: str | None,
        first: int | str | None,
    ) -> Start:
        """Find where a stream begins, as `Replay.locate` does; wait for an id that is newer.

        If hubs share the store, all of it is bounded by `timeout`: whatever the store is asked may
        have to wait for the follower, or a past that this hub doesn't know yet would answer.

        Raises:
            HistoryError: this hub doesn't come up to its store.
        """
        locate = partial(
            self.replay.locate, topics, allow, last_event_id=last_event_id, first=first
        )
        if not self.history.is_shared:
            return await locate()
        with trio.move_on_after(self.timeout) as scope:
            start = await locate()
            if not start.unknown:
                return start
            if await self._wait(await self.history.head()):
                return await locate()
        if scope.cancelled_caught:
            self.timeouts["locate"] += 1
        raise HistoryError("this hub lags behind its store: it can't tell yet where to begin")

    async def _wait(self, cursor: str) -> bool:
        await trio.lowlevel.checkpoint()
        if self.has_passed(cursor):
            return True
        event = trio.Event()
        position = int(cursor.rpartition("-")[2])
        heappush(self._waiting, (position, next(self._numbers), cursor, event))
        try:
            await event.wait()
        finally:
            if not event.is_set():
                event.set()
                self._forget_ended()
        return self.has_passed(cursor)

    def _forget_ended(self) -> None:
        """Take waits that have ended out of the heap, once half of it is such."""
        self._ended += 1
        if 2 * self._ended > len(self._waiting):
            self._waiting = [waiting for waiting in self._waiting if not waiting[3].is_set()]
            heapify(self._waiting)
            self._ended = 0

    def has_passed(self, cursor: str) -> bool:
        """Whether the follower has passed a cursor."""
        head = self.history.log.head
        position = self.history.epochs.resolve(cursor, head)
        # The table of epochs is known before what an earlier one of them ended with is followed.
        return position is not None and position <= head

    def _wake(self) -> None:
        """Wake the waits whose cursor is passed."""
        head = self.history.log.head
        later: list[tuple[int, int, str, trio.Event]] = []
        while self._waiting and self._waiting[0][0] <= head:
            waiting = heappop(self._waiting)
            if self.has_passed(waiting[2]):
                waiting[3].set()
            else:
                # Of an epoch that this hub has yet to hear of.
                later.append(waiting)
        for waiting in later:
            heappush(self._waiting, waiting)

    def close(self) -> None:
        """Let everybody go that waits for the follower, as it ended or something is lost."""
        for _position, _number, _cursor, event in self._waiting:
            event.set()
        self._waiting.clear()
