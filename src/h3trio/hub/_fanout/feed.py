"""`Subscriber` and `Feed`: one subscription inside the hub, and those that share a window.

A subscriber is *ready* or not. A ready one stands in a feed, and the sweep writes to its sink,
while its own task is parked in `Hub.subscribe`. Otherwise that task is awake and brings it forward
at its client's pace, out of the log.

A feed is a window on the log for the ready subscribers of one selection and one set of rights: the
records that they still have to get. Publishing appends to the window once, whatever the number of
subscribers. A *pass* goes round them in slices: each gets everything from its cursor to the head
in one send, and a slice shares one batch. At low rates a send carries one event, under load many,
so batching comes by itself.

The head is looked at anew for each slice. Frozen for the whole pass instead, an event that comes
during a pass would wait for the next one to begin: two rounds of latency where this takes one. The
records that were in the window when a pass began have reached everybody when it ends, and are cut
off then.

A subscriber whose sink took less than everything leaves the feed, and comes back when its own task
has brought it to the head. So a window never waits for a slow client. So does one whose sink raised
an error, whatever it is: its handler sends on its own beside us, or the stream is over, or the sink
has a bug, as its task finds too.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from dataclasses import KW_ONLY, dataclass, field
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._tasks import own_error
from h3trio._wire.batch import Batch

from .latency import Histogram

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from h3trio._wire.batch import FrameSink
    from h3trio.hub._history.record import Record
    from h3trio.hub._history.selection import Selection

    from .subscription import EndReason

MAX_BATCH_BYTES: Final = 64 * 1024
"""Bytes of one send at most, or one event: a slow client is owed one batch, and a short turn of the
sweep stays short."""

MAX_SINGLE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the batches of one record that are kept for the next feed, or one."""
_BATCH_BYTES: Final = 200
"""Bytes of a batch without its frame."""

_position = attrgetter("position")
_NO_OFFERS: Final[dict[int, tuple[Batch, int]]] = {}


