"""Every limit of a hub, on one page."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """Limits of one hub.

    Raises:
        ValueError: a limit is less than 1.
    """

    max_topic_length: int = 1024
    """Characters of a topic: room for an IRI, not for a document."""

    max_topics: int = 1000
    """Topics of one update or one subscription."""

    max_event_bytes: int = 1024 * 1024
    """An encoded event. A browser holds all of it before it shows any."""

    max_waiting: int = 10_000
    """Updates that may wait for the history; one more is refused as overload."""

    max_window_records: int = 100_000
    """Records in the windows of all feeds together. Beyond it, subscribers go on
    from the log: the bound on what a sweep that falls behind can hold."""

    reconnect_delay: float = 2.0
    """Seconds, the middle of the jittered `retry:` that opens a stream."""

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 0 if field.name == "reconnect_delay" else 1
            if not getattr(self, field.name) >= least:
                msg = f"{field.name} must be at least {least}"
                raise ValueError(msg)
