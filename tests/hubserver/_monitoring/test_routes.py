"""`/statistics` of a hub server, once and as a stream."""

from __future__ import annotations

import json
import time
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, final

import pytest
import trio
from hub_helpers import FakeSink
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import ServerStatistics, __version__
from h3trio.hub import (
    HistoryStatistics,
    Hub,
    HubSettings,
    HubStatistics,
    MemoryHistory,
    NodeStatistics,
)
from h3trio.hubserver import AccessStatistics, AnonymousAccess, create_app
from h3trio.hubserver._monitoring.samples import STEP
from h3trio.hubserver._monitoring.statistics import MAX_NAMES, MAX_SLOW, MAX_TOPICS
from h3trio.runs import Run, Runs, RunsStatistics
from h3trio.testing import Client, SharedMemoryHistory, SharedMemoryStore, connect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from _typeshed import DataclassInstance
    from trio.testing import MockClock

PLAIN = {"accept": "application/json"}


@final
class Served:
    """A hub's app that runs, and requests to it as from this machine."""

    def __init__(self, hub: Hub, runs: Runs | None = None) -> None:
        self.hub = hub
        self.app = create_app(hub, runs=runs)

    def connect(self, target: str, **headers: str) -> Client:
        """Make a client of it."""
        return connect(self.app, target, headers=headers, lifespan=False)

    async def statistics(self) -> dict[str, Any]:
        """Ask for one snapshot."""
        async with self.connect("/statistics", **PLAIN) as client:
            assert client.headers["content-type"] == "application/json"
            assert client.headers["cache-control"] == "no-store"
            found: dict[str, Any] = json.loads(await client.body())
            return found


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    """A hub in memory that keeps eight events."""
    one = Served(Hub(MemoryHistory(max_events=8)))
    async with one.app.lifespan():
        yield one


def names(kind: type[DataclassInstance]) -> set[str]:
    """The fields of a dataclass."""
    return {field.name for field in fields(kind)}


async def test_a_snapshot_has_every_field(served: Served) -> None:
    """Each count of server, hub, history and access control stands in the JSON under its name."""
    found = await served.statistics()
    assert found["version"] == __version__
    assert abs(found["time"] - time.time()) < 60
    assert 0 <= found["uptime"] < 60
    assert set(found["server"]) == names(ServerStatistics)
    assert set(found["history"]) == names(HistoryStatistics)
    assert set(found["access"]) == names(AccessStatistics)
    apart = {"history", "node", "nodes", "publish", "sweep", "topics"}
    assert set(found["hub"]) == names(HubStatistics) - apart
    assert set(found["latency"]) == {"publish", "sweep"}
    assert (found["topics"], found["topics_total"], found["slow"]) == ([], 0, [])
    assert found["runs"] is None


async def test_a_snapshot_has_the_runs() -> None:
    """A hub that was given runs tells of them, and runs them."""

    async def wait(_run: Run) -> None:
        await trio.sleep_forever()

    runs = Runs(Hub())
    served = Served(runs.hub, runs=runs)
    async with served.app.lifespan():
        await runs.start(wait)
        found = (await served.statistics())["runs"]
        assert set(found) == names(RunsStatistics)
        assert (found["running"], found["unwatched"]) == (1, 1)
    with pytest.raises(ValueError, match="another hub"):
        create_app(Hub(), runs=runs)


async def test_a_snapshot_counts(served: Served) -> None:
    """Events are counted in all and by topic, deliveries by subscriber, latencies by steps."""
    async with served.connect("/events/news"), served.connect("/events"):
        await wait_all_tasks_blocked()
        await served.hub.publish("hi", topics=["news"])
        await served.hub.publish("ho", topics=["other"])
        await wait_all_tasks_blocked()
        found = await served.statistics()
        size = len(served.hub.last_event_id)
    hub = found["hub"]
    assert (hub["published"], hub["delivered"], hub["subscribers"], hub["ready"]) == (2, 3, 2, 2)
    assert 3 * len(f"id: {'x' * size}\ndata: hi\n\n") == hub["delivered_bytes"]
    assert found["topics_total"] == 2
    assert found["topics"] == [
        {"topic": "news", "subscribers": 2, "published": 1},
        {"topic": "other", "subscribers": 1, "published": 1},
    ]
    publish = found["latency"]["publish"]
    assert publish["count"] == publish["buckets"][-1][1] == 2
    assert 0 < publish["p50"] <= publish["p90"] <= publish["p99"] <= publish["max"]
    assert publish["max"] <= publish["sum"]
    assert found["latency"]["sweep"]["count"] >= 2
    assert found["history"]["durability"] == "memory"


async def test_nodes_are_told_with_topics_and_slow_clients() -> None:
    """Each hub that shares the history has a row, with the fields of its statistics."""
    hub = Hub(SharedMemoryHistory(SharedMemoryStore()), settings=HubSettings(node="one"))
    served = Served(hub)
    async with served.app.lifespan():
        await wait_all_tasks_blocked()
        found = await served.statistics()
    assert found["node"] == "one"
    (node,) = found["nodes"]
    assert set(node) == names(NodeStatistics)
    assert (node["name"], node["subscribers"], node["topics"], node["slow"]) == ("one", 0, [], [])


async def test_the_end_of_a_subscription_is_counted(served: Served) -> None:
    """By its reason; a client that goes has `left`."""
    async with served.connect("/events/a"):
        await wait_all_tasks_blocked()
    async with served.connect("/events/a"):
        await wait_all_tasks_blocked()
        served.hub.kick(lambda _subscription: True)
        await wait_all_tasks_blocked()
    assert (await served.statistics())["hub"]["ended"] == {"left": 1, "kicked": 1}


