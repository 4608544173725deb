"""Hubs that share a history: a kick that travels, and what each knows of the others."""

from __future__ import annotations

import json
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hub_helpers import FakeSink, Matcher, WrappedHistory
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio.hub import (
    EndReason,
    HistoryError,
    Hub,
    HubSettings,
    Kicked,
    NodeAnswers,
    NodeNote,
    Nodes,
)
from h3trio.hub._history.nodes import MAX_NODES, MAX_SUMMARY_BYTES, check_node
from h3trio.hub._nodes import LEASE_INTERVALS, MAX_ASKING, MAX_SLOW, MAX_TOPICS
from h3trio.testing import SharedMemoryHistory, SharedMemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from trio.testing import MockClock

    from h3trio.hub import NodeStatistics, Record

INTERVAL, TIMEOUT = 5.0, 2.0
LEASE = LEASE_INTERVALS * INTERVAL


class Node:
    """One hub, and the ends of its subscriptions."""

    def __init__(self, store: SharedMemoryStore, name: str, nursery: trio.Nursery) -> None:
        self.history = SharedMemoryHistory(store)
        settings = HubSettings(node=name, node_interval=INTERVAL, node_timeout=TIMEOUT)
        self.hub = Hub(self.history, settings=settings)
        self.nursery = nursery
        self.ends: list[EndReason] = []

    async def subscribe(self, *topics: str | Matcher, **info: str) -> FakeSink:
        """Subscribe from a task of its own."""
        sink = FakeSink()

        async def run() -> None:
            self.ends.append(await self.hub.subscribe(sink, topics or ["a"], info=info))

        self.nursery.start_soon(run)
        await wait_all_tasks_blocked()
        return sink

    def die(self) -> None:
        """Lose the store, and don't come back."""
        self.history.hold()
        self.history.cut()

    def nodes(self) -> dict[str, NodeStatistics]:
        """Return what it knows of all, by name."""
        return {node.name: node for node in self.hub.statistics().nodes}


@asynccontextmanager
async def nodes_of(
    *names: str, store: SharedMemoryStore | None = None
) -> AsyncGenerator[list[Node]]:
    """Run a hub for each name, until each has met the others."""
    store = SharedMemoryStore() if store is None else store
    async with trio.open_nursery() as nursery:
        nodes = [Node(store, name, nursery) for name in names]
        for node in nodes:
            await nursery.start(node.hub.run)
        await trio.sleep(INTERVAL + 1)
        yield nodes
        nursery.cancel_scope.cancel()


# -- kicks


async def test_a_kick_travels(autojump_clock: MockClock) -> None:
    """What is described ends on every node, and the sum comes back."""
    assert autojump_clock is not None
    async with nodes_of("one", "two", "three") as nodes:
        for node in nodes:
            await node.subscribe(subject="alice")
            await node.subscribe(subject="bob")
        await nodes[0].subscribe(subject="alice")
        assert await nodes[1].hub.kick_where(subject="alice") == Kicked(count=4, silent=())
        await wait_all_tasks_blocked()
        assert [node.ends for node in nodes] == [[EndReason.KICKED] * n for n in (2, 1, 1)]
        assert [node.hub.statistics().kicked for node in nodes] == [2, 1, 1]


async def test_a_subscription_is_kicked_once() -> None:
    """One that has ended, and has yet to unwind, isn't counted again."""
    counts: list[int] = []

    async def kick(hub: Hub) -> None:
        counts.append((await hub.kick_where(topic="a")).count)

    async with Hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(hub.subscribe, FakeSink(), ["a"])
        await wait_all_tasks_blocked()
        nursery.start_soon(kick, hub)
        nursery.start_soon(kick, hub)
    assert sorted(counts) == [0, 1]


@table(
    "given, count",
    [
        ({"subject": "alice"}, 2),
        ({"subject": "carol"}, 0),
        ({"client": "10.0.0.1"}, 2),
        ({"topic": "a"}, 4),
        ({"topic": "b"}, 2),
        ({"topic": "*"}, 1),
        ({"node": "two"}, 5),
        ({"subject": "alice", "client": "10.0.0.1"}, 1),
        ({"subject": "alice", "topic": "b"}, 0),
    ],
)
async def test_all_that_is_given_has_to_fit(
    given: dict[str, str], count: int, autojump_clock: MockClock
) -> None:
    """Subject and client are those of `info`, a topic is one that a subscription gets."""
    assert autojump_clock is not None
    async with nodes_of("one", "two") as (one, two):
        await two.subscribe("a", subject="alice", client="10.0.0.1")
        await two.subscribe("a", subject="alice", client="10.0.0.2")
        await two.subscribe("*", subject="bob", client="10.0.0.1")
        await two.subscribe(Matcher("a"))
        await two.subscribe("b")
        assert await one.hub.kick_where(**given) == Kicked(count=count, silent=())
        await wait_all_tasks_blocked()
        assert len(two.ends) == count


