"""The errors of hub and histories, each with what it tells a publisher."""

from __future__ import annotations


class HistoryError(Exception):
    """The store can't do what it is for. Whose fault: the machine's or the operator's.

    Raised when it can't be opened (foreign, corrupt or newer file; in use by
    another process) and when it fails later. Nothing was stored.
    """


class HistoryFullError(HistoryError):
    """The store has no room, and trimming made none. Nothing was stored; try later."""


class OutcomeUnknownError(HistoryError):
    """The store was asked, and its answer is missing.

    The event may be stored or not. Publish again with the same `dedup` key.
    """


class OverloadedError(Exception):
    """More publishes wait than the hub holds. Nothing was sent to the store; try later."""