async def test_slow_subscriptions_are_named(served: Served) -> None:
    """A subscriber that isn't fed live is listed with its client, its topics and its lag."""
    async with connect(served.app, "/events/big", lifespan=False, buffer_bytes=500) as client:
        await wait_all_tasks_blocked()
        client.stall()
        for _ in range(3):
            await served.hub.publish("x" * 1000, topics=["big"])
            await wait_all_tasks_blocked()
        found = await served.statistics()
        (slow,) = found["slow"]
        assert (slow["client"], slow["topics"], slow["behind"]) == ("memory", ["big"], 2)
        assert abs(slow["since"] - time.time()) < 60
        assert slow["cursor"]
        assert found["hub"]["ready"] == 0
        client.resume()
        for _ in range(3):
            await client.next_event()
        await wait_all_tasks_blocked()
        found = await served.statistics()
    assert (found["slow"], found["hub"]["replays"], found["hub"]["replayed_events"]) == ([], 1, 2)
    assert found["hub"]["delivered"] == 3


async def test_tables_are_bounded(served: Served, nursery: trio.Nursery) -> None:
    """Of topics and slow subscriptions the first so many are told, and ten topics of each."""
    sinks = [FakeSink() for _ in range(MAX_SLOW + 1)]
    names = [f"t{n:03}" for n in range(MAX_TOPICS + 1)]
    for sink in sinks:
        sink.stalled = True
        nursery.start_soon(served.hub.subscribe, sink, names)
    for name in names:
        await served.hub.publish("x", topics=[name])
    await wait_all_tasks_blocked()
    found = await served.statistics()
    assert (len(found["topics"]), found["topics_total"]) == (MAX_TOPICS, MAX_TOPICS + 1)
    assert len(found["slow"]) == MAX_SLOW
    assert found["slow"][0]["topics"] == names[:MAX_NAMES]
    nursery.cancel_scope.cancel()


async def test_a_stream_of_snapshots(served: Served, autojump_clock: MockClock) -> None:
    """One comes at once, then one each interval; each is the event `statistics`, in one line."""
    async with served.connect("/statistics?interval=2") as client:
        times = []
        for _ in range(3):
            event = await client.next_event()
            assert event.event == "statistics"
            assert set(json.loads(event.data or "")) >= {"server", "hub", "topics"}
            times.append(autojump_clock.current_time())
    assert times[2] - times[1] == 2
    assert times[1] - times[0] <= 2


async def test_streams_share_a_snapshot(served: Served, autojump_clock: MockClock) -> None:
    """Streams that ask at the same time get the very same snapshot."""
    async with trio.open_nursery() as nursery:
        seen: list[list[str | None]] = [[] for _ in range(5)]

        async def watch(mine: list[str | None]) -> None:
            async with served.connect("/statistics?interval=5") as client:
                mine.extend([(await client.next_event()).data for _ in range(3)])

        for mine in seen:
            nursery.start_soon(partial(watch, mine))
    assert all(mine == seen[0] for mine in seen)
    assert len(set(seen[0])) == 3
    assert autojump_clock.current_time() < 11


async def test_no_stream_gets_a_snapshot_twice(
    served: Served,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
) -> None:
    """A stream that begins with another one's snapshot is sent a newer one after its interval."""
    async with served.connect("/statistics?interval=60") as one:
        first = (await one.next_event()).data
        await trio.sleep(0.3)
        async with served.connect("/statistics?interval=0.5") as other:
            seen = [(await other.next_event()).data for _ in range(3)]
    assert seen[0] == first
    assert len(set(seen)) == 3


async def test_a_slow_stream_skips_snapshots(served: Served, autojump_clock: MockClock) -> None:
    """A client that takes nothing for a while gets what was sent, and then the newest."""
    target = "/statistics?interval=1"
    async with connect(served.app, target, lifespan=False, buffer_bytes=500) as client:
        await client.next_event()
        client.stall()
        await trio.sleep(10.5)
        await served.hub.publish("x", topics=["a"])
        client.resume()
        await client.next_event()
        newest = await client.next_event()
        assert 11 <= autojump_clock.current_time() <= 12
        assert json.loads(newest.data or "")["hub"]["published"] == 1


async def test_nothing_is_made_for_nobody(served: Served, autojump_clock: MockClock) -> None:
    """Without a stream no task wakes, but for the sample of each second."""
    async with served.connect("/statistics?interval=0.5") as client:
        await client.next_event()
    await trio.sleep(1)
    await wait_all_tasks_blocked()
    autojump_clock.autojump_threshold = float("inf")
    statistics = trio.lowlevel.current_statistics()
    assert STEP / 2 < statistics.seconds_to_next_deadline <= STEP


@table("interval", ["0.4", "61", "nan", "x", ""])
async def test_an_interval_out_of_range_is_refused(served: Served, interval: str) -> None:
    """400 that says the range."""
    async with served.connect(f"/statistics?interval={interval}") as client:
        assert client.status == 400
        assert b"from 0.5 to 60 seconds" in await client.body()


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_statistics_are_for_who_may_operate(served: Served, accept: str) -> None:
    """A request through a proxy is refused, unless anyone may operate."""
    headers = {"accept": accept, "via": "1.1 proxy"}
    async with served.connect("/statistics", **headers) as client:
        assert client.status == 403
        assert b"--allow-anonymous-operate" in await client.body()
    assert (await served.statistics())["access"]["forbidden"] == 1
    app = create_app(anonymous=AnonymousAccess(allow_anonymous_operate=True))
    async with connect(app, "/statistics", headers=headers) as client:
        assert client.status == 200
