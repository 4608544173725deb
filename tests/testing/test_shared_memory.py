"""`SharedMemoryHistory`: two hubs on one store, with a follower each."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hub_helpers import FakeSink
from shared_helpers import TIMEOUT, resets, two
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import SSEEvent
from h3trio.hub import (
    EndReason,
    HistoryError,
    Hub,
    HubSettings,
    OutcomeUnknownError,
)
from h3trio.testing import SharedMemoryHistory, SharedMemoryStore, check_history

if TYPE_CHECKING:
    from trio.testing import MockClock

    from h3trio.hub import History


def reopened(history: History) -> History:
    """Another hub's share in the same store, when the first is closed."""
    assert isinstance(history, SharedMemoryHistory)
    return history.beside(tail_events=2)


@pytest.mark.parametrize("delay", [0.0, pytest.param(0.3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tail", [10_000, 3])
async def test_it_is_a_history(delay: float, tail: int, autojump_clock: MockClock) -> None:
    """It passes the suite, with all in memory or a part, at once or after a while."""

    def make(max_events: int = 10_000) -> History:
        store = SharedMemoryStore(max_events=max_events, clock=autojump_clock.current_time)
        return SharedMemoryHistory(store, delay=delay, tail_events=tail)

    await check_history(make, make_small=make, reopen=reopened, share=reopened)


async def test_who_publishes_can_read_at_once(autojump_clock: MockClock) -> None:
    """A publish is answered when its own hub has followed it, whatever the way takes."""
    async with two(autojump_clock, delay=0.2) as both:
        id = await both.publish(0, "1")
        start = await both.hubs[0].locate(["a"], first=1)
        assert start.position == 0
        assert both.hubs[0].last_event_id == id


async def test_hubs_have_one_order(autojump_clock: MockClock) -> None:
    """Whoever publishes where, subscribers of both hubs see the same."""
    sinks = FakeSink(), FakeSink()
    async with two(autojump_clock, delay=0.1) as both, trio.open_nursery() as nursery:
        for hub, sink in zip(both.hubs, sinks, strict=True):
            nursery.start_soon(hub.subscribe, sink, ["a"])
        await trio.sleep(1)
        async with trio.open_nursery() as publishers:
            for number in range(40):
                publishers.start_soon(both.publish, number % 2, str(number))
        await trio.sleep(1)
        assert len(sinks[0].data) == 40
        assert sinks[0].data == sinks[1].data
        nursery.cancel_scope.cancel()


async def test_an_id_newer_than_the_hubs_head_is_waited_for(autojump_clock: MockClock) -> None:
    """A client that comes from another hub isn't told of a gap because this one lags."""
    async with two(autojump_clock) as both:
        both.histories[1].hold()
        id = await both.publish(0, "1")
        own = await both.hubs[0].publish(SSEEvent("2", id="mine"), topics=["a"])
        began = autojump_clock.current_time()
        async with trio.open_nursery() as nursery:
            found: dict[str, int] = {}

            async def locate(id: str) -> None:
                start = await both.hubs[1].locate(["a"], last_event_id=id)
                assert not start.unknown
                found[id] = start.position

            nursery.start_soon(locate, id)
            nursery.start_soon(locate, own)
            await trio.sleep(TIMEOUT / 2)
            assert not found
            both.histories[1].release()
        assert found == {id: 1, own: 2}
        assert autojump_clock.current_time() - began < TIMEOUT
        assert [event.data for event in await both.read(1, last_event_id=id)] == ["2"]


async def test_the_wait_for_a_newer_id_is_bounded(autojump_clock: MockClock) -> None:
    """A hub that doesn't come up to its store says so, and not that the id is unknown."""
    async with two(autojump_clock) as both:
        both.histories[1].hold()
        id = await both.publish(0, "1")
        began = autojump_clock.current_time()
        with pytest.raises(HistoryError, match="lags behind"):
            await both.hubs[1].locate(["a"], last_event_id=id)
        assert autojump_clock.current_time() - began == pytest.approx(TIMEOUT)
        assert both.hubs[1].statistics().follow_timeouts == {"locate": 1}


@table(
    "asked",
    [
        {"last_event_id": "mine"},
        {"first": 2},
        {},  # whether the topic is closed is asked
    ],
)
async def test_no_start_waits_for_ever(autojump_clock: MockClock, asked: dict[str, Any]) -> None:
    """Where a store began anew and a hub doesn't learn of it, nobody waits beyond the limit."""
    store = SharedMemoryStore(clock=autojump_clock.current_time)
    history = SharedMemoryHistory(store, tail_events=1)
    async with Hub(history, settings=HubSettings(follow_timeout=TIMEOUT)) as hub:
        for topic in "aab":
            await hub.publish("1", topics=[topic])
        history.hold()
        store.restart()
        began = autojump_clock.current_time()
        with pytest.raises(HistoryError, match="lags behind"):
            await hub.locate(["a"], **asked)
        assert autojump_clock.current_time() - began == pytest.approx(TIMEOUT)
        assert hub.statistics().follow_timeouts == {"locate": 1}
        history.release()
        await trio.sleep(1)
        assert not (await hub.locate(["a"], **asked)).closed


async def test_an_id_that_was_never_given_is_unknown(autojump_clock: MockClock) -> None:
    """Where the store has nothing newer there is nothing to wait for."""
    async with two(autojump_clock) as both:
        both.histories[1].hold()
        began = autojump_clock.current_time()
        start = await both.hubs[1].locate(["a"], last_event_id="never")
        assert start.unknown
        assert autojump_clock.current_time() == began


async def test_a_publish_waits_for_its_own_follower_for_a_time(autojump_clock: MockClock) -> None:
    """It is stored, so it is answered in the end."""
    async with two(autojump_clock) as both:
        both.histories[0].hold()
        began = autojump_clock.current_time()
        id = await both.publish(0, "1")
        assert autojump_clock.current_time() - began == pytest.approx(TIMEOUT)
        assert both.hubs[0].statistics().follow_timeouts == {"publish": 1}
        assert both.hubs[1].last_event_id == id


async def test_publishers_wait_beside_each_other(autojump_clock: MockClock) -> None:
    """The next commit doesn't wait for the follower of the one before."""
    async with two(autojump_clock) as both:
        both.histories[0].hold()
        began = autojump_clock.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(both.publish, 0, str(number))
                await trio.sleep(0.1)
        assert autojump_clock.current_time() - began < 2 * TIMEOUT


async def test_a_lost_tail_is_told_to_those_who_had_it(autojump_clock: MockClock) -> None:
    """They get `reset` with `lost`, and go on behind what is left; the others notice nothing."""
    sinks = [FakeSink() for _ in range(3)]
    async with two(autojump_clock) as both, trio.open_nursery() as nursery:
        for sink, hub, topic in zip(sinks, (0, 1, 0), ("a", "a", "quiet"), strict=True):
            nursery.start_soon(both.hubs[hub].subscribe, sink, [topic])
        await trio.sleep(1)
        ids = [await both.publish(0, "1"), await both.publish(0, "x", "quiet")]
        both.store.replicate()
        ids += [await both.publish(0, "2"), await both.publish(1, "3")]
        await trio.sleep(1)  # until both have followed: else one has nothing to lose
        both.store.fail_over()
        ids += [await both.publish(1, "4"), await both.publish(0, "5")]
        await trio.sleep(1)
        assert len(set(ids)) == len(ids), "no id is given twice"
        for sink in sinks[:2]:
            assert [e.data for e in sink.events if e.event != "reset"] == list("12345")
            reset = sink.events[3]
            assert resets([reset]) == ["lost"]
            assert reset.id == ids[1]
        assert sinks[2].data == ["x"]
        for hub in range(2):
            assert [event.data for event in await both.read(hub, first="oldest")] == list("145")
        nursery.cancel_scope.cancel()


async def test_who_comes_back_with_a_lost_id_is_told(autojump_clock: MockClock) -> None:
    """It has all that is left in front of what was lost, so it gets that not again."""
    async with two(autojump_clock) as both:
        await both.publish(0, "1")
        both.store.replicate()
        lost = await both.publish(0, "2")
        both.store.fail_over()
        await both.publish(1, "3")
        await trio.sleep(1)
        for hub in range(2):
            reset, *events = await both.read(hub, last_event_id=lost)
            assert json.loads(reset.data or "") == {"reason": "lost", "id": lost}
            assert [event.data for event in events] == ["3"]
            again = await both.read(hub, last_event_id=reset.id)
            assert [event.data for event in again] == ["3"]


async def test_a_lost_purge_leaves_no_gap(autojump_clock: MockClock) -> None:
    """Events that get its positions aren't taken for removed ones."""
    async with two(autojump_clock) as both:
        id = await both.publish(0, "1")
        both.store.replicate()
        await both.publish(0, "2")
        await both.hubs[0].purge("a")
        both.store.fail_over()
        await both.publish(0, "3")
        await trio.sleep(1)
        for hub in range(2):
            assert [event.data for event in await both.read(hub, last_event_id=id)] == ["3"]


async def test_what_is_lost_between_locate_and_subscribe_is_told(autojump_clock: MockClock) -> None:
    """The head of the stream has told a cursor that is of no use any more."""
    async with two(autojump_clock) as both:
        both.store.replicate()
        await both.publish(0, "1")
        start = await both.hubs[0].locate(["a"])
        both.store.fail_over()
        await both.publish(0, "2")
        await trio.sleep(1)
        sink = FakeSink()
        with trio.move_on_after(1):
            await both.hubs[0].subscribe(sink, start)
        assert resets(sink.events) == ["lost"]
        assert sink.data[1:] == ["2"]


async def test_a_hub_that_comes_begins_no_epoch(autojump_clock: MockClock) -> None:
    """Ids are of one epoch as long as the store goes on, and of another once it was restarted."""
    async with two(autojump_clock) as both:
        ids = [await both.publish(0, "1")]
        async with Hub(both.histories[0].beside()) as third:
            ids.append(await third.publish("2", topics=["a"]))
        ids.append(await both.publish(1, "3"))
        assert len({id.partition("-")[0] for id in ids}) == 1
        both.store.restart()
        ids.append(await both.publish(0, "4"))
        assert len({id.partition("-")[0] for id in ids}) == 2
        await trio.sleep(1)
        for hub in range(2):
            for number, id in enumerate(ids, start=1):
                events = await both.read(hub, last_event_id=id)
                assert [event.data for event in events] == list("1234")[number:]


@table("policy, wanted", [("resync", ["lagged"]), ("disconnect", [])])
async def test_what_was_trimmed_before_it_was_followed_is_a_gap(
    policy: str, wanted: list[str]
) -> None:
    """A live subscriber of a hub whose follower stood still is told of what it never had."""
    sink, quiet = FakeSink(), FakeSink()
    async with two(max_events=2) as both, trio.open_nursery() as nursery:
        reasons: list[EndReason] = []

        async def subscribe() -> None:
            hub = both.hubs[1]
            reasons.append(await hub.subscribe(sink, ["a"], policy=policy))  # type: ignore[arg-type]  # one of both

        nursery.start_soon(subscribe)
        nursery.start_soon(both.hubs[1].subscribe, quiet, ["quiet"])
        await both.publish(0, "1")
        await wait_all_tasks_blocked()
        both.histories[1].hold()
        for number in range(2, 6):
            await both.publish(0, str(number))
        both.histories[1].release()
        await wait_all_tasks_blocked()
        await both.publish(0, "6")
        await wait_all_tasks_blocked()
        assert resets(sink.events) == wanted
        assert sink.data[-1] == ("6" if wanted else "1")
        assert reasons == ([] if wanted else [EndReason.LAGGED])
        assert quiet.data == []
        nursery.cancel_scope.cancel()


async def test_a_purge_reaches_the_other_hub() -> None:
    """Neither its log nor its pages bring the events back."""
    async with two() as both:
        for number in range(3):
            await both.publish(0, str(number))
        start = await both.hubs[1].locate(["a"], first="oldest")
        with trio.move_on_after(0.01):  # two pages are made, and kept
            await both.hubs[1].subscribe(FakeSink(), start)
        assert await both.hubs[0].purge("a") == 3
        await wait_all_tasks_blocked()
        assert list(both.histories[1].log) == []
        sink = FakeSink()
        with trio.move_on_after(0.01):
            await both.hubs[1].subscribe(sink, start)
        assert resets(sink.events) == ["trimmed"]
        assert len(sink.events) == 1


async def test_a_cut_leaves_the_outcome_open(autojump_clock: MockClock) -> None:
    """The publisher doesn't know; with its key it finds out. The follower comes back by itself."""
    async with two(autojump_clock, delay=0.2) as both:
        publish = partial(both.hubs[0].publish, "1", topics=["a"], dedup="k")
        async with trio.open_nursery() as nursery:

            async def cut() -> None:
                with pytest.raises(OutcomeUnknownError):
                    await publish()

            nursery.start_soon(cut)
            await trio.sleep(0.3)
            both.histories[0].cut()
        id = await publish()
        assert id.endswith("-1")
        assert both.hubs[0].last_event_id == id
        assert both.hubs[0].statistics().task_failures["follower"] == 1


async def test_a_browser_behind_a_gap_that_isnt_followed_yet_is_sent_one_cursor(
    autojump_clock: MockClock,
) -> None:
    """The gap is known with what was read of the store, and no id of this hub stands behind it."""
    store = SharedMemoryStore(max_events=2, clock=autojump_clock.current_time)
    histories = [SharedMemoryHistory(store, tail_events=1) for _ in range(2)]
    async with Hub(histories[0]) as one, Hub(histories[1]) as other:
        for number in range(3):
            await one.publish(str(number), topics=["a"])
        await trio.sleep(1)
        histories[1].hold()
        for number in range(3, 6):
            await one.publish(str(number), topics=["a"])
        await other.locate(["a"], first=2)
        sink = FakeSink()
        with trio.move_on_after(1):
            await other.subscribe(sink, ["a"], first="oldest", cursor=True)
        assert [e.event for e in sink.events].count("cursor") <= 2
