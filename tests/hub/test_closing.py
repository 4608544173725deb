"""Topics that end: who is told, in which order, and that nobody waits or comes back for ever."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hub_helpers import BusiestStep, FakeSink, Matcher
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import SSEEvent
from h3trio.hub import (
    EndReason,
    History,
    Hub,
    HubSettings,
    MemoryHistory,
    SQLiteHistory,
    Start,
    TopicClosedError,
)
from h3trio.hub._fanout.feed import Subscriber
from h3trio.hub._fanout.sweep import CALM_SENDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path


@pytest.fixture(params=["memory", "sqlite", "sqlite, little in memory"])
async def hub(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Hub]:
    """A running hub on each history."""
    history: History = MemoryHistory()
    if request.param != "memory":
        tail = 1 if "little" in request.param else 1000
        history = SQLiteHistory(tmp_path / "hub.db", durability="fast", tail_events=tail)
    async with Hub(history) as running:
        yield running


class Client:
    """One subscription in a task of its own."""

    def __init__(
        self,
        nursery: trio.Nursery,
        hub: Hub,
        topics: list[Any] | Start,
        **options: Any,  # noqa: ANN401 - those of `subscribe`
    ) -> None:
        self.sink = FakeSink()
        self.reason: EndReason | None = None
        nursery.start_soon(self._run, partial(hub.subscribe, self.sink, topics, **options))

    async def _run(self, subscribe: Callable[[], Awaitable[EndReason]]) -> None:
        self.reason = await subscribe()

    @property
    def has_ended(self) -> bool:
        """Whether it ended behind the last event of its topics."""
        return self.reason is EndReason.COMPLETE

    @property
    def data(self) -> list[str | None]:
        """The data of events, and the types of the hub's own."""
        return [e.data if e.event == "message" else e.event for e in self.sink.events]


async def stream(hub: Hub, topics: list[Any] | Start, **options: Any) -> Client:  # noqa: ANN401 - those of `subscribe`
    """Subscribe until it ends or is live."""
    async with trio.open_nursery() as nursery:
        client = Client(nursery, hub, topics, **options)
        await settle(hub)
        nursery.cancel_scope.cancel()
    return client


async def settle(hub: Hub) -> None:
    """Wait until all that go on are live; a store's thread is no blocked task."""
    while True:
        await wait_all_tasks_blocked()
        if all(one.ready for one in hub.subscriptions()):
            return
        await trio.sleep(0.001)


async def test_what_is_published_to_a_closed_topic_is_refused(hub: Hub) -> None:
    """The close is one with the order: what comes behind it is refused, whoever it is from."""
    await hub.publish("1", topics=["a"])
    end = await hub.publish("end", topics=["a", "b"], dedup="k", last=True)
    for topics in (["a"], ["c", "b"]):
        with pytest.raises(TopicClosedError, match=f"the topic '{topics[-1]}' is closed"):
            await hub.publish("late", topics=topics)
    with pytest.raises(TopicClosedError):
        await hub.publish_all(["late", "later"], topics=["a"], last=True)
    assert await hub.publish("end", topics=["b", "a"], dedup="k", last=True) == end
    await hub.close("a")
    await hub.close("a", "d", "e")
    with pytest.raises(TopicClosedError):
        await hub.publish("late", topics=["e"])
    await hub.publish("2", topics=["c"])


async def test_publishers_meet_the_close_each_for_itself(hub: Hub) -> None:
    """Of publishes that share a commit, those behind the close are refused and no other."""
    outcome: dict[str, str] = {}

    async def publish(name: str, topic: str, *, last: bool = False) -> None:
        try:
            await hub.publish(name, topics=[topic], last=last)
        except TopicClosedError:
            outcome[name] = "refused"
        else:
            outcome[name] = "stored"

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(partial(publish, f"a{number}", "a", last=True))
            nursery.start_soon(publish, f"b{number}", "b")
    stored = [name for name, how in outcome.items() if how == "stored"]
    assert len(stored) == 21
    assert sum(name.startswith("a") for name in stored) == 1


