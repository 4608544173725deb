"""Runs of several nodes that share a history: each serves all of them, and a node may be gone."""

# ruff: noqa: ARG001 - tests ask for the clock so that time jumps, not to look at it

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
from run_helpers import Site, all_events, data_of, kinds_of
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import HTTPError, Settings
from h3trio.hub import HistoryError, Hub
from h3trio.runs import Run, RunsSettings, RunState
from h3trio.testing import SharedMemoryHistory, SharedMemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence

    from trio.testing import MockClock

    from h3trio.hub import Appended, Update

    Append: TypeAlias = Callable[[Sequence[Update]], Coroutine[Any, Any, list[Appended]]]

LEASE = 15.0
WORDS = "abcdefghijklmnopqrstuvwxyz"


class Node(Site):
    """A site on a shared history."""

    def __init__(
        self,
        store: SharedMemoryStore,
        unwatched_after: float | None = None,
        *,
        retain: float = 3600,
    ) -> None:
        self.history = SharedMemoryHistory(store)
        super().__init__(
            hub=Hub(self.history),
            settings=RunsSettings(lease=LEASE, max_run_seconds=500),
            cancel_unwatched_after=unwatched_after,
            retain=retain,
        )


@asynccontextmanager
async def two_nodes(
    unwatched_after: float | None = None,
) -> AsyncGenerator[tuple[Node, Node]]:
    """Run two nodes on one store."""
    store = SharedMemoryStore()
    one, other = (Node(store, unwatched_after) for _ in range(2))
    async with one.run(), other.run():
        yield one, other


async def test_a_run_is_watched_on_any_node(autojump_clock: MockClock) -> None:
    """A viewer that comes to another node sees all of it, and may change nodes on its way."""
    async with two_nodes() as (one, other):
        run = await one.start("a b c d", owner="ann")
        async with other.connect(f"/answers/{run.id}", user="ann") as client:
            first = [await client.next_event() for _ in range(2)]
        rest = await one.events_of(run.id, user="ann", last_event_id=first[-1].id)
        assert data_of([*first, *rest]) == ["a", "b", "c", "d"]
        assert await other.events_of(run.id, user="ann") == [*first, *rest]
        assert [status.id for status in await other.runs.list(owner="ann")] == [run.id]
        with pytest.raises(HTTPError):
            await other.runs.get(run.id, by="bob")


async def test_the_result_is_waited_for_on_any_node(autojump_clock: MockClock) -> None:
    """Another node waits until the run has ended, and has all of its text."""
    async with two_nodes() as (one, other):
        run = await one.start("a b c")
        result = await (await other.runs.get(run.id)).result()
        assert (result.status.state, result.text, result.whole) == (RunState.DONE, "abc", True)


async def test_a_run_is_stopped_from_any_node(autojump_clock: MockClock) -> None:
    """The viewers of both are told, and the function is cancelled though it sends nothing."""
    async with two_nodes() as (one, other):
        cancelled = trio.Event()

        async def quiet(run: Run) -> None:
            await run.send("a")
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()

        run = await one.runs.start(quiet)
        async with one.connect(f"/answers/{run.id}") as viewer:
            await viewer.next_event()
            status = await other.runs.stop(run.id, reason="enough")
            assert (status.state, status.detail) == (RunState.STOPPED, "enough")
            assert kinds_of(await all_events(viewer)) == ["stopped"]
        with trio.fail_after(1):
            await cancelled.wait()
        await run.result()
        assert run.status.state is RunState.STOPPED
        assert (await other.runs.stop(run.id)).detail == "enough"


@table("seconds", [0.2, 0.7, 1.2])
async def test_a_stop_of_a_run_elsewhere_outlives_who_asked(
    seconds: float, autojump_clock: MockClock
) -> None:
    """The function is cancelled though the client of the stop leaves before the store answers."""
    async with two_nodes() as (one, other):
        run = await one.runs.start(_idle)
        await trio.sleep(1)
        for node in (one, other):
            node.history.delay = 0.5
        with trio.move_on_after(seconds) as scope:
            await other.runs.stop(run.id)
        assert scope.cancelled_caught
        await trio.sleep(10)
        assert run.status.state is RunState.STOPPED