@final
@dataclass(slots=True, eq=False, repr=False)
class Subscriber:
    """One subscription inside the hub: a cursor, a sink, and the task that waits."""

    sink: FrameSink
    _: KW_ONLY
    selection: Selection
    allow: Selection
    info: Mapping[str, object]
    send: Callable[[Batch], bool] = field(init=False)
    """The sink's method, bound once: the sweep calls it for each batch."""
    position: int = 0
    is_placed: bool = False
    """Whether its position is known: a history may have to look its client's id up."""
    gap_seen: int = 0
    """The newest removed position that its client was told of."""
    last_id: int = 0
    """On the way from its start: the position of the last id that its client was sent."""
    has_lost: bool = False
    """Whether the store lost something that its client was sent, of which it has yet to be told."""
    cursor_at: int = -1
    """The position of the last cursor that it was sent as an event."""
    wants_cursor: bool = False
    """Whether its client reads no headers, and is sent cursors as events."""
    truncated: bool = False
    """Whether it began later than its client asked for."""
    may_be_complete: bool = False
    """Whether its topics are to be asked if all of them are closed."""
    feed: Feed | None = None
    """The feed in which it is ready."""
    end_reason: EndReason | None = None
    since: float = field(default_factory=time.time)
    _scope: trio.CancelScope | None = None
    _task: trio.lowlevel.Task | None = None

    def __post_init__(self) -> None:
        self.send = self.sink.send_batch_nowait

    def __repr__(self) -> str:
        state = "ready" if self.feed else "catching up"
        return f"<Subscriber to {self.selection!r}: at {self.position}, {state}>"

    def end(self, reason: EndReason) -> None:
        """End the subscription, whatever its task waits for; the first reason counts."""
        if self.end_reason is None:
            self.end_reason = reason
            if self._scope is not None:
                self._scope.cancel(reason=reason.value)
            self.leave_feed()

    def interrupt_by(self, scope: trio.CancelScope | None) -> None:
        """Let `end` cancel a scope that was entered just now; `None` once that is left.

        There is none while parked: thousands are, for hours.
        """
        self._scope = scope
        if scope is not None and self.end_reason is not None:
            scope.cancel(reason=self.end_reason.value)

    def leave_feed(self) -> None:
        """Be ready no more; the parked task takes over."""
        if self.feed is not None:
            self.feed.remove(self)
            self.feed = None
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    def park(self) -> Awaitable[object]:
        """Wait, as the subscription's own task, while the sweep does the work.

        A plain function that returns Trio's coroutine, with a method to abort: an `async`
        one with a closure is 400 bytes more for each idle subscriber.
        """
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._unparked_by_cancel)  # noqa: ASYNC105 - the caller awaits it

    def _unparked_by_cancel(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


@final
@dataclass(slots=True, eq=False, repr=False)
class FanoutState:
    """The state that all feeds of one hub share: the bound on their windows, and their counts.

    Ten thousand subscribers with a topic of their own and one in common are ten thousand feeds; an
    event of the common topic is still joined and framed once.
    """

    max_records: int
    """Records in all windows together, at most."""
    max_bytes: int = 64 * 1024 * 1024
    """Bytes of frames by which a window may begin behind the newest record."""
    records: int = 0
    """Records in all windows; one that stands in several counts in each."""
    head: int = 0
    """The newest position that every feed was asked about; 0 before the first."""
    single: Sequence[Record] = ()
    """The record that came last, see `Feed.window`."""
    _records: Sequence[Record] = ()
    _batch: Batch | None = None
    _single: dict[int, Batch] = field(default_factory=dict[int, Batch])
    """The newest batches of one record, by its position."""
    _single_bytes: int = 0
    ready: int = 0
    """Subscribers in all feeds: summing them up would take as long as there are feeds."""
    delivered: int = 0
    """Events given by the sweep, each as often as there were subscribers for it."""
    delivered_bytes: int = 0
    """Bytes of their frames."""
    passes: Histogram = field(default_factory=Histogram)
    """Seconds from a pass's begin to its end; of single feeds in a row, their mean."""

    def cut(self, position: int) -> None:
        """Forget what was behind a position: other records will have their places."""
        self.head = min(self.head, position)
        self.single = self._records = ()
        self._batch = None
        self._single.clear()
        self._single_bytes = 0

    def count(self, batch: Batch, given: int) -> None:
        """Count a batch that some subscribers took, `given` of them."""
        self.delivered += given * batch.count
        self.delivered_bytes += given * len(batch.payload)

    def batch(self, records: Sequence[Record]) -> Batch:
        """Return the joined frames of some records."""
        if len(records) == 1:
            return self.batch_of(records[0])
        if self._batch is None or records != self._records:
            self._records = records
            self._batch = Batch([record.frame for record in records])
        return self._batch

    def batch_of(self, record: Record) -> Batch:
        """Return a record's frame as a batch, made once however many feeds it lands in.

        The newest are kept here and not with their records: those stay for as long as the history
        lasts, and a batch is as large as its frame.
        """
        batch = self._single.get(record.position)
        if batch is None:
            batch = self._single[record.position] = Batch((record.frame,))
            self._single_bytes += _BATCH_BYTES + len(batch.chunked)
            while self._single_bytes > MAX_SINGLE_BYTES and len(self._single) > 1:
                oldest = self._single.pop(next(iter(self._single)))
                self._single_bytes -= _BATCH_BYTES + len(oldest.chunked)
        return batch


@final
@dataclass(slots=True, eq=False, repr=False)
class Feed:
    """A window of records, and the ready subscribers that still have to get them."""

    selection: Selection
    allow: Selection
    _state: FanoutState
    ready: dict[Subscriber, None] = field(default_factory=dict[Subscriber, None])
    """Its subscribers, in the order in which they came."""
    dirty: bool = False
    """Whether it stands in the sweep's queue."""
    window: Sequence[Record] = ()
    """Records that are left to sweep. A single one stands in a tuple that all feeds share: an
    event may land in ten thousand of them, and a list is memory to get and to give back."""
    # Kept from pass to pass: the next garbage collections of the young would go through
    # each new list of ten thousand.
    _order: list[Subscriber] | None = None
    passing: list[Subscriber] | None = None
    """The subscribers of the pass under way."""
    _pass_began: float = 0.0
    _next: int = 0
    """During a pass: the index of the next to be visited."""
    _offers: dict[int, tuple[Batch, int]] = field(default_factory=lambda: _NO_OFFERS)
    _offers_to: int = 0
    """A batch for each position at which members of this pass stand, and the head it leads to:
    most stand at one position, some at another if the slices shifted."""
    _floor: int = 0
    """During a pass: the position up to which everybody will have everything."""
    closing: list[Subscriber] | None = None
    """Those who go back to their own tasks once the window is empty, as a topic was closed."""
    _asked: tuple[tuple[str, ...], bool] = ((), False)
    """The topics of the last private record, and whether its subscribers may see it."""

    def __repr__(self) -> str:
        return f"<Feed of {self.selection!r}: {len(self.ready)} ready, {len(self.window)} waiting>"

    def selects(self, topic: str) -> bool | None:
        """Whether its subscribers selected a topic.

        `None` if a matcher raised an error, which is theirs and not the hub's: they go on from the
        log, and meet it in their own tasks.
        """
        try:
            return self.selection.matches_topic(topic)
        except BaseException as exc:  # noqa: BLE001 - a matcher of the application's may raise anything
            own_error(exc)
            self.release()
            return None

    def allows(self, record: Record) -> bool:
        """Whether its subscribers may see a record that they selected; as in `selects`."""
        if not record.private:
            return True
        # Most private records of a feed have the same topics, and there may be many matchers.
        if record.topics != self._asked[0]:
            try:
                self._asked = record.topics, self.allow.matches(record.topics)
            except BaseException as exc:  # noqa: BLE001 - as above
                own_error(exc)
                self.release()
                return False
        return self._asked[1]

    def release(self) -> None:
        """Give its subscribers back to their own tasks, which go on from the log."""
        # Before the window is dropped: it tells the position of each of them.
        for subscriber in list(self.ready):
            subscriber.leave_feed()
        self.clear()

    def add(self, subscriber: Subscriber) -> None:
        """Make a subscriber ready; its position must be the head of the log."""
        self.ready[subscriber] = None
        self._state.ready += 1
        self._order = None
        subscriber.feed = self

    def remove(self, subscriber: Subscriber) -> None:
        """Forget a subscriber; a pass under way skips it.

        Its position is raised up to the first record that it lacks. While ready it moves by sends
        only, so it may stand far behind records that weren't for it, below a floor of the gaps.
        """
        del self.ready[subscriber]
        self._state.ready -= 1
        self._order = None
        lacking = bisect_right(self.window, subscriber.position, key=_position)
        if lacking < len(self.window):
            subscriber.position = self.window[lacking].position - 1
        else:
            subscriber.position = max(subscriber.position, self._state.head)

    def append(self, record: Record) -> bool:
        """Add a record for the ready subscribers; return whether the sweep is to be told.

        If all windows together are full, this one is dropped: its subscribers go on from the log,
        each by its own task.
        """
        state = self._state
        if state.records >= state.max_records:
            self.release()
        if not self.ready:
            return False
        state.records += 1
        if isinstance(self.window, list):
            self.window.append(record)
        elif self.window:
            self.window = [*self.window, record]
        else:
            if not state.single or state.single[0] is not record:
                state.single = (record,)
            self.window = state.single
        was_dirty, self.dirty = self.dirty, True
        return not was_dirty

    def close_topic(self) -> bool:
        """Give its subscribers back behind the record that closed a topic.

        Slice by slice, as there may be thousands: each ends, or comes back if another topic is
        open. Return whether the sweep is to be told.
        """
        self.closing = list(self.ready)
        for subscriber in self.closing:
            # Now: one may leave by itself with that record in its sink.
            subscriber.may_be_complete = True
        was_dirty, self.dirty = self.dirty, True
        return not was_dirty

    def clear(self) -> None:
        """Drop the window, and the pass under way."""
        self._state.records -= len(self.window)
        self.window = ()
        self.closing = None
        self._drop_pass()

    def _drop_pass(self) -> None:
        self.passing = None
        self._offers, self._offers_to = _NO_OFFERS, 0

    # -- the sweep's part

    def sweep(self, visits: int) -> int:
        """Go on with the pass for a slice of `visits` subscribers; return the number of sends."""
        if self.passing is None and not self._begin_pass():
            return 0 if self.closing is None else self._give_back(self.closing, visits)
        assert self.passing is not None, "begun just now"
        members = self.passing[self._next : self._next + visits]
        self._next += visits
        sends = self._give(members)
        if len(members) < visits:
            self._end_pass()
        return sends

    def _give_back(self, closing: list[Subscriber], visits: int) -> int:
        """Give back the next of those for whom a topic was closed; return how many."""
        members = closing[-visits:]
        del closing[-visits:]
        self.closing = closing or None
        for subscriber in members:
            if subscriber.feed is self:
                subscriber.leave_feed()
        return len(members)

    def _give(self, members: Sequence[Subscriber]) -> int:
        """Send each the records that it lacks; return the number of sends.

        All in one loop without a call of ours, as a hub does nothing as often.
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
                    self._state.count(offer, given)
                at, given = position, 0
                if position not in offers:
                    offers[position] = self._offer(position)
                offer, reached = offers[position]
            assert offer is not None, "no position is negative"
            try:
                idle = subscriber.send(offer)
            except BaseException as exc:  # noqa: BLE001 - whatever a sink raises is its subscription's
                own_error(exc)
                subscriber.leave_feed()
                continue
            given += 1
            subscriber.position = reached
            if not idle:
                subscriber.leave_feed()
        if offer is not None:
            self._state.count(offer, given)
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
        self._state.passes.add(perf_counter() - self._pass_began)
        cut = bisect_right(self.window, self._floor, key=_position)
        self._state.records -= cut
        self.window = self.window[cut:] or ()
        self._drop_pass()

    def _offer(self, position: int) -> tuple[Batch, int]:
        """Return the batch for a subscriber at that position, and its position afterwards."""
        first = bisect_right(self.window, position, key=_position)
        records = self.window[first : _fitting_end(self.window, first)]
        reached = records[-1].position
        # If more than one batch is due, the window keeps the rest for the next pass.
        self._floor = min(self._floor, reached)
        return self._state.batch(records), reached


def _fitting_end(window: Sequence[Record], first: int) -> int:
    """Return the index behind the last record of one batch: at least one, up to the byte bound."""
    size = 0
    for index in range(first, len(window)):
        size += len(window[index].frame)
        if size > MAX_BATCH_BYTES and index > first:
            return index
    return len(window)
