"""What the hub server tells of itself, as one JSON object: for its page, `top` and programs.

The fields are those of the snapshots that the server, the hub and its parts give, under their
names; `docs/reference/monitoring.md` lists them. Names are added and never change their meaning.
"""

from __future__ import annotations

import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, final

import h3trio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from h3trio import ServerStatistics
    from h3trio.hub import Hub, HubStatistics, LatencyStatistics, Selection
    from h3trio.hubserver._access.access import Access

MAX_TOPICS: Final = 50
"""Topics of one snapshot, the busiest first: as many as fit on a screen."""

MAX_SLOW: Final = 50
"""Slow subscriptions of one snapshot, the farthest behind first."""

MAX_NAMES: Final = 10
"""Topics named of one slow subscription, which may have a thousand."""

# Told beside the hub's other fields, as they are tables of their own.
_LATENCIES: Final = ("publish", "sweep")


@final
class Snapshots:
    """Makes snapshots of one hub server.

    Args:
        hub: what it serves.
        access: what it counted at its door.
        clock: Unix time in seconds.
    """

    def __init__(self, hub: Hub, access: Access, *, clock: Callable[[], float] = time.time) -> None:
        self._hub = hub
        self._access = access
        self._clock = clock
        self._began = time.monotonic()

    def take(self, server: ServerStatistics) -> dict[str, object]:
        """Return what there is to tell now, made of what JSON knows."""
        hub = self._hub.statistics()
        return {
            "time": self._clock(),
            "uptime": time.monotonic() - self._began,
            "version": h3trio.__version__,
            "server": plain(server),
            "hub": _hub_fields(hub),
            "history": plain(hub.history),
            "access": plain(self._access.statistics()),
            "topics_total": hub.topics,
            "topics": [plain(topic) for topic in self._hub.busiest_topics(MAX_TOPICS)],
            "slow": self._slow(),
            "latency": {name: latency(getattr(hub, name)) for name in _LATENCIES},
        }

    def _slow(self) -> list[dict[str, object]]:
        return [
            {
                "client": str(subscription.info.get("client", "")),
                "topics": _names(subscription.topics),
                "since": subscription.since,
                "cursor": subscription.cursor,
                "behind": subscription.behind,
            }
            for subscription in self._hub.slow_subscriptions(MAX_SLOW)
        ]


def _hub_fields(hub: HubStatistics) -> dict[str, object]:
    apart = ("history", "topics", *_LATENCIES)
    return {name: value for name, value in plain(hub).items() if name not in apart}


def plain(snapshot: Any) -> dict[str, object]:  # noqa: ANN401 - a dataclass, any
    """Return the fields of a dataclass; a mapping among them with its keys as text."""
    return {field.name: _plain_value(getattr(snapshot, field.name)) for field in fields(snapshot)}


def _plain_value(value: Any) -> object:  # noqa: ANN401 - what a field may hold
    if hasattr(value, "items"):
        mapping: Mapping[object, object] = value
        return {str(key): count for key, count in mapping.items()}
    return value


def latency(found: LatencyStatistics) -> dict[str, object]:
    """Return quantiles and counts; seconds. What is above the last bound is in `count` only."""
    return {
        "p50": found.quantile(0.5),
        "p90": found.quantile(0.9),
        "p99": found.quantile(0.99),
        "max": found.max,
        "count": found.count,
        "sum": found.sum,
        "buckets": [[bound, count] for bound, count in found.buckets[:-1]],
    }


def _names(selection: Selection) -> list[str]:
    if selection.everything:
        return ["*"]
    return [*sorted(selection.topics), *sorted(map(str, selection.matchers))][:MAX_NAMES]
