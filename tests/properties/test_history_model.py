"""Histories against a plain list: whatever is done, in whatever order.

The model keeps every update that was ever stored, and which of them are left. A history is driven
beside it with the same steps, and after each what it says is held against the list: what is kept
and read, page by page and by every way in; who has a gap, neither missed nor false; which ids are
good and which topics closed, after restarts and restored copies too.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h3trio import SSEEvent, SSEParser
from h3trio.hub import (
    History,
    KeyReusedError,
    MemoryHistory,
    Selection,
    SQLiteHistory,
    TopicClosedError,
    Update,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from h3trio.hub import Record

AMPLE = 10**9
TOPICS = ("a", "b", "c/1", "c/2")


class Prefix:
    """Matches topics by their start."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def matches(self, topic: str, /) -> bool:
        """Whether the topic starts so."""
        return topic.startswith(self.prefix)

    def __hash__(self) -> int:
        return hash(self.prefix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefix) and other.prefix == self.prefix


SELECTIONS = (
    Selection(["*"]),
    *(Selection([topic]) for topic in TOPICS),
    Selection(["a", "c/2"]),
    Selection(TOPICS),
    Selection([Prefix("c/")]),
    Selection([Prefix("c/"), "b"]),
    Selection(["never"]),
)
RIGHTS = (Selection(), Selection(["a"]), Selection([Prefix("c/")]), Selection(["*"]))


# -- steps


@dataclass(frozen=True)
class Asked:
    """One update; `ends` says whether it closes its topics, and whether by an event."""

    topics: tuple[str, ...]
    id: str | None
    dedup: str | None
    private: bool
    size: int
    ends: str = ""

    @property
    def own_id(self) -> str | None:
        """Its id, where there is an event to have it."""
        return None if self.ends == "silently" else self.id


@dataclass(frozen=True)
class Publish:
    """Append some updates in one call."""

    updates: list[Asked]


@dataclass(frozen=True)
class Read:
    """Read everything behind a cursor, in pages."""

    cursor: int
    selection: Selection
    max_records: int
    max_bytes: int


@dataclass(frozen=True)
class Purge:
    """Remove a topic."""

    topic: str


@dataclass(frozen=True)
class Pin:
    """Pin a topic, or undo that once."""

    topic: str
    undo: bool


@dataclass(frozen=True)
class Trim:
    """Let time pass, and remove what is too old."""

    seconds: int


@dataclass(frozen=True)
class Reopen:
    """Close, and open again; between the two copy the store, or put the copy back."""

    between: str


Step: TypeAlias = Publish | Read | Purge | Pin | Trim | Reopen

UPDATES = st.builds(
    Asked,
    st.lists(st.sampled_from(TOPICS), min_size=1, max_size=3, unique=True).map(tuple),
    id=st.sampled_from([None, None, "x", "y"]),
    dedup=st.sampled_from([None, None, None, "k", "l"]),
    private=st.booleans(),
    size=st.sampled_from([0, 1, 50]),
    ends=st.sampled_from(["", "", "", "", "with an event", "silently"]),
)


def _chained(runs: list[list[Asked]]) -> list[Asked]:
    return [update for run in runs for update in run]


RUNS = st.builds(
    lambda update, count: [update] * count,
    st.builds(
        Asked,
        st.sampled_from(TOPICS).map(lambda topic: (topic,)),
        id=st.none(),
        dedup=st.none(),
        private=st.booleans(),
        size=st.just(1),
    ),
    st.integers(2, 6),
)
"""Updates of one topic alone, one after the other."""
STEPS = st.lists(
    st.one_of(
        st.builds(Publish, st.lists(UPDATES, min_size=1, max_size=4)),
        st.builds(Publish, st.lists(RUNS, min_size=1, max_size=3).map(_chained)),
        st.builds(
            Read,
            st.integers(0, 40),
            st.sampled_from(SELECTIONS),
            st.integers(1, 5),
            st.sampled_from([1, 60, AMPLE]),
        ),
        st.builds(Purge, st.sampled_from(TOPICS)),
        st.builds(Pin, st.sampled_from(TOPICS), st.booleans()),
        st.builds(Trim, st.integers(0, 30)),
        st.builds(Reopen, st.sampled_from(["nothing", "copy", "put back"])),
    ),
    max_size=20,
)


@dataclass(frozen=True)
class Limits:
    """The limits of an example. Not in all and per topic: which goes first is free."""

    max_events: int = 1000
    max_topic_events: int | None = None
    max_age: int | None = None


