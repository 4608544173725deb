"""`Pins`: the topics that one hub pins in a store that it shares, and what the store knows of them.

The store is told by versions: with each append, in the same step, and by the follower when they
change and at intervals. Where the store has a version, it is told what has changed since, which may
be nothing; where it has none, all of them. A hub of many runs pins thousands and changes some at a
time, and the store compares what it is told one by one while all hubs wait.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio.hub._history.pins import PinnedTopics

from . import scripts
from .link import new_word

if TYPE_CHECKING:
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
        self._changed = trio.Event()
        self._number = 0
        self._changes: deque[tuple[int, str]] = deque()
        """The newest changes, each by its number, as a sign and a topic."""
        self._known = 0
        """The number of the last change that the store has; 0 if it has to be told all."""
        self._forgotten = 0
        """The number of the last change that isn't among `_changes` and may not be known."""
        self.were_told = False
        """Whether the store may have pins of this hub."""

    @property
    def version(self) -> str:
        """Tells one set of topics from the next; `""` without any."""
        return str(self._number) if self._topics.topics else ""

    def pin(self, topic: str) -> None:
        """Pin a topic once; see `History.pin`."""
        if self._topics.pin(topic):
            self._change(f"+{topic}")

    def unpin(self, topic: str) -> None:
        """Undo one `pin`."""
        if self._topics.unpin(topic):
            self._change(f"-{topic}")

    def _change(self, change: str) -> None:
        self._number += 1
        self._changes.append((self._number, change))
        # So many changes are no shorter than all topics.
        if len(self._changes) > len(self._topics.topics):
            self.forget()
        self._changed.set()

    def told(self) -> tuple[str, str, str, int]:
        """Return what the store is told: this hub's name, the version, what it is, and how long.

        It is `=` for a version that the store has, `~` with one that it has and the changes behind
        it, or `+` and all topics; without any, `-` and the number of the last change.
        """
        version = self.version
        self.were_told |= version != ""
        if not version:
            told = f"-{self._number}"
        elif not self._known:
            told = "+" + "\n".join(self._topics.topics)
        elif self._known == self._number:
            told = "="
        else:
            newer = [change for number, change in self._changes if number > self._known]
            told = "\n".join((f"~{self._known}", *newer))
        return self._node, version, told, PIN_SECONDS

    def note(self, version: str) -> None:
        """Note that the store has a version, or none."""
        number = int(version or 0)
        if number < self._forgotten:
            return
        self._known = max(self._known, number)
        while self._changes and self._changes[0][0] <= self._known:
            self._changes.popleft()

    def forget(self) -> None:
        """Tell the store all, as it doesn't have what it was told before."""
        self._known, self._forgotten = 0, self._number
        self._changes.clear()

    async def leave(self, link: Link) -> None:
        """Tell the store that this hub pins nothing any more."""
        gone = f"-{self._number}"
        await link.ask(scripts.PINS, self._node, "", gone, PIN_SECONDS, self._most)
        self.were_told = False

    async def tell(self, link: Link) -> None:
        """Tell the store, when there is something to tell and at intervals."""
        while True:
            self._changed = trio.Event()
            more = self.were_told or self.version != ""
            while more:
                version = self.version
                reply = await link.ask(scripts.PINS, *self.told(), self._most)
                if reply[0] == b"pins":
                    self.forget()
                    continue
                self.note(version)
                more = bool(reply[1])
            if not self._changed.is_set():  # else the store has what isn't pinned any more
                self.were_told = self.version != ""
            with trio.move_on_after(PIN_SECONDS / 3 if self.were_told else math.inf):
                await self._changed.wait()