@table("node", ["one", "two", "three"])
async def test_a_kick_on_one_node_is_for_it_alone(node: str, autojump_clock: MockClock) -> None:
    """The others end nothing, and nobody waits for them; a node that isn't there is silent."""
    async with nodes_of("one", "two") as nodes:
        for each in nodes:
            await each.subscribe()
        nodes[1 if node == "one" else 0].history.hold()
        began = autojump_clock.current_time()
        asker = nodes[0] if node == "one" else nodes[1]
        found = await asker.hub.kick_where(node=node)
        assert autojump_clock.current_time() == began
        is_known = node != "three"
        assert found == Kicked(count=is_known, silent=() if is_known else ("three",))
        await wait_all_tasks_blocked()
        assert [len(each.ends) for each in nodes] == [node == "one", node == "two"]


@table("trouble", ["held", "slow", "died", "lost", "misunderstood"])
async def test_who_does_not_answer_is_named(trouble: str, autojump_clock: MockClock) -> None:
    """The others are counted, and nobody is waited for longer than the setting says."""
    async with nodes_of("one", "two", "three") as nodes:
        for node in nodes:
            await node.subscribe(subject="alice")
        last = nodes[2]
        match trouble:
            case "held":
                last.history.hold()
            case "slow":
                last.history.delay = 1.5 * TIMEOUT
            case "died":
                last.die()
            case "lost":
                last.history.delay = TIMEOUT / 2
            case _:
                nodes_of_last = last.hub._nodes  # noqa: SLF001 - nothing else makes an error there
                nodes_of_last._subscribers = None  # type: ignore[assignment]  # noqa: SLF001 - as above
        began = autojump_clock.current_time()
        async with trio.open_nursery() as nursery:
            if trouble == "lost":
                nursery.start_soon(cut_later, last)
            found = await nodes[0].hub.kick_where(subject="alice")
        assert found == Kicked(count=2, silent=("three",))
        waited = 0 if trouble == "misunderstood" else TIMEOUT
        assert autojump_clock.current_time() == began + waited


async def cut_later(node: Node) -> None:
    """Lose the connection while the answer is on its way."""
    await trio.sleep(TIMEOUT / 4)
    node.history.cut()


async def test_who_died_is_silent_until_its_lease_is_over(autojump_clock: MockClock) -> None:
    """Then it is a node no more; one that was closed leaves at once."""
    assert autojump_clock is not None
    async with nodes_of("one", "two") as (one, two):
        async with Hub(two.history.beside(), settings=HubSettings(node="three")):
            await trio.sleep(INTERVAL)
            assert sorted(one.nodes()) == ["one", "three", "two"]
        assert await one.hub.kick_where(subject="x") == Kicked(count=0, silent=())
        two.die()
        assert (await one.hub.kick_where(subject="x")).silent == ("two",)
        await trio.sleep(LEASE + INTERVAL)
        assert await one.hub.kick_where(subject="x") == Kicked(count=0, silent=())
        assert sorted(one.nodes()) == ["one"]


async def test_a_node_that_comes_back_answers_again(autojump_clock: MockClock) -> None:
    """A connection that is lost is another one soon after."""
    assert autojump_clock is not None
    async with nodes_of("one", "two") as (one, two):
        await two.subscribe(subject="alice")
        two.history.cut()
        await trio.sleep(1)
        assert await one.hub.kick_where(subject="alice") == Kicked(count=1, silent=())
        assert two.hub.statistics().task_failures["nodes"] == 1


async def test_without_a_store_this_hub_alone_is_kicked(autojump_clock: MockClock) -> None:
    """The error says that nobody else was asked."""
    assert autojump_clock is not None
    async with nodes_of("one", "two") as (one, _):
        await one.subscribe(subject="alice")
        one.history.delay = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut_later, one)
            with pytest.raises(HistoryError):
                await one.hub.kick_where(subject="alice")
        assert one.ends == [EndReason.KICKED]


