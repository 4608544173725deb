"""Sinks, records and histories for hub tests: no socket, no HTTP."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Self

import trio

from h3trio import SSEEvent, SSEParser
from h3trio.hub import History, HistoryStatistics, MemoryHistory, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from types import FrameType

    from h3trio._wire.batch import Batch
    from h3trio.hub import Appended, Page, Selection, Update


class FakeSink:
    """A `FrameSink` that takes everything, or nothing more while it is stalled."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.stalled = False
        self.broken = False
        self.closed = False
        self._busy = False
        self._changed = trio.lowlevel.ParkingLot()
        self._arrived = trio.lowlevel.ParkingLot()

    def send_batch_nowait(self, batch: Batch) -> bool:
        """Take a batch, unless an earlier one is still inside."""
        self._check()
        if self._busy:
            raise trio.WouldBlock
        self.batches.append(batch)
        self._busy = self.stalled
        self._arrived.unpark_all()
        return not self._busy

    async def wait_for(self, count: int) -> None:
        """Wait until so many events were received; a store's thread has time meanwhile."""
        with trio.fail_after(20):
            while len(self.events) < count:
                await self._arrived.park()

    async def flush(self) -> None:
        """Wait until the peer has taken everything."""
        await trio.lowlevel.checkpoint()
        while self._busy and not self.broken:
            await self._changed.park()
        self._check()

    def _check(self) -> None:
        if self.broken:
            raise trio.BrokenResourceError
        if self.closed:
            raise trio.ClosedResourceError

    @property
    def is_busy(self) -> bool:
        """Whether the peer has yet to take a batch."""
        return self._busy

    def resume(self) -> None:
        """The peer reads again."""
        self.stalled = self._busy = False
        self._changed.unpark_all()

    def vanish(self) -> None:
        """The peer is gone."""
        self.broken = True
        self._changed.unpark_all()

    @property
    def payload(self) -> bytes:
        """Everything received, as bytes."""
        return b"".join(batch.payload for batch in self.batches)

    @property
    def events(self) -> list[SSEEvent]:
        """Everything received that dispatches, as a browser would see it."""
        return SSEParser().feed(self.payload)

    @property
    def data(self) -> list[str | None]:
        """The data of each event received."""
        return [event.data for event in self.events]

    @property
    def last_event_id(self) -> str:
        """The cursor that a browser would reconnect with."""
        parser = SSEParser()
        parser.feed(self.payload)
        return parser.last_event_id


def record(
    position: int, *topics: str, data: str = "", private: bool = False, published: float = 0.0
) -> Record:
    """A record whose data is its position, unless given."""
    event = SSEEvent(data or str(position), id=f"e-{position}")
    return Record(
        position=position,
        id=f"e-{position}",
        topics=topics or ("news",),
        private=private,
        published=published,
        frame=event.encode(),
    )


class Matcher:
    """A pattern that counts how often it is asked, by all of its kind."""

    def __init__(self, prefix: str, asked: Counter[str] | None = None) -> None:
        self.prefix = prefix
        self.asked = Counter[str]() if asked is None else asked

    def matches(self, topic: str, /) -> bool:
        """Whether the topic starts so."""
        self.asked["calls"] += 1
        return topic.startswith(self.prefix)

    def __hash__(self) -> int:
        return hash(self.prefix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Matcher) and other.prefix == self.prefix


class BusiestStep(trio.abc.Instrument):
    """Counts the calls of one function, and how many a task makes between two checkpoints.

    Times would differ from machine to machine; these don't. `with busiest: ...` counts.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        self._code = function.__code__
        self._in_step = 0
        self.most = 0
        """The calls of the busiest step."""
        self.total = 0
        """All calls."""

    def __enter__(self) -> Self:
        trio.lowlevel.add_instrument(self)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_exc: object) -> None:
        sys.setprofile(None)
        trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Begin to count anew."""
        assert task is not None
        self._in_step = 0

    def _profile(self, frame: FrameType, what: str, _arg: object) -> None:
        if what == "call" and frame.f_code is self._code:
            self.total += 1
            self._in_step += 1
            self.most = max(self.most, self._in_step)


class WrappedHistory(History):
    """A history of somebody else that keeps its records in a `MemoryHistory`."""

    def __init__(self, max_events: int = 1000) -> None:
        self.durability = "memory"
        self.max_age = None
        self.inner = MemoryHistory(max_events=max_events)
        self.log = self.inner.log
        self.gaps = self.inner.gaps
        self.epochs = self.inner.epochs

    async def open(self) -> None:
        """Open the one inside."""
        await self.inner.open()

    async def aclose(self) -> None:
        """Close the one inside."""
        await self.inner.aclose()

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Append."""
        return await self.inner.append(updates)

    async def read(
        self, after: int, *, selection: Selection, max_records: int, max_bytes: int
    ) -> Page:
        """Read."""
        return await self.inner.read(
            after, selection=selection, max_records=max_records, max_bytes=max_bytes
        )

    async def find(self, id: str, *, selection: Selection, allow: Selection) -> int | None:
        """Find."""
        return await self.inner.find(id, selection=selection, allow=allow)

    async def position_before_last(
        self, count: int, *, selection: Selection, allow: Selection
    ) -> int:
        """Look back."""
        return await self.inner.position_before_last(count, selection=selection, allow=allow)

    async def are_closed(self, topics: Collection[str], *, allow: Selection) -> bool:
        """Ask."""
        return await self.inner.are_closed(topics, allow=allow)

    async def purge(self, topic: str) -> int:
        """Purge."""
        return await self.inner.purge(topic)

    async def trim(self) -> int:
        """Trim."""
        return await self.inner.trim()

    def statistics(self) -> HistoryStatistics:
        """Count."""
        return self.inner.statistics()
