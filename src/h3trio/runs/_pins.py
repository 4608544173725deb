"""`Pins`: keeps the events of runs from a history's limits, while they go on and shortly behind.

A viewer that has lost its connection comes back some seconds later, as do all of them where the
process was killed: what they lack is kept until then. Runs that go on come first: where a history
has no room for them, what is pinned of others that have ended is given up.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, final

import trio

from h3trio.hub import PinnedFullError

if TYPE_CHECKING:
    from h3trio.hub import Hub

    from ._ledger import Ledger


@final
class Pins:
    """Pins the topics of runs.

    Args:
        hub: has the topics.
        ledger: has their names.
        seconds: for how long a run stays pinned behind its end.
    """

    def __init__(self, hub: Hub, ledger: Ledger, *, seconds: float) -> None:
        self._hub = hub
        self._ledger = ledger
        self._seconds = seconds
        self._kept: dict[ExitStack, None] = {}
        """The pins of runs that have ended."""

    def pin(self, id: str) -> ExitStack:
        """Pin the topics of a run until the stack is closed; not where the history can't.

        Raises:
            PinnedFullError: there is no room, though nothing is pinned of runs that have ended.
        """
        with ExitStack() as pins, suppress(NotImplementedError):
            for topic in (self._ledger.start_topic(id), self._ledger.topic(id)):
                try:
                    pins.enter_context(self._hub.pin(topic))
                except PinnedFullError:
                    if not self.release():
                        raise
                    pins.enter_context(self._hub.pin(topic))
            return pins.pop_all()
        return ExitStack()

    async def keep(self, pins: ExitStack) -> None:
        """Hold the pins of a run that has ended for its time, or until they are given up."""
        self._kept[pins] = None
        try:
            await trio.sleep(self._seconds)
        finally:
            self._kept.pop(pins, None)
            pins.close()

    def release(self) -> bool:
        """Give up what is pinned of runs that have ended; return whether there was anything."""
        kept, self._kept = self._kept, {}
        for pins in kept:
            pins.close()
        return bool(kept)