@pytest.mark.parametrize("last", ["end", None])
async def test_a_live_subscription_ends_behind_the_last(
    hub: Hub, nursery: trio.Nursery, last: str | None
) -> None:
    """Behind the closing event, or where there is none behind the last; others go on."""
    one = Client(nursery, hub, ["a"])
    others = [Client(nursery, hub, topics) for topics in (["a", "b"], ["*"], [Matcher("a")])]
    await settle(hub)
    await hub.publish("1", topics=["a"])
    if last is None:
        await hub.close("a")
    else:
        await hub.publish(last, topics=["a"], last=True)
    await settle(hub)
    got = ["1"] if last is None else ["1", last]
    assert [client.data for client in (one, *others)] == [got] * 4
    assert [client.reason for client in (one, *others)] == [EndReason.COMPLETE, None, None, None]
    assert hub.statistics().ended == {"complete": 1}
    await hub.publish("2", topics=["b"])
    await settle(hub)
    assert [client.data for client in others] == [[*got, "2"], [*got, "2"], got]


async def test_a_subscription_to_several_ends_behind_the_last_of_them(
    hub: Hub, nursery: trio.Nursery
) -> None:
    """Live or later, in whatever order they were closed; what is open keeps all of it open."""
    await hub.close("c")
    live = Client(nursery, hub, ["a", "b", "c"])
    await settle(hub)
    await hub.publish("a", topics=["a"], last=True)
    await settle(hub)
    assert live.reason is None
    await hub.publish("1", topics=["b"])
    await hub.publish("2", topics=["b"], last=True)
    await settle(hub)
    later = await stream(hub, ["c", "b", "a"], first="oldest")
    longer = await stream(hub, ["a", "b", "d"], first="oldest")
    assert live.data == later.data == longer.data == ["a", "1", "2"]
    reasons = [client.reason for client in (live, later, longer)]
    assert reasons == [EndReason.COMPLETE, EndReason.COMPLETE, None]


async def test_a_start_tells_where_there_is_nothing_left(hub: Hub) -> None:
    """It is complete where no event stands behind the cursor, and no reset is due."""
    first = await hub.publish("1", topics=["a"])
    assert not (await hub.locate(["a"])).closed
    last = await hub.publish("2", topics=["a"], last=True)
    await hub.close("b")
    cases: tuple[tuple[list[Any], dict[str, Any], bool], ...] = (
        (["a"], {}, True),
        (["a"], {"first": "newest"}, True),
        (["a"], {"first": 0}, True),
        (["a"], {"first": 1}, False),
        (["a"], {"first": "oldest"}, False),
        (["a"], {"last_event_id": first}, False),
        (["a"], {"last_event_id": last}, True),
        (["a"], {"last_event_id": "never given"}, False),
        (["b"], {"first": "oldest"}, True),
        (["b"], {"last_event_id": last}, True),
        (["b"], {"last_event_id": "never given"}, False),
        (["a", "b"], {}, True),
        (["a", "b"], {"last_event_id": first}, False),
        (["a", "open"], {}, False),
        (["*"], {}, False),
        ([Matcher("a")], {}, False),
        (["a", Matcher("a")], {}, False),
    )
    for topics, options, complete in cases:
        start = await hub.locate(topics, **options)
        assert start.complete == complete, (topics, options)
        assert start.closed == all(topic in ("a", "b") for topic in topics)
        client = await stream(hub, start)
        assert client.reason == (EndReason.COMPLETE if start.closed else None)


