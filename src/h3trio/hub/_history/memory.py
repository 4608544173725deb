"""`MemoryHistory`: a history in memory, gone with the process and bounded by default.

Its log is whole. A record that falls out of it is noted in the gaps, and its `dedup` key is
forgotten with it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

import trio

from .epochs import Epochs
from .gaps import Gaps
from .history import Durability, History, HistoryStatistics
from .log import Log
from .pins import PinnedTopics
from .record import Appended, Record, answer_repetition, refuse_closed
from .retention import MAX_PINNED_BYTES, MAX_PINNED_EVENTS, MIB, Retention
from .selection import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from .record import Page, Update
    from .selection import Selection

_REMOVAL_COST: Final = 4
"""Records that could be looked at while one is removed from one topic."""


@final
class MemoryHistory(History):
    """Keeps the newest updates in memory.

    Args:
        max_events: updates kept. 10,000 are some minutes of a busy hub, long enough to
            reconnect, and with small events less than 20 MiB of memory.
        max_bytes: bytes of their frames: 64 MiB, for when the events aren't small. Their topics
            may take 2 KiB for each event of `max_events` besides, or 16 MiB.
        max_age: seconds after which an update is removed. Off by default: the other
            limits bound the memory.
        max_topic_events: updates kept of one topic. Off by default: a hub with many
            topics would need another number than one with few.
        max_topic_bytes: bytes of the frames of one topic; off for the same reason.
        max_pinned_events: updates of pinned topics, which the limits in all pass over, and pinned
            topics. 50,000 are fifty answers of a thousand tokens at once.
        max_pinned_bytes: bytes of the frames of those updates and of their topics: as much as of
            all others.
        clock: gives Unix time in seconds.

    Raises:
        ValueError, TypeError: a limit isn't a positive number.
    """

    durability: Durability = "memory"

    def __init__(
        self,
        *,
        max_events: int = 10_000,
        max_bytes: int = 64 * MIB,
        max_age: float | None = None,
        max_topic_events: int | None = None,
        max_topic_bytes: int | None = None,
        max_pinned_events: int = MAX_PINNED_EVENTS,
        max_pinned_bytes: int = MAX_PINNED_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        retention = Retention(
            max_events=max_events,
            max_bytes=max_bytes,
            max_age=max_age,
            max_topic_events=max_topic_events,
            max_topic_bytes=max_topic_bytes,
            max_pinned_events=max_pinned_events,
            max_pinned_bytes=max_pinned_bytes,
        )
        self.max_age: float | None = max_age
        self._clock = clock
        self._pinned = PinnedTopics(max_pinned_events)
        self.log: Log = Log(retention, forget=self._forget, pinned=self._pinned)
        self.gaps: Gaps = Gaps()
        self.epochs: Epochs = Epochs()
        self._is_open = False
        self._last = 0
        self._trimmed = 0
        self._dedup: dict[tuple[str, ...], Record] = {}
        # The topics that are closed, and the position of the record that closed each: also of those
        # that aren't in the log yet.
        self._closed: dict[str, int] = {}
        # The key of each position that has one.
        self._keys: dict[int, tuple[str, ...]] = {}

    def __repr__(self) -> str:
        return f"<MemoryHistory: {len(self.log)} records, head {self.log.head}>"

    async def open(self) -> None:
        """Begin a new epoch. The records of earlier ones are still there."""
        await trio.lowlevel.checkpoint()
        if self._is_open:
            raise trio.BusyResourceError("the history is open already")
        self.epochs.begin(self._last + 1)
        self._is_open = True

    async def aclose(self) -> None:
        """Take no more updates."""
        self._is_open = False
        await trio.lowlevel.checkpoint()

    def append_nowait(self, updates: Sequence[Update]) -> list[Appended]:
        """Give updates their places; the caller puts the records into `log`, at once.

        Raises:
            trio.ClosedResourceError: the history isn't open.
        """
        if not self._is_open:
            raise trio.ClosedResourceError("the history is not open")
        published = self._clock()
        return [self._append(update, published) for update in updates]

    def _append(self, update: Update, published: float) -> Appended:
        key = update.scoped_key
        if key is not None and (first := self._dedup.get(key)) is not None:
            return answer_repetition(first, update)
        if self._closed:
            for topic in update.topics:
                if topic in self._closed:
                    return refuse_closed(topic)
        pinned = self._pinned.topics
        if pinned and (refusal := self.log.pins.refusal(update, pinned)) is not None:
            return Appended("", None, refusal)
        position = self._last + 1
        record = Record.from_update(
            update, position=position, epoch=self.epochs.current, published=published
        )
        self._last = position
        if update.last:
            self._closed |= dict.fromkeys(update.topics, position)
        if key is not None:
            self._dedup[key] = record
            self._keys[position] = key
        return Appended(record.id, record)

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Store updates by `append_nowait`, behind a checkpoint."""
        # In front: cancelled after the fact, positions would be given that no log gets.
        await trio.lowlevel.checkpoint()
        return self.append_nowait(updates)

    async def read(
        self, after: int, *, selection: Selection, max_records: int, max_bytes: int
    ) -> Page:
        """Read selected records behind a position: all are in `log`."""
        await trio.lowlevel.checkpoint()
        page = self.log.read(
            after, selection=selection, max_records=max_records, max_bytes=max_bytes
        )
        assert page is not None, "the log is whole"
        return page

    async def find(self, id: str, *, selection: Selection, allow: Selection) -> int | None:
        """Return the position that a publisher's id stands for; see `History.find`."""
        return await self.log.find(id, selection=selection, allow=allow)

    async def position_before_last(
        self, count: int, *, selection: Selection, allow: Selection
    ) -> int:
        """Return the position behind which the last `count` visible records stand."""
        position = await self.log.position_before_last(count, selection=selection, allow=allow)
        assert position is not None, "the log is whole"
        return position

    async def are_closed(self, topics: Collection[str], *, allow: Selection) -> bool:
        """Whether all of some topics are closed, by records that may be seen. No checkpoint."""
        # Most hubs have no topic that ends.
        return bool(self._closed) and all(
            self.log.is_closed(topic, allow=allow) for topic in topics
        )

    async def purge(self, topic: str) -> int:
        """Remove a topic's records; return how many."""
        await trio.lowlevel.checkpoint()
        # Without those that are published meanwhile.
        return await self._remove(self.log.positions(topic))

    async def trim(self) -> int:
        """Remove records beyond the age limit; return how many."""
        await trio.lowlevel.checkpoint()
        return 0 if self.max_age is None else await self._remove(self._outdated(self.max_age))

    def _outdated(self, max_age: float) -> Iterator[int]:
        limit = self._clock() - max_age
        while (oldest := self.log.first_to_go) is not None and oldest.published < limit:
            yield oldest.position

    async def _remove(self, positions: Iterable[int]) -> int:
        """Remove records, and let others run between; return how many there were."""
        removed, turn = 0, Turn()
        for position in positions:
            record = self.log.remove(position)
            if record is not None:
                removed += 1
                # Each index and the gaps have a place for each of its topics.
                if turn.spend(_REMOVAL_COST * len(record.topics)):
                    await trio.lowlevel.checkpoint()
        return removed

    def pin(self, topic: str) -> None:
        """Pass over a topic's records by the limits in all; see `History.pin`."""
        if self._pinned.pin(topic):
            self.log.pin(topic)

    def unpin(self, topic: str) -> None:
        """Undo one `pin`."""
        if self._pinned.unpin(topic):
            self.log.unpin(topic)

    def statistics(self) -> HistoryStatistics:
        """Return a snapshot; cheap."""
        oldest = self.log.oldest
        return HistoryStatistics(
            durability=self.durability,
            events=len(self.log),
            bytes=self.log.bytes,
            topics=self.log.topics,
            oldest=0 if oldest is None else oldest.position,
            newest=self._last,
            trimmed=self._trimmed,
            pinned_topics=len(self._pinned.topics),
            pinned_events=self.log.pins.events,
            pinned_bytes=self.log.pins.bytes,
        )

    def _forget(self, record: Record) -> None:
        """Note that a record is gone for good."""
        self._trimmed += 1
        if record.private and record.frame:
            self.gaps.note_private(record.topics, record.position)
        elif record.frame:  # without an event nobody misses anything
            for topic in record.topics:
                self.gaps.note(topic, record.position)
        if record.last:
            for topic in record.topics:
                del self._closed[topic]
        if self._keys and (key := self._keys.pop(record.position, None)) is not None:
            del self._dedup[key]
