"""`Collector`: statistics as Prometheus' metrics, read when they are collected.

Nothing is counted twice: a scrape takes one snapshot of each and turns it into samples. That
costs the scrape some hundred microseconds, and the hot paths nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector as BaseCollector

from h3trio._version import __version__

from ._families import HISTORY, HUB, PREFIX, SERVER, Family, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from h3trio._http.statistics import ServerStatistics
    from h3trio.hub import Hub, LatencyStatistics

# The label that tells several hubs apart.
_HUB: Final = "hub"


@final
class Collector(BaseCollector):
    """Collects what a server and its hubs count; register it with a `CollectorRegistry`.

    Args:
        server: gives the server's snapshot, such as `server.statistics`; `None` for none now.
        hub: the one hub there is.
        hubs: several, by names: their metrics have the label `hub`.

    Raises:
        ValueError: both `hub` and `hubs` are given.
    """

    def __init__(
        self,
        *,
        server: Callable[[], ServerStatistics | None] | None = None,
        hub: Hub | None = None,
        hubs: Mapping[str, Hub] | None = None,
    ) -> None:
        if hub is not None and hubs is not None:
            raise ValueError("give the hub, or several by their names")
        self._server = server
        self._labels = () if hubs is None else (_HUB,)
        self._hubs: Mapping[str, Hub] = hubs or ({} if hub is None else {"": hub})

    def collect(self) -> Iterator[Metric]:
        """Take the snapshots; give their samples."""
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

    def describe(self) -> Iterable[Metric]:
        """Nothing: to be asked at registration would be a scrape of its own."""
        return ()


def families(
    table: Mapping[str, Family],
    snapshots: Sequence[tuple[tuple[str, ...], object]],
    *,
    labels: Sequence[str] = (),
) -> Iterator[Metric]:
    """Turn the fields of some snapshots, each with its label values, into metrics."""
    for field, family in table.items():
        metric = _metric(family, labels)
        for values, snapshot in snapshots:
            _ADD[family.kind](metric, values, getattr(snapshot, field))
        yield metric


def _metric(family: Family, labels: Sequence[str]) -> Any:  # noqa: ANN401 - `add_metric` differs by kind
    name, names = PREFIX + family.name, [*labels, *filter(None, [family.label])]
    if family.kind in (Kind.COUNTER, Kind.LABELLED):
        return CounterMetricFamily(name, family.help, labels=names)
    if family.kind is Kind.HISTOGRAM:
        return HistogramMetricFamily(name, family.help, labels=names)
    return GaugeMetricFamily(name, family.help, labels=names)


def _add_number(metric: Any, values: tuple[str, ...], number: float) -> None:  # noqa: ANN401 - as above
    metric.add_metric(values, number)


def _add_mapping(
    metric: Any,  # noqa: ANN401 - as above
    values: tuple[str, ...],
    counts: Mapping[object, int],
) -> None:
    for key, count in counts.items():
        metric.add_metric((*values, str(key)), count)


def _add_flag(metric: Any, values: tuple[str, ...], value: object) -> None:  # noqa: ANN401 - as above
    # A text says that there is something to say, an empty one too.
    metric.add_metric(values, int(value is not None and value is not False))


def _add_info(metric: Any, values: tuple[str, ...], text: object) -> None:  # noqa: ANN401 - as above
    metric.add_metric((*values, str(text)), 1)


def _add_histogram(metric: Any, values: tuple[str, ...], found: LatencyStatistics) -> None:  # noqa: ANN401 - as above
    buckets = [(_edge(bound), count) for bound, count in found.buckets]
    metric.add_metric(values, buckets=buckets, sum_value=found.sum)


def _edge(bound: float) -> str:
    return "+Inf" if bound == math.inf else repr(bound)


_ADD: Final[Mapping[Kind, Callable[..., None]]] = {
    Kind.GAUGE: _add_number,
    Kind.COUNTER: _add_number,
    Kind.LABELLED: _add_mapping,
    Kind.FLAG: _add_flag,
    Kind.INFO: _add_info,
    Kind.HISTOGRAM: _add_histogram,
}
