"""`SharedMemoryHistory`: a history that several hubs of one process share, to test what that means.

`SharedMemoryStore` stands for a server, and each history for a connection to it with a follower of
its own. Time and trouble are the test's: calls take as long as it says, on Trio's clock; a follower
stands still; a connection is lost; a replica that lags takes the place of the store.

It is the reference for shared stores. `_ask` is the way to the store and back, `_take` is the whole
of a follower. What this hub pins goes to the store with each append, and by the follower, which
wakes for it. The way to the other hubs stands in `_shared_nodes`.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Final, Self, TypeVar

import trio

from h3trio._limits import check_limit
from h3trio.hub._history.epochs import Epochs
from h3trio.hub._history.errors import HistoryError, OutcomeUnknownError
from h3trio.hub._history.gaps import Gaps
from h3trio.hub._history.history import Durability, History, HistoryStatistics
from h3trio.hub._history.log import Log
from h3trio.hub._history.pins import PinnedTopics
from h3trio.hub._history.record import Page
from h3trio.hub._history.retention import MIB, Retention
from h3trio.hub._history.selection import ALL

from ._shared_nodes import SharedMemoryNodes
from ._shared_store import PIN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from h3trio.hub._history.memory import MemoryHistory
    from h3trio.hub._history.record import Appended, Record, Update
    from h3trio.hub._history.selection import Selection

    from ._shared_store import Connection, SharedMemoryStore

_T = TypeVar("_T")

_PAGE: Final = {"max_records": 100, "max_bytes": 1 * MIB}


class SharedMemoryHistory(History):
    """One hub's share in a `SharedMemoryStore`.

    Two hubs share a store so::

        store = SharedMemoryStore()
        async with Hub(SharedMemoryHistory(store)) as one, Hub(SharedMemoryHistory(store)) as other:
            ...

    Args:
        store: what it shares.
        delay: seconds for the way to the store and for the way back. Also an attribute, to be set.
        tail_events: newest updates that are in memory here too.

    Raises:
        ValueError, TypeError: a limit isn't a positive number.
    """

    is_shared: bool = True
    """It is shared."""
    durability: Durability = "memory"
    """Nothing survives the end of the process."""

    def __init__(
        self, store: SharedMemoryStore, *, delay: float = 0.0, tail_events: int = 10_000
    ) -> None:
        check_limit("tail_events", tail_events)
        self.delay: float = delay
        """Seconds for the way to the store, and for the way back."""
        self.max_age: float | None = store.memory.max_age
        """Seconds after which the store trims updates; `None` if age is no limit."""
        self._store = store
        self._tail = Retention(max_events=tail_events, max_bytes=64 * MIB)
        self.log: Log = Log(self._tail)
        """The newest part, as far as it is followed."""
        self.gaps: Gaps = Gaps()
        """The newest removed positions, as far as they are followed."""
        self.epochs: Epochs = Epochs()
        """The store's table of epochs, as far as it is followed."""
        self._is_open = False
        self._connection: Connection | None = None
        self._pinned = PinnedTopics(store.max_pinned_events)
        self._number = store.new_number()
        self._nodes: SharedMemoryNodes | None = None
        self._gate = trio.Event()
        self._gate.set()
        self._followed = trio.lowlevel.ParkingLot()
        self._noted: tuple[MemoryHistory | None, int, int] = (None, 0, 0)
        """The records whose removals are known here, and up to which counts of theirs."""

    def __repr__(self) -> str:
        return f"<SharedMemoryHistory: head {self.log.head}>"

    def beside(self, *, delay: float | None = None, tail_events: int = 10_000) -> Self:
        """Return one for another hub, which shares the same store."""
        delay = self.delay if delay is None else delay
        return type(self)(self._store, delay=delay, tail_events=tail_events)

    # -- trouble

    def hold(self) -> None:
        """Let the follower stand still: what is published comes to the store, and not to here.

        Nor does this hub answer others, or tell of itself.
        """
        if self._gate.is_set():
            self._gate = trio.Event()

    def release(self) -> None:
        """Let the follower go on."""
        self._gate.set()

    def cut(self) -> None:
        """Lose the connection: calls under way fail, and so does the follower; the next connects.

        The hub runs its follower again after a pause.
        """
        if self._connection is not None:
            self._store.disconnect(self._connection)
            self._connection = None

    # -- opening and closing

    async def open(self) -> None:
        """Connect, and load the newest part; a new epoch begins only if the store is a new one."""
        if self._is_open:
            raise trio.BusyResourceError("the history is open already")
        await self._connected()
        memory = self._store.memory
        records = list(memory.log)[-self._tail.max_events :]
        before = max((p for p in _positions(memory) if p < _first(records)), default=0)
        self.log, self.gaps, self.epochs = Log(self._tail, floor=before), Gaps(), Epochs()
        for record in records:
            self.log.append(record)
        self.log.head = memory.log.head
        self.epochs.learn(memory.epochs)
        self._noted = (None, 0, 0)
        self._note()
        self._is_open = True

    async def aclose(self) -> None:
        """Disconnect, pin nothing any more, and be no node."""
        if self._is_open:
            self._store.pin(self._number, frozenset())
            if self._nodes is not None:
                self._nodes.leave(self._store)
        self._is_open = False
        self.cut()
        await trio.lowlevel.checkpoint()

    async def _connected(self) -> Connection:
        known = self._connection
        if known is None or known.is_cut:
            new = await self._store.connect()
            # Another task may have connected meanwhile, as a lost connection ends several.
            known = self._connection
            if known is None or known.is_cut:
                known = self._connection = new
            else:
                self._store.disconnect(new)
        return known

    async def _ask(self, step: Callable[[SharedMemoryStore], _T], *, changes: bool = False) -> _T:
        """Let the store do a step, without a checkpoint; the way there and back takes `delay`."""
        await trio.lowlevel.checkpoint()
        if not self._is_open:
            raise trio.ClosedResourceError("the history is not open")
        connection = await self._connected()
        error = OutcomeUnknownError if changes else HistoryError
        if await connection.travel(self.delay):
            raise error("the connection was lost")
        answer = step(self._store)
        if await connection.travel(self.delay):
            raise error("the connection was lost")
        return answer

    # -- writing

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Store updates; the answers have no records, as those come by the follower."""

        def step(store: SharedMemoryStore) -> list[Appended]:
            return store.append(updates, self._number, self._pinned.names)

        return await self._ask(step, changes=True)

    async def purge(self, topic: str) -> int:
        """Remove a topic's records from the store; return how many."""
        return await self._ask(lambda store: store.purge(topic), changes=True)

    async def trim(self) -> int:
        """Remove records beyond the age limit from the store; return how many."""

        def step(store: SharedMemoryStore) -> MemoryHistory:
            store.pin(self._number, self._pinned.names)
            return store.memory

        removed = await (await self._ask(step)).trim()
        self._store.tell()
        return removed

    def pin(self, topic: str) -> None:
        """Pin a topic; the store is told with the next append, or by the follower."""
        if self._pinned.pin(topic):
            self._tell_pins()

    def unpin(self, topic: str) -> None:
        """Undo one `pin`; the store is told in the same way."""
        if self._pinned.unpin(topic):
            self._tell_pins()

    def _tell_pins(self) -> None:
        if self._connection is not None:
            self._connection.wake()

    # -- following

    async def follow(
        self,
        deliver: Callable[[Sequence[Record], int], None],
        lost: Callable[[int], None],
    ) -> None:
        """Deliver what the store gets; see `History.follow`."""
        connection = await self._connected()
        connection.wake()
        while True:
            # Also when it is time to tell the pins again.
            pause = PIN_SECONDS / 3 if self._pinned.names else math.inf
            with trio.move_on_after(pause):
                await connection.wait_for_news()
            is_cut = await connection.travel(self.delay)
            await self._gate.wait()
            if is_cut or connection.is_cut:
                raise HistoryError("the connection was lost")
            if self._take(deliver, lost):
                connection.wake()

    def _take(
        self,
        deliver: Callable[[Sequence[Record], int], None],
        lost: Callable[[int], None],
    ) -> bool:
        """Take over what is new, in one step; return whether there is more."""
        memory = self._store.memory
        self._store.pin(self._number, self._pinned.names)
        same = self.epochs.learn(memory.epochs)
        if same is not None and same < self.log.head:
            lost(same)
        # In front of the records: who lacks one of those that are gone is told of it first.
        self._note()
        page = memory.log.read(self.log.head, selection=ALL, **_PAGE)
        assert page is not None, "the log is whole"
        deliver(page.records, page.last)
        self._followed.unpark_all()
        return page.more

    def _note(self) -> None:
        """Take over what was removed."""
        memory = self._store.memory
        same, serial, trimmed = self._noted
        if same is not memory:
            # After a replica took over, it has counts of its own.
            serial = trimmed = 0
        self.gaps.take_over(memory.gaps, serial)
        # Most often the oldest: then these are found at once.
        counted = memory.statistics().trimmed
        gone = (record.position for record in list(self.log) if record.position not in memory.log)
        for position in islice(gone, counted - trimmed):
            self.log.remove(position)
        self._noted = memory, memory.gaps.serial, counted

    async def head(self) -> str:
        """Return the cursor at the store's head."""
        return await self._ask(lambda store: store.memory.epochs.format(store.memory.log.head))

    def join(self, name: str) -> SharedMemoryNodes:
        """Return this hub's place among those that share the store; see `History.join`."""
        self._nodes = SharedMemoryNodes(
            name,
            self._store.new_number(),
            ask=self._ask,
            connect=self._connected,
            released=self._released,
        )
        return self._nodes

    async def _released(self) -> None:
        # Each `hold` brings a new gate.
        await self._gate.wait()

    # -- reading

    async def _of_one_past(self) -> MemoryHistory:
        """Return the store's records, once the follower knows the past that they are of.

        Else positions would be taken for others, which the store has lost.
        """
        while (await self._ask(lambda store: store.memory)).epochs.current != self.epochs.current:
            await self._followed.park()
        return self._store.memory

    async def read(
        self, after: int, *, selection: Selection, max_records: int, max_bytes: int
    ) -> Page:
        """Read selected records behind a position out of the store; see `History.read`."""
        memory = await self._of_one_past()
        head = self.log.head
        if after >= head:
            return Page((), after, more=False)
        page = memory.log.read(
            after, selection=selection, max_records=max_records, max_bytes=max_bytes
        )
        assert page is not None, "the log is whole"
        # What was removed is known with the page: whoever looks at `gaps` then sees it.
        self.gaps.take_over(memory.gaps, self._noted[1])
        records = [record for record in page.records if record.position <= head]
        last = min(page.last, head)
        return Page(records, last, more=last < head)

    async def find(self, id: str, *, selection: Selection, allow: Selection) -> int | None:
        """Return the position that a publisher's id stands for; see `History.find`."""
        memory = await self._of_one_past()
        found = await memory.find(id, selection=selection, allow=allow)
        # Else the follower has to come there first; who asks is told to wait for it.
        return found if found is not None and found <= self.log.head else None

    async def are_closed(self, topics: Collection[str], *, allow: Selection) -> bool:
        """Whether all of some topics are closed; see `History.are_closed`."""
        head = self.log.head
        answers = {topic: self.log.is_closed(topic, allow=allow) for topic in topics}
        unknown = [topic for topic, answer in answers.items() if answer is None]
        if not unknown or False in answers.values():
            return not unknown and all(answers.values())
        log = (await self._of_one_past()).log
        # Not by a record that this hub has yet to get, or had yet to when it was asked: it would be
        # the topic's last.
        head = min(head, self.log.head)
        return all(
            log.is_closed(topic, allow=allow) and log.positions(topic)[-1] <= head
            for topic in unknown
        )

    async def position_before_last(
        self, count: int, *, selection: Selection, allow: Selection
    ) -> int:
        """Return the position behind which the last `count` visible records stand."""
        known = await self.log.position_before_last(count, selection=selection, allow=allow)
        if known is not None:
            return known
        while True:
            memory = await self._of_one_past()
            newest, head = memory.log.head, self.log.head
            # Those that this hub has yet to get don't count.
            beyond = sum(
                record.position > head
                and selection.matches(record.topics)
                and record.is_visible(allow)
                for record in memory.log
            )
            position = await memory.position_before_last(
                count + beyond, selection=selection, allow=allow
            )
            if (newest, head) == (memory.log.head, self.log.head):
                return position

    # -- looking

    async def health(self) -> bool:
        """Return `True`; see `History.health`.

        Raises:
            HistoryError: the connection was lost.
        """
        await self._ask(lambda _store: None)
        return True

    def statistics(self) -> HistoryStatistics:
        """Return a snapshot of what the store has; cheap."""
        return self._store.memory.statistics()


def _positions(memory: MemoryHistory) -> list[int]:
    return [record.position for record in memory.log]


def _first(records: Sequence[Record]) -> int:
    return records[0].position if records else 0