@table(
    "asked, seen",
    [
        ({"first": "oldest"}, ["0", "1", "2"]),
        ({"first": 2}, ["1", "2"]),
        ({"last_event_id": "unknown"}, ["reset", "0", "1", "2"]),
        ({"last_event_id": "x0"}, ["1", "2"]),
        ({"last_event_id": "x2"}, []),
    ],
)
@pytest.mark.parametrize("silent", [False, True])
async def test_the_last_id_that_was_sent_leads_to_the_end(
    hub: Hub, *, silent: bool, asked: dict[str, Any], seen: list[str]
) -> None:
    """Whatever was asked for, who comes back with the last id is told that there is no more."""
    topic = f"{silent} {asked}"
    for number in range(3):
        event = SSEEvent(str(number), id=f"x{number}")
        await hub.publish(event, topics=[topic], last=number == 2 and not silent)
    if silent:
        await hub.close(topic)
    client = await stream(hub, [topic], **asked)
    assert (client.reason, client.data) == (EndReason.COMPLETE, seen)
    last = client.sink.last_event_id or asked["last_event_id"]
    assert (await hub.locate([topic], last_event_id=last)).complete


async def test_a_lost_beginning_is_told_and_then_it_ends(tmp_path: Path) -> None:
    """An old id gets the reset that is due, what is left and the end; the id of that the 204."""
    for history in (MemoryHistory(max_events=3), SQLiteHistory(tmp_path / "x.db", max_events=3)):
        async with Hub(history) as hub:
            first = await hub.publish("1", topics=["a"])
            await hub.publish("2", topics=["a"])
            await hub.close("a")
            await hub.publish("noise", topics=["b"])
            await hub.publish("noise", topics=["b"])  # the close alone is left
            assert (await hub.locate(["a"])).complete
            start = await hub.locate(["a"], first="oldest")
            assert (start.complete, start.truncated) == (True, True)
            assert not (await hub.locate(["a"], last_event_id=first)).complete
            client = await stream(hub, ["a"], last_event_id=first)
            assert (client.reason, client.data) == (EndReason.COMPLETE, ["reset"])
            assert json.loads(client.sink.events[0].data or "")["reason"] == "trimmed"
            last = client.sink.last_event_id
            assert (await hub.locate(["a"], last_event_id=last)).complete
            await hub.publish("noise", topics=["b"])
            assert not (await hub.locate(["a"], last_event_id=last)).closed
            await hub.publish("new", topics=["a"])


async def test_a_browser_gets_the_cursor_of_the_end_where_ids_may_mislead(hub: Hub) -> None:
    """Two topics that end with one id would send it back and forth: it is given a cursor."""
    for topic in ("a", "b"):
        await hub.publish(SSEEvent(topic, id="done"), topics=[topic], last=True)
    client = await stream(hub, ["a", "b"], first="oldest", cursor=True)
    assert client.reason is EndReason.COMPLETE
    assert client.data == ["cursor", "a", "b", "cursor"]
    assert (await hub.locate(["a", "b"], last_event_id=client.sink.last_event_id)).complete
    assert not (await hub.locate(["a", "b"], last_event_id="done")).complete


async def test_who_may_not_see_the_close_isnt_told(hub: Hub, nursery: trio.Nursery) -> None:
    """A private close ends the streams of those with the right; to all others it is open."""
    await hub.publish("1", topics=["a"])
    clients = [Client(nursery, hub, ["a"], allow=allow) for allow in ([], ["b"], ["a"])]
    await settle(hub)
    await hub.publish("end", topics=["a"], private=True, last=True)
    await settle(hub)
    assert [client.reason for client in clients] == [None, None, EndReason.COMPLETE]
    start = await hub.locate(["a"])
    assert (start.closed, start.complete) == (False, False)
    assert (await hub.locate(["a"], allow=["a"])).complete
    await hub.close("b", private=True)
    assert not (await hub.locate(["b"])).closed
    with pytest.raises(TopicClosedError):
        await hub.publish("late", topics=["b"])


async def test_a_purge_forgets_the_close(hub: Hub, nursery: trio.Nursery) -> None:
    """The topic is as new: published to, subscribed to, and closed again."""
    await hub.publish("end", topics=["a"], last=True)
    assert await hub.purge("a") == 1
    assert not (await hub.locate(["a"])).closed
    client = Client(nursery, hub, ["a"])
    await settle(hub)
    await hub.publish("again", topics=["a"])
    await hub.close("a")
    await settle(hub)
    assert (client.reason, client.data) == (EndReason.COMPLETE, ["again"])


