"""`Retention`: the limits of one log, as every history of ours has them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, final

from h3trio._limits import check_limit

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

MAX_PINNED_EVENTS: Final = 50_000
"""Fifty answers of a thousand tokens, all at once."""
MAX_PINNED_BYTES: Final = 64 * MIB
"""As much as a history in memory keeps besides."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Limits of one log. Records beyond them are removed, oldest first.

    A record under several topics goes as soon as one of them is over its limit. The
    newest record of a log or a topic stays, however large: what was just published
    can be read.

    Raises:
        ValueError: a limit is zero, negative or not a number.
        TypeError: a limit is of another type.
    """

    max_events: int
    """Records in all."""

    max_bytes: int
    """Bytes of their frames in all. The overhead of a record in memory or in a file is bounded
    by `max_events`, with that of its topics."""

    max_age: float | None = None
    """Seconds since a record was published. `History.trim` sees to it, not each append."""

    max_topic_events: int | None = None
    """Records of one topic."""

    max_topic_bytes: int | None = None
    """Bytes of the frames of one topic."""

    max_pinned_events: int = MAX_PINNED_EVENTS
    """Records of pinned topics, and pinned topics: not counted in all, and refused beyond it."""

    max_pinned_bytes: int = MAX_PINNED_BYTES
    """Bytes of the frames of those records, and of their topics where they are in memory."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None or field.name in ("max_events", "max_bytes"):
                check_limit(field.name, value, whole=field.name != "max_age")

    @property
    def limits_topics(self) -> bool:
        """Whether there is a limit for one topic."""
        return self.max_topic_events is not None or self.max_topic_bytes is not None

    def is_exceeded(self, events: int, size: int) -> bool:
        """Whether so many records of so many bytes are too much in all."""
        return events > 1 and (events > self.max_events or size > self.max_bytes)

    def is_topic_exceeded(self, events: int, size: int) -> bool:
        """Whether so many records of so many bytes are too much for one topic."""
        most_events, most_bytes = self.max_topic_events, self.max_topic_bytes
        return events > 1 and (
            (most_events is not None and events > most_events)
            or (most_bytes is not None and size > most_bytes)
        )
