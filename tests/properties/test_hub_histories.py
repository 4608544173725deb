"""Histories of a hub: whatever happens, a subscriber sees its topics' log, or was told of a gap.

Hypothesis makes a list of actions: publish, close, subscribe with every kind of id, stall, resume,
vanish, reconnect, purge, restart. They are played against a hub under Trio's shuffled scheduling,
and then every stream is compared with a plain list of what was published. Half of the clients are
browsers, which have their cursor by an event, the others read it in the head of their stream.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hub_helpers import FakeSink
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from h3trio import SSEEvent, SSEParser
from h3trio.hub import (
    EndReason,
    History,
    Hub,
    KeyReusedError,
    MemoryHistory,
    Selection,
    SQLiteHistory,
    Subscription,
    TopicClosedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from h3trio._wire.batch import Batch

TOPICS = ("a", "b", "c")

topics = st.lists(st.sampled_from(TOPICS), min_size=1, max_size=2, unique=True)
selections = st.one_of(topics, st.just(["*"]))
which = st.integers(min_value=0, max_value=5)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), topics, st.none() | st.sampled_from(["x", "y"])),
        st.tuples(st.just("burst"), topics, st.integers(min_value=2, max_value=8)),
        st.tuples(st.just("repeat"), topics, st.sampled_from(["k", "l"])),
        st.tuples(
            st.just("subscribe"),
            selections,
            st.sampled_from(["none", "oldest", "last", "x", "unknown"]),
        ),
        st.tuples(st.sampled_from(["stall", "resume", "vanish", "reconnect"]), which, st.none()),
        st.tuples(st.just("end"), topics, st.none() | st.sampled_from(["x", "y"])),
        st.tuples(st.just("close"), st.sampled_from(TOPICS), st.none()),
        st.tuples(st.just("purge"), st.sampled_from(TOPICS), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
        st.tuples(st.just("settle"), st.none(), st.none()),
    ),
    max_size=40,
)


@dataclass
class Published:
    """The events that the log should hold, by position."""

    topics: list[frozenset[str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    silent: set[int] = field(default_factory=set)
    """The numbers of those that have no event and close a topic."""
    removed: bool = False

    def selected(self, selection: Sequence[str]) -> list[int]:
        """The numbers of the events that a selection means."""
        numbers = [n for n in range(len(self.topics)) if n not in self.silent]
        if "*" in selection:
            return numbers
        return [n for n in numbers if not self.topics[n].isdisjoint(selection)]


@dataclass
class Session:
    """One connection of a client, and what was published before it could see anything."""

    selection: list[str]
    sink: Sink
    after: int | None
    """The number of the last event that the client has; None if its id isn't known."""
    size: int
    """How much was published when it began."""
    cursor: str = ""
    """The last event id that it connected with, or the cursor of the stream's head."""
    truncated: bool = False
    """Whether the head said that the beginning is gone."""
    is_located: bool = False
    """Whether its begin is found: the store may have to be asked."""
    end_size: int | None = None
    """How much was published when it ended, as all of its topics were closed."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def received(self) -> Iterator[tuple[SSEEvent, int]]:
        """Each event, and how much was published when it was sent."""
        parser = SSEParser()
        for batch, size in zip(self.sink.batches, self.sink.sizes, strict=True):
            for event in parser.feed(batch.payload):
                if event.event != "cursor":
                    yield event, size


class Sink(FakeSink):
    """A sink that notes how much was published when it is given a batch."""

    def __init__(self, log: Published) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self._log = log

    def send_batch_nowait(self, batch: Batch) -> bool:
        """Take it, and note the size of the log."""
        idle = super().send_batch_nowait(batch)
        self.sizes.append(len(self._log.topics))
        return idle


def is_busy(subscription: Subscription) -> bool:
    """Whether its client has yet to take a batch."""
    sink = subscription.info["sink"]
    assert isinstance(sink, Sink)
    return sink.is_busy


class Play:
    """Plays actions against a hub."""

    def __init__(self, make: Callable[[], History], *, bounded: bool) -> None:
        self.make = make
        self.bounded = bounded
        self.log = Published()
        self.sessions: list[Session] = []
        self.closings: list[frozenset[str]] = []
        """The topics that each close names, but for those that are gone."""
        self.history: History
        self.keys: dict[tuple[str, frozenset[str]], str] = {}

    async def run(self, script: Sequence[tuple[str, Any, Any]]) -> None:
        """Play all; a restart closes the hub and opens another on the same history."""
        history = self.history = self.make()
        rest = list(script)
        while True:
            async with trio.open_nursery() as nursery:
                async with Hub(history) as hub:
                    clients, self.sessions = self.sessions, []
                    for session in clients:
                        self.come_back(hub, nursery, session)
                    await self.settle(hub)
                    rest = await self.play_until_restart(hub, nursery, rest)
                nursery.cancel_scope.cancel()
            if not rest:
                return
            if isinstance(history, SQLiteHistory):
                history = self.history = self.make()

    async def play_until_restart(
        self, hub: Hub, nursery: trio.Nursery, script: list[tuple[str, Any, Any]]
    ) -> list[tuple[str, Any, Any]]:
        """Play, let everybody catch up, compare; return what is left of the script."""
        while script:
            (name, first, second), *script = script
            if name == "restart":
                break
            await getattr(self, f"do_{name}")(hub, nursery, first, second)
        for session in self.sessions:
            session.sink.resume()
        await self.settle(hub)
        self.check()
        await self.check_resets(hub)
        await self.check_beginnings(hub)
        return script

    def number_of(self, event_id: str, selection: Sequence[str]) -> int | None:
        """The event that an id means: of the newest in each selected topic the oldest.

        None where one of those may be gone: then an older one with the same id counts.
        """
        own = re.fullmatch(r".{8}-(\d+)", event_id)
        if own is not None:
            return int(own[1]) - 1
        numbers = [n for n, each in enumerate(self.log.ids) if each == event_id]
        if len(event_id) > 1:
            return numbers[-1]  # the hub's own
        if self.bounded or self.log.removed:
            return None
        newest = {topic: n for n in numbers for topic in self.log.topics[n]}
        return min((n for t, n in newest.items() if {t, "*"} & {*selection}), default=None)

    def come_back(self, hub: Hub, nursery: trio.Nursery, session: Session) -> None:
        """Connect a client anew, with the cursor that it has."""
        cursor = session.sink.last_event_id or session.cursor
        after = self.number_of(cursor, session.selection) if cursor else session.after
        again = Session(session.selection, self.sink(), after, len(self.log.topics), cursor)
        self.start(
            hub, nursery, again, {"last_event_id": cursor} if cursor else {"first": "oldest"}
        )

    async def do_publish(
        self, hub: Hub, _: trio.Nursery, names: list[str], own: str | None, *, last: bool = False
    ) -> None:
        """Publish one event, numbered, perhaps with an id of its own."""
        is_closed = await self.are_closed(hub, names)
        event = SSEEvent(str(len(self.log.topics)), id=own)
        self.log.topics.append(frozenset(names))
        try:
            self.log.ids.append(await hub.publish(event, topics=names, last=last))
        except TopicClosedError:
            assert is_closed
            self.log.topics.pop()
        else:
            assert not is_closed
            if last:
                self.closings.append(frozenset(names))

    async def do_end(
        self, hub: Hub, nursery: trio.Nursery, names: list[str], own: str | None
    ) -> None:
        """Publish the last event of some topics."""
        await self.do_publish(hub, nursery, names, own, last=True)

    async def do_close(self, hub: Hub, _: trio.Nursery, name: str, _none: None) -> None:
        """Close a topic without an event; again is no error."""
        is_closed = await self.are_closed(hub, [name])
        if not is_closed:
            self.log.silent.add(len(self.log.topics))
            self.log.topics.append(frozenset([name]))
            self.closings.append(frozenset([name]))
        await hub.close(name)
        if not is_closed:
            self.log.ids.append(hub.last_event_id)

    async def are_closed(self, hub: Hub, names: list[str]) -> bool:
        """Whether one of some topics is closed: known, but for what retention took."""
        closed = [(await hub.locate([name])).closed for name in names]
        for name, is_closed in zip(names, closed, strict=True):
            believed = any(name in names for names in self.closings)
            assert is_closed == believed or (self.bounded and believed)
            if not is_closed:
                self.closings = [names for names in self.closings if name not in names]
        return any(closed)

    async def do_burst(self, hub: Hub, _: trio.Nursery, names: list[str], count: int) -> None:
        """Publish from several tasks at once: their order is the log's, whatever it is."""
        if await self.are_closed(hub, names):
            return
        start = len(self.log.topics)
        self.log.topics += [frozenset(names)] * count
        self.log.ids += [""] * count
        order: list[int] = []

        async def publish_one() -> None:
            # Numbered as it is stored: the first checkpoint of `publish` is before that.
            await trio.lowlevel.checkpoint()
            number: int = start + len(order)
            order.append(number)
            self.log.ids[number] = await hub.publish(str(number), topics=names)

        async with trio.open_nursery() as publishers:
            for _number in range(count):
                publishers.start_soon(publish_one)

    async def do_repeat(self, hub: Hub, _: trio.Nursery, names: list[str], key: str) -> None:
        """Publish under a key; a repetition gives the first id and stores nothing."""
        scope = (key, frozenset(names))
        known = self.keys.get(scope)
        number = len(self.log.topics)
        try:
            event_id = await hub.publish(str(number), topics=names, dedup=key)
        except KeyReusedError:
            assert known is not None
            first = str(self.log.ids.index(known))
            assert await hub.publish(first, topics=names[::-1], dedup=key) == known
            return
        except TopicClosedError:
            assert await self.are_closed(hub, names)
            return
        assert known is None or self.bounded or self.log.removed
        self.keys[scope] = event_id
        self.log.topics.append(frozenset(names))
        self.log.ids.append(event_id)

    async def do_subscribe(
        self, hub: Hub, nursery: trio.Nursery, selection: list[str], start: str
    ) -> None:
        """Subscribe with one of the kinds of ids."""
        size = len(self.log.topics)
        newest = size - 1
        if start == "none":
            self.start(hub, nursery, Session(selection, self.sink(), newest, size), {})
        elif start == "oldest":
            self.start(
                hub, nursery, Session(selection, self.sink(), None, size), {"first": "oldest"}
            )
        elif start == "last" and newest >= 0:
            after = self.number_of(self.log.ids[newest], selection)
            option = {"last_event_id": self.log.ids[newest]}
            self.start(hub, nursery, Session(selection, self.sink(), after, size), option)
        elif start == "x" and "x" in self.log.ids:
            self.start(
                hub,
                nursery,
                Session(selection, self.sink(), self.number_of("x", selection), size),
                {"last_event_id": "x"},
            )
        else:
            self.start(
                hub, nursery, Session(selection, self.sink(), None, size), {"last_event_id": "?"}
            )
        await self.settle(hub)

    def start(
        self, hub: Hub, nursery: trio.Nursery, session: Session, options: dict[str, Any]
    ) -> None:
        """Run a session in a task."""
        is_browser = len(self.sessions) % 2 == 0
        session.cursor = session.cursor or options.get("last_event_id", "")

        async def run() -> None:
            with session.scope:
                try:
                    start = await hub.locate(session.selection, **options)
                    if "first" in options and not start.truncated:
                        session.after = -1
                    session.truncated, session.is_located = start.truncated, True
                    if start.complete or not is_browser:
                        session.cursor = session.cursor or start.cursor
                    sink, reason = session.sink, EndReason.COMPLETE
                    if not start.complete:
                        info = {"sink": sink}
                        reason = await hub.subscribe(sink, start, info=info, cursor=is_browser)
                    if reason is EndReason.COMPLETE:
                        log, nothing = self.history.log, Selection()
                        for topic in session.selection:
                            assert log.is_closed(topic, allow=nothing) is not False
                        session.end_size = len(self.log.topics)
                except trio.BrokenResourceError:
                    return

        self.sessions.append(session)
        nursery.start_soon(run)

    async def settle(self, hub: Hub) -> None:
        """Wait until every client is live or stalled; a store's thread is no blocked task."""
        while True:
            await wait_all_tasks_blocked()
            if all(one.ready or is_busy(one) for one in hub.subscriptions()) and all(
                session.is_located for session in self.sessions
            ):
                return
            await trio.sleep(0.001)

    def sink(self) -> Sink:
        """A new sink."""
        return Sink(self.log)

    def one(self, index: int) -> Session | None:
        """One of the sessions, if there are any."""
        return self.sessions[index % len(self.sessions)] if self.sessions else None

    async def do_stall(self, _hub: Hub, _n: trio.Nursery, index: int, _: None) -> None:
        """A client stops reading."""
        if session := self.one(index):
            session.sink.stalled = True

    async def do_resume(self, _hub: Hub, _n: trio.Nursery, index: int, _: None) -> None:
        """A client reads again."""
        if session := self.one(index):
            session.sink.resume()

    async def do_vanish(self, hub: Hub, _n: trio.Nursery, index: int, _: None) -> None:
        """A client is gone; what it got until then must be right."""
        if session := self.one(index):
            session.sink.vanish()
            await self.settle(hub)
            self.check_order(session)
            self.sessions.remove(session)

    async def do_reconnect(self, hub: Hub, nursery: trio.Nursery, index: int, _: None) -> None:
        """A client comes back with its cursor."""
        session = self.one(index)
        if session is None:
            return
        session.scope.cancel()
        await self.settle(hub)
        self.check_order(session)
        self.sessions.remove(session)
        self.come_back(hub, nursery, session)
        await self.settle(hub)

    async def do_purge(self, hub: Hub, _: trio.Nursery, topic: str, _none: None) -> None:
        """Remove a topic."""
        self.log.removed = True
        await hub.purge(topic)
        self.closings = [names for names in self.closings if topic not in names]

    async def do_settle(self, hub: Hub, _n: trio.Nursery, _a: None, _b: None) -> None:
        """Let every task do what it can."""
        await self.settle(hub)

    # -- what must hold

    def check(self) -> None:
        """Every session has all of its log, or was told; none waits for what can't come."""
        for session in self.sessions:
            closed = [any(name in names for names in self.closings) for name in session.selection]
            assert session.end_size is not None or self.bounded or not all(closed)
            assert self.check_order(session) == [], "the end is missing"
            self.check_no_false_gap(session)

    def check_order(self, session: Session) -> list[int]:
        """In order, selected, and without a hole that nobody was told of.

        Being told, or asking for what is left, excuses every hole that there was at that time.
        Returns what is still to come.
        """
        wanted = self.log.selected(session.selection)
        last = -1 if session.after is None else session.after
        excused = session.size if session.after is None else 0
        for event, size in session.received():
            if event.event == "reset":
                assert not (session.truncated and last == -1), "the head has told it"
                excused = size
                if json.loads(event.data or "")["reason"] == "unknown":
                    last = -1  # it begins anew, with what is retained
                continue
            number = int(event.data or "")
            assert number in wanted
            assert last < number, "doubled or out of order"
            missed = [n for n in wanted if last < n < number and n >= excused]
            assert missed == [], "a hole that nobody was told of"
            last = number
        end = len(self.log.topics) if session.end_size is None else session.end_size
        return [n for n in wanted if n > last and excused <= n < end]

    async def check_resets(self, hub: Hub) -> None:
        """Who comes back with the id of a `reset` isn't told of the same gap again."""
        asked = ["?", *self.log.ids[:1], *self.log.ids[-1:]]
        for selection, id in product((["a"], ["b", "c"], ["*"]), asked):
            events = await self.read(hub, selection, last_event_id=id)
            if events and (reset := events[0]).event == "reset":
                assert json.loads(reset.data or "")["id"] == id
                again = await self.read(hub, selection, last_event_id=reset.id)
                assert all(event.event != "reset" for event in again)

    async def check_beginnings(self, hub: Hub) -> None:
        """The head of a stream tells if less is left than was asked for; a `reset` never does."""
        for selection in (["a"], ["a", "b"], ["*"]):
            published = len(self.log.selected(selection))
            left = await self.read(hub, selection, first="oldest")
            for count in (1, len(left), len(left) + 1, published, published + 1):
                wanted = min(count, published)
                start = await hub.locate(selection, first=count)
                assert start.truncated == (len(left) < wanted)
                events = await self.read(hub, selection, first=count)
                assert events == left[max(0, len(left) - wanted) :]
            start = await hub.locate(selection, first="oldest")
            assert start.truncated == (len(left) < published)

    async def read(self, hub: Hub, selection: list[str], **options: Any) -> list[SSEEvent]:  # noqa: ANN401 - those of `subscribe`
        """Subscribe until all that is left has come; return it."""
        sink = self.sink()
        subscribe = partial(hub.subscribe, sink, selection, info={"sink": sink}, **options)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscribe)
            await self.settle(hub)
            nursery.cancel_scope.cancel()
        return sink.events

    def check_no_false_gap(self, session: Session) -> None:
        """No `reset` where nothing was ever removed."""
        if session.after is not None and not self.bounded and not self.log.removed:
            assert all(event.event != "reset" for event in session.sink.events)


@given(actions)
def test_an_unbounded_memory_hub_never_tells_a_false_gap(
    script: list[tuple[str, Any, Any]],
) -> None:
    """Nothing is trimmed: every stream is exactly its topics' log from its cursor."""
    trio.run(Play(MemoryHistory, bounded=False).run, script)


@given(actions)
def test_a_small_memory_hub_tells_every_gap(script: list[tuple[str, Any, Any]]) -> None:
    """With room for four events in all and two a topic, no hole goes untold."""
    play = Play(lambda: MemoryHistory(max_events=4, max_topic_events=2), bounded=True)
    trio.run(play.run, script)


@pytest.mark.slow
@settings(max_examples=60)
@given(actions, st.booleans())
def test_a_hub_on_sqlite_does_the_same(script: list[tuple[str, Any, Any]], bounded: bool) -> None:  # noqa: FBT001 - drawn
    """Also where the store waits for a disk, and over restarts of the hub."""
    with tempfile.TemporaryDirectory() as folder:
        limits: dict[str, Any] = {"max_events": 4} if bounded else {}

        def make() -> History:
            return SQLiteHistory(Path(folder, "hub.db"), durability="fast", **limits)

        trio.run(Play(make, bounded=bounded).run, script)
