"""Sinks and records for hub tests: no socket, no HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from h3trio import SSEEvent, SSEParser
from h3trio.hub._history.record import Record

if TYPE_CHECKING:
    from h3trio._wire.batch import Batch


class FakeSink:
    """A `FrameSink` that takes everything, or nothing more while it is stalled."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.stalled = False
        self.broken = False
        self.closed = False
        self._busy = False
        self._changed = trio.lowlevel.ParkingLot()

    def send_batch_nowait(self, batch: Batch) -> bool:
        """Take a batch, unless an earlier one is still inside."""
        self._check()
        if self._busy:
            raise trio.WouldBlock
        self.batches.append(batch)
        self._busy = self.stalled
        return not self._busy

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
