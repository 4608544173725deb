"""`Snapshots`: how a hub server is doing, as one JSON object: for its page, `top` and programs.

The fields are those of the snapshots that the server, the hub and its parts give, under their
names; `docs/reference/monitoring.md` lists them. Names are added and never change their meaning.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, cast, final

import trio

import h3trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from h3trio import ServerStatistics
    from h3trio.hub import Hub, HubStatistics, LatencyStatistics, Selection
    from h3trio.hubserver._access.access import AccessControl

MIN_INTERVAL: Final = 0.5
"""Seconds between two snapshots of a stream."""

MAX_AGE: Final = 0.4
"""Seconds for which a snapshot is the latest: below `MIN_INTERVAL`, so no stream gets one twice."""

MAX_TOPICS: Final = 50
"""Topics of one snapshot, the busiest first: as many as fit on a screen."""

MAX_SLOW: Final = 50
"""Slow subscriptions of one snapshot, the farthest behind first."""

MAX_NAMES: Final = 10
"""Topics named of one slow subscription, which may have a thousand."""

# Tables of their own in the JSON, though fields of the hub's snapshot.
_LATENCIES: Final = ("publish", "sweep")


@final
class Snapshots:
    """Takes snapshots of one hub server.

    Args:
        hub: what it serves.
        access: its access control, which counts too.
    """

    def __init__(self, hub: Hub, access: AccessControl) -> None:
        self._hub = hub
        self._access = access
        self._began = time.monotonic()
        self._latest = ""
        self._taken = -math.inf

    def latest(self, server: Callable[[], ServerStatistics]) -> str:
        """Return the JSON of the latest snapshot, which is no older than `MAX_AGE`."""
        if trio.current_time() - self._taken >= MAX_AGE:
            self._latest, self._taken = self.take(server()), trio.current_time()
        return self._latest

    def take(self, server: ServerStatistics) -> str:
        """Take a snapshot; return its JSON."""
        hub = self._hub.statistics()
        snapshot = {
            "time": time.time(),
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
        # Escaped to ASCII: a client may ask for a topic that UTF-8 can't carry.
        return json.dumps(snapshot, separators=(",", ":"))

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
    if isinstance(value, Mapping):
        return {str(key): count for key, count in cast("Mapping[object, object]", value).items()}
    return value


def latency(found: LatencyStatistics) -> dict[str, object]:
    """Return quantiles and counts, in seconds. Times above the last bound are in `count` only."""
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
