"""Topics that end where two hubs share a store."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from hub_helpers import FakeSink
from shared_helpers import resets, two
from tables import table

from h3trio.hub import EndReason, Hub, TopicClosedError
from h3trio.testing import SharedMemoryHistory, SharedMemoryStore

if TYPE_CHECKING:
    from trio.testing import MockClock


async def end_of(hub: Hub, sink: FakeSink, *topics: str, **options: object) -> EndReason:
    """Subscribe, and return why it ended."""
    return await hub.subscribe(sink, topics, **options)  # type: ignore[arg-type]  # as `subscribe` has them


async def test_a_close_ends_the_subscribers_of_all_hubs(autojump_clock: MockClock) -> None:
    """Each has what stands in front; those of a hub that lags end when it has followed."""
    sinks = FakeSink(), FakeSink()
    ended: dict[int, tuple[EndReason, float]] = {}
    async with two(autojump_clock, delay=0.1) as both, trio.open_nursery() as nursery:

        async def subscribe(number: int) -> None:
            reason = await end_of(both.hubs[number], sinks[number], "a")
            ended[number] = reason, autojump_clock.current_time()

        for number in range(2):
            nursery.start_soon(subscribe, number)
        await trio.sleep(1)
        both.histories[1].hold()
        await both.publish(1, "1")
        await both.hubs[0].publish("2", topics=["a"], last=True)
        await trio.sleep(1)
        assert list(ended) == [0]
        released = autojump_clock.current_time()
        both.histories[1].release()
        await trio.sleep(1)
        assert [reason for reason, _time in ended.values()] == [EndReason.COMPLETE] * 2
        assert ended[1][1] - released < 0.5
        assert [sink.data for sink in sinks] == [["1", "2"]] * 2
        nursery.cancel_scope.cancel()


async def test_a_closed_topic_is_refused_by_all_hubs(autojump_clock: MockClock) -> None:
    """By the store itself, also where the close isn't followed; to close it again is no error."""
    async with two(autojump_clock) as both:
        both.histories[1].hold()
        await both.hubs[0].close("a")
        for number in range(2):
            with pytest.raises(TopicClosedError):
                await both.publish(number, "late")
            await both.hubs[number].close("a")
        await both.publish(0, "1", "b")
        await both.hubs[0].close("a", "b")
        both.histories[1].release()
        start = await both.hubs[1].locate(["a", "b"], last_event_id=both.hubs[0].last_event_id)
        assert start.complete


async def test_who_comes_to_a_hub_that_lags_isnt_complete_too_early(
    autojump_clock: MockClock,
) -> None:
    """It has yet to follow what stands in front of the close, so it waits, and gives all of it."""
    sink = FakeSink()
    async with two(autojump_clock) as both, trio.open_nursery() as nursery:
        both.histories[1].hold()
        await both.publish(0, "1")
        await both.hubs[0].publish("2", topics=["a"], last=True)
        start = await both.hubs[1].locate(["a"])
        assert (start.closed, start.complete) == (False, False)
        nursery.start_soon(end_of, both.hubs[1], sink, "a")
        await trio.sleep(1)
        assert sink.data == []
        both.histories[1].release()
        await trio.sleep(1)
        assert sink.data == ["1", "2"]
        assert both.hubs[1].subscriptions() == ()
        assert (await both.hubs[1].locate(["a"])).complete


async def test_a_close_in_the_store_alone_is_found(autojump_clock: MockClock) -> None:
    """A hub that has the newest event only asks its store, up to what it has followed."""
    store = SharedMemoryStore(clock=autojump_clock.current_time)
    histories = [SharedMemoryHistory(store, delay=0.1, tail_events=1) for _ in range(2)]
    async with Hub(histories[0]) as one, Hub(histories[1]) as other:
        await one.close("a")
        await one.publish("1", topics=["b"])
        await trio.sleep(1)
        assert (await other.locate(["a"])).complete
        assert not (await other.locate(["a", "c"])).closed
        histories[1].hold()
        await one.close("c")
        await one.publish("2", topics=["b"])
        assert not (await other.locate(["a", "c"])).closed
        histories[1].release()
        await trio.sleep(1)
        assert (await other.locate(["a", "c"])).complete


