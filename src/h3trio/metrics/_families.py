"""`Family`: one field of the statistics as a metric, with its name, kind and help.

The collector reads the tables; a test holds them against the dataclasses, so that no field is
forgotten. Names follow Prometheus' rules: `h3trio_` in front, the unit in base units at the end,
`_total` behind a number that only grows.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

PREFIX: Final = "h3trio_"


class Kind(enum.Enum):
    """The ways to make samples of a field."""

    GAUGE = "gauge"
    """A number that goes up and down."""
    COUNTER = "counter"
    """A number that grows; `_total` is put behind its name."""
    LABELLED = "labelled counter"
    """A mapping: a counter for each key, which becomes a label's value."""
    FLAG = "flag"
    """1 where the field is true, or holds a text; else 0."""
    INFO = "info"
    """1, with the field's text as a label's value."""
    HISTOGRAM = "histogram"
    """A `LatencyStatistics`."""


class Family(NamedTuple):
    """One metric; `label` is the name of the label that its kind adds."""

    name: str
    kind: Kind
    help: str
    label: str = ""


SERVER: Final = {
    "connections": Family("connections", Kind.GAUGE, "Open connections."),
    "streams": Family("streams", Kind.GAUGE, "Open event streams."),
    "accepted": Family("accepted_connections", Kind.COUNTER, "Connections accepted."),
    "refused": Family("refused_connections", Kind.COUNTER, "Connections refused for want of room."),
    "requests": Family("requests", Kind.COUNTER, "Exchanges finished."),
    "events": Family(
        "finished_stream_events", Kind.COUNTER, "Events sent on streams that have ended."
    ),
    "bytes_sent": Family("sent_bytes", Kind.COUNTER, "Bytes sent by exchanges that have ended."),
    "closings": Family(
        "requests_ended", Kind.LABELLED, "Exchanges finished, by what ended them.", "reason"
    ),
    "stream_closings": Family(
        "streams_ended", Kind.LABELLED, "Event streams finished, by what ended them.", "reason"
    ),
    "limits": Family(
        "limits_met", Kind.LABELLED, "Times a limit was met, by the name of its setting.", "limit"
    ),
    "refusals": Family(
        "requests_refused",
        Kind.LABELLED,
        "Requests that broke HTTP, a limit of it or its timeouts, by status.",
        "status",
    ),
    "blocked_loops": Family("blocked_loops", Kind.COUNTER, "Times the event loop was blocked."),
    "overdue_cancels": Family(
        "overdue_cancels", Kind.COUNTER, "Handlers that went on after they were cancelled."
    ),
    "draining": Family(
        "draining", Kind.FLAG, "Whether the server is going away; the connections are left."
    ),
    "refused_by_address": Family(
        "refused_connections_by_address",
        Kind.COUNTER,
        "Connections refused because their address held all it may.",
    ),
    "refused_streams": Family(
        "refused_streams",
        Kind.COUNTER,
        "Event streams refused because their address held all it may.",
    ),
    "failed_handshakes": Family(
        "failed_tls_handshakes", Kind.COUNTER, "TLS handshakes that failed or took too long."
    ),
    "failed_proxy_headers": Family(
        "failed_proxy_headers", Kind.COUNTER, "Connections of proxies without a PROXY header."
    ),
    "accept_pauses": Family(
        "accept_pauses", Kind.COUNTER, "Times accepting paused for want of descriptors or memory."
    ),
    "task_failures": Family(
        "server_task_failures",
        Kind.LABELLED,
        "Errors that the server's own tasks went on from.",
        "task",
    ),
}
"""The fields of `ServerStatistics`."""

