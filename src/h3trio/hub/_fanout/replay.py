"""`Replay`: the way of a subscription from its cursor to live, gone by its own task.

The order that leaves no gap: read the log behind the cursor, send, read again; when the log has
nothing more, become ready. Between that last look and becoming ready there is no checkpoint, so
nothing can be published in between.

A gap is found by the newest removed position of each topic. A client that has one is told by a
`reset` event, once for each, and goes on: with the records that are left, or at the head if it
fell behind while it was connected. Who comes back with the id of a `reset` isn't told of the same
gap again, so that id isn't below the newest removed position, though records that are left may be.

If a store that several hubs share loses what was last in it, those who were sent some of that are
told, and go on behind what is left: other events will have those positions.

Who asked for the oldest, or the last so many, without an id has lost nothing: the head of its
stream says that the beginning is gone, and `reset`, on which pages reload, doesn't.

A subscription to nothing but closed topics ends where the log has nothing more for it. Whether they
are closed is asked where it begins, and again behind each closing record that it comes by: a topic
may have been opened anew meanwhile.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, final

import trio

from h3trio._wire.batch import Batch
from h3trio._wire.event import SSEEvent
from h3trio.hub._history.damage import DamagedError
from h3trio.hub._history.record import CURSOR, RESET, Page
from h3trio.hub._history.selection import Turn

from .feed import MAX_BATCH_BYTES
from .subscription import EndReason, Start

if TYPE_CHECKING:
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
    last_id: int
    """The position of the last record in the batch, 0 without one."""
    closes: bool
    """Whether a record closes its topics."""

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
        self._losses = 0
        """Times that something was lost: a page read before the last time isn't sent."""
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

    def cut(self) -> None:
        """Forget all pages, those that are being read too, as the store has lost some records."""
        self.forget_pages()
        self._losses += 1

    # -- where a subscription starts

    async def locate(
        self,
        topics: Selection,
        allow: Selection,
        *,
        last_event_id: str | None,
        first: int | str | None,
    ) -> Start:
        """Find the place where a stream begins; checkpoints only where that takes long."""
        while True:
            losses = self._losses
            start = await self._locate(topics, allow, last_event_id, first)
            if losses == self._losses:  # else it is of another past
                return start

    async def _locate(
        self,
        topics: Selection,
        allow: Selection,
        last_event_id: str | None,
        first: int | str | None,
    ) -> Start:
        await self._history.gaps.learn(topics, allow)
        # Before the store is asked: what is removed meanwhile is a gap.
        gap_seen = self._history.gaps.newest(topics, allow)
        position = self._history.log.head
        truncated = unknown = lost = False
        if last_event_id is not None:
            first, gap_seen = None, 0
            found = await self._find(last_event_id, topics, allow)
            if found is None:
                found = self._history.epochs.last_kept(last_event_id)
                unknown, lost = found is None, found is not None
            position = found or 0
        elif first is None or first == "newest":
            first = None
        elif first == "oldest":
            position, truncated = 0, gap_seen > 0
        else:
            position = await self._history.position_before_last(
                int(first), selection=topics, allow=allow
            )
            truncated = position == 0 and await self._has_fewer(int(first), topics, allow)
        closed = await self._are_closed(topics, allow)
        complete = closed and not (unknown or lost or await self._has_more(position, topics, allow))
        if complete and last_event_id is not None:
            complete = not self._history.gaps.has_gap(topics, position, allow)
        return Start(
            cursor=self._history.epochs.format(position),
            truncated=truncated,
            closed=closed,
            complete=complete,
            topics=topics,
            allow=allow,
            position=position,
            last_event_id=last_event_id,
            first=first,
            unknown=unknown,
            lost=lost,
            gap_seen=gap_seen,
        )

    async def _has_fewer(self, count: int, selection: Selection, allow: Selection) -> bool:
        """Whether fewer than `count` records that may be seen are left of more.

        Asked where the position before the last `count` is 0: there are fewer, or exactly so
        many and the oldest of them is the first of the whole log.
        """
        if count <= 0 or not self._history.gaps.newest(selection, allow):
            return False
        limits = {"max_records": 1, "max_bytes": 1}
        page = self._history.log.read(0, selection=selection, **limits)
        if page is None:
            page = await self._read(0, selection=selection, **limits)
        page = await _visible(page, allow)
        if not page.records or page.records[0].position > 1 or not page.records[0].frame:
            return True
        last = {"selection": selection, "allow": allow}
        return await self._history.position_before_last(count - 1, **last) == 0

    async def _has_more(self, after: int, selection: Selection, allow: Selection) -> bool:
        """Whether an event that may be seen stands behind a position."""
        while True:
            page = await _visible(await self.page(after, selection), allow)
            if any(record.frame for record in page.records):
                return True
            if not page.more:
                return False
            after = page.last
            await trio.lowlevel.checkpoint()

    async def begin(self, subscriber: Subscriber, start: Start, *, retry: int) -> None:
        """Put a subscriber at its start, and open its stream.

        A client may drop before its first event. Then a browser, whose pages can't read the head
        of a stream, has its cursor by an event. Other clients take a block without data for an
        event, so there is none: `retry` stands alone, without a blank line behind it. Browsers
        take the field when its line ends (WHATWG HTML section 9.2.6).

        Args:
            subscriber: the one to begin with.
            start: its place.
            retry: milliseconds after which its client shall reconnect.
        """
        subscriber.position, subscriber.gap_seen = start.position, start.gap_seen
        subscriber.truncated = start.truncated
        subscriber.may_be_complete = start.closed
        subscriber.last_id = start.position
        subscriber.has_lost, subscriber.is_placed = start.lost, True
        left = self._history.epochs.last_kept(start.cursor)
        if left is not None:  # lost since it was found
            subscriber.position, subscriber.has_lost = left, True
        has_reset = start.unknown or subscriber.has_lost
        # A cursor in front of a `reset` would, to a client that drops between them, hide it.
        if subscriber.wants_cursor and not has_reset and start.cursor != start.last_event_id:
            await self._give_cursor(subscriber, retry=retry)
        else:
            await self._give(subscriber, b"retry: %d\n" % retry)
        if start.unknown:
            await self._tell_reset(subscriber, "unknown", start.last_event_id)

    async def _find(self, event_id: str, topics: Selection, allow: Selection) -> int | None:
        position = self._history.epochs.resolve(event_id, self._history.log.head)
        if position is not None:
            return position
        try:
            return await self._history.find(event_id, selection=topics, allow=allow)
        except DamagedError as exc:
            logger.error("%s; the id of a client is unknown", exc)  # noqa: TRY400 - it says all there is
            return None

    async def _are_closed(self, topics: Selection, allow: Selection) -> bool:
        try:
            return topics.is_exact and await self._history.are_closed(topics.topics, allow=allow)
        except DamagedError as exc:
            logger.error("%s; the topics of a client count as open", exc)  # noqa: TRY400 - it says all there is
            return False

    def _newest_removed(self, subscriber: Subscriber) -> int:
        return self._history.gaps.newest(subscriber.selection, subscriber.allow)

    # -- on the way

    async def catch_up(self, subscriber: Subscriber, start: Start | None) -> bool:
        """Send until the log has nothing more for it; return whether it got there.

        `True`: nothing is between the subscriber and the head, and the caller may make it ready
        without a checkpoint, unless it has ended as its topics are closed. `False`: it fell out of
        the history.

        Args:
            subscriber: the one to bring forward.
            start: its place, on its first way from there; a gap there is told and the rest
                sent. Later it is `None`, and a gap returns `False`.
        """
        has_given = False
        skips_from: int | None = None
        asked = None if start is None else start.last_event_id
        while True:
            prepared, losses = await self._next(subscriber, asked), self._losses
            # Not before: records may be removed while a store reads.
            newest = self._newest_removed(subscriber)
            if newest > subscriber.position and newest > subscriber.gap_seen:
                if start is None:
                    return False
                if has_given or not await self._has_what_was_told(start):
                    await self._tell_reset(subscriber, "trimmed", asked)
                    continue
                subscriber.gap_seen = newest
                # Others ran since the page was read. It is sent if it reaches beyond what is gone,
                # or a history that removes quickly would leave no time to send any.
                if prepared.batch is None or newest > prepared.last or losses != self._losses:
                    continue
            subscriber.may_be_complete |= prepared.closes
            if prepared.batch is None and not prepared.more:
                subscriber.position = prepared.last
                if await self._is_up(subscriber, start):
                    return True
                continue
            skips_from = self._skip(subscriber, skips_from, prepared)
            if _gave(subscriber, prepared.batch):
                subscriber.position = prepared.last
                if prepared.batch is not None:
                    subscriber.last_id = prepared.last_id
                    self.replays += not has_given
                    has_given = True
                    self.replayed_events += prepared.batch.count
                    self.replayed_bytes += len(prepared.batch.payload)

    async def _next(self, subscriber: Subscriber, asked: str | None) -> _Prepared:
        """Return the next page; if the store has lost what was sent, tell that first."""
        while True:
            # Also the checkpoint that lets others run between two pages.
            await subscriber.sink.flush()
            if subscriber.has_lost:
                subscriber.has_lost = False
                await self._tell_reset(subscriber, "lost", asked)
                continue
            losses = self._losses
            await self._history.gaps.learn(subscriber.selection, subscriber.allow)
            prepared = await self._prepare(subscriber)
            if losses == self._losses:
                return prepared

    def _skip(
        self, subscriber: Subscriber, skips_from: int | None, prepared: _Prepared
    ) -> int | None:
        """Return the position from which on nothing was to be sent, `None` if something is."""
        if prepared.batch is not None or prepared.closes:
            return None
        if skips_from is None:
            return subscriber.position
        # The next one that comes with these rights goes over all of them in one step.
        self._keep(subscriber, skips_from, prepared)
        return skips_from

    async def _is_up(self, subscriber: Subscriber, start: Start | None) -> bool:
        """Whether a subscriber that has everything may be made ready, or ended.

        No checkpoint if it may be made ready: then it still has everything.
        """
        # A gap may stand where this hub has yet to follow: it has no better id then.
        better = min(subscriber.gap_seen, subscriber.position)
        has_old_id = start is not None and better > subscriber.last_id
        if has_old_id and subscriber.wants_cursor:
            # The last id that it was sent isn't behind each gap that it was told of: if its topics
            # stay quiet, a browser would be told again at each reconnect.
            await self._give_cursor(subscriber)
            return False
        return not subscriber.may_be_complete or await self._is_complete(subscriber)

    async def _is_complete(self, subscriber: Subscriber) -> bool:
        """End a subscriber that has everything if its topics are closed; say whether it ended."""
        topics, losses = subscriber.selection, self._losses
        if not await self._are_closed(topics, subscriber.allow):
            subscriber.may_be_complete = False
            return False
        if losses != self._losses:
            return False  # it may have that to be told, and other events to get
        is_last_id_good = len(topics.topics) == 1 or subscriber.cursor_at == subscriber.position
        if subscriber.wants_cursor and not is_last_id_good:
            # It may be a publisher's that counts as an older one, of another topic: then a browser
            # would come back for what it has, again and again. They are asked again behind this.
            await self._give_cursor(subscriber)
            return False
        subscriber.end(EndReason.COMPLETE)
        return True

    async def _has_what_was_told(self, start: Start) -> bool:
        """Whether what is left now, before anything was sent, is what the head of it said."""
        if start.first is None or start.truncated:
            return start.truncated
        now = await self.locate(start.topics, start.allow, last_event_id=None, first=start.first)
        return not now.truncated

    async def _prepare(self, subscriber: Subscriber) -> _Prepared:
        """Read and frame the next page; no checkpoint if there is nothing more behind it."""
        position, selection = subscriber.position, subscriber.selection
        key = (selection, subscriber.allow, position)
        if (known := self._pages.get(key)) is not None:
            self._pages.move_to_end(key)
            return known
        purges = self._purges
        page = await self.page(position, selection)
        prepared = _prepared(await _visible(page, subscriber.allow))
        # The log's last page is still growing; the others don't change, unless there was a purge
        # since the read began.
        if page.more and purges == self._purges:
            self._keep(subscriber, position, prepared)
        return prepared

    async def page(self, position: int, selection: Selection) -> Page:
        """Read the next page; no checkpoint if it is in memory."""
        limits = {"max_records": MAX_PAGE_RECORDS, "max_bytes": MAX_BATCH_BYTES}
        page = self._history.log.read(position, selection=selection, **limits)
        if page is None:
            page = await self._read(position, selection=selection, **limits)
            # The rest of the log is in memory: there is more to see.
            page = page._replace(more=True)
        return page

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
        subscriber.may_be_complete = True  # a closing record may be among what it is spared
        await self._tell_reset(subscriber, "lagged", None)

    # -- events of the hub's own

    async def _tell_reset(self, subscriber: Subscriber, reason: str, asked: str | None) -> None:
        """Send `reset` with a cursor that is good on reconnect: not told of the same gap again."""
        self.resets += 1
        newest = self._newest_removed(subscriber)
        subscriber.gap_seen = max(subscriber.gap_seen, newest)
        epochs = self._history.epochs
        subscriber.last_id = max(newest, subscriber.position, epochs.oldest)
        data = json.dumps({"reason": reason, "id": asked}, separators=(",", ":"))
        event = SSEEvent(data, event=RESET, id=epochs.format(subscriber.last_id))
        await self._give(subscriber, event.encode())

    async def _give_cursor(self, subscriber: Subscriber, retry: int | None = None) -> None:
        """Send a browser the cursor at its position; its page sees it only if it asks for it."""
        subscriber.last_id = subscriber.cursor_at = subscriber.position
        cursor = self._history.epochs.format(subscriber.position)
        await self._give(subscriber, SSEEvent("{}", event=CURSOR, id=cursor, retry=retry).encode())

    async def _give(self, subscriber: Subscriber, frame: bytes) -> None:
        """Send a frame of the hub's own, once its sink is idle; a checkpoint only if it isn't."""
        batch = Batch((frame,))
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


def _prepared(page: Page) -> _Prepared:
    """Frame the records of a page."""
    if not page.records:
        return _Prepared(None, page.last, page.more, last_id=0, closes=False)
    sent = [record for record in page.records if record.frame]
    batch = Batch([record.frame for record in sent]) if sent else None
    closes = any(record.last for record in page.records)
    last_id = sent[-1].position if sent else 0
    return _Prepared(batch, page.last, page.more, last_id=last_id, closes=closes)
