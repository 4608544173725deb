"""Two hubs on one store: whatever happens, a subscriber sees the store's log, or is told of a gap.

As in `test_hub_histories`, Hypothesis makes a list of actions. Beside what may happen to one hub,
clients move to the other one, followers stand still or lose their connection, the store starts
again, and a replica that lags takes its place, by which the newest events are lost. Then every
stream is compared with what the store had: read from the store itself behind each action.

Topics are closed at either hub, and refused at both as long as the store has the record of that.
Whose topics all are closed is ended behind all that stood in front, comes back, and is stopped by
what stands for a 204. What a hub has pinned, and told the store in time, is kept.

What the store gives places is in one order over all of its lives: that of pairs of a *life*, which
begins when a replica takes over, and a position.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
from hub_helpers import FakeSink
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from h3trio import SSEEvent, SSEParser
from h3trio.hub import (
    EndReason,
    History,
    HistoryError,
    Hub,
    HubSettings,
    KeyReusedError,
    OutcomeUnknownError,
    Start,
    TopicClosedError,
)
from h3trio.testing import SharedMemoryHistory, SharedMemoryStore
from h3trio.testing._shared_store import PIN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from h3trio._wire.batch import Batch

TOPICS = ("a", "b", "c")
SETTINGS = HubSettings(follow_timeout=0.5)
DELAY = 0.01
TAIL = 3
REST = 100.0
"""Seconds in which a follower that failed again and again comes back, and its clients with it."""
TOPIC_EVENTS = 4
MOST_ENDS = 4
"""Times that a client may be told of the end before it is stopped: it may be told of a loss, of a
gap, and of what it was sent no id for."""

# A life of the store, and a position in it.
Place: TypeAlias = tuple[int, int]
START: Place = (-1, 0)

topics = st.lists(st.sampled_from(TOPICS), min_size=1, max_size=2, unique=True)
selections = st.one_of(topics, st.just(["*"]))
node = st.integers(min_value=0, max_value=1)
which = st.integers(min_value=0, max_value=5)
# To add what else may happen: one more row, and a method `do_NAME` of `Play`.
actions = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), node, topics),
        st.tuples(st.just("burst"), topics, st.integers(min_value=2, max_value=4)),
        st.tuples(st.just("cut_burst"), topics, node),
        st.tuples(st.sampled_from(["repeat", "end", "close"]), node, topics),
        st.tuples(st.just("pin"), node, st.sampled_from(TOPICS)),
        st.tuples(
            st.just("subscribe"),
            st.tuples(node, selections),
            st.sampled_from(["none", "oldest", "last", "unknown"]),
        ),
        st.tuples(st.sampled_from(["move", "stall", "resume", "vanish"]), which, st.none()),
        st.tuples(st.sampled_from(["hold", "release", "cut", "restart"]), node, st.none()),
        st.tuples(st.just("lose"), node, topics),
        st.tuples(st.just("purge"), node, st.sampled_from(TOPICS)),
        st.tuples(
            st.sampled_from(["replicate", "fail_over", "restart_store", "settle"]),
            st.none(),
            st.none(),
        ),
    ),
    max_size=40,
)


@dataclass
class Stored:
    """An event that the store had."""

    number: int
    topics: frozenset[str]
    place: Place
    lost: int | None = None
    """The life that began without it."""


@dataclass
class Session:
    """One connection of a client."""

    node: int
    selection: list[str]
    sink: Sink
    options: dict[str, Any]
    after: Place | None
    """The place up to which the client has everything; `None` if its id isn't known."""
    cursor: str = ""
    """The last event id that it has from before, or from the head of this stream."""
    truncated: bool = False
    told_at: Place = START
    """Up to there what is missing is no hole, as the client asked for what is left."""
    ends: int = 0
    """Times that it was told of the end, without an event since."""
    is_busy: bool = True
    """Whether its begin has yet to be found."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Sink(FakeSink):
    """A sink that notes where the store was when it was given a batch."""

    def __init__(self, play: Play) -> None:
        super().__init__()
        self.places: list[Place] = []
        self._play = play

    def send_batch_nowait(self, batch: Batch) -> bool:
        """Take it, and note the head of the store."""
        idle = super().send_batch_nowait(batch)
        self.places.append(self._play.head())
        return idle

    def received(self) -> Iterator[tuple[SSEEvent, Place]]:
        """Each event, and where the store was when it was sent."""
        parser = SSEParser()
        for batch, place in zip(self.batches, self.places, strict=True):
            for event in parser.feed(batch.payload):
                if event.event != "cursor":
                    yield event, place


class Play:
    """Plays actions against two hubs."""

    def __init__(self, nursery: trio.Nursery, **limits: Any) -> None:  # noqa: ANN401 - those of the store
        self.nursery = nursery
        self.store: Any = SharedMemoryStore(**limits)
        self.is_bounded = bool(limits)
        self.has_removed = False
        self.life = 0
        self.lives: dict[str, int] = {}
        """The life in which each epoch began."""
        self.hubs: list[Hub | None] = [None, None]
        self.histories: list[Any] = []
        self.scopes = [trio.CancelScope(), trio.CancelScope()]
        self.sessions: list[Session] = []
        self.stored: list[Stored] = []
        self.ids: dict[str, Stored] = {}
        self.given: set[str] = set()
        """All ids there were."""
        self.published = 0
        self.seen = 0
        self.closes: list[tuple[Place, frozenset[str]]] = []
        """All closes there were."""
        self.pins: dict[tuple[int, str], Place | None] = {}
        """What each node pins, and where the store was once it was told."""
        self.told = [0.0, 0.0]
        """When each node last told it."""

    async def run(self, script: Sequence[tuple[str, Any, Any]]) -> None:
        """Play all, let everybody come to rest, and compare."""
        self.histories = [self.history(number) for number in range(2)]
        for number in range(2):
            await self.nursery.start(self.run_hub, number)
            self.start(number, ["*"] if number else ["a", "b"], {"first": "oldest"}, None)
        for name, first, second in script:
            await getattr(self, f"do_{name}")(first, second)
            self.look()
        for number in range(2):
            await self.do_release(number, None)
        for session in self.sessions:
            session.sink.resume()
        await self.rest(REST)
        assert not any(session.is_busy for session in self.sessions)
        for session in self.sessions:
            assert self.check(session, is_end=True) == [], "the end is missing"
        assert self.tails() == [], "a node has another end of the log"
        closed = self.closed()
        open_ = [one for one in self.sessions if not closed.issuperset(one.selection)]
        assert open_ == self.sessions, "a subscription to closed topics goes on"

    async def rest(self, seconds: float) -> None:
        """Let time pass."""
        await trio.sleep(seconds)

    def history(self, _number: int) -> History:
        """A connection of a new node."""
        return SharedMemoryHistory(self.store, delay=DELAY, tail_events=TAIL)

    async def run_hub(self, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        """Run a node until it is restarted."""
        self.scopes[number] = trio.CancelScope()
        with self.scopes[number]:
            async with Hub(self.histories[number], settings=SETTINGS) as hub:
                self.hubs[number] = hub
                task_status.started()
                await trio.sleep_forever()
        self.hubs[number] = None

    def hub(self, number: int) -> Hub:
        """A node, which runs."""
        hub = self.hubs[number]
        assert hub is not None
        return hub

    # -- what the store has

    def head(self) -> Place:
        """Where the store is."""
        return self.life, self.store.memory.log.head

    def look(self, memory: Any = None) -> None:  # noqa: ANN401 - what a store has
        """Note what the store got: after each action, before it could remove that."""
        memory = memory or self.store.memory
        for name, _first in memory.epochs:
            self.lives.setdefault(name, self.life)
        for record in memory.log:
            if record.position > self.seen:
                assert record.id not in self.given, "an id was given twice"
                self.given.add(record.id)
                if record.last:
                    place = self.life, record.position
                    self.closes.append((place, frozenset(record.topics)))
                if not record.frame:
                    continue
                (event,) = SSEParser().feed(record.frame)
                stored = Stored(
                    int(event.data or ""), frozenset(record.topics), (self.life, record.position)
                )
                self.stored.append(stored)
                self.ids[record.id] = stored
        self.seen = memory.log.head
        for (number, topic), since in self.pins.items():
            if since is not None and self.is_told(number):
                self.check_pinned(topic, since)

    def closed(self) -> set[str]:
        """The topics that are closed in the store."""
        return {t for record in self.store.memory.log if record.last for t in record.topics}

    def is_told(self, number: int) -> bool:
        """Whether the store knows for sure what a node pins."""
        return trio.current_time() < self.told[number] + PIN_SECONDS

    def check_pinned(self, topic: str, since: Place) -> None:
        """What is of one pinned topic alone is kept, but for the limit of that."""
        kept = {record.id for record in self.store.memory.log}
        newest = [(id, one) for id, one in self.ids.items() if topic in one.topics]
        for id, stored in newest[-TOPIC_EVENTS:]:
            if stored.topics == {topic} and stored.place > since and stored.lost is None:
                assert id in kept, "a pinned event is gone"

    def place_of(self, cursor: str) -> Place | None:
        """The place that a cursor means; `None` if it is none of ours."""
        epoch, _, position = cursor.rpartition("-")
        return (self.lives[epoch], int(position)) if epoch in self.lives else None

    def tails(self) -> list[object]:
        """What the nodes have in memory and the store doesn't, or they lack at the end of it."""
        log = self.store.memory.log
        kept = {record.position: record.frame for record in log}
        wrong: list[object] = []
        for history in self.histories:
            wrong += [r for r in history.log if kept.get(r.position) != r.frame]
            if history.log.head != log.head:
                wrong.append(history)
        return wrong

    # -- actions

    async def publish(self, number: int, names: list[str], **options: Any) -> None:  # noqa: ANN401 - those of `publish`
        """Publish one event, numbered."""
        self.published += 1
        closed = self.closed().intersection(names)
        was_told = self.is_told(number)
        try:
            await self.hub(number).publish(str(self.published), topics=names, **options)
        except TopicClosedError:
            assert closed, "an open topic is refused"
            return
        except (OutcomeUnknownError, KeyReusedError):
            return
        assert not closed or "dedup" in options, "a closed topic isn't refused"
        self.told[number] = trio.current_time()
        for pin, since in self.pins.items():
            if pin[0] == number and (since is None or not was_told):
                self.pins[pin] = self.head()

    async def do_publish(self, number: int, names: list[str]) -> None:
        """Publish at a node."""
        await self.publish(number, names)

    async def do_burst(self, names: list[str], count: int) -> None:
        """Publish at both nodes at once."""
        async with trio.open_nursery() as publishers:
            for number in range(count):
                publishers.start_soon(self.publish, number % 2, names)

    async def do_cut_burst(self, names: list[str], number: int) -> None:
        """Publish at both nodes, and cut one: what comes of it isn't known."""
        async with trio.open_nursery() as publishers:
            for node in range(2):
                publishers.start_soon(self.publish, node, names)
            await self.rest(1.5 * DELAY)
            await self.do_cut(number, None)

    async def do_repeat(self, number: int, names: list[str]) -> None:
        """Publish under a key, of which the first event counts."""
        await self.publish(number, names, dedup="k")

    async def do_end(self, number: int, names: list[str]) -> None:
        """Publish the last event of some topics."""
        await self.publish(number, names, last=True)

    async def do_close(self, number: int, names: list[str]) -> None:
        """Close topics without an event."""
        with contextlib.suppress(OutcomeUnknownError):
            await self.hub(number).close(*names)
            assert self.closed().issuperset(names)

    async def do_pin(self, number: int, topic: str) -> None:
        """Pin a topic at a node, or undo that."""
        if (number, topic) in self.pins:
            del self.pins[number, topic]
            self.histories[number].unpin(topic)
        else:
            self.pins[number, topic] = None
            self.histories[number].pin(topic)

    def forget_pins(self, topic: str | None = None) -> None:
        """The store may lack what was pinned until now, of one topic or of all."""
        for pin in self.pins:
            if topic in (None, pin[1]):
                self.pins[pin] = None

    async def do_subscribe(self, where: tuple[int, list[str]], start: str) -> None:
        """Subscribe with one of the kinds of ids."""
        (number, selection), ids = where, list(self.ids)
        if start == "oldest":
            self.start(number, selection, {"first": "oldest"}, None)
        elif start == "last" and ids:
            self.start(number, selection, {"last_event_id": ids[-1]}, self.place_of(ids[-1]))
        elif start in ("last", "unknown"):
            self.start(number, selection, {"last_event_id": "?"}, None)
        else:
            # From the node's own head on, which may lag.
            await self.do_release(number, None)
            await self.rest(1)
            self.start(number, selection, {}, self.head())

    def start(
        self,
        number: int,
        selection: list[str],
        options: dict[str, Any],
        after: Place | None,
        *,
        cursor: str = "",
        ends: int = 0,
    ) -> None:
        """Run a session in a task; a client whose hub lags or is away tries again."""
        session = Session(number, selection, Sink(self), options, after, cursor, ends=ends)
        is_browser = len(self.sessions) % 2 == 0
        self.sessions.append(session)

        async def run() -> None:
            with session.scope:
                while session.is_busy:
                    try:
                        hub = self.hub(session.node)
                        start = await hub.locate(selection, **options)
                    except (HistoryError, AssertionError, trio.ClosedResourceError):
                        await self.rest(1)
                        continue
                    self.note_start(session, start, after)
                    session.cursor = session.cursor or ("" if is_browser else start.cursor)
                    if start.complete:  # 204: it doesn't come back
                        self.check_end(session)
                        self.sessions.remove(session)
                        return
                    try:
                        reason = await hub.subscribe(session.sink, start, cursor=is_browser)
                        if reason == EndReason.COMPLETE:
                            self.check_end(session)
                            session.ends += 1
                            self.nursery.start_soon(self.come_back, session, session.node)
                    except trio.BrokenResourceError:
                        return
                    except (HistoryError, trio.ClosedResourceError):
                        self.nursery.start_soon(self.come_back, session, session.node)

        self.nursery.start_soon(run)

    def note_start(self, session: Session, start: Start, after: Place | None) -> None:
        """Note where a stream begins."""
        if after is None:
            session.told_at = self.head()
        if not session.options and after is not None:
            # Its hub may lag, or couldn't be asked until now.
            session.after = self.place_of(start.cursor) or START
        if "first" in session.options and not start.truncated:
            session.after, session.told_at = START, START
        session.truncated, session.is_busy = start.truncated, False

    def one(self, index: int) -> Session | None:
        """One of the sessions, if there are any."""
        return self.sessions[index % len(self.sessions)] if self.sessions else None

    async def do_move(self, index: int, _: None) -> None:
        """A client goes to the other node, with the cursor that it has."""
        if session := self.one(index):
            await self.come_back(session, 1 - session.node)

    async def come_back(self, session: Session, number: int) -> None:
        """A client connects anew, unless it has done so already."""
        session.scope.cancel()
        await trio.lowlevel.checkpoint()
        if session not in self.sessions:
            return
        self.look()
        self.check(session)
        self.sessions.remove(session)
        cursor = session.sink.last_event_id or session.cursor
        if cursor:
            options, after = {"last_event_id": cursor}, self.place_of(cursor)
        else:
            options, after = session.options, session.after
        ends = session.ends
        self.start(number, session.selection, options, after, cursor=cursor, ends=ends)

    async def do_stall(self, index: int, _: None) -> None:
        """A client stops reading."""
        if session := self.one(index):
            session.sink.stalled = True

    async def do_resume(self, index: int, _: None) -> None:
        """A client reads again."""
        if session := self.one(index):
            session.sink.resume()

    async def do_vanish(self, index: int, _: None) -> None:
        """A client is gone; what it got until then must be right."""
        if session := self.one(index):
            session.sink.vanish()
            session.scope.cancel()
            self.check(session)
            self.sessions.remove(session)

    async def do_hold(self, number: int, _: None) -> None:
        """A node's follower stands still."""
        self.histories[number].hold()

    async def do_release(self, number: int, _: None) -> None:
        """It goes on."""
        self.histories[number].release()

    async def do_cut(self, number: int, _: None) -> None:
        """A node's connection is lost."""
        self.histories[number].cut()

    async def do_restart(self, number: int, _: None) -> None:
        """A node starts again, and its clients come back to it."""
        await self.do_release(number, None)
        self.scopes[number].cancel()
        await self.rest(1)
        self.histories[number] = self.history(number)
        self.pins = {pin: since for pin, since in self.pins.items() if pin[0] != number}
        await self.nursery.start(self.run_hub, number)
        for session in [one for one in self.sessions if one.node == number]:
            await self.come_back(session, number)

    async def do_purge(self, number: int, topic: str) -> None:
        """Remove a topic."""
        self.has_removed = True
        await self.hub(number).purge(topic)
        self.forget_pins(topic)

    async def do_replicate(self, _a: None, _b: None) -> None:
        """The replica gets everything."""
        self.store.replicate()

    async def do_fail_over(self, _a: None, _b: None) -> None:
        """The replica takes over, with what it has."""
        if self.store._replica is None:  # noqa: SLF001 - else it is refused
            return
        self.has_removed = True
        self.forget_pins()
        self.store.fail_over()
        self.begin_life()

    def begin_life(self) -> None:
        """Note what the store that took over doesn't have."""
        log = self.store.memory.log
        self.life += 1
        self.seen = log.head
        kept = {record.id for record in log}
        for id, stored in self.ids.items():
            if stored.place[1] > self.seen and id not in kept and stored.lost is None:
                stored.lost = self.life

    async def do_lose(self, number: int, names: list[str]) -> None:
        """A replica takes over that lacks the last two events."""
        await self.do_replicate(None, None)
        await self.do_burst(names, 2)
        self.look()
        await self.do_fail_over(None, None)
        await self.publish(number, names)

    async def do_restart_store(self, _a: None, _b: None) -> None:
        """The store starts again, with all that it had."""
        self.store.restart()

    async def do_settle(self, _a: None, _b: None) -> None:
        """Let every task do what it can."""
        await self.rest(3)

    # -- what must hold

    def check(self, session: Session, *, is_end: bool = False) -> list[int]:
        """In order, selected, and without a hole or a loss that nobody was told of.

        Being told, or asking for what is left, excuses every hole that there was at that time.
        Returns the numbers of the events that are still to come.
        """
        numbers = {stored.number: stored for stored in self.stored}
        wanted = [
            stored
            for stored in self.stored
            if "*" in session.selection or not stored.topics.isdisjoint(session.selection)
        ]
        last = START if session.after is None else session.after
        told_at, had = session.told_at, list[Stored]()
        first = next(session.sink.received(), None)
        if session.truncated and first is not None:
            # Its head said that it gets what is left: when that is sent, which may take a while.
            told_at = max(told_at, first[1])

        def missed(before: Place) -> list[int]:
            return [
                stored.number
                for stored in wanted
                if max(last, told_at) < stored.place < before and stored.lost is None
            ]

        for event, place in session.sink.received():
            if event.event == "reset":
                had = []
                reason = json.loads(event.data or "")["reason"]
                assert reason != "lost" or self.life, "nothing was lost"
                if reason == "lost":
                    # What was removed by now is told with it, and its id stands behind that.
                    told_at = max(told_at, self.place_of(event.id or "") or START)
                else:
                    told_at = place
                    self.check_no_false_gap(session)
                if reason == "unknown":
                    last = START
                continue
            stored = numbers[int(event.data or "")]
            assert stored in wanted
            assert last < stored.place, "doubled or out of order"
            assert missed(stored.place) == [], "a hole that nobody was told of"
            untold = [one for one in had if one.lost is not None and one.lost <= stored.place[0]]
            assert untold == [], "a loss that nobody was told of"
            last = stored.place
            had.append(stored)
        assert not is_end or all(one.lost is None for one in had), "a loss at the end"
        return missed((self.life + 1, 0))

    def check_end(self, session: Session) -> None:
        """Who is told of the end has all that was in front of the closes of its topics."""
        self.look()
        missing = self.check(session)
        assert session.ends < MOST_ENDS, "it is told of the end for ever"
        assert "*" not in session.selection, "a subscription to * has no end"
        for stored in self.stored:
            topics = stored.topics.intersection(session.selection)
            behind = any(place < stored.place and topics & of for place, of in self.closes)
            assert behind or stored.number not in missing, "an event that came before the end"

    def check_no_false_gap(self, session: Session) -> None:
        """No gap is told where nothing was ever removed."""
        if session.after is not None and not self.is_bounded:
            assert self.has_removed, "a false gap"


async def play(script: list[tuple[str, Any, Any]], **limits: Any) -> None:  # noqa: ANN401 - as above
    """Play a script in a nursery of its own."""
    async with trio.open_nursery() as nursery:
        await Play(nursery, **limits).run(script)
        nursery.cancel_scope.cancel()


@given(actions)
def test_two_hubs_on_one_store_tell_every_gap(script: list[tuple[str, Any, Any]]) -> None:
    """Nothing is trimmed: each stream is its topics' log, but for what was purged or lost."""

    async def run() -> None:
        await play(script)

    trio.run(run, clock=MockClock(autojump_threshold=0))


@given(actions)
def test_two_hubs_on_a_small_store_do_the_same(script: list[tuple[str, Any, Any]]) -> None:
    """With room for six events in all and two a topic."""

    async def run() -> None:
        await play(script, max_events=6, max_topic_events=TOPIC_EVENTS)

    trio.run(run, clock=MockClock(autojump_threshold=0))
