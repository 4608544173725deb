"""`SingleWaiter`: a place where one task waits until something has changed.

A `trio.lowlevel.ParkingLot` is for any number of tasks. For one task it costs 400 bytes more of
each connection, and more time of each request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable


@final
class SingleWaiter:
    """Holds at most one task; `wake` doesn't say why, so the task looks again."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    def park(self) -> Awaitable[object]:
        """Wait for `wake`: `await waiter.park()`. A checkpoint.

        A plain function that returns Trio's coroutine, so that no frame of its own is kept; it
        holds the task that calls it.
        """
        assert self._task is None, "one task waits here"
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105 - the caller awaits it

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """Let the task go on, if one waits."""
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)
