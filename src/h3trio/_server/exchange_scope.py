"""`ExchangeScope`: the cancel scope of one exchange, which remembers why it was cancelled.

It is the one thing that goes up. Data goes down, from the reader over the exchange and its send
queue to the transport; whoever down there learns that the exchange is to end (the reader at EOF,
the send queue whose client is gone), and whoever outside wants that (the drain, the application),
calls `cancel(reason)`. The first reason counts, and the accounts are made up by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from h3trio._http.closing import CloseReason

if TYPE_CHECKING:
    from .watchdog import CancelWatch


@final
class ExchangeScope:
    """A cancel scope with a reason."""

    __slots__ = (
        "_cancels",
        "_grace",
        "_key",
        "_task",
        "is_complete",
        "is_half_closed",
        "is_streaming",
        "reason",
        "scope",
    )

    def __init__(self, cancels: CancelWatch, *, grace: float) -> None:
        self._cancels = cancels
        self._grace = grace
        self._key: object = None
        self._task: trio.lowlevel.Task | None = None
        self.scope: trio.CancelScope = trio.CancelScope()
        """What the handler runs in."""
        self.reason: CloseReason | None = None
        """Why the exchange ended or is to end; `None` as long as nothing has happened to it."""
        self.is_streaming: bool = False
        """Whether a stream was opened."""
        self.is_complete: bool = False
        """Whether all of the stream is sent, with its end: what ends it now cuts nothing short."""
        self.is_half_closed: bool = False
        """Whether the client has sent EOF behind its request."""

    def note(self, reason: CloseReason) -> None:
        """Remember a reason, without cancelling anything."""
        if self.reason is None:
            self.reason = reason

    def cancel(self, reason: CloseReason) -> None:
        """Let the handler end."""
        self.note(CloseReason.COMPLETED if self.is_complete else reason)
        assert self.reason is not None, "noted just now"
        self.scope.cancel(reason=self.reason.value)
        if self._task is not None:
            self._cancels.cancelled(self._key, self._task)

    def half_close(self) -> None:
        """The client sent EOF after its request, and may still read.

        So a plain response is finished, within the write timeout. A stream has no end to wait for.
        """
        if self.is_streaming:
            self.cancel(CloseReason.CLIENT_CLOSED)
        elif not self.is_half_closed:
            self.is_half_closed = True
            self.scope.deadline = trio.current_time() + self._grace

    def handler_begins(self, key: object) -> None:
        """A handler runs in this task from now on; the log calls it by the key."""
        self._key, self._task = key, trio.lowlevel.current_task()
        if self.reason is not None:
            self._cancels.cancelled(key, self._task)

    def handler_ended(self) -> None:
        """It has unwound: a later `cancel` only notes its reason."""
        self._cancels.ended(self._key)
        self._key = self._task = None
