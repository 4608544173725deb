"""`Bucket`: a token bucket, which holds one publisher to a `Rate`.

A bucket is one number: the time at which it is full again (the generic cell rate algorithm).
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio import HTTPError

if TYPE_CHECKING:
    from collections import Counter

_MOST_DIGITS: Final = 9


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A number of events a second on average, and a number at once.

    Raises:
        ValueError: the rate isn't positive and finite, or the burst less than 1.
    """

    per_second: float
    """Events a second, on average."""
    burst: int
    """Events at once, after silence."""

    def __post_init__(self) -> None:
        if not 0 < self.per_second < math.inf or self.burst < 1:
            raise ValueError("a rate is positive, and a burst at least 1")

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read `100/s` or `100/s,500`; the burst is one second's worth unless given.

        Raises:
            ValueError: the text is something else.
        """
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)/s(?:,([0-9]+))?", text, re.ASCII)
        if found is None or any(len(part or "") > _MOST_DIGITS for part in found.groups()):
            raise ValueError(f"{text!r} is not of the form N/s or N/s,BURST")
        per_second = float(found[1])
        return cls(per_second=per_second, burst=int(found[2] or max(1, math.ceil(per_second))))


@final
class Bucket:
    """Holds one publisher to its rate.

    Args:
        rate: how often it may publish.
        counts: where refusals are counted, as `rate_limited`, and pauses, as `slowed`.
    """

    __slots__ = ("_counts", "_full_at", "_rate")

    def __init__(self, rate: Rate, counts: Counter[str]) -> None:
        self._rate = rate
        self._counts = counts
        self._full_at = -math.inf

    @property
    def most(self) -> int:
        """How many events to take in one step, so that a body of events comes evenly."""
        return self._rate.burst

    def check(self) -> None:
        """Take one event.

        Raises:
            HTTPError: 429 if there is none, with a `Retry-After` that isn't the same for all
                (RFC 6585 section 4).
        """
        full_at = self._after(1)
        if wait := self._wait(full_at):
            self._counts["rate_limited"] += 1
            seconds = math.ceil(max(1.0, wait) * random.uniform(1, 2))  # noqa: S311 - it spreads load, it guards nothing
            text = f"at most {self._rate.per_second:g}/s"
            raise HTTPError(429, text, headers={"Retry-After": str(seconds)})
        self._full_at = full_at

    async def wait(self, count: int) -> None:
        """Take some events, and wait until they are there: a body of events is slowed by this."""
        self._full_at = self._after(count)
        if wait := self._wait(self._full_at):
            self._counts["slowed"] += 1
            await trio.sleep(wait)

    def _after(self, count: int) -> float:
        """Return when the bucket is full again once so many events are taken."""
        return max(self._full_at, trio.current_time()) + count / self._rate.per_second

    def _wait(self, full_at: float) -> float:
        """Return the seconds until that is no more than a burst ahead."""
        wait = full_at - self._rate.burst / self._rate.per_second - trio.current_time()
        # A wait that only comes of rounding is none.
        return wait if wait * self._rate.per_second > 1e-6 else 0.0  # noqa: PLR2004 - of an event
