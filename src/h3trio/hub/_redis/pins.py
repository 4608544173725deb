"""`Pins`: the topics that one hub pins in a store that it shares, and what the store knows of them.

The store is told all of them, by a version: with each append, in the same step, and by the follower
when they change and at intervals. An append names the version only, where the store has that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio.hub._history.pins import PinnedTopics

from . import scripts
from .link import new_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h3trio._redis.values import Argument

    from .link import Link

PIN_SECONDS: Final = 30
"""Seconds for which the store keeps pins that aren't told again: longer than a hub needs to come
back when its connection was lost. They are told three times as often."""


@final
class Pins:
    """The topics that a hub pins.

    Args:
        most: how many there may be, of this hub and of all together.
    """

    def __init__(self, most: int) -> None:
        self._topics = PinnedTopics(most)
        self._most = most
        self._node = new_word()
        self._changes = 0
        self._changed = trio.Event()
        self.were_told = False
        """Whether the store may have pins of this hub."""

    @property
    def version(self) -> str:
        """Tells one set of topics from the next; `""` without any."""
        return str(self._changes) if self._topics.names else ""

    def pin(self, topic: str) -> None:
        """Pin a topic once; see `History.pin`."""
        if self._topics.pin(topic):
            self._change()

    def unpin(self, topic: str) -> None:
        """Undo one `pin`."""
        if self._topics.unpin(topic):
            self._change()

    def _change(self) -> None:
        self._changes += 1
        self._changed.set()

    def told_to(self, link: Link) -> Sequence[Argument]:
        """Return what an append says of the pins; `link.pins` is the version that the store has."""
        version = self.version
        self.were_told |= version != ""
        told = "=" if version == link.pins else f"+{self._joined}"
        return self._node, version, told, PIN_SECONDS

    async def leave(self, link: Link) -> None:
        """Tell the store that this hub pins nothing any more."""
        await link.ask(scripts.PINS, self._node, "", "", PIN_SECONDS, self._most)
        self.were_told = False

    async def tell(self, link: Link) -> None:
        """Tell the store, when there is something to tell and at intervals."""
        while True:
            self._changed = trio.Event()
            more = bool((version := self.version) or link.pins)
            while more:
                self.were_told = True
                reply = await link.ask(
                    scripts.PINS, self._node, version, self._joined, PIN_SECONDS, self._most
                )
                link.pins, more = version, bool(reply[1])
                version = self.version
            with trio.move_on_after(PIN_SECONDS / 3 if version else math.inf):
                await self._changed.wait()

    @property
    def _joined(self) -> str:
        return "\n".join(self._topics.names)
