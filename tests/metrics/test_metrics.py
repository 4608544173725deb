"""Metrics for Prometheus: no field forgotten, names as it wants them, the values."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from test_examples import load
from trio.testing import wait_all_tasks_blocked

from h3trio import App, ServerStatistics, __version__
from h3trio.hub import (
    HistoryStatistics,
    Hub,
    HubSettings,
    HubStatistics,
    LatencyStatistics,
    NodeStatistics,
)
from h3trio.hubserver import AccessStatistics, create_app
from h3trio.hubserver._monitoring.metrics import ACCESS_FIELDS
from h3trio.metrics import Collector, Metrics
from h3trio.metrics._families import HISTORY, HUB, NODE, RUNS, SERVER, Family, Kind
from h3trio.runs import Run, Runs, RunsStatistics
from h3trio.testing import SharedMemoryHistory, SharedMemoryStore, connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client import Metric

MONITORING = Path(__file__).parents[2] / "docs" / "reference" / "monitoring.md"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(metrics: Iterable[Metric]) -> Samples:
    """The values by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    """One value."""
    return found[name, frozenset(labels.items())]


def openmetrics(text: str) -> Iterable[Metric]:
    """Parse strictly."""
    found: Iterable[Metric] = parse_openmetrics(text)  # type: ignore[no-untyped-call]  # it has no annotations
    return found


async def scrape(app: App, *, accept: str = "*/*", lifespan: bool = False) -> tuple[str, str]:
    """Ask for the metrics; return their type and their text."""
    async with connect(app, "/metrics", headers={"accept": accept}, lifespan=lifespan) as client:
        assert client.status == 200
        assert client.headers["cache-control"] == "no-store"
        return client.headers["content-type"], (await client.body()).decode()


def of(kind: type[object]) -> set[str]:
    """The fields of a dataclass."""
    return {field.name for field in fields(kind)}  # type: ignore[arg-type]  # each of them is one


def test_every_field_has_a_metric() -> None:
    """Metrics tell all that a snapshot tells: whoever adds a field names its metric."""
    assert SERVER.keys() == of(ServerStatistics)
    assert HUB.keys() == of(HubStatistics) - {"history", "node", "nodes"}
    assert NODE.keys() == of(NodeStatistics) - {"name", "version", "topics", "slow"}
    assert HISTORY.keys() == of(HistoryStatistics)
    assert RUNS.keys() == of(RunsStatistics)
    assert of(AccessStatistics) == ACCESS_FIELDS


async def test_every_metric_is_documented() -> None:
    """The page on monitoring names each one that is scraped, but those of the process."""
    app = create_app(runs=Runs(Hub(SharedMemoryHistory(SharedMemoryStore()))))
    documented = set(re.findall(r"`(h3trio_\w+)", MONITORING.read_text(encoding="utf-8")))
    async with app.lifespan():
        await wait_all_tasks_blocked()
        _, text = await scrape(app, accept=OPENMETRICS)
    found = {metric.name for metric in openmetrics(text) if metric.name.startswith("h3trio_")}
    assert {name.removesuffix("_total") for name in documented} == found


@pytest.mark.parametrize("table", [SERVER, HUB, NODE, HISTORY, RUNS])
def test_names_are_as_prometheus_wants_them(table: Mapping[str, Family]) -> None:
    """Snake case, no `_total` of our own, a unit where there is one, a sentence of help."""
    for field, family in table.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", family.name)
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert family.help.endswith(".")
        assert "bytes" not in field or family.name.endswith("_bytes")
        assert (family.kind is not Kind.HISTOGRAM) or family.name.endswith("_seconds")
        assert bool(family.label) is (family.kind in (Kind.LABELLED, Kind.INFO))
    groups = (SERVER, HUB, NODE, HISTORY, RUNS)
    names = [family.name for each in groups for family in each.values()]
    assert len(set(names)) == len(names)


async def test_the_hub_is_scraped() -> None:
    """Both parsers of prometheus-client take the answer, and the numbers are right."""
    hub = Hub()
    app = create_app(hub)
    async with app.lifespan():
        async with connect(app, "/events/a", lifespan=False):
            await wait_all_tasks_blocked()
            await hub.publish("x", topics=["a"])
            await wait_all_tasks_blocked()
            kind, text = await scrape(app)
            assert kind.startswith("text/plain")
            found = samples(parse_text(text))
            kind, text = await scrape(app, accept=OPENMETRICS)
        assert kind.startswith("application/openmetrics-text")
        assert samples(openmetrics(text)).keys() == found.keys()
        after = samples(parse_text((await scrape(app))[1]))
    assert value(found, "h3trio_build_info", version=__version__) == 1
    assert value(found, "h3trio_connections") == 1
    assert value(found, "h3trio_draining") == 0
    assert value(found, "h3trio_subscribers") == value(found, "h3trio_ready_subscribers") == 1
    assert value(found, "h3trio_published_events_total") == 1
    assert value(found, "h3trio_delivered_events_total") == 1
    assert value(found, "h3trio_history_events") == 1
    assert value(found, "h3trio_history_failing") == 0
    assert value(found, "h3trio_history_info", durability="memory") == 1
    assert value(found, "h3trio_publish_seconds_count") == 1
    assert value(found, "h3trio_publish_seconds_bucket", le="+Inf") == 1
    assert value(found, "h3trio_publish_seconds_bucket", le="10.0") == 1
    assert value(found, "h3trio_sweep_seconds_count") == 1
    assert value(found, "h3trio_access_refusals_total", reason="forbidden") == 0
    assert value(found, "process_resident_memory_bytes") > 0
    assert value(after, "h3trio_subscriptions_ended_total", reason="left") == 1


