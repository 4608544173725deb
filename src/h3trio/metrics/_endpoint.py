"""`Metrics`: the handler of `GET /metrics`, a registry's metrics as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from h3trio import Response

from ._collector import Collector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from h3trio import H3Event, ServerStatistics
    from h3trio.hub import Hub


@final
class Metrics:
    """Answers with the metrics of the server asked, and of hubs: `app.get("/metrics")(Metrics())`.

    It lets everybody in; let the app refuse those who may not see them.

    Args:
        hub: the only hub.
        hubs: several, by their names: their metrics have the label `hub`.
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
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._event: H3Event | None = None
        collector = Collector(server=self._server_statistics, hub=hub, hubs=hubs)
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