HUB: Final = {
    "published": Family("published_events", Kind.COUNTER, "Events stored."),
    "delivered": Family(
        "delivered_events", Kind.COUNTER, "Events given to subscribers, once for each of them."
    ),
    "delivered_bytes": Family("delivered_bytes", Kind.COUNTER, "Bytes of their frames."),
    "subscribers": Family("subscribers", Kind.GAUGE, "Subscriptions."),
    "ready": Family(
        "ready_subscribers", Kind.GAUGE, "Subscriptions fed live; the others catch up."
    ),
    "feeds": Family("feeds", Kind.GAUGE, "Distinct selections with somebody ready."),
    "waiting": Family("waiting_updates", Kind.GAUGE, "Updates that wait for the history."),
    "replays": Family("replays", Kind.COUNTER, "Times that a subscriber got events from the log."),
    "replayed_events": Family(
        "replayed_events", Kind.COUNTER, "Events given from the log; delivered ones too."
    ),
    "resets": Family("resets", Kind.COUNTER, "Gaps told to subscribers."),
    "follow_timeouts": Family(
        "follow_timeouts",
        Kind.LABELLED,
        "Waits that ended before this hub had followed the store that it shares, by what waited.",
        "wait",
    ),
    "kicked": Family("kicks", Kind.COUNTER, "Subscriptions ended by the application."),
    "ended": Family("subscriptions_ended", Kind.LABELLED, "Subscriptions ended, by why.", "reason"),
    "topics": Family(
        "topics",
        Kind.GAUGE,
        "Topics selected by name, and up to 4,096 of those published to.",
    ),
    "publish": Family("publish_seconds", Kind.HISTOGRAM, "From a publish to its acknowledgement."),
    "sweep": Family(
        "sweep_seconds", Kind.HISTOGRAM, "One round of events to all subscribers of a selection."
    ),
    "failure": Family("history_failing", Kind.FLAG, "Whether the history can't store."),
    "task_failures": Family(
        "hub_task_failures",
        Kind.LABELLED,
        "Errors that the hub's own tasks went on from.",
        "task",
    ),
}
"""The fields of `HubStatistics`, but `history`, `node` and `nodes`."""

NODE: Final = {
    "subscribers": Family("node_subscribers", Kind.GAUGE, "Subscriptions of a node."),
    "ready": Family("node_ready_subscribers", Kind.GAUGE, "Those of them that are fed live."),
    "publishes": Family("node_publishes", Kind.COUNTER, "Publishes that a node acknowledged."),
    "delivered": Family(
        "node_delivered_events", Kind.COUNTER, "Events that a node gave to its subscribers."
    ),
    "delivered_bytes": Family("node_delivered_bytes", Kind.COUNTER, "Bytes of their frames."),
    "newest": Family(
        "node_newest_position", Kind.GAUGE, "Position up to which a node has followed the store."
    ),
    "heard": Family("node_heard_seconds", Kind.GAUGE, "Seconds since a node told of itself."),
}
"""The numbers of `NodeStatistics`. Metrics name no topics and no clients, so not its texts."""

HISTORY: Final = {
    "durability": Family(
        "history_info", Kind.INFO, "What an acknowledged publish survives.", "durability"
    ),
    "events": Family("history_events", Kind.GAUGE, "Events kept."),
    "bytes": Family("history_bytes", Kind.GAUGE, "Bytes of their frames."),
    "topics": Family("history_topics", Kind.GAUGE, "Topics among them."),
    "oldest": Family("history_oldest_position", Kind.GAUGE, "First position kept; 0 if none."),
    "newest": Family("history_newest_position", Kind.GAUGE, "Last position given; 0 if none."),
    "trimmed": Family(
        "history_trimmed_events", Kind.COUNTER, "Events removed by retention or purge."
    ),
    "pinned_topics": Family("history_pinned_topics", Kind.GAUGE, "Topics that are pinned."),
    "pinned_events": Family("history_pinned_events", Kind.GAUGE, "Events of pinned topics."),
    "pinned_bytes": Family("history_pinned_bytes", Kind.GAUGE, "Bytes of their frames."),
    "server": Family(
        "history_server_info", Kind.INFO, "The server of the store, and what it keeps.", "server"
    ),
    "connected": Family("history_connected", Kind.FLAG, "Whether the store can be reached."),
    "reconnects": Family(
        "history_reconnects", Kind.COUNTER, "Connections to the store that were lost."
    ),
    "behind": Family(
        "history_behind_events", Kind.GAUGE, "Positions of the store not followed yet, as known."
    ),
}
"""The fields of `HistoryStatistics`."""

RUNS: Final = {
    "running": Family("runs", Kind.GAUGE, "Runs under way."),
    "watched": Family("runs_watched", Kind.GAUGE, "Those of them that have viewers here."),
    "unwatched": Family("runs_unwatched", Kind.GAUGE, "Those of them that have none here."),
    "viewers": Family("run_viewers", Kind.GAUGE, "Viewers of runs."),
    "started": Family("runs_started", Kind.COUNTER, "Runs started."),
    "joined": Family(
        "run_starts_joined", Kind.COUNTER, "Starts with the key of a run that was there."
    ),
    "ended": Family("runs_ended", Kind.LABELLED, "Runs ended, by how.", "state"),
    "limits": Family(
        "run_limits_met", Kind.LABELLED, "Times a limit of runs was met, by its name.", "limit"
    ),
    "task_failures": Family(
        "runs_task_failures",
        Kind.LABELLED,
        "Errors that the runs' own tasks went on from.",
        "task",
    ),
}
"""The fields of `RunsStatistics`."""
