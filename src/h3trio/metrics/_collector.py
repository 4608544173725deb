"""`Collector` and `Metrics`: the statistics of a server, its hubs and runs for Prometheus.

Nothing is counted twice: a scrape takes one snapshot of each and turns it into samples, so metrics
cost the hot paths nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector as BaseCollector

from h3trio import Response
from h3trio._version import __version__

from ._families import HISTORY, HUB, NODE, PREFIX, RUNS, SERVER, Family, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from h3trio import H3Event, ServerStatistics
    from h3trio.hub import Hub
    from h3trio.runs import Runs

# The label that tells several hubs apart, and that of those that share a history with one.
_HUB: Final = "hub"
_NODE: Final = "node"


@final
class Collector(BaseCollector):
    """Collects the counts of a server and its hubs; register it with a `CollectorRegistry`.

    Args:
        server: returns the server's snapshot, such as `server.statistics`, or `None` for none.
        hub: the only hub.
        hubs: several, by their names: their metrics have the label `hub`.
        runs: the runs on a hub.

    Raises:
        ValueError: both `hub` and `hubs` are given.
    """

    def __init__(
        self,
        *,
        server: Callable[[], ServerStatistics | None] | None = None,
        hub: Hub | None = None,
        hubs: Mapping[str, Hub] | None = None,
        runs: Runs | None = None,
    ) -> None:
        if hub is not None and hubs is not None:
            raise ValueError("give the hub, or several by their names")
        self._server = server
        self._runs = runs
        self._labels = () if hubs is None else (_HUB,)
        self._hubs: Mapping[str, Hub] = hubs or ({} if hub is None else {"": hub})

    def collect(self) -> Iterator[Metric]:
        """Take the snapshots; yield their metrics."""
        info = GaugeMetricFamily(f"{PREFIX}build_info", "h3trio itself.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        server = None if self._server is None else self._server()
        if server is not None:
            yield from families(SERVER, [((), server)])
        found = [
            ((name,) if self._labels else (), hub.statistics()) for name, hub in self._hubs.items()
        ]
        if found:
            yield from families(HUB, found, labels=self._labels)
            histories = [(values, hub.history) for values, hub in found]
            yield from families(HISTORY, histories, labels=self._labels)
            # By names of their own: each node tells of all, so a sum over nodes would count them
            # as often as there are nodes.
            nodes = [((*values, node.name), node) for values, hub in found for node in hub.nodes]
            if nodes:
                yield from families(NODE, nodes, labels=(*self._labels, _NODE))
        if self._runs is not None:
            yield from families(RUNS, [((), self._runs.statistics())])

    def describe(self) -> Iterable[Metric]:
        """Return nothing: otherwise a registry would collect once to learn the names."""
        return ()


def families(
    table: Mapping[str, Family],
    snapshots: Sequence[tuple[tuple[str, ...], object]],
    *,
    labels: Sequence[str] = (),
) -> Iterator[Metric]:
    """Turn the fields of some snapshots, each with its label values, into metrics."""
    for field, family in table.items():
        names = [*labels, *filter(None, [family.label])]
        make = _METRICS.get(family.kind, GaugeMetricFamily)
        metric = make(PREFIX + family.name, family.help, labels=names)
        for values, snapshot in snapshots:
            _add(metric, family.kind, values, getattr(snapshot, field))
        yield metric


def _add(
    metric: Any,  # noqa: ANN401 - `add_metric` differs by kind
    kind: Kind,
    values: tuple[str, ...],
    found: Any,  # noqa: ANN401 - the fields of statistics differ by kind, too
) -> None:
    """Add the samples of one field of one snapshot."""
    match kind:
        case Kind.LABELLED:
            for key, count in found.items():
                metric.add_metric((*values, str(key)), count)
        case Kind.FLAG:
            # A text says that there is something to say, an empty one too.
            metric.add_metric(values, int(found is not None and found is not False))
        case Kind.INFO:
            metric.add_metric((*values, str(found)), 1)
        case Kind.HISTOGRAM:
            buckets = [(_edge(bound), count) for bound, count in found.buckets]
            metric.add_metric(values, buckets=buckets, sum_value=found.sum)
        case _:
            metric.add_metric(values, found)


def _edge(bound: float) -> str:
    return "+Inf" if bound == math.inf else repr(bound)


# The others are gauges.
_METRICS: Final[Mapping[Kind, Callable[..., Metric]]] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.LABELLED: CounterMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
}


@final
class Metrics:
    """Answers with the metrics of the server asked, and of hubs: `app.get("/metrics")(Metrics())`.

    It lets everybody in; let the app refuse those who may not see them.

    Args:
        hub: the only hub.
        hubs: several, by their names: their metrics have the label `hub`.
        runs: the runs on a hub.
        registry: the registry to register with, beside metrics of your own: one `Metrics` for each.
            Without it, a new one that has the process's metrics.

    Raises:
        ValueError: both `hub` and `hubs` are given.
    """

    def __init__(
        self,
        *,
        hub: Hub | None = None,
        hubs: Mapping[str, Hub] | None = None,
        runs: Runs | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._event: H3Event | None = None
        collector = Collector(server=self._server_statistics, hub=hub, hubs=hubs, runs=runs)
        if registry is None:
            registry = CollectorRegistry(auto_describe=False)
            ProcessCollector(registry=registry)
        registry.register(collector)
        self.registry: CollectorRegistry = registry
        """The registry whose metrics are the response; register metrics of your own here."""

    async def __call__(self, event: H3Event) -> Response:
        """Answer in Prometheus' text format, or in OpenMetrics if `Accept` asks for it."""
        encode, content_type = choose_encoder(event.headers.get("accept", ""))
        # Nothing between these waits, so no other request's event can be in its place.
        self._event = event
        try:
            body = encode(self.registry)
        finally:
            self._event = None
        headers = {"Cache-Control": "no-store"}
        return Response(body, content_type=content_type, headers=headers)

    def _server_statistics(self) -> ServerStatistics | None:
        """Return the statistics of the server asked; `None` if somebody else collects."""
        return None if self._event is None else self._event.server_statistics()
