"""`Replay`: the way of a subscription from its cursor to live, gone by its own task.

The order that leaves no gap: read the log behind the cursor, send, read again; when the log has
nothing more, become ready. Between that last look and becoming ready there is no checkpoint, so
nothing can be published in between.

A gap is found by the newest removed position of each topic. A client that has one is told by a
`reset` event, once for each, and goes on: with the records that are left, or at the head if it
fell behind while it was connected.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, final

import trio

from h3trio._wire.batch import Batch
from h3trio._wire.event import SSEEvent
from h3trio.hub._history.errors import DamagedError
from h3trio.hub._history.record import RESET, Page
from h3trio.hub._history.selection import Turn

from .feed import MAX_BATCH_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h3trio.hub._history.history import History
    from h3trio.hub._history.record import Record
    from h3trio.hub._history.selection import Selection

    from .feed import Subscriber

logger = logging.getLogger("h3trio.hub")

MAX_PAGE_RECORDS: Final = 1000
"""Records of one page, with those that its subscriber may not see. There is a checkpoint between
two pages."""
CACHED_PAGES: Final = 64
"""Pages that are kept for other subscribers."""
MAX_CACHED_BYTES: Final = 8 * 1024 * 1024
"""Bytes of those pages: one with a large event isn't kept if it alone has more."""


class _Prepared(NamedTuple):
    """A page made ready to send."""

    batch: Batch | None
    last: int
    more: bool

    @property
    def size(self) -> int:
        """Bytes of the batch: its frames, and the same as a chunk."""
        return 0 if self.batch is None else 2 * len(self.batch.chunked)