async def test_a_hub_alone_answers_for_itself() -> None:
    """Where no history is shared there is no other node, and none is listed."""
    sink = FakeSink()
    async with Hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(hub.subscribe, sink, ["a"])
        await wait_all_tasks_blocked()
        assert hub.statistics().nodes == ()
        assert await hub.kick_where(topic="a", node="x") == Kicked(count=0, silent=("x",))
        name = hub.statistics().node
        assert await hub.kick_where(topic="a", node=name) == Kicked(count=1, silent=())


async def test_a_kick_says_what_it_cannot_do() -> None:
    """Nothing to describe, what is no text or too long, and a hub that doesn't run, are errors."""
    hub = Hub()
    with pytest.raises(trio.ClosedResourceError):
        await hub.kick_where(subject="x")
    async with hub:
        wrong: Any = 5
        with pytest.raises(TypeError, match="say which"):
            await hub.kick_where()
        with pytest.raises(TypeError, match="topic is a string"):
            await hub.kick_where(topic=wrong)
        with pytest.raises(ValueError, match="16384 bytes"):
            await hub.kick_where(subject="x" * 16384)


class WithoutNodes(WrappedHistory):
    """A history that is shared, but has no way to the other hubs."""

    is_shared = True

    async def follow(
        self,
        deliver: Callable[[Sequence[Record], int], None],  # noqa: ARG002 - nothing comes
        lost: Callable[[int], None],  # noqa: ARG002 - nor goes
    ) -> None:
        """Follow nothing."""
        await trio.sleep_forever()


async def test_a_history_without_a_way_to_others_says_so() -> None:
    """A count of this hub alone would be taken for all."""
    async with Hub(WithoutNodes()) as hub:
        assert hub.statistics().nodes == ()
        with pytest.raises(NotImplementedError, match="WithoutNodes"):
            await hub.kick_where(subject="x")


async def test_many_subscriptions_are_kicked_in_turns() -> None:
    """Others run between them."""
    async with Hub() as hub, trio.open_nursery() as nursery:
        for _ in range(20):
            pattern = [Matcher(str(number)) for number in range(50)]
            nursery.start_soon(hub.subscribe, FakeSink(), pattern)
        await wait_all_tasks_blocked()
        steps = 0

        async def count() -> None:
            nonlocal steps
            while True:
                steps += 1
                await trio.lowlevel.checkpoint()

        nursery.start_soon(count)
        assert (await hub.kick_where(topic="7")).count == 20
        assert steps > 2
        nursery.cancel_scope.cancel()


# -- what comes from elsewhere


