"""`Snapshots`: how a hub server is doing, as one JSON object: for its page, `top` and programs.

The fields are those of the snapshots that the server, the hub and its parts give, under their
names; `docs/reference/monitoring.md` lists them. Names are added and never change their meaning.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, final

import trio

import h3trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from h3trio import ServerStatistics
    from h3trio.hub import Hub, LatencyStatistics, Selection
    from h3trio.hubserver._access.access import AccessControl
    from h3trio.runs import Runs

    from .samples import Samples
    from .watchers import Watchers

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
@dataclass(slots=True, eq=False, repr=False)
class Snapshots:
    """Takes snapshots of one hub server, and of its access control, which counts too."""

    _hub: Hub
    _access: AccessControl
    _samples: Samples
    _watchers: Watchers
    _runs: Runs | None
    _latest: str = ""
    _taken: float = -math.inf

    def latest(self, server: Callable[[], ServerStatistics]) -> str:
        """Return the JSON of the latest snapshot, which is no older than `MAX_AGE`."""
        if trio.current_time() - self._taken >= MAX_AGE:
            self._latest, self._taken = self.take(server()), trio.current_time()
        return self._latest

    def take(self, server: ServerStatistics) -> str:
        """Take a snapshot; return its JSON."""
        hub = self._hub.statistics()
        apart = ("history", "node", "nodes", "topics", *_LATENCIES)
        snapshot = {
            "time": time.time(),
            "uptime": self._samples.uptime,
            "version": h3trio.__version__,
            "server": server,
            "hub": {name: value for name, value in _plain(hub).items() if name not in apart},
            "history": hub.history,
            "access": self._access.statistics(),
            "takes_tokens": self._access.has_authenticator,
            "watchers": self._watchers,
            "runs": None if self._runs is None else self._runs.statistics(),
            "topics_total": hub.topics,
            "topics": self._hub.busiest_topics(MAX_TOPICS),
            "slow": self._slow(),
            "node": hub.node,
            "nodes": hub.nodes,
            "latency": {name: latency(getattr(hub, name)) for name in _LATENCIES},
        }
        # Escaped to ASCII: a client may ask for a topic that UTF-8 can't carry.
        return json.dumps(snapshot, separators=(",", ":"), default=_plain)

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


def _plain(value: Any) -> dict[str, object]:  # noqa: ANN401 - what JSON doesn't know
    """Return a dataclass or a mapping as a dict."""
    if is_dataclass(value):
        return {known.name: getattr(value, known.name) for known in fields(value)}
    return {str(key): count for key, count in value.items()}


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
