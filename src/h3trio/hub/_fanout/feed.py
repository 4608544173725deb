"""Feeds: what ready subscribers with one selection and one set of rights share.

A feed is a window on the log, holding the records that its ready subscribers
still have to get, and those subscribers. Publishing appends to the window once,
whatever the number of subscribers. A *pass* goes round them in slices: each gets
everything from its cursor to the head in one send, and a slice shares one batch.
At low rates a send carries one event, under load many, so batching comes by itself.

The head is looked at anew for each slice. Frozen for the whole pass instead, an
event that comes during a pass would wait for the next one to begin: two rounds of
latency where this takes one. What the window held when a pass began has reached
everybody when it ends, and is cut off then.

A subscriber whose sink took less than everything leaves the feed: it is brought
forward by its own task, out of the log, and comes back. So a window never waits
for a slow client.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._wire.batch import Batch

from .latency import Histogram

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from h3trio.hub._history.record import Record
    from h3trio.hub._history.selection import Selection

    from .subscriber import Subscriber

MAX_BATCH_BYTES: Final = 64 * 1024
"""What one send carries at most, or one event: a slow client is owed one batch,
and a short turn of the sweep stays short."""

_position = attrgetter("position")
# Its handler sends on its own beside us; or the stream is over, as its task finds too.
_NOT_TAKEN: Final = (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError)


_NO_OFFERS: Final[dict[int, tuple[Batch, int]]] = {}


@final
class Windows:
    """What the feeds of one hub share: a bound on their windows, and the last batch.

    Ten thousand subscribers with a topic of their own and one in common are ten
    thousand feeds; an event of the common topic is still joined and framed once.
    """

    __slots__ = (
        "_batch",
        "_records",
        "alone",
        "delivered",
        "delivered_bytes",
        "head",
        "max_records",
        "passes",
        "ready",
        "records",
    )

    def __init__(self, max_records: int) -> None:
        self.max_records = max_records
        self.records = 0
        """Records in all windows; one that stands in several counts in each."""
        self.head = 0
        """The newest position that every feed was asked about; 0 before the first."""
        self.alone: Sequence[Record] = ()
        """The record that came last, see `Feed.window`."""
        self._records: Sequence[Record] = ()
        self._batch: Batch | None = None
        self.ready = 0
        """Subscribers in all feeds: summing them up would take as long as there are feeds."""
        self.delivered = 0
        """Events given by the sweep, each as often as there were subscribers for it."""
        self.delivered_bytes = 0
        self.passes = Histogram()
        """Seconds from a pass's begin to its end; of lone subscribers in a row, their mean."""

    def count(self, batch: Batch, given: int) -> None:
        """Count a batch that so many took."""
        self.delivered += given * batch.count
        self.delivered_bytes += given * len(batch.payload)

    def batch(self, records: Sequence[Record]) -> Batch:
        """Return the joined frames of some records."""
        if len(records) == 1:
            return records[0].batch
        if self._batch is None or records != self._records:
            self._records = records
            self._batch = Batch([record.frame for record in records])
        return self._batch


