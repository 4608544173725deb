"""`Local`: the part of a run that is in this process, while its function runs.

It has the scope in which the function runs, and the reason why that was cancelled. The task that
runs the function publishes the terminal event, or finds that another one was published first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio.hub import PinnedFullError, TopicClosedError

from ._state import RESERVED, RunState

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from h3trio import SSEEvent
    from h3trio.hub import Hub

    from ._ledger import About
    from ._settings import RunsSettings
    from ._state import RunStatus


@final
class Local:
    """The part of a run that is in this process, while its function runs.

    Args:
        hub: where its events go.
        about: the record of its start.
        topic: where its events are published.
        settings: the limits of all runs.
        limits: where the limits that are met are counted.
        release: gives up room that is held for runs which have ended; says whether there was any.
        cancel_unwatched_after: seconds without a viewer after which it is cancelled.
    """

    def __init__(
        self,
        hub: Hub,
        about: About,
        topic: str,
        *,
        settings: RunsSettings,
        limits: Counter[str],
        release: Callable[[], bool],
        cancel_unwatched_after: float | None,
    ) -> None:
        self.about: Final = about
        self.scope: Final = trio.CancelScope()
        self.done: Final = trio.Event()
        """Set when the terminal event is stored, and the function has unwound."""
        self.verdict: tuple[RunState, str] | None = None
        """How it is to end, decided before its function was cancelled."""
        self.ended: RunStatus | None = None
        """How it ended: its terminal event is stored."""
        self.viewers: int = 0
        """Viewers on this node."""
        self._hub = hub
        self._topics = (topic,)
        self._settings = settings
        self._limits = limits
        self._release = release
        self._events = 0
        self._bytes = 0
        self._unwatched_after = cancel_unwatched_after
        self._latest = trio.current_time() + settings.max_run_seconds
        self.seen()

    # -- its function

    async def send(self, event: SSEEvent) -> str:
        if event.event in RESERVED:
            raise ValueError(f"the type {event.event} is for the runs' own events")
        await self._require_open()
        settings = self._settings
        self._events += 1
        self._bytes += len(event.encode())
        if self._events > settings.max_run_events:
            await self._give_up("max_run_events", f"more than {settings.max_run_events} events")
        if self._bytes > settings.max_run_bytes:
            await self._give_up("max_run_bytes", f"more than {settings.max_run_bytes} bytes")
        try:
            return await self._publish(event)
        except PinnedFullError:
            if not self._release():
                raise
            return await self._publish(event)

    async def _publish(self, event: SSEEvent) -> str:
        try:
            return await self._hub.publish(
                event, topics=self._topics, private=not self.about.public
            )
        except TopicClosedError:
            # Ended by somebody else, who had a reason to: a node that took it for dead.
            self.cancel(RunState.INTERRUPTED, "")
            await trio.lowlevel.checkpoint()
            raise

    async def _require_open(self) -> None:
        """Go on only if the run does; the function is cancelled here if it doesn't."""
        if self.scope.cancel_called:
            await trio.lowlevel.checkpoint()
            raise TopicClosedError("the run has ended")

    async def _give_up(self, limit: str, problem: str) -> None:
        self._limits[limit] += 1
        self.cancel(RunState.FAILED, f"the run has {problem}")
        await self._require_open()

    # -- its end

    def cancel(self, state: RunState, detail: str) -> None:
        """Cancel the function; what is published behind that is the terminal event alone."""
        self.verdict = self.verdict or (state, detail)
        self.scope.cancel(reason=f"{state}: {detail}" if detail else state.value)

    def end(self, status: RunStatus) -> None:
        """Note that the terminal event is stored, and cancel the function if it still runs."""
        self.ended = self.ended or status
        self.scope.cancel(reason="the run has ended")

    def is_cut_short(self) -> bool:
        """Whether it was ended before its function returned; a deadline becomes its verdict.

        Not whether the scope has caught the cancellation: a function that kept it to itself sent
        nothing behind it, and isn't through.
        """
        if self.scope.cancel_called and self.verdict is None and self.ended is None:
            is_latest = self.scope.deadline == self._latest
            limit = "max_run_seconds" if is_latest else "cancel_unwatched_after"
            self._limits[limit] += 1
            problem = f"the run took more than {self._settings.max_run_seconds:g} s"
            self.verdict = (
                (RunState.FAILED, problem) if is_latest else (RunState.STOPPED, "nobody watched it")
            )
        return self.scope.cancel_called

    # -- its viewers

    def seen(self) -> None:
        """Note that somebody watches it, or has just watched it: here or on another node."""
        if self.scope.cancel_called:
            return  # the deadline says why
        unwatched = math.inf
        if self._unwatched_after is not None and not self.viewers:
            unwatched = trio.current_time() + self._unwatched_after
        self.scope.deadline = min(self._latest, unwatched)
