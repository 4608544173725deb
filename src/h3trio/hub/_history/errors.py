"""`HistoryError` and its kin: the errors of a publish, each telling whether the event is stored."""

from __future__ import annotations


class HistoryError(Exception):
    """The store can't be used, and nothing was stored: for the operator to look at.

    Raised when it can't be opened (foreign, corrupt or newer file; in use by
    another process) and when it fails later.
    """


class HistoryFullError(HistoryError):
    """The store has no room, and trimming made none. Nothing was stored; try later."""


class PinnedFullError(HistoryFullError):
    """The topic is pinned, or was to be, and those that are have no room left.

    Nothing was stored; try again when some topic is pinned no more.
    """

    def __init__(self, message: str, *, limit: str = "max_pinned_events") -> None:
        super().__init__(message)
        self.limit: str = limit
        """The limit of the history that was met: `max_pinned_events` or `max_pinned_bytes`."""


class OutcomeUnknownError(HistoryError):
    """The store was asked, and its answer is missing.

    The event may be stored or not. Publish again with the same `dedup` key.
    """


class KeyReusedError(ValueError):
    """A `dedup` key came with another event for the same topics. Nothing was stored."""


class TopicClosedError(ValueError):
    """A topic of the update is closed: its last event was published. Nothing was stored."""


class OverloadedError(Exception):
    """More publishes wait than the hub holds. Nothing was sent to the store; try later.

    Args:
        message: how much waits.
        limit: the name of the setting that was met.
    """

    def __init__(self, message: str, *, limit: str) -> None:
        super().__init__(message)
        self.limit: str = limit
        """`"max_waiting"` or `"max_waiting_bytes"`."""