AGES = st.none() | st.integers(10, 40)
LIMITS = st.one_of(
    st.builds(Limits, max_events=st.integers(1, 12), max_age=AGES),
    st.builds(Limits, max_topic_events=st.integers(1, 4), max_age=AGES),
)


# -- the model


@dataclass(frozen=True)
class Entry:
    """One stored update."""

    position: int
    id: str
    asked: Asked
    data: str | None
    published: float


@dataclass
class Model:
    """Everything that was ever stored, and what of it is left."""

    limits: Limits
    batchwise: bool
    """Whether an append never removes its own records."""
    stored: list[Entry] = field(default_factory=list)
    kept: list[Entry] = field(default_factory=list)
    pinned: Counter[str] = field(default_factory=Counter)

    def copy(self) -> Model:
        """Make a backup."""
        return replace(self, stored=list(self.stored), kept=list(self.kept))

    def add(self, entries: list[Entry]) -> None:
        """Store one append's records, and keep to the limits."""
        self.stored += entries
        batches = [entries] if self.batchwise else [[entry] for entry in entries]
        for batch in filter(None, batches):
            self.kept += batch
            for topic in dict.fromkeys(t for entry in batch for t in entry.asked.topics):
                of_topic = [e for e in self.kept if topic in e.asked.topics and e.data is not None]
                self._keep(of_topic, self.limits.max_topic_events or AMPLE, batch[0].position)
            self._keep_in_all(batch[0].position)

    def _keep(self, entries: list[Entry], most: int, before: int) -> None:
        """Remove the first of some entries, so that no more than so many are left."""
        excess = [e for e in entries[: max(len(entries) - most, 0)] if e.position < before]
        self.kept = [e for e in self.kept if e not in excess]

    def is_pinned(self, entry: Entry) -> bool:
        """Whether one of its topics is."""
        return any(self.pinned[topic] for topic in entry.asked.topics)

    def may_go(self) -> list[Entry]:
        """List what the limits in all don't pass over."""
        return [
            e
            for e in self.kept
            if not self.is_pinned(e)
            # A close of another topic stays behind what is pinned.
            and not (e.asked.ends and any(self._others(e, topic) for topic in e.asked.topics))
        ]

    def _others(self, entry: Entry, topic: str) -> list[Entry]:
        older = (e for e in self.kept if e.position < entry.position)
        return [e for e in older if topic in e.asked.topics and self.is_pinned(e)]

    def _keep_in_all(self, before: int) -> None:
        counted = sum(not self.is_pinned(e) for e in self.kept)
        excess = self.may_go()[: max(counted - self.limits.max_events, 0)]
        self.kept = [e for e in self.kept if e not in excess or e.position >= before]

    def purge(self, topic: str) -> int:
        """Remove a topic; return how many."""
        before = len(self.kept)
        self.kept = [e for e in self.kept if topic not in e.asked.topics]
        return before - len(self.kept)

    def trim(self, now: float) -> int:
        """Remove what is too old, and what a batch left over; return how many."""
        before = len(self.kept)
        if self.limits.max_age is not None:
            limit = now - self.limits.max_age
            old = [e for e in self.may_go() if e.published < limit]
            self.kept = [e for e in self.kept if e not in old]
        self._keep_in_all(AMPLE)
        return before - len(self.kept)

    def behind(self, cursor: int, selection: Selection) -> list[Entry]:
        """List what is left of a selection behind a cursor."""
        return [e for e in self.kept if e.position > cursor and selection.matches(e.asked.topics)]

    def newest_gone(self, selection: Selection, allow: Selection) -> int:
        """Return the last position of a selection whose record was visible and isn't left."""
        left = {e.position for e in self.kept}
        gone = (e for e in self.stored if e.position not in left and _sees(allow, e))
        missed = [e for e in gone if e.data is not None]
        return max((e.position for e in missed if selection.matches(e.asked.topics)), default=0)

    def closed(self, allow: Selection) -> set[str]:
        """The topics that are closed, as who has some rights may know."""
        closing = (e for e in self.kept if e.asked.ends and _sees(allow, e))
        return {topic for e in closing for topic in e.asked.topics}


# -- the driver


