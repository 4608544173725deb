"""From a cursor to live: what a subscription's own task does.

The order that leaves no gap: read the log behind the cursor, send, read again;
when the log has nothing more, become ready. Between that last look and becoming
ready there is no checkpoint, so nothing can be published in between.

A gap is decided by the marks of what retention removed, per topic. Whoever has
one is told by a `reset` event, once for each, and goes on: with what is left, or
at the head if it fell behind while it was connected.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, final

import trio

from h3trio._wire.batch import Batch
from h3trio._wire.event import SSEEvent
from h3trio.hub._topics import RESET

from .feed import MAX_BATCH_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h3trio.hub._history.history import History
    from h3trio.hub._history.record import Page, Record

    from .subscriber import Subscriber

MAX_PAGE_RECORDS: Final = 1000
_CACHED_PAGES: Final = 64


class _Prepared(NamedTuple):
    """A page made ready to send."""

    batch: Batch | None
    last: int
    more: bool


@final
class Replay:
    """Reads a history for subscribers that are behind.

    Pages are shared: a thousand clients that reconnect at once, with the same
    selection and cursors, read and frame each page once.
    """

    __slots__ = (
        "_history",
        "_pages",
        "_purges",
        "replayed_bytes",
        "replayed_events",
        "replays",
        "resets",
    )

    def __init__(self, history: History) -> None:
        self._history = history
        self._pages: OrderedDict[tuple[object, ...], _Prepared] = OrderedDict()
        self._purges = 0
        """How often pages were forgotten: one read before the last time isn't kept."""
        self.resets = 0
        self.replays = 0
        """Ways from a cursor to live on which there was something to send."""
        self.replayed_events = 0
        self.replayed_bytes = 0

    def forget_pages(self) -> None:
        """Records were purged: no page may bring them back."""
        self._pages.clear()
        self._purges += 1

    # -- where a subscription starts

    async def start(
        self, subscriber: Subscriber, *, last_event_id: str | None, first: int | str | None
    ) -> str | None:
        """Set the subscriber's position; return why it must be told of a reset, if so."""
        if last_event_id is not None:
            return await self._start_at(subscriber, last_event_id)
        subscriber.told = self._newest_mark(subscriber)
        if first is None or first == "newest":
            subscriber.position = self._history.log.head
        elif first == "oldest":
            subscriber.position = 0
        else:
            subscriber.position = await self._history.position_before_last(
                int(first), selection=subscriber.selection
            )
        return None

    async def _start_at(self, subscriber: Subscriber, last_event_id: str) -> str | None:
        position = await self._find(last_event_id)
        subscriber.position = position or 0
        if position is None:
            subscriber.told = self._newest_mark(subscriber)
            return "unknown"
        return None

    async def _find(self, event_id: str) -> int | None:
        log = self._history.log
        position = self._history.epochs.resolve(event_id, log.head)
        if position is None:
            position = log.find(event_id)
        if position is None:
            position = await self._history.find(event_id)
        return position

    def _newest_mark(self, subscriber: Subscriber) -> int:
        return self._history.marks.newest(subscriber.selection)

    # -- on the way

    async def catch_up(self, subscriber: Subscriber, *, behind_since_start: bool) -> bool:
        """Send until the log has nothing more for it; `False` if it fell out of the history.

        When this returns `True` nothing is between the subscriber and the head,
        and the caller may make it ready without a checkpoint.

        Args:
            subscriber: whom to bring forward.
            behind_since_start: whether it is on its first way from its cursor; a
                gap there is told and the rest sent. Later, a gap returns `False`.
        """
        has_given = False
        while True:
            # Also the checkpoint that lets others run between two pages.
            await subscriber.sink.flush()
            if self._has_gap(subscriber):
                if not behind_since_start:
                    return False
                await self.tell_reset(subscriber, "trimmed", None)
                continue
            prepared = self._prepare_from_log(subscriber)
            if prepared is None:
                prepared = await self._prepare_from_store(subscriber)
                if self._has_gap(subscriber):
                    continue
            elif prepared.batch is None and not prepared.more:
                return True
            if _gave(subscriber, prepared.batch):
                subscriber.position = prepared.last
                if prepared.batch is not None:
                    self.replays += not has_given
                    has_given = True
                    self.replayed_events += prepared.batch.count
                    self.replayed_bytes += len(prepared.batch.payload)

    def _has_gap(self, subscriber: Subscriber) -> bool:
        newest = self._newest_mark(subscriber)
        return newest > subscriber.position and newest > subscriber.told

    def _prepare_from_log(self, subscriber: Subscriber) -> _Prepared | None:
        key = (subscriber.selection, subscriber.allow, subscriber.position)
        if (known := self._pages.get(key)) is not None:
            self._pages.move_to_end(key)
            return known
        page = self._history.log.read(
            subscriber.position,
            selection=subscriber.selection,
            max_records=MAX_PAGE_RECORDS,
            max_bytes=MAX_BATCH_BYTES,
        )
        return None if page is None else self._prepared(key, page, subscriber, self._purges)

    async def _prepare_from_store(self, subscriber: Subscriber) -> _Prepared:
        key = (subscriber.selection, subscriber.allow, subscriber.position)
        purges = self._purges
        page = await self._history.read(
            subscriber.position,
            selection=subscriber.selection,
            max_records=MAX_PAGE_RECORDS,
            max_bytes=MAX_BATCH_BYTES,
        )
        # The store is behind the log only by what is in memory: there is more to see.
        return self._prepared(key, page._replace(more=True), subscriber, purges)

    def _prepared(
        self, key: tuple[object, ...], page: Page, subscriber: Subscriber, purges: int
    ) -> _Prepared:
        prepared = _Prepared(_batch(page.records, subscriber), page.last, page.more)
        # The log's last page is still growing; the others are what they are, unless there
        # was a purge since the read began.
        if page.more and purges == self._purges:
            self._pages[key] = prepared
            if len(self._pages) > _CACHED_PAGES:
                self._pages.popitem(last=False)
        return prepared

    async def resync(self, subscriber: Subscriber) -> None:
        """Go on at the head with one that fell out of the history, and tell it."""
        subscriber.position = self._history.log.head
        await self.tell_reset(subscriber, "lagged", None)

    async def tell_reset(self, subscriber: Subscriber, reason: str, asked: str | None) -> None:
        """Send `reset` with a cursor that is good on reconnect."""
        self.resets += 1
        subscriber.told = max(subscriber.told, self._newest_mark(subscriber))
        data = json.dumps({"reason": reason, "id": asked}, separators=(",", ":"))
        cursor = self._history.epochs.format(subscriber.position)
        event = SSEEvent(data, event=RESET, id=cursor)
        await self.give(subscriber, event)

    async def give(self, subscriber: Subscriber, event: SSEEvent) -> None:
        """Send one event of the hub's own, once its sink is idle; a checkpoint only if it isn't."""
        batch = Batch((event.encode(),))
        while not _gave(subscriber, batch):
            await subscriber.sink.flush()


def _gave(subscriber: Subscriber, batch: Batch | None) -> bool:
    """Hand over a batch; `False` if the sink was busy with another sender's event."""
    if batch is not None:
        try:
            subscriber.send(batch)
        except trio.WouldBlock:
            return False
    return True


def _batch(records: Sequence[Record], subscriber: Subscriber) -> Batch | None:
    allow = subscriber.allow
    frames = [r.frame for r in records if not r.private or allow.matches(r.topics)]
    return Batch(frames) if frames else None