async def test_an_end_that_comes_while_the_store_is_asked_waits(
    autojump_clock: MockClock,
) -> None:
    """A subscriber whose store is asked when its last topic ends has yet to get what came last."""
    store = SharedMemoryStore(clock=autojump_clock.current_time)
    lagging = SharedMemoryHistory(store, delay=0.2, tail_events=1)
    async with (
        Hub(SharedMemoryHistory(store)) as one,
        Hub(lagging) as other,
        trio.open_nursery() as nursery,
    ):
        await one.publish("1", topics=["a"])
        await trio.sleep(1)
        sink = FakeSink()
        nursery.start_soon(end_of, other, sink, "x", "a")
        await trio.sleep(1)
        await one.close("x")
        await one.publish("noise", topics=["b"])
        await trio.sleep(0.3)  # by now it has passed the close of x, and asks about a
        await one.publish("2", topics=["a"], last=True)
        await trio.sleep(2)
        assert sink.data == ["2"]
        assert other.subscriptions() == ()


async def test_a_lost_close_opens_the_topic(autojump_clock: MockClock) -> None:
    """Who has the id of it is told of the loss, and gets what is published then."""
    sink = FakeSink()
    async with two(autojump_clock) as both, trio.open_nursery() as nursery:
        kept = await both.publish(0, "1")
        both.store.replicate()
        lost = await both.hubs[0].publish("2", topics=["a"], last=True)
        await trio.sleep(1)
        assert (await both.hubs[1].locate(["a"], last_event_id=lost)).complete
        both.store.fail_over()
        await both.publish(0, "3")
        await trio.sleep(1)
        for hub in both.hubs:
            assert not (await hub.locate(["a"])).closed
        nursery.start_soon(partial(end_of, both.hubs[1], sink, "a", last_event_id=lost))
        await trio.sleep(1)
        assert resets(sink.events) == ["lost"]
        assert sink.events[0].id == kept
        assert sink.data[1:] == ["3"]
        nursery.cancel_scope.cancel()


@table("is_early", [True, False])
async def test_a_loss_that_comes_while_the_store_is_asked_is_told_before_the_end(
    is_early: bool,  # noqa: FBT001 - a row
    autojump_clock: MockClock,
) -> None:
    """Whether that is asked for the head of the stream, or at its end."""
    store = SharedMemoryStore(clock=autojump_clock.current_time)
    histories = [SharedMemoryHistory(store, tail_events=1) for _ in range(2)]
    async with Hub(histories[0]) as one, Hub(histories[1]) as other, trio.open_nursery() as nursery:
        await one.close("a")
        await one.publish("1", topics=["b"])
        store.replicate()
        lost = await one.publish("2", topics=["c"])
        await trio.sleep(1)
        start = await other.locate(["a"], last_event_id=lost) if is_early else None
        histories[1].hold()
        store.fail_over()
        await one.publish("3", topics=["c"])
        sink, reasons = FakeSink(), list[EndReason]()

        async def subscribe() -> None:
            where = start or await other.locate(["a"], last_event_id=lost)
            assert where.complete is is_early
            reasons.append(await other.subscribe(sink, where))

        nursery.start_soon(subscribe)
        await trio.sleep(1)
        assert not reasons
        histories[1].release()
        await trio.sleep(2)
        assert reasons == [EndReason.COMPLETE]
        assert resets(sink.events) == ["lost"]


async def test_a_loss_is_told_before_the_end(autojump_clock: MockClock) -> None:
    """A topic is still closed, and what stood behind the close of another is lost."""
    async with two(autojump_clock) as both:
        await both.hubs[0].close("a")
        both.store.replicate()
        lost = await both.hubs[0].publish("1", topics=["b"])
        await both.hubs[0].close("b")
        await trio.sleep(1)
        both.store.fail_over()
        await both.hubs[0].close("b")
        await trio.sleep(1)
        start = await both.hubs[1].locate(["a", "b"], last_event_id=lost)
        assert (start.closed, start.lost, start.complete) == (True, True, False)
        sink = FakeSink()
        assert await both.hubs[1].subscribe(sink, start) == EndReason.COMPLETE
        assert resets(sink.events) == ["lost"]