class Driver:
    """Takes a history and the model through the same steps."""

    def __init__(
        self, make: Callable[[Callable[[], float]], History], model: Model, folder: Path
    ) -> None:
        self.now = 1000.0
        self.history = make(lambda: self.now)
        self.model = model
        self.folder = folder
        self.good: dict[str, int] = {}
        """Ids of the hub's that are good, and their positions."""
        self.given: set[str] = set()
        self.saved: tuple[Model, dict[str, int]] | None = None

    async def run(self, steps: list[Step]) -> None:
        """Do all steps, and check after each."""
        await self.history.open()
        try:
            for step in steps:
                await self._do(step)
                self._check()
            await self._look_back()
        finally:
            await self.history.aclose()

    async def _do(self, step: Step) -> None:
        match step:
            case Publish():
                await self._publish(step.updates)
            case Read():
                await self._read(step)
            case Purge():
                assert await self.history.purge(step.topic) == self.model.purge(step.topic)
            case Pin(topic, undo=False):
                self.history.pin(topic)
                self.model.pinned[topic] += 1
            case Pin(topic):
                if self.model.pinned[topic]:
                    self.history.unpin(topic)
                    self.model.pinned[topic] -= 1
            case Trim():
                self.now += step.seconds
                assert await self.history.trim() == self.model.trim(self.now)
            case Reopen():
                await self.history.aclose()
                self._between(step.between)
                await self.history.open()

    async def _publish(self, updates: list[Asked]) -> None:
        known = {_key(e.asked): e for e in reversed(self.model.kept) if e.asked.dedup}
        position = len(self.model.stored)
        # With a key, mostly the same event again: it may be a repetition.
        data = [
            None
            if asked.ends == "silently"
            else f"{0 if asked.dedup else position + n}{'x' * asked.size}"
            for n, asked in enumerate(updates)
        ]
        appended = await self.history.append(
            [
                Update(
                    event=None if text is None else SSEEvent(text, id=asked.id),
                    topics=asked.topics,
                    private=asked.private,
                    dedup=asked.dedup,
                    last=bool(asked.ends),
                )
                for text, asked in zip(data, updates, strict=True)
            ]
        )
        closed = self.model.closed(RIGHTS[-1])
        entries = []
        for (id, record, error, _cursor), text, asked in zip(appended, data, updates, strict=True):
            if asked.dedup and (first := known.get(_key(asked))) is not None:
                same = _repeats(asked, first.asked)
                assert (id, record) == (first.id if same else "", None)
                assert isinstance(error, type(None) if same else KeyReusedError)
                continue
            if not closed.isdisjoint(asked.topics):
                assert (id, record, type(error)) == ("", None, TopicClosedError)
                continue
            closed.update(asked.topics if asked.ends else ())
            assert record is not None
            position += 1
            assert (record.id, record.position) == (id, position)
            entries.append(Entry(position, id, asked, text, self.now))
            if asked.dedup is not None:
                known[_key(asked)] = entries[-1]
            self._given(id, asked, position)
            self.history.log.append(record)
        self.model.add(entries)

    def _given(self, id: str, asked: Asked, position: int) -> None:
        if asked.own_id is not None:
            assert id == asked.own_id
        else:
            assert id not in self.given, "given before"
            self.given.add(id)
            self.good[id] = position

    async def _read(self, step: Read) -> None:
        wanted = self.model.behind(step.cursor, step.selection)
        for log_first in (False, True):
            records: list[Record] = []
            after, more = step.cursor, True
            while more:
                limits = {"max_records": step.max_records, "max_bytes": step.max_bytes}
                page = None
                if log_first:
                    page = self.history.log.read(after, selection=step.selection, **limits)
                if page is None:
                    page = await self.history.read(after, selection=step.selection, **limits)
                assert len(page.records) <= step.max_records
                assert page.last > after or not page.more
                records += page.records
                after, more = page.last, page.more
            assert after == max(step.cursor, len(self.model.stored))
            _compare(records, wanted)

    def _between(self, what: str) -> None:
        if not isinstance(self.history, SQLiteHistory):
            return
        path, copy = self.history.path, self.folder / "copy"
        if what == "copy":
            shutil.copy(path, copy)
            self.saved = self.model.copy(), dict(self.good)
        elif what == "put back" and self.saved is not None:
            shutil.copy(copy, path)
            pinned = self.model.pinned
            self.model, self.good = self.saved[0].copy(), dict(self.saved[1])
            self.model.pinned = pinned

    def _check(self) -> None:
        history, model, head = self.history, self.model, len(self.model.stored)
        log = history.log
        _compare(log, [e for e in model.kept if e.position > log.floor])
        assert log.head == head
        seen = history.statistics()
        topics = {topic for e in model.kept for topic in e.asked.topics}
        oldest = model.kept[0].position if model.kept else 0
        assert (seen.events, seen.topics, seen.oldest) == (len(model.kept), len(topics), oldest)
        assert seen.newest == head
        for selection, allow in product(SELECTIONS, RIGHTS):
            wanted = model.newest_gone(selection, allow)
            assert history.gaps.newest(selection, allow) == wanted
        for id in self.given:
            assert history.epochs.resolve(id, head) == self.good.get(id)
        for position in range(head + 1):
            cursor = history.epochs.format(position)
            assert history.epochs.resolve(cursor, head) == position

    async def _look_back(self) -> None:
        for selection in SELECTIONS:
            for allow in RIGHTS:
                if selection.is_exact:
                    seen = await self.history.are_closed(selection.topics, allow=allow)
                    assert seen == (selection.topics <= self.model.closed(allow))
                behind = self.model.behind(0, selection)
                visible = [e for e in behind if _sees(allow, e) and e.data is not None]
                for count in (0, 1, 3):
                    after = await self.history.position_before_last(
                        count, selection=selection, allow=allow
                    )
                    last = visible[-count:] if count else []
                    assert [e for e in visible if e.position > after] == last
                for id in ("x", "y", "z"):
                    # In each topic the newest, and of these the oldest.
                    newest: dict[str, int] = {}
                    for e in visible:
                        if e.id == id:
                            newest |= dict.fromkeys(e.asked.topics, e.position)
                    chosen = [at for t, at in newest.items() if selection.matches_topic(t)]
                    found = await self.history.find(id, selection=selection, allow=allow)
                    assert found == min(chosen, default=None)


