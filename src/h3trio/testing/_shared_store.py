"""`SharedMemoryStore`: the server of a `SharedMemoryHistory`, in memory.

What the store does in one step is a function without a checkpoint. Trouble is the test's: a start
that nobody foresaw, and a replica that lags and takes the store's place.

A topic is pinned while a history pins it. Each tells all that it pins, again and again; what it
doesn't tell in time ends, as a hub may have died. A hub is a node for as long as it said.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple, final
from uuid import uuid4

import trio

from h3trio._wire.event import SSEEvent
from h3trio.hub._history.errors import HistoryError, PinnedFullError
from h3trio.hub._history.memory import MemoryHistory
from h3trio.hub._history.nodes import MAX_NODES, MAX_QUESTIONS, NodeNote
from h3trio.hub._history.record import Appended, Update
from h3trio.hub._history.retention import MAX_PINNED_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

# Under a topic that nobody knows, so that nobody closes or pins it.
_PURGE: Final = Update(SSEEvent("purge"), [str(uuid4())])

PIN_SECONDS: Final = 30.0
"""Seconds for which the store keeps pins that aren't told again: longer than a hub needs to come
back when its connection was lost."""


class _Pins(NamedTuple):
    """The topics that one history pins."""

    topics: frozenset[str]
    """Those that are pinned, as far as there was room."""
    until: float
    """The time on Trio's clock at which they end if they aren't told again."""


@final
@dataclass(slots=True, eq=False)
class _Copy:
    """The contents of a store, as they are copied to a replica."""

    memory: MemoryHistory
    run: int = 0
    """The run in which its epoch began: another may have another past."""
    pins: dict[int, _Pins] = field(default_factory=dict[int, "_Pins"])
    """Those of each history, by its number."""


class _Presence(NamedTuple):
    """One node, until a time on Trio's clock."""

    number: int
    summary: bytes
    told: float
    until: float


@final
class Question:
    """A question on its way to some nodes."""

    def __init__(self, data: bytes) -> None:
        self.data: bytes = data
        self.expected: dict[int, str] = {}
        """The nodes that haven't answered yet, by number: two may have come with one name."""
        self.answers: list[tuple[str, bytes]] = []
        self.is_answered: trio.Event = trio.Event()
        self.asker: Connection | None = None

    def take(self, name: str, number: int, answer: bytes) -> None:
        """Take an answer, unless the asker's connection is lost."""
        if self.asker is None or not self.asker.is_cut:
            self.answers.append((name, answer))
            self.expected.pop(number, None)
            if not self.expected:
                self.is_answered.set()


@final
class Connection:
    """One connection of a history to the store."""

    def __init__(self) -> None:
        self.questions: list[trio.MemorySendChannel[Question]] = []
        """The way of questions to each node that listens."""
        self.is_cut: bool = False
        self.has_news: bool = True
        self._lot = trio.lowlevel.ParkingLot()

    def wake(self, *, cut: bool = False) -> None:
        self.has_news = True
        self.is_cut = self.is_cut or cut
        for questions in self.questions if self.is_cut else ():
            questions.close()
        self._lot.unpark_all()

    @contextmanager
    def listening(self) -> Generator[trio.MemoryReceiveChannel[Question]]:
        """Get the questions that come within the block; they end when the connection is cut."""
        sender, questions = trio.open_memory_channel[Question](MAX_QUESTIONS)
        self.questions.append(sender)
        try:
            yield questions
        finally:
            self.questions.remove(sender)

    async def wait_for_news(self) -> None:
        while not (self.has_news or self.is_cut):
            await self._lot.park()
        self.has_news = False

    async def travel(self, seconds: float) -> bool:
        """Be on the way; return whether that was cut."""
        await trio.lowlevel.checkpoint()
        if seconds:
            with trio.move_on_after(seconds):
                while not self.is_cut:
                    await self._lot.park()
        return self.is_cut


