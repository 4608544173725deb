"""`make_metrics`: the handler of `/metrics`, which adds the counts of access control.

prometheus-client comes with an extra and takes a moment to import, so it is imported at the first
scrape. Without it the answer says which extra to install.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Final

from h3trio import HTTPError
from h3trio._extras import install

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from h3trio.hub import Hub
    from h3trio.hubserver._access.access import AccessControl
    from h3trio.metrics import Metrics
    from h3trio.runs import Runs

_REFUSALS: Final = (
    "unauthorized",
    "forbidden",
    "misdirected",
    "too_many_topics",
    "topics_too_long",
    "too_many_streams",
    "rate_limited",
)
_COUNTERS: Final = {
    "slowed": "Times a body of events had to wait for the publish rate.",
    "expired": "Streams ended as their grant did.",
    "revoked": "Streams ended as their grant was gone or another.",
    "recheck_failures": "Times that a grant could not be asked for again.",
}
_GAUGES: Final = {
    "rate_buckets": "Publishers whose rate is remembered.",
    "subjects": "Subjects that have a stream.",
}
ACCESS_FIELDS: Final = frozenset({*_REFUSALS, *_COUNTERS, *_GAUGES})
"""The fields of `AccessStatistics` that have a metric."""


def make_metrics(hub: Hub, access: AccessControl, runs: Runs | None) -> Metrics:
    """Make the handler of `GET /metrics`.

    Raises:
        HTTPError: 501 without prometheus-client.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise HTTPError(501, f"/metrics needs prometheus-client: {install('metrics')}")
    from prometheus_client.registry import Collector  # noqa: PLC0415 - see this module's docstring

    from h3trio.metrics import Metrics  # noqa: PLC0415 - same

    class AccessCollector(Collector):
        """Collects the counts of access control."""

        def collect(self) -> Iterator[Metric]:
            return access_metrics(access)

    metrics = Metrics(hub=hub, runs=runs)
    metrics.registry.register(AccessCollector())
    return metrics


def access_metrics(access: AccessControl) -> Iterator[Metric]:
    """Give the samples of what access control counts."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - as above

    found, prefix = access.statistics(), "h3trio_access_"
    text = "Requests refused, by why."
    refusals = CounterMetricFamily(f"{prefix}refusals", text, labels=["reason"])
    for name in _REFUSALS:
        refusals.add_metric([name], getattr(found, name))
    yield refusals
    for name, text in _COUNTERS.items():
        yield CounterMetricFamily(prefix + name, text, value=getattr(found, name))
    for name, text in _GAUGES.items():
        yield GaugeMetricFamily(prefix + name, text, value=getattr(found, name))
