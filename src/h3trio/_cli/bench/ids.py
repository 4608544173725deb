"""`Ids`: checks that every stream got every event once, by ids that count up.

An id is judged by the number at its end: `e3-17` follows `e3-16`. A number not above the one before
is a repeat. A jump over numbers is a loss only if another stream got one of them: else they belong
to topics that nobody here subscribed to, or to nobody. So numbers that were seen are kept, up to a
bound, and jumps are judged at the end. Where the text before the number changes, the count
starts anew: a hub that was restarted.

Streams are compared within one process of the generator; all of them ask for the same URL.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from .count import Found, Mark

MAX_NUMBERS: Final = 1_000_000
MAX_JUMPS: Final = 100_000


@final
@dataclass(slots=True)
class Position:
    """The last id that a stream got."""

    head: bytes | None = None
    number: int = -1


@final
class Ids:
    """The ids that a group of streams got, and the counts of those repeated or missing."""

    def __init__(self, *, max_numbers: int = MAX_NUMBERS, max_jumps: int = MAX_JUMPS) -> None:
        self._max_numbers = max_numbers
        self._max_jumps = max_jumps
        self._seen: dict[bytes, set[int]] = {}
        self._jumps: Counter[tuple[bytes, int, int]] = Counter()
        self._known_run: tuple[bytes, int, int] | None = None
        self.judged = self.unnumbered = self.repeated = 0
        self.is_bounded = False
        """There were more ids or jumps than are kept: losses are counted too low."""

    def take(self, position: Position, found: Found) -> None:
        """Judge the ids that a stream got."""
        self.unnumbered += found.unnumbered
        run = found.run
        if run is not None and position.head == run[0] and position.number + 1 == run[1]:
            # The usual case: the ids go on from the last one.
            self.judged += found.events
            position.number = run[2]
            if run is not self._known_run:
                self._known_run = run
                self._see(run[0], range(run[1], run[2] + 1))
            return
        for mark in found.marks:
            self._judge(position, mark)

    def _judge(self, position: Position, mark: Mark) -> None:
        head, number, is_event = mark
        if not is_event:
            # A block that has an id and no data says where the stream begins.
            position.head, position.number = head, number
            return
        self._see(head, (number,))
        before, is_first = position.number, position.head != head
        position.head = head
        if is_first:
            position.number = number
            return
        self.judged += 1
        if number <= before:
            self.repeated += 1
            return
        position.number = number
        if number > before + 1:
            self._jump(head, before, number)

    def _see(self, head: bytes, numbers: range | tuple[int, ...]) -> None:
        if self.is_bounded:
            return
        self._seen.setdefault(head, set()).update(numbers)
        self.is_bounded = sum(map(len, self._seen.values())) > self._max_numbers

    def _jump(self, head: bytes, before: int, number: int) -> None:
        self._jumps[head, before, number] += 1
        if len(self._jumps) > self._max_jumps:
            self._jumps.popitem()
            self.is_bounded = True

    def missing(self) -> int:
        """Count the events that a stream went past while another one got them."""
        ordered = {head: sorted(numbers) for head, numbers in self._seen.items()}
        lost = 0
        for (head, before, number), times in self._jumps.items():
            numbers = ordered.get(head, [])
            lost += times * (bisect_left(numbers, number) - bisect_right(numbers, before))
        return lost