async def test_a_stop_while_the_store_is_away_is_tried_again(autojump_clock: MockClock) -> None:
    """Who asked isn't kept waiting, and the run is stopped as soon as the store is back."""
    async with two_nodes() as (one, other):
        run = await one.runs.start(_idle)
        await trio.sleep(1)
        with _failing(other):
            assert (await other.runs.stop(run.id)).state is RunState.RUNNING
            await trio.sleep(2)
        await trio.sleep(10)
        assert run.status.state is RunState.STOPPED


async def _idle(run: Run) -> None:
    await run.send("a")
    await trio.sleep(400)


@contextmanager
def _failing(*nodes: Node) -> Generator[None]:
    """A store that takes nothing from some nodes."""

    async def fail(updates: Sequence[Update]) -> list[Appended]:
        raise HistoryError("the store is away")

    kept = [node.history.append for node in nodes]
    for node in nodes:
        node.history.append = fail  # type: ignore[method-assign]  # a connection that is refused
    try:
        yield
    finally:
        for node, append in zip(nodes, kept, strict=True):
            node.history.append = append  # type: ignore[method-assign]  # as it was


async def test_starts_with_one_key_on_two_nodes_are_one_run(autojump_clock: MockClock) -> None:
    """The first record decides, also where the other node hasn't followed it yet."""
    async with two_nodes() as (one, other):
        found: list[Run] = []

        async def start(node: Node) -> None:
            found.append(await node.start("a b", owner="ann", key="k", fingerprint="x"))

        for node in (one, other):
            node.history.delay = 0.5
        async with trio.open_nursery() as nursery:
            for node in (one, other):
                nursery.start_soon(start, node)
        assert len({run.id for run in found}) == 1
        assert one.model.calls + other.model.calls == 1
        assert {(await run.result()).text for run in found} == {"ab"}


async def test_the_runs_of_a_node_that_is_gone_are_interrupted(autojump_clock: MockClock) -> None:
    """Its viewers, who come to another node, are told within two leases."""
    store = SharedMemoryStore()
    one, other = Node(store), Node(store)
    async with other.run(), trio.open_nursery() as nursery:

        async def live() -> None:
            async with one.run():
                await trio.sleep_forever()

        nursery.start_soon(live)
        await wait_all_tasks_blocked()
        run = await one.start(WORDS.replace("", " "))
        await trio.sleep(4.5)
        one.history.delay = 10_000  # nothing comes out of it any more
        began = trio.current_time()
        events = await other.events_of(run.id)
        assert data_of(events) == list("abcd")
        assert kinds_of(events)[-1] == "interrupted"
        assert LEASE <= trio.current_time() - began < 2 * LEASE
        assert other.runs.statistics().ended == {"interrupted": 1}
        nursery.cancel_scope.cancel()


async def test_a_node_that_was_taken_for_gone_is_refused(autojump_clock: MockClock) -> None:
    """A node that stood still beyond its lease, and wakes, cancels its run and is silent."""
    async with two_nodes() as (one, other):
        cancelled = trio.Event()

        async def busy(run: Run) -> None:
            try:
                for word in WORDS * 10:
                    await run.send(word)
                    await trio.sleep(1)
            finally:
                cancelled.set()

        run = await one.runs.start(busy)
        await trio.sleep(4.5)
        one.history.delay = 20  # each way: what it sends arrives behind its lease
        events = await other.events_of(run.id)
        assert kinds_of(events)[-1] == "interrupted"
        one.history.delay = 0
        with trio.fail_after(60):
            await cancelled.wait()
            await run.result()
        assert run.status.state is RunState.INTERRUPTED
        await trio.sleep(60)
        assert await other.events_of(run.id) == events
        assert await one.events_of(run.id) == events


async def test_a_node_that_stands_still_takes_no_other_for_gone(autojump_clock: MockClock) -> None:
    """One whose follower lags for long finds all beats of the others when it goes on."""
    async with two_nodes() as (one, other):
        run = await one.start(" ".join(WORDS * 4))
        await trio.sleep(1)
        other.history.hold()
        await trio.sleep(3 * LEASE)
        other.history.release()
        await trio.sleep(LEASE)
        assert run.status.state is RunState.RUNNING
        assert other.runs.statistics().ended == {}


@table("seconds", [4, 16, 40])
async def test_a_store_that_was_away_makes_no_node_gone(
    seconds: float, autojump_clock: MockClock
) -> None:
    """Whichever node gets to it first, the others have a lease to come back as well."""
    async with two_nodes() as (one, other):
        runs = [await node.runs.start(_idle) for node in (one, other)]
        await trio.sleep(33)
        with _failing(one, other):
            await trio.sleep(seconds)
        await trio.sleep(100)
        assert {run.status.state for run in runs} == {RunState.RUNNING}


