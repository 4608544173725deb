"""A place where one task waits until something has changed.

A `trio.lowlevel.ParkingLot` is for any number of tasks: for one it is 400 bytes more of each
connection, and 10 of 150 microseconds of each small request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable


@final
class Seat:
    """Holds at most one task; whoever wakes it doesn't say why, so it looks again."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    def park(self) -> Awaitable[object]:
        """Wait for `wake`: `await seat.park()`.

        A plain function that returns Trio's coroutine, so that no frame of its own is kept; it
        takes the seat for the task that calls it.
        """
        assert self._task is None, "a seat for one"
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._left)  # noqa: ASYNC105 - the caller awaits it

    def _left(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """Let the task go on, if one waits."""
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)
