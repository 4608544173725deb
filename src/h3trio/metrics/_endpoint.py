"""`Metrics`: the handler of `GET /metrics`."""

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

    Who may see them is up to the app.

    Args:
        hub: the one hub there is.
        hubs: several, by names: their metrics have the label `hub`.
        registry: where to register, beside metrics of your own; one of its own, with those of
            the process, if not given. One `Metrics` for each.

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
        """What is answered with; register others."""

    async def __call__(self, event: H3Event) -> Response:
        """Answer in the text format, or in OpenMetrics where that is asked for."""
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
        """That of the server asked; none where the registry is collected in another way."""
        return None if self._event is None else self._event.server_statistics()