async def test_a_topic_that_was_opened_anew_keeps_a_subscription(
    hub: Hub, nursery: trio.Nursery
) -> None:
    """What was closed when it began may be open when the last of its topics is closed."""
    await hub.close("a")
    client = Client(nursery, hub, ["a", "b"])
    await settle(hub)
    await hub.purge("a")
    await hub.publish("b", topics=["b"], last=True)
    await settle(hub)
    assert not client.has_ended
    await hub.publish("a", topics=["a"])
    await hub.close("a")
    await settle(hub)
    assert client.data == ["b", "a"]
    assert client.has_ended


async def test_a_channel_ends_with_its_topic(hub: Hub) -> None:
    """Code that reads gets everything, and then the end."""
    async with hub.subscription(["a"]) as events:
        await hub.publish("1", topics=["a"])
        await hub.publish("2", topics=["a"], last=True)
        assert [event.data async for event in events] == ["1", "2"]


async def test_a_slow_client_gets_all_before_the_end(hub: Hub, nursery: trio.Nursery) -> None:
    """Whoever is behind when the topic is closed is brought to its end, not cut off."""
    client = Client(nursery, hub, ["a"])
    await settle(hub)
    client.sink.stalled = True
    for number in range(50):
        await hub.publish(str(number), topics=["a"])
    await hub.close("a")
    await wait_all_tasks_blocked()
    assert not client.has_ended
    client.sink.resume()
    await settle(hub)
    assert client.data == list(map(str, range(50)))
    assert client.has_ended


async def test_a_client_that_fell_behind_the_close_ends_too(nursery: trio.Nursery) -> None:
    """It is told of the gap, goes on at the head, and doesn't come by the close any more."""
    async with Hub(MemoryHistory(max_events=2)) as hub:
        client = Client(nursery, hub, ["a"])
        await settle(hub)
        client.sink.stalled = True
        for number in range(5):
            await hub.publish(str(number), topics=["a"])
            await wait_all_tasks_blocked()
        await hub.close("a")
        client.sink.resume()
        await wait_all_tasks_blocked()
        assert client.data == ["0", "reset"]
        assert client.has_ended


async def test_a_client_that_takes_the_last_slowly_ends_too(
    hub: Hub, nursery: trio.Nursery
) -> None:
    """One whose sink isn't idle with the closing event in it has to be asked all the same."""
    client = Client(nursery, hub, ["a"])
    await settle(hub)
    client.sink.stalled = True
    await hub.publish("end", topics=["a"], last=True)
    await wait_all_tasks_blocked()
    client.sink.resume()
    await settle(hub)
    assert (client.reason, client.data) == (EndReason.COMPLETE, ["end"])


@pytest.mark.slow
@table(
    "data, windows", [(["1", "2"], 100_000), (["1"], 100_000), ([], 100_000), (["1", "2", "3"], 1)]
)
async def test_thousands_end_a_few_at_a_time(data: list[str], windows: int) -> None:
    """A topic with many subscribers that ends lets others run, and each has all of it."""
    settings = HubSettings(max_window_records=windows)
    async with Hub(settings=settings) as hub, trio.open_nursery() as nursery:
        clients = [Client(nursery, hub, ["a"]) for _ in range(250)]
        await settle(hub)
        for number in data[:-1]:
            await hub.publish(number, topics=["a"])
        ended = BusiestStep(Subscriber.leave_feed)
        with ended:
            if len(data) > 1:
                await hub.publish(data[-1], topics=["a"], last=True)
            else:
                for number in data:
                    await hub.publish(number, topics=["a"])
                await hub.close("a")
            await settle(hub)
        assert {client.reason for client in clients} == {EndReason.COMPLETE}
        assert all(client.data == data for client in clients)
        assert ended.most <= CALM_SENDS or windows == 1