@final
class Replay:
    """Reads a history for subscribers that are behind.

    Pages are shared: a thousand clients that reconnect at once, with the same
    selection and cursors, read and frame each page once.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._pages: OrderedDict[tuple[object, ...], _Prepared] = OrderedDict()
        self._page_bytes = 0
        self._purges = 0
        """Times that pages were forgotten: one read before the last time isn't kept."""
        self.resets = 0
        """Gaps told in total."""
        self.replays = 0
        """Ways from a cursor to live on which there was something to send."""
        self.replayed_events = 0
        """Events sent on them."""
        self.replayed_bytes = 0
        """Bytes of their frames."""

    def forget_pages(self) -> None:
        """Forget all pages, as records were purged: no page may bring them back."""
        self._pages.clear()
        self._page_bytes = 0
        self._purges += 1

    # -- where a subscription starts

    async def start(
        self, subscriber: Subscriber, *, last_event_id: str | None, first: int | str | None
    ) -> str | None:
        """Set the subscriber's position; return the reason of a reset, if it must be told one."""
        await self._history.gaps.learn(subscriber.selection)
        if last_event_id is not None:
            position = await self._find(subscriber, last_event_id)
            subscriber.position = position or 0
            if position is not None:
                return None
            subscriber.gap_seen = self._newest_removed(subscriber)
            return "unknown"
        subscriber.gap_seen = self._newest_removed(subscriber)
        if first is None or first == "newest":
            subscriber.position = self._history.log.head
        elif first == "oldest":
            subscriber.position = 0
        else:
            subscriber.position = await self._history.position_before_last(
                int(first), selection=subscriber.selection, allow=subscriber.allow
            )
        return None

    async def _find(self, subscriber: Subscriber, event_id: str) -> int | None:
        position = self._history.epochs.resolve(event_id, self._history.log.head)
        if position is not None:
            return position
        try:
            return await self._history.find(
                event_id, selection=subscriber.selection, allow=subscriber.allow
            )
        except DamagedError as exc:
            logger.error("%s; the id of a client is unknown", exc)  # noqa: TRY400 - it says all there is
            return None

    def _newest_removed(self, subscriber: Subscriber) -> int:
        return self._history.gaps.newest(subscriber.selection)

    # -- on the way

    async def catch_up(self, subscriber: Subscriber, *, behind_since_start: bool) -> bool:
        """Send until the log has nothing more for it; return whether it got there.

        `True`: nothing is between the subscriber and the head, and the caller may make it ready
        without a checkpoint. `False`: it fell out of the history.

        Args:
            subscriber: the one to bring forward.
            behind_since_start: whether it is on its first way from its cursor; a
                gap there is told and the rest sent. Later, a gap returns `False`.
        """
        has_given = False
        skips_from: int | None = None
        while True:
            # Also the checkpoint that lets others run between two pages.
            await subscriber.sink.flush()
            await self._history.gaps.learn(subscriber.selection)
            prepared = await self._prepare(subscriber)
            # Not before: records may be removed while a store reads.
            if self._has_gap(subscriber):
                if not behind_since_start:
                    return False
                await self.tell_reset(subscriber, "trimmed", None)
                continue
            if prepared.batch is None and not prepared.more:
                return True
            if prepared.batch is not None:
                skips_from = None
            elif skips_from is None:
                skips_from = subscriber.position
            else:
                # The next one that comes with these rights goes over all of them in one step.
                self._keep(subscriber, skips_from, prepared)
            if _gave(subscriber, prepared.batch):
                subscriber.position = prepared.last
                if prepared.batch is not None:
                    self.replays += not has_given
                    has_given = True
                    self.replayed_events += prepared.batch.count
                    self.replayed_bytes += len(prepared.batch.payload)

    def _has_gap(self, subscriber: Subscriber) -> bool:
        newest = self._newest_removed(subscriber)
        return newest > subscriber.position and newest > subscriber.gap_seen

    async def _prepare(self, subscriber: Subscriber) -> _Prepared:
        """Read and frame the next page; no checkpoint if there is nothing more behind it."""
        position, selection = subscriber.position, subscriber.selection
        key = (selection, subscriber.allow, position)
        if (known := self._pages.get(key)) is not None:
            self._pages.move_to_end(key)
            return known
        purges = self._purges
        limits = {"max_records": MAX_PAGE_RECORDS, "max_bytes": MAX_BATCH_BYTES}
        page = self._history.log.read(position, selection=selection, **limits)
        if page is None:
            page = await self._read(position, selection=selection, **limits)
            # The rest of the log is in memory: there is more to see.
            page = page._replace(more=True)
        page = await _visible(page, subscriber.allow)
        prepared = _Prepared(_batch(page.records), page.last, page.more)
        # The log's last page is still growing; the others don't change, unless there was a purge
        # since the read began.
        if page.more and purges == self._purges:
            self._keep(subscriber, position, prepared)
        return prepared

    async def _read(
        self, position: int, *, selection: Selection, max_records: int, max_bytes: int
    ) -> Page:
        """Read the store; of a damaged record tell as of one that was removed, and pass it over.

        Were it raised, the client would come back to it for ever.
        """
        try:
            return await self._history.read(
                position, selection=selection, max_records=max_records, max_bytes=max_bytes
            )
        except DamagedError as exc:
            if exc.page is not None:
                return exc.page
            after = exc.position or 0
            if after <= position:
                # Nobody knows where the damage ends. What is in memory is good.
                after = self._history.log.floor
            if after > self._history.gaps.floor:
                logger.error("%s; it is passed over", exc)  # noqa: TRY400 - it says all there is
            self._history.gaps.raise_floor(after)
            return Page((), after, more=True)

    def _keep(self, subscriber: Subscriber, position: int, prepared: _Prepared) -> None:
        """Keep what follows a position, for others with the same selection and rights."""
        key = (subscriber.selection, subscriber.allow, position)
        known = self._pages.pop(key, None)
        self._pages[key] = prepared
        self._page_bytes += prepared.size - (0 if known is None else known.size)
        while len(self._pages) > CACHED_PAGES or self._page_bytes > MAX_CACHED_BYTES:
            _key, oldest = self._pages.popitem(last=False)
            self._page_bytes -= oldest.size

    async def resync(self, subscriber: Subscriber) -> None:
        """Bring a subscriber that fell out of the history to the head, and tell it."""
        subscriber.position = self._history.log.head
        await self.tell_reset(subscriber, "lagged", None)

    async def tell_reset(self, subscriber: Subscriber, reason: str, asked: str | None) -> None:
        """Send `reset` with a cursor that is good on reconnect."""
        self.resets += 1
        subscriber.gap_seen = max(subscriber.gap_seen, self._newest_removed(subscriber))
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
    """Hand over a batch; return whether the sink took it: not if another sender's event waits."""
    if batch is not None:
        try:
            subscriber.send(batch)
        except trio.WouldBlock:
            return False
    return True


async def _visible(page: Page, allow: Selection) -> Page:
    """Leave those records on a page that may be seen.

    A checkpoint only where asking the matchers takes more than a turn. Then others ran since the
    page was read, and it says that there is more.
    """
    turn, more = Turn(), page.more
    known: dict[tuple[str, ...], bool] = {}
    records: list[Record] = []
    for record in page.records:
        topics = record.topics
        is_new = record.private and topics not in known
        if turn.spend(allow.cost(len(topics)) if is_new else 0):
            await trio.lowlevel.checkpoint()
            more = True
        if is_new:
            known[topics] = allow.matches(topics)
        if not record.private or known[topics]:
            records.append(record)
    return Page(records, page.last, more)


def _batch(records: Sequence[Record]) -> Batch | None:
    return Batch([record.frame for record in records]) if records else None
