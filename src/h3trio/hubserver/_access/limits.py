"""`Limits`: each limit of the hub server that isn't the server's or the hub's own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, final

from h3trio.hub import HubSettings

if TYPE_CHECKING:
    from .rate_limit import Rate


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on what one client of the hub server may ask for.

    Raises:
        ValueError: a limit isn't positive.
    """

    max_topics_per_subscription: int = 1000
    """Topics of one subscription, event or purge (400 above): more than fit into the request line
    that `Settings.max_head_bytes` allows by default, so this is for lowering it."""

    max_topic_length: int = 1024
    """Characters of a topic (400 above): room for an IRI, not for a document."""

    max_subject_streams: int = 100
    """Streams at once of one subject (429 above): ten devices with ten tabs each."""

    publish_rate: Rate | None = None
    """Events a second of one subject, or of one address where a request doesn't say who sent it
    (429 above); `None` for no limit. Off: publishers are few and known to whoever gave them the
    right, and the store refuses overload."""

    max_rate_buckets: int = 10_000
    """Publishers whose rate is remembered at once, some megabytes of them; the one that hasn't
    asked for longest is forgotten."""

    recheck_interval: float = 300.0
    """Seconds after which the grant of a stream is asked for again, ± a fifth, so that a key or a
    right that is gone ends its streams. `inf` for never."""

    recheck_timeout: float = 10.0
    """Seconds that asking again may take; then the stream stays, until the next time."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            # Not `<= 0`: NaN is no limit either.
            if name != "publish_rate" and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)!r}")

    def hub_settings(self, **others: Any) -> HubSettings:  # noqa: ANN401 - as `HubSettings` has them
        """Return the settings of a hub that has these limits, and others that are given."""
        return HubSettings(
            max_topic_length=self.max_topic_length,
            max_topics=self.max_topics_per_subscription,
            **others,
        )
