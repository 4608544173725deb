"""Senders that wait for room in a stream's queue, in the order they came.

The owner of the queue lets a frame in on its sender's behalf: so a cancelled `send` was not
accepted, and a later, smaller event can't overtake an earlier, larger one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


@final
class _Waiter:
    """A sender that waits, and whether its frame was let in."""

    __slots__ = ("accepted", "frame")

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.accepted = False


@final
class Waiters(OrderedDict[trio.lowlevel.Task, _Waiter]):
    """Who waits; false if nobody does."""

    __slots__ = ()

    async def wait(self, frame: bytes, on_cancel: Callable[[], None]) -> bool:
        """Wait, as the sender's own task; whether the frame was accepted."""
        task = trio.lowlevel.current_task()
        entry = self[task] = _Waiter(frame)

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            del self[task]
            on_cancel()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        return entry.accepted

    @property
    def first(self) -> bytes:
        """The frame that has its turn."""
        return next(iter(self.values())).frame

    def accept(self) -> bytes:
        """Take the first frame, and let its sender go on."""
        task, entry = self.popitem(last=False)
        entry.accepted = True
        trio.lowlevel.reschedule(task)
        return entry.frame

    def refuse(self) -> None:
        """Wake all; each finds its frame not accepted."""
        while self:
            task, _entry = self.popitem(last=False)
            trio.lowlevel.reschedule(task)
