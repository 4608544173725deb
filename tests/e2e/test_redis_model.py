"""A history in Redis and one in memory do the same, whatever is done to both, in whatever order.

Positions differ, as a purge takes one in Redis only: what stands there is compared.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from e2e.redis_load import until
from e2e.redis_server import redis_server
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from properties.test_history_model import RIGHTS, SELECTIONS, TOPICS

from h3trio import SSEEvent
from h3trio.hub import MemoryHistory, PinnedFullError, RedisHistory, Update
from h3trio.testing._drive_history import driven

if TYPE_CHECKING:
    from h3trio.hub import History, Record

EXAMPLES = 15
# A failure isn't made smaller: each try takes as long as an example.
PHASES = (Phase.explicit, Phase.generate)

updates = st.tuples(
    st.lists(st.sampled_from(TOPICS), min_size=1, max_size=3, unique=True),
    st.sampled_from([None, None, "x", "y"]),
    st.sampled_from([None, None, None, "k", "l"]),
    st.booleans(),
    st.sampled_from(["", "", "", "", "", "event", "silence"]),
)
topics = st.sampled_from(TOPICS)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), updates),
        st.tuples(st.just("publish"), updates),
        st.tuples(st.just("publish"), updates),
        st.tuples(st.just("purge"), topics),
        st.tuples(st.just("pin"), topics),
        st.tuples(st.just("unpin"), topics),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=40,
)
limits = st.one_of(
    st.fixed_dictionaries({"max_events": st.integers(1, 12)}),
    st.fixed_dictionaries({"max_topic_events": st.integers(1, 4)}),
    st.fixed_dictionaries(
        {"max_pinned_events": st.integers(1, 4), "max_events": st.integers(2, 6)}
    ),
)


@dataclass
class One:
    """One of the two, and what stood at each of its positions."""

    history: History
    names: dict[int, str] = field(default_factory=lambda: {0: "nothing"})

    def named(self, position: int | None) -> str | None:
        """What stood there."""
        return None if position is None else self.names[position]

    async def append(self, name: str, update: Update) -> object:
        """Store an update; return what came of it."""
        (answer,) = await self.history.append([update])
        if answer.record is not None:
            if isinstance(self.history, MemoryHistory):
                self.history.log.append(answer.record)
            self.names[answer.record.position] = name
            return "stored"
        return type(answer.error) if answer.error else "repeated"

    async def read(self, after: int, selection: Any, **sizes: int) -> list[object]:  # noqa: ANN401 - a selection
        """Read all behind a position."""
        records: list[Record] = []
        more = True
        while more:
            page = await self.history.read(after, selection=selection, **sizes)
            records += page.records
            after, more = page.last, page.more
        return [
            (self.names[record.position], record.topics, record.private, record.last)
            for record in records
        ]

    async def look(self) -> list[object]:
        """Everything that a hub may ask."""
        history = self.history
        found: list[object] = [history.statistics().events, history.statistics().topics]
        found += [history.statistics().pinned_topics, history.statistics().pinned_events]
        for selection in SELECTIONS:
            found.append(await self.read(0, selection, max_records=3, max_bytes=99))
            for allow in RIGHTS:
                found.append(self.named(history.gaps.newest(selection, allow)))
        for allow, id in product(RIGHTS, "xy"):
            for selection in SELECTIONS:
                position = await history.find(id, selection=selection, allow=allow)
                found.append(self.named(position))
        for allow, topic in product(RIGHTS, TOPICS):
            found.append(await history.are_closed([topic], allow=allow))
        for allow, selection, number in product(RIGHTS, SELECTIONS, (1, 3)):
            before = await history.position_before_last(number, selection=selection, allow=allow)
            found.append(await self.read(before, selection, max_records=9, max_bytes=999))
        return found


class Pair:
    """Both, and what is done to them."""

    def __init__(self, memory: One) -> None:
        self.memory = memory
        self.redis: One
        self.pinned: list[str] = []
        self._numbers = count()

    async def publish(self, asked: Any) -> None:  # noqa: ANN401 - as it is drawn
        """Publish one update."""
        names, id, dedup, private, ends = asked
        number = next(self._numbers)
        # With a key mostly the same again: it may be a repetition.
        event = SSEEvent("same" if dedup else str(number), id=id)
        update = Update(
            None if ends == "silence" else event,
            names,
            private=private,
            dedup=dedup,
            last=bool(ends),
        )
        results = [await one.append(str(number), update) for one in (self.memory, self.redis)]
        assert results[0] == results[1]

    async def purge(self, topic: str) -> None:
        """Remove a topic."""
        results = [await one.history.purge(topic) for one in (self.memory, self.redis)]
        assert results[0] == results[1]

    async def pin(self, topic: str) -> None:
        """Pin a topic, if there is room."""
        errors = []
        for one in (self.memory, self.redis):
            try:
                one.history.pin(topic)
            except PinnedFullError as exc:
                errors.append(exc)
        assert len(errors) in (0, 2)
        if not errors:
            self.pinned.append(topic)
        await self.wait_pinned()

    async def unpin(self, topic: str) -> None:
        """Undo that once."""
        if topic in self.pinned:
            self.pinned.remove(topic)
            for one in (self.memory, self.redis):
                one.history.unpin(topic)
            await self.wait_pinned()

    async def wait_pinned(self) -> None:
        """Wait until the store is told: by the follower, soon."""

        async def is_told() -> bool:
            told = self.redis.history.statistics().pinned_topics
            return told == len(set(self.pinned))

        await until(is_told)

    async def play(self, script: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Do steps until one that opens the history anew; return the rest."""
        while script:
            (name, value), *script = script
            if name == "reopen":
                break
            await getattr(self, name)(value)
            assert await self.memory.look() == await self.redis.look()
        for topic in [*self.pinned]:
            await self.unpin(topic)
        return script