async def test_runs_are_scraped() -> None:
    """Runs under way are there, and those that ended by how."""

    async def wait(run: Run, seconds: float) -> None:
        await run.send("x")
        await trio.sleep(seconds)

    runs = Runs(Hub())
    app = create_app(runs=runs)
    async with app.lifespan():
        await (await runs.start(wait, 0)).result()
        await runs.start(wait, 100, key="k")
        await runs.start(wait, 100, key="k")
        found = samples(parse_text((await scrape(app))[1]))
    assert value(found, "h3trio_runs") == value(found, "h3trio_runs_unwatched") == 1
    assert value(found, "h3trio_runs_watched") == value(found, "h3trio_run_viewers") == 0
    assert value(found, "h3trio_runs_started_total") == 2
    assert value(found, "h3trio_run_starts_joined_total") == 1
    assert value(found, "h3trio_runs_ended_total", state="done") == 1


async def test_what_ended_a_stream_is_a_label() -> None:
    """The server's mappings become a sample for each key."""
    hub = Hub()
    app = create_app(hub)
    async with app.lifespan(), connect(app, "/events/a", lifespan=False) as client:
        await wait_all_tasks_blocked()
        context = client._now.state  # noqa: SLF001 - each client in memory is a server of its own
        hub.kick(lambda _: True)
        await client.wait_closed()
        found = samples(Collector(server=context.statistics, hub=hub).collect())
    assert value(found, "h3trio_streams_ended_total", reason="kicked") == 1
    assert value(found, "h3trio_requests_ended_total", reason="kicked") == 1
    assert value(found, "h3trio_kicks_total") == 1


async def test_metrics_of_a_program_of_ones_own() -> None:
    """An app's own metrics and ours share a registry; several hubs are told apart by a label."""
    registry = CollectorRegistry()
    own = Counter("own", "Own.", registry=registry)
    own.inc()
    hubs = {"news": Hub(), "chat": Hub()}
    app = App()
    app.get("/metrics")(Metrics(hubs=hubs, registry=registry))
    async with hubs["news"], hubs["chat"]:
        await hubs["chat"].publish("x", topics=["a"])
        found = samples(parse_text((await scrape(app))[1]))
        apart = samples(registry.collect())
    assert value(found, "own_total") == 1
    assert value(found, "h3trio_connections") == 1
    assert value(found, "h3trio_published_events_total", hub="chat") == 1
    assert value(found, "h3trio_published_events_total", hub="news") == 0
    assert value(found, "h3trio_publish_seconds_count", hub="chat") == 1
    # Collected in another way than by a request, there is no server to tell of.
    assert ("h3trio_connections", frozenset[tuple[str, str]]()) not in apart
    assert value(apart, "h3trio_published_events_total", hub="chat") == 1


async def test_each_node_tells_of_all() -> None:
    """Of hubs that share a history, by names of their own, so that no sum counts any twice."""
    store = SharedMemoryStore()
    one, two = (
        Hub(SharedMemoryHistory(store), settings=HubSettings(node=name)) for name in ("one", "two")
    )
    app, registry = create_app(two), CollectorRegistry()
    registry.register(Collector(hubs={"x": one}))
    async with one, app.lifespan(), connect(app, "/events/a", lifespan=False):
        await one.publish("x", topics=["a"])
        await wait_all_tasks_blocked()
        found = samples(parse_text((await scrape(app))[1]))
        apart = samples(registry.collect())
    assert value(found, "h3trio_subscribers") == 1
    for node in ("one", "two"):
        assert value(found, "h3trio_node_subscribers", node=node) == 0  # as they were heard
        assert value(found, "h3trio_node_newest_position", node=node) == 0
        assert 0 <= value(found, "h3trio_node_heard_seconds", node=node) < 60
    assert value(apart, "h3trio_node_publishes_total", node="one", hub="x") == 0
    alone = samples(Collector(hub=Hub()).collect())
    assert not [name for name, _ in alone if name.startswith("h3trio_node_")]


async def test_the_example() -> None:
    """An application's own metrics stand beside ours."""
    app = load("app_metrics").app
    async with app.lifespan(), connect(app, "/hello", lifespan=False) as client:
        assert await client.body() == b"hello\n"
        found = samples(parse_text((await scrape(app))[1]))
    assert value(found, "visits_total") == value(found, "h3trio_published_events_total") == 1


def test_one_hub_or_several() -> None:
    """Both at once are refused: which of them had the label?"""
    with pytest.raises(ValueError, match="several by their names"):
        Collector(hub=Hub(), hubs={"a": Hub()})


async def test_without_prometheus_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is 501, and says what to install."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    async with connect(create_app(), "/metrics") as client:
        assert client.status == 501
        assert b"pip install '.[metrics]'" in await client.body()


async def test_metrics_are_for_who_may_operate() -> None:
    """Elsewhere they are refused."""
    async with connect(create_app(), "/metrics", headers={"via": "1.1 proxy"}) as client:
        assert client.status == 403


def test_quantiles() -> None:
    """Within a step they are spread evenly, and none is above the maximum."""
    found = LatencyStatistics(
        count=4, sum=1, max=0.35, buckets=((0.1, 2), (0.2, 2), (0.5, 4), (float("inf"), 4))
    )
    shares = [found.quantile(share) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert shares == pytest.approx([0, 0.05, 0.1, 0.275, 0.35])
    none = LatencyStatistics(count=0, sum=0, max=0, buckets=((0.1, 0), (float("inf"), 0)))
    assert none.quantile(0.99) == 0