class OddNodes(Nodes):
    """A way to others that is the test's: it says what they say."""

    def __init__(self) -> None:
        self.answer: Callable[[bytes], Awaitable[bytes]] | None = None
        self.answers = NodeAnswers((), ())
        self.notes: list[NodeNote] = []
        self.summary = b""
        self.asking = 0
        self.most = 0

    async def listen(
        self,
        answer: Callable[[bytes], Awaitable[bytes]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Let the test ask."""
        self.answer = answer
        task_status.started()
        await trio.sleep_forever()

    async def meet(self, summary: bytes, *, lease: float) -> Sequence[NodeNote]:
        """Return what the test wants."""
        assert lease == LEASE
        self.summary = summary
        await trio.lowlevel.checkpoint()
        return self.notes

    async def ask(self, question: bytes, *, wait: float, only: str | None = None) -> NodeAnswers:
        """Return what the test wants, after a while."""
        assert (json.loads(question), wait, only) == ({"kick": {"subject": "x"}}, TIMEOUT, None)
        self.asking += 1
        self.most = max(self.most, self.asking)
        await trio.sleep(1)
        self.asking -= 1
        return self.answers


class WithOddNodes(WithoutNodes):
    """Its history."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = OddNodes()

    def join(self, name: str) -> Nodes:
        """Return them."""
        assert check_node(name) == name
        return self.nodes


@asynccontextmanager
async def odd() -> AsyncGenerator[tuple[Hub, OddNodes]]:
    """Run a hub with odd nodes."""
    history = WithOddNodes()
    async with Hub(history, settings=HubSettings(node_timeout=TIMEOUT)) as hub:
        await wait_all_tasks_blocked()
        yield hub, history.nodes


@table(
    "question",
    [
        b"",
        b"x",
        b"[" * 100_000,
        b"[]",
        b'{"kick": {}}',
        b'{"kick": {"subject": 5}}',
        b'{"kick": {"subject": "alice", "country": "CH"}}',
        b'{"kick": {"subject": "alice"}, "reason": "lagged"}',
        b'{"stop": {"subject": "alice"}}',
    ],
)
async def test_a_question_with_words_that_are_not_known_ends_nothing(
    question: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer node may mean fewer; it is told by an answer without a count."""
    caplog.set_level(logging.CRITICAL, "h3trio.hub")
    async with odd() as (hub, nodes), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: hub.subscribe(FakeSink(), ["a"], info={"subject": "alice"}))
        await wait_all_tasks_blocked()
        assert nodes.answer is not None
        assert await nodes.answer(question) == b""
        assert hub.statistics().subscribers == 1
        assert await nodes.answer(b'{"kick": {"subject": "alice"}}') == b'{"kicked": 1}'


async def test_an_answer_that_says_nothing_is_none(autojump_clock: MockClock) -> None:
    """Its node counts as silent, and a number that can't be is no number."""
    assert autojump_clock is not None
    async with odd() as (hub, nodes):
        said = [b"", b"[]", b'{"kicked": 2}', b'{"kicked": -9}', b'{"kicked": NaN}']
        nodes.answers = NodeAnswers([(str(n), one) for n, one in enumerate(said)], ["z"])
        assert await hub.kick_where(subject="x") == Kicked(count=2, silent=("0", "1", "z"))


async def test_a_hub_asks_so_many_at_once(autojump_clock: MockClock) -> None:
    """Further ones wait for a turn, at their caller's cost."""
    assert autojump_clock is not None
    async with odd() as (hub, nodes), trio.open_nursery() as nursery:
        for _ in range(2 * MAX_ASKING):
            nursery.start_soon(lambda: hub.kick_where(subject="x"))
        await trio.sleep(1.5)
        assert nodes.asking == nodes.most == MAX_ASKING


async def test_a_summary_of_any_kind_is_read(autojump_clock: MockClock) -> None:
    """A field that is missing or of another kind counts as zero; there are no more than allowed."""
    assert autojump_clock is not None
    async with odd() as (hub, nodes):
        rows = [{"topic": "t", "subscribers": True, "published": 3.5}, 5, {"topic": 5}]
        told = {
            "subscribers": -1,
            "ready": "x",
            "publishes": 1e400,
            "delivered": 7,
            "topics": rows * MAX_TOPICS,
            "slow": [{"client": None, "topics": "abc", "since": 5}, {"topics": [1, "a", "b", "c"]}],
            "later": {},
        }
        long = json.dumps({"delivered": 7, "later": "x" * MAX_SUMMARY_BYTES}).encode()
        texts = [b"", b"[]", b"{", json.dumps(told).encode(), long]
        nodes.notes = [NodeNote(f"n{n}", text, 1.5) for n, text in enumerate(texts)]
        nodes.notes += [NodeNote(name, b"", 0) for name in ("", "a b", "\n")]
        nodes.notes += [NodeNote(f"z{n}", b"", 0) for n in range(2 * MAX_NODES)]
        await trio.sleep(INTERVAL + 1)
        found = hub.statistics().nodes
        assert len(found) == MAX_NODES + 1 - 3
        first, last = found[0], found[3]
        assert (found[4].name, found[4].delivered) == ("n4", 0)
        assert (first.name, first.version, first.topics, first.slow) == ("n0", "", (), ())
        assert first.heard >= 1.5
        assert (last.subscribers, last.ready, last.publishes, last.delivered) == (0, 0, 0, 7)
        topics = [(row.topic, row.subscribers, row.published) for row in last.topics]
        assert topics == ([("t", 0, 3), ("", 0, 0), ("", 0, 0)] * MAX_TOPICS)[:MAX_TOPICS]
        assert [(row.client, row.topics, row.since) for row in last.slow] == [
            ("", (), 5),
            ("", ("", "a", "b"), 0),
        ]


# -- what each knows of the others


async def test_each_knows_all(autojump_clock: MockClock) -> None:
    """Counts, busiest topics and the slowest subscriptions are told every few seconds."""
    assert autojump_clock is not None
    async with nodes_of("one", "two") as (one, two):
        await one.subscribe("a", "b")
        sink = await one.subscribe("b", client="10.0.0.1", subject="alice")
        await two.subscribe("*")
        sink.stalled = True
        for number in range(4):
            await one.hub.publish(str(number), topics=["b"])
            await trio.sleep(0.1)
        await trio.sleep(2 * INTERVAL)
        found = two.nodes()
        assert found.keys() == one.nodes().keys() == {"one", "two"}
        first, second = found["one"], found["two"]
        assert (first.subscribers, first.ready, second.subscribers) == (2, 1, 1)
        assert (first.publishes, second.publishes) == (4, 0)
        assert second.delivered == 4
        assert first.newest == second.newest == 4
        assert first.version == second.version != ""
        topics = [(topic.topic, topic.subscribers, topic.published) for topic in first.topics]
        assert topics == [("b", 1, 4), ("a", 1, 0)]
        (slow,) = first.slow
        assert (slow.client, slow.topics, slow.behind > 0) == ("10.0.0.1", ("b",), True)
        assert "alice" not in repr(found)


async def test_a_node_that_is_not_heard_gets_older(autojump_clock: MockClock) -> None:
    """By the store's clock; until its time is over it stays with its last counts."""
    assert autojump_clock is not None
    async with nodes_of("one", "two") as (one, two):
        await two.subscribe()
        await trio.sleep(INTERVAL)
        two.history.hold()
        await trio.sleep(3 * INTERVAL)
        assert one.nodes()["one"].heard < 1
        assert 2 * INTERVAL < one.nodes()["two"].heard < 4 * INTERVAL + 1
        assert one.nodes()["two"].subscribers == 1


@pytest.mark.slow
async def test_a_summary_is_bounded(autojump_clock: MockClock) -> None:
    """Rows with long names are left out, and the others stay."""
    assert autojump_clock is not None
    async with odd() as (hub, nodes), trio.open_nursery() as nursery:
        for number in range(20):
            name = str(number) * 2 if number % 2 else f"{number}" + "😀" * 1000
            nursery.start_soon(hub.subscribe, FakeSink(), [name])
        await trio.sleep(INTERVAL + 1)
        assert len(nodes.summary) <= MAX_SUMMARY_BYTES
        told = json.loads(nodes.summary)
        assert 1 < len(told["topics"]) <= MAX_TOPICS
        assert len(told["slow"]) <= MAX_SLOW
        nursery.cancel_scope.cancel()


# -- names


async def test_the_newer_of_two_hubs_has_the_name(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The other says so and is listed no more, but what it is asked it does."""
    assert autojump_clock is not None
    caplog.set_level(logging.CRITICAL, "h3trio.hub")
    async with nodes_of("one", "same", "same") as (one, older, newer):
        for node in (older, newer):
            await node.subscribe(subject="alice")
        await trio.sleep(2 * INTERVAL)
        assert older.hub.statistics().task_failures["nodes"]
        assert not newer.hub.statistics().task_failures
        assert one.nodes().keys() == {"one", "same"}
        assert one.nodes()["same"].subscribers == 1
        found = await one.hub.kick_where(subject="alice")
        assert (found.count >= 1, found.silent) == (True, ())


async def test_there_are_so_many_nodes(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One more says so, and its hub runs all the same."""
    assert autojump_clock is not None
    caplog.set_level(logging.CRITICAL, "h3trio.hub")
    store = SharedMemoryStore()
    async with nodes_of("first", store=store) as (first,):
        for number in range(MAX_NODES - 1):
            store.meet(f"n{number}", store.new_number(), b"", lease=1000)
        late = Node(store, "late", first.nursery)
        await late.nursery.start(late.hub.run)
        await trio.sleep(INTERVAL)
        assert late.hub.statistics().task_failures["nodes"]
        await late.hub.publish("x", topics=["a"])
        assert len(first.nodes()) == MAX_NODES


@table("name", ["", "-a", ".a", "a b", "a/b", "é", "a" * 65, "a\n"])
def test_a_name_is_checked_where_it_enters(name: str) -> None:
    """It becomes a label, a part of keys, and a word in logs."""
    with pytest.raises(ValueError, match="name of a node"):
        check_node(name)
    if name:
        with pytest.raises(ValueError, match="name of a node"):
            HubSettings(node=name)


def test_a_name_that_is_not_given_is_made() -> None:
    """No two hubs have the same."""
    names = {Hub().statistics().node for _ in range(3)}
    assert len(names) == 3
    for name in (*names, "a", "9", "web-1.example_org", "a" * 64):
        assert check_node(name) == name