async def compare(folder: Path, script: list[tuple[str, Any]], options: dict[str, Any]) -> None:
    """Take both through a script, and compare after each step."""
    async with redis_server(folder) as server, MemoryHistory(**options) as memory:
        pair, names = Pair(One(memory)), {0: "nothing"}
        is_first = True
        while script or is_first:
            is_first = False
            async with driven(RedisHistory(server.url, tail_events=2, **options)) as followed:
                pair.redis = One(followed, names)
                assert await pair.memory.look() == await pair.redis.look()
                script = await pair.play(script)


EVENT = ("publish", (["a"], None, None, False, ""))
OTHER = ("publish", (["b"], None, None, False, ""))
BOTH = ("publish", (["a", "b"], None, None, False, ""))
CLOSE_B = ("publish", (["b"], None, None, False, "event"))
NOISE = [("publish", (["c/1"], None, None, False, ""))] * 3
CLOSE = ("publish", (["a"], None, None, False, "silence"))


@settings(max_examples=EXAMPLES, phases=PHASES)
@example([EVENT, EVENT, CLOSE], {"max_topic_events": 2})
@example([("pin", "a"), EVENT, CLOSE, ("unpin", "a"), OTHER], {"max_events": 1})
@example([("pin", "a"), BOTH, CLOSE_B, *NOISE, ("unpin", "a"), *NOISE], {"max_events": 2})
@example([("pin", "a"), BOTH, CLOSE_B, *NOISE, ("purge", "a"), *NOISE], {"max_events": 2})
@example([("pin", "a"), BOTH, CLOSE_B, *NOISE], {"max_events": 2, "max_pinned_events": 1})
@example([("pin", "a"), BOTH, CLOSE_B, *NOISE, ("pin", "b"), *NOISE], {"max_events": 2})
@given(steps, limits)
def test_a_history_in_redis_is_as_one_in_memory(
    script: list[tuple[str, Any]], options: dict[str, Any]
) -> None:
    """Behind each step: what is kept, found, closed, pinned, and who has a gap."""
    with tempfile.TemporaryDirectory() as folder:
        trio.run(compare, Path(folder), script, options)