async def test_a_store_that_stood_still_makes_no_node_gone(autojump_clock: MockClock) -> None:
    """One node's beat waited in the store for all that time, another's came just before the end."""
    async with two_nodes() as (one, other):
        runs = [await node.runs.start(_idle) for node in (one, other)]
        await trio.sleep(33)
        # The other gives up and tries again. Its beat is stored first when the store goes on.
        for node, longest, seconds in ((one, 1000, 40.1), (other, 6, 40)):
            node.history.append = _stand_still(node, longest, seconds)  # type: ignore[method-assign, assignment]  # a store that is stopped
        await trio.sleep(140)
        assert {run.status.state for run in runs} == {RunState.RUNNING}


def _stand_still(node: Node, longest: float, seconds: float) -> Append:
    """Let appends wait, for so long at most each, until so many seconds have passed."""
    append, end = node.history.append, trio.current_time() + seconds

    async def wait(updates: Sequence[Update]) -> list[Appended]:
        with trio.move_on_after(longest) as scope:
            await trio.sleep_until(end)
        if scope.cancelled_caught:
            raise HistoryError("no answer")
        return await append(updates)

    return wait


async def test_a_node_finds_what_was_left_before_it_came(autojump_clock: MockClock) -> None:
    """A run whose node is gone for long is interrupted a lease behind the start of another."""
    store = SharedMemoryStore()
    one = Node(store)
    run = None
    with trio.CancelScope() as scope:
        async with one.run():
            run = await one.start(" ".join(WORDS))
            await trio.sleep(2.5)
            one.history.cut()
            one.history.delay = 10_000
            scope.cancel()
    assert run is not None
    other = Node(store)
    async with other.run():
        assert (await other.runs.get(run.id)).status.state is RunState.RUNNING
        events = await other.events_of(run.id)
        assert kinds_of(events) == ["message", "message", "interrupted"]
    third = Node(store)
    async with third.run():
        assert await third.events_of(run.id) == events


async def test_viewers_of_all_nodes_keep_a_run(autojump_clock: MockClock) -> None:
    """A run that is watched on another node only goes on, and is stopped when that one leaves."""
    async with two_nodes(LEASE) as (one, other):
        run = await one.start(" ".join(WORDS * 5))
        await trio.sleep(1)
        async with other.connect(f"/answers/{run.id}"):
            await trio.sleep(60)
            assert run.status.state is RunState.RUNNING
            assert one.runs.statistics().viewers == 0
        await trio.sleep(2 * LEASE)
        assert (await run.result()).status.detail == "nobody watched it"


async def test_a_removed_run_is_left_by_viewers_of_all_nodes(autojump_clock: MockClock) -> None:
    """A viewer on another node that is too slow for the retention is cut off as well."""
    store = SharedMemoryStore()
    one, other = Node(store, retain=10), Node(store)
    one.model.pause = 0
    async with one.run(), other.run():
        run = await one.start(" ".join(["x" * 10_000] * 100))
        await run.result()
        settings = Settings(write_timeout=500)
        async with other.connect(f"/answers/{run.id}", settings=settings) as client:
            client.stall()
            await trio.sleep(200)
            client.resume()
            assert set(kinds_of(await all_events(client))) == {"message"}
        async with other.connect(f"/answers/{run.id}") as client:
            assert client.status == 404


async def test_a_run_whose_start_the_store_has_lost_is_interrupted(
    autojump_clock: MockClock,
) -> None:
    """Behind a failover that lost it, its viewers are told, and its key is free for another."""
    store = SharedMemoryStore()
    one, other = Node(store), Node(store)
    async with one.run(), other.run():
        kept = await one.start(" ".join(WORDS * 2))
        await trio.sleep(LEASE)
        store.replicate()
        lost = await one.start(" ".join(WORDS * 2), key="k")
        async with one.connect(f"/answers/{lost.id}") as viewer:
            await trio.sleep(2.5)
            store.fail_over()
            kinds = kinds_of(await all_events(viewer))
            assert kinds[:3] == ["message", "message", "reset"]
            assert kinds[-1] == "interrupted"
        assert kept.status.state is RunState.RUNNING
        again = await other.start("a b", key="k")
        assert again.id == lost.id
        assert (await again.result()).text == "ab"
        assert data_of(await one.events_of(again.id)) == ["a", "b"]