@final
class Feed:
    """A window of records and the subscribers that are up to date with it."""

    __slots__ = (
        "_floor",
        "_next",
        "_offers",
        "_offers_to",
        "_order",
        "_pass_began",
        "_windows",
        "allow",
        "dirty",
        "passing",
        "ready",
        "selection",
        "window",
    )

    def __init__(self, selection: Selection, allow: Selection, windows: Windows) -> None:
        self.selection = selection
        self.allow = allow
        self.ready: dict[Subscriber, None] = {}
        self.dirty = False
        """Whether it stands in the sweep's queue."""
        self.window: Sequence[Record] = ()
        """Records that are left to sweep. One alone stands in a tuple that all feeds share: an
        event may land in ten thousand of them, and a list is memory to get and to give back."""
        self._windows = windows
        # Kept from pass to pass: a new list of ten thousand is gone through by each of
        # the next garbage collections of the young, milliseconds at a time.
        self._order: list[Subscriber] | None = None
        self.passing: list[Subscriber] | None = None
        self._pass_began = 0.0
        self._next = 0
        """During a pass: the index of the next to be visited."""
        self._offers: dict[int, tuple[Batch, int]] = _NO_OFFERS
        self._offers_to = 0
        """What there is for each position where members of this pass stand, and the head it is
        for: most stand at one, some at another where the slices shifted."""
        self._floor = 0
        """During a pass: the position up to which everybody will have everything."""

    def __repr__(self) -> str:
        return f"<Feed of {self.selection!r}: {len(self.ready)} ready, {len(self.window)} waiting>"

    def allows(self, record: Record) -> bool:
        """Whether its subscribers may see a record that they selected."""
        return not record.private or self.allow.matches(record.topics)

    def add(self, subscriber: Subscriber) -> None:
        """Make a subscriber ready; its position must be the head of the log."""
        self.ready[subscriber] = None
        self._windows.ready += 1
        self._order = None
        subscriber.feed = self

    def remove(self, subscriber: Subscriber) -> None:
        """Forget a subscriber; a pass under way skips it.

        Its position is raised up to what it lacks. Being ready it moves by sends only, so it may
        stand far behind records that weren't for it, and retention, which marks topics and
        knows no rights, would make a gap of them.
        """
        del self.ready[subscriber]
        self._windows.ready -= 1
        self._order = None
        lacking = bisect_right(self.window, subscriber.position, key=_position)
        if lacking < len(self.window):
            subscriber.position = self.window[lacking].position - 1
        else:
            subscriber.position = max(subscriber.position, self._windows.head)

    def append(self, record: Record) -> bool:
        """Add a record for the ready subscribers; `True` if the sweep is to be told.

        Where all windows together are full, this one is dropped: its subscribers
        go on from the log, each by its own task.
        """
        windows = self._windows
        if windows.records >= windows.max_records:
            # Before it is dropped: it tells where each of them stands.
            for subscriber in list(self.ready):
                subscriber.leave_feed()
            self.clear()
        if not self.ready:
            return False
        windows.records += 1
        if isinstance(self.window, list):
            self.window.append(record)
        elif self.window:
            self.window = [*self.window, record]
        else:
            if not windows.alone or windows.alone[0] is not record:
                windows.alone = (record,)
            self.window = windows.alone
        was_dirty, self.dirty = self.dirty, True
        return not was_dirty

    def clear(self) -> None:
        """Drop the window, and the pass under way."""
        self._windows.records -= len(self.window)
        self.window = ()
        self._drop_pass()

    def _drop_pass(self) -> None:
        self.passing = None
        self._offers, self._offers_to = _NO_OFFERS, 0

    # -- the sweep's part

    def sweep(self, visits: int) -> int:
        """Go on with the pass for a slice of so many subscribers; return how many sends it took."""
        if self.passing is None and not self._begin_pass():
            return 0
        assert self.passing is not None, "begun just now"
        members = self.passing[self._next : self._next + visits]
        self._next += visits
        sends = self._give(members)
        if len(members) < visits:
            self._end_pass()
        return sends

    def _give(self, members: Sequence[Subscriber]) -> int:
        """Send each what it lacks; return how many sends that took.

        All in one loop, as a hub does nothing as often: with four calls fewer a send took 0.6 to
        1.0 µs beside the kernel's part, instead of 2.1 to 2.6.
        """
        head = self.window[-1].position
        if head != self._offers_to:
            self._offers, self._offers_to = {}, head
        offers = self._offers
        sends = reached = given = 0
        at, offer = -1, None
        for subscriber in members:
            position = subscriber.position
            if position >= head or subscriber.feed is not self:
                continue
            sends += 1
            if position != at:
                if offer is not None:
                    self._windows.count(offer, given)
                at, given = position, 0
                if position not in offers:
                    offers[position] = self._offer(position)
                offer, reached = offers[position]
            assert offer is not None, "no position is negative"
            try:
                idle = subscriber.send(offer)
            except _NOT_TAKEN:
                subscriber.leave_feed()
                continue
            given += 1
            subscriber.position = reached
            if not idle:
                subscriber.leave_feed()
        if offer is not None:
            self._windows.count(offer, given)
        return sends

    def _begin_pass(self) -> bool:
        if not self.ready:
            self.clear()
        if not self.window:
            return False
        self._floor = self.window[-1].position
        if self._order is None:
            self._order = list(self.ready)
        self.passing = self._order
        self._pass_began = perf_counter()
        self._next = 0
        return True

    def _end_pass(self) -> None:
        self._windows.passes.add(perf_counter() - self._pass_began)
        window = self.window
        if self._floor >= window[-1].position:
            self.clear()
            return
        cut = bisect_right(window, self._floor, key=_position)
        self.window = window[cut:]
        self._windows.records -= cut
        self._drop_pass()

    def _offer(self, position: int) -> tuple[Batch, int]:
        """Return what one send gives a subscriber at that position, and where it stands then."""
        first = bisect_right(self.window, position, key=_position)
        records = self.window[first : _fitting_end(self.window, first)]
        reached = records[-1].position
        # More than one batch is due: the window keeps the rest for the next pass.
        self._floor = min(self._floor, reached)
        return self._windows.batch(records), reached


def sweep_lone(queue: deque[Feed], windows: Windows, visits: int) -> int:
    """Serve up to so many feeds at a queue's front that have one record for one subscriber.

    Return how many those were; they have left the queue. An event may land in ten thousand such
    feeds. By a pass for each it took 8 µs more a send than to as many subscribers of one feed.
    """
    began, visited, given = perf_counter(), 0, 0
    newest: Record | None = None
    batch: Batch | None = None
    while queue and visited < visits:
        feed = queue[0]
        window = feed.window
        if len(window) != 1 or len(feed.ready) != 1 or feed.passing is not None:
            break
        queue.popleft()
        feed.dirty = False
        visited += 1
        (record,), (subscriber,) = window, feed.ready
        if subscriber.position >= record.position:
            feed.clear()
            continue
        if record is not newest or batch is None:
            if batch is not None:
                windows.count(batch, given)
            newest, batch, given = record, record.batch, 0
        try:
            idle = subscriber.send(batch)
        except _NOT_TAKEN:
            # While the record stands in the window: it is what the subscriber lacks.
            subscriber.leave_feed()
            feed.clear()
            continue
        given += 1
        feed.window = ()
        windows.records -= 1
        subscriber.position = record.position
        if not idle:
            subscriber.leave_feed()
    if batch is not None:
        windows.count(batch, given)
    if visited:
        windows.passes.add((perf_counter() - began) / visited, visited)
    return visited


def _fitting_end(window: Sequence[Record], first: int) -> int:
    """The index behind the last record of one batch: at least one, then up to the byte bound."""
    size = 0
    for index in range(first, len(window)):
        size += len(window[index].frame)
        if size > MAX_BATCH_BYTES and index > first:
            return index
    return len(window)