def _key(asked: Asked) -> tuple[str | None, frozenset[str]]:
    return asked.dedup, frozenset(asked.topics)


def _repeats(asked: Asked, first: Asked) -> bool:
    if asked.ends == first.ends == "silently":
        return asked.private == first.private
    return replace(asked, topics=first.topics) == first


def _sees(allow: Selection, entry: Entry) -> bool:
    return not entry.asked.private or allow.matches(entry.asked.topics)


def _compare(records: Iterable[Record], wanted: list[Entry]) -> None:
    seen = [(r.position, r.id, r.topics, r.private, _data(r.frame), r.last) for r in records]
    assert seen == [
        (e.position, e.id, e.asked.topics, e.asked.private, e.data, bool(e.asked.ends))
        for e in wanted
    ]


def _data(frame: bytes) -> str | None:
    return SSEParser().feed(frame)[0].data if frame else None


# -- the tests


@given(LIMITS, STEPS)
async def test_a_history_in_memory_is_a_list(limits: Limits, steps: list[Step]) -> None:
    """Whatever is published, read, removed and trimmed, memory says what the list says."""

    def make(clock: Callable[[], float]) -> History:
        return MemoryHistory(
            max_events=limits.max_events,
            max_topic_events=limits.max_topic_events,
            max_age=limits.max_age,
            clock=clock,
        )

    await Driver(make, Model(limits, batchwise=False), Path()).run(steps)


async def run_sqlite(limits: Limits, steps: list[Step], tail_events: int) -> None:
    """Run one example on a file of its own."""
    with tempfile.TemporaryDirectory() as folder:

        def make(clock: Callable[[], float]) -> History:
            return SQLiteHistory(
                Path(folder) / "hub.db",
                durability="fast",
                max_events=limits.max_events,
                max_topic_events=limits.max_topic_events,
                max_age=limits.max_age,
                reserve_bytes=0,
                tail_events=tail_events,
                clock=clock,
            )

        await Driver(make, Model(limits, batchwise=True), Path(folder)).run(steps)
        with closing(sqlite3.connect(Path(folder) / "hub.db")) as db:
            query = "SELECT * FROM placed WHERE position NOT IN (SELECT position FROM records)"
            assert db.execute(query).fetchall() == []


@settings(max_examples=4)
@given(LIMITS, STEPS, st.integers(1, 20))
async def test_a_history_in_a_file_is_a_list(
    limits: Limits, steps: list[Step], tail_events: int
) -> None:
    """A file says what the list says, after restarts and restored copies too: a few examples."""
    await run_sqlite(limits, steps, tail_events)


@pytest.mark.slow
@given(LIMITS, STEPS, st.integers(1, 20))
async def test_a_history_in_a_file_is_a_list_at_length(
    limits: Limits, steps: list[Step], tail_events: int
) -> None:
    """A file says what the list says, in as many examples as the profile asks for."""
    await run_sqlite(limits, steps, tail_events)
