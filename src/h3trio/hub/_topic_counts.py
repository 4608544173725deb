"""How much was published to each topic: for the busiest, and bounded.

A dictionary of counts. Where it is full, the half with the lower counts is forgotten; one of
those that comes again begins anew. So the busiest keep their true counts, and a topic counted
less than a forgotten one was is no loss to anybody who looks for the busiest.
"""

from __future__ import annotations

from heapq import nlargest
from typing import Final, final

MAX_COUNTED: Final = 4096
"""Topics with a count: some hundred kilobytes, and more than anybody reads."""


@final
class TopicCounts(dict[str, int]):
    """Events published by topic."""

    __slots__ = ()

    def make_room(self) -> None:
        """Forget the half with the lower counts; called where there are `MAX_COUNTED`."""
        kept = nlargest(MAX_COUNTED // 2, self.items(), key=lambda item: item[1])
        self.clear()
        self.update(kept)