@final
class SharedMemoryStore:
    """A store in memory for several `SharedMemoryHistory`: the server, where there is one.

    Args:
        max_events: updates kept, in all.
        max_topic_events: updates kept of one topic. Off by default.
        max_age: seconds after which an update is removed. Off by default.
        max_pinned_events: updates of pinned topics, beside the others; and topics that all
            histories together pin.
        clock: gives Unix time in seconds.

    Raises:
        ValueError, TypeError: a limit isn't a positive number.
    """

    def __init__(
        self,
        *,
        max_events: int = 10_000,
        max_topic_events: int | None = None,
        max_age: float | None = None,
        max_pinned_events: int = MAX_PINNED_EVENTS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.max_pinned_events: int = max_pinned_events
        """Topics that may be pinned."""
        self._clock = clock
        self._copy = _Copy(
            MemoryHistory(
                max_events=max_events,
                max_topic_events=max_topic_events,
                max_age=max_age,
                max_pinned_events=max_pinned_events,
                clock=clock,
            )
        )
        self._replica: _Copy | None = None
        self._run = 1
        self._connections: set[Connection] = set()
        self._opening = trio.Lock()
        self._numbers = count(1)
        self._nodes: dict[str, _Presence] = {}

    def __repr__(self) -> str:
        return f"<SharedMemoryStore: {self.memory!r}, {len(self._connections)} connections>"

    @property
    def memory(self) -> MemoryHistory:
        """The records, as they are now: to be looked at."""
        return self._copy.memory

    # -- trouble

    def restart(self) -> None:
        """Cut all connections; nothing is lost, but nobody can know: a new epoch begins."""
        self._run += 1
        for connection in list(self._connections):
            self.disconnect(connection)

    def replicate(self) -> None:
        """Copy everything to the replica; it doesn't have what comes later."""
        # Not the clock, which may be a method of somebody's.
        self._replica = deepcopy(self._copy, {id(self._clock): self._clock})

    def fail_over(self) -> None:
        """Let the replica take the store's place: what came since it was copied is lost.

        Raises:
            RuntimeError: it was never copied.
        """
        if self._replica is None:
            raise RuntimeError("there is no replica: call replicate first")
        self._copy = self._replica
        self._replica = None
        self.replicate()
        self.restart()

    # -- the store's steps

    async def connect(self) -> Connection:
        """Connect a history; a new epoch begins if the store has started since the last one."""
        async with self._opening:
            memory = self.memory
            if self._copy.run == 0:
                await memory.open()
            elif self._copy.run != self._run:
                memory.epochs.begin(memory.log.head + 1)
            self._copy.run = self._run
        connection = Connection()
        self._connections.add(connection)
        return connection

    def disconnect(self, connection: Connection) -> None:
        """Cut a connection."""
        self._connections.discard(connection)
        connection.wake(cut=True)

    def tell(self) -> None:
        """Wake all followers."""
        for connection in self._connections:
            connection.wake()

    def new_number(self) -> int:
        """Return the number of a history that comes, or of a node."""
        return next(self._numbers)

    def pin(self, number: int, topics: frozenset[str]) -> frozenset[str]:
        """Take over what a history pins now; return those for which there is no room.

        Pins that others haven't told again in time end.
        """
        now, pins = trio.current_time(), self._copy.pins
        for late in [one for one, known in pins.items() if known.until < now]:
            self._unpin(pins.pop(late).topics)
        known = pins.pop(number, None)
        held = frozenset[str]() if known is None else known.topics
        self._unpin(held - topics)
        refused: set[str] = set()
        for topic in topics - held:
            try:
                self.memory.pin(topic)
            except PinnedFullError:
                refused.add(topic)
        if topics:
            pins[number] = _Pins(topics - refused, now + PIN_SECONDS)
        return frozenset(refused)

    def _unpin(self, topics: frozenset[str]) -> None:
        for topic in topics:
            self.memory.unpin(topic)

    # -- nodes

    def meet(self, name: str, number: int, summary: bytes, *, lease: float) -> list[NodeNote]:
        """Keep a node's summary for some seconds; return those of all."""
        now, nodes = trio.current_time(), self._nodes
        for gone in [known for known, presence in nodes.items() if presence.until <= now]:
            del nodes[gone]
        if name in nodes and nodes[name].number > number:
            raise HistoryError(f"another hub took the name {name!r} of this node")
        if name not in nodes and len(nodes) >= MAX_NODES:
            raise HistoryError(f"there are {MAX_NODES} nodes, there is no room for another")
        nodes[name] = _Presence(number, summary, now, now + lease)
        return [NodeNote(known, node.summary, now - node.told) for known, node in nodes.items()]

    def leave(self, name: str, number: int) -> None:
        """Forget a node that goes."""
        if name in self._nodes and self._nodes[name].number == number:
            del self._nodes[name]

    def ask(self, question: Question, asker: Connection, number: int, only: str | None) -> bool:
        """Bring a question to all nodes but the asker; return whether an answer is expected."""
        question.asker = asker
        question.expected = {
            node.number: name
            for name, node in self._nodes.items()
            if node.until > trio.current_time() and node.number != number and only in (None, name)
        }
        if not question.expected:
            question.is_answered.set()
        for connection in self._connections - {asker}:
            for questions in connection.questions:
                with suppress(trio.WouldBlock):
                    questions.send_nowait(question)
        return bool(question.expected)

    def append(
        self, updates: Sequence[Update], number: int, pins: frozenset[str]
    ) -> list[Appended]:
        """Store updates of a history, behind what it pins; answer ids and cursors."""
        memory, answers = self.memory, list[Appended]()
        full = self.pin(number, pins)
        taken = [update for update in updates if update.last or full.isdisjoint(update.topics)]
        appended = iter(memory.append_nowait(taken))
        for update in updates:
            if not update.last and not full.isdisjoint(update.topics):
                problem = "so many topics are pinned that there is no room for another"
                answers.append(Appended("", None, PinnedFullError(problem)))
                continue
            answer = next(appended)
            if answer.record is not None:
                memory.log.append(answer.record)
            # A repetition stands somewhere in front of the head.
            cursor = "" if answer.error else memory.epochs.format(memory.log.head)
            answers.append(Appended(answer.id, None, answer.error, cursor))
        self.tell()
        return answers

    def purge(self, topic: str) -> int:
        """Remove a topic's records; return how many."""
        memory = self.memory
        positions = memory.log.positions(topic)
        for position in positions:
            memory.log.remove(position)
        memory.gaps.note_purge(topic, memory.log.head)
        # Its place in the order, so that it can be waited for; no record stands there.
        (place,) = memory.append_nowait([_PURGE])
        assert place.record is not None, "it has no key"
        memory.log.head = place.record.position
        self.tell()
        return len(positions)
