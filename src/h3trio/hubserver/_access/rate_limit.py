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
@dataclass(slots=True, eq=False)
class Bucket:
    """Holds one publisher to its rate."""

    rate: Rate
    """How often it may publish; `burst` is also how many events to take in one step, so that a
    body of events comes evenly."""
    counts: Counter[str]
    """Where refusals are counted, as `rate_limited`, and pauses, as `slowed`."""
    _full_at: float = -math.inf

    def check(self) -> None:
        """Take one event.

        Raises:
            HTTPError: 429 if there is none, with a `Retry-After` that isn't the same for all
                (RFC 6585 section 4).
        """
        full_at = self._after(1)
        if wait := self._wait(full_at):
            self.counts["rate_limited"] += 1
            seconds = math.ceil(max(1.0, wait) * random.uniform(1, 2))  # noqa: S311 - it spreads load, it guards nothing
            text = f"at most {self.rate.per_second:g}/s"
            raise HTTPError(429, text, headers={"Retry-After": str(seconds)})
        self._full_at = full_at

    async def wait(self, count: int) -> None:
        """Take some events, and wait until they are there: a body of events is slowed by this."""
        self._full_at = self._after(count)
        if wait := self._wait(self._full_at):
            self.counts["slowed"] += 1
            await trio.sleep(wait)

    def _after(self, count: int) -> float:
        """Return when the bucket is full again once so many events are taken."""
        return max(self._full_at, trio.current_time()) + count / self.rate.per_second

    def _wait(self, full_at: float) -> float:
        """Return the seconds until that is no more than a burst ahead."""
        wait = full_at - self.rate.burst / self.rate.per_second - trio.current_time()
        # A wait that only comes of rounding is none.
        return wait if wait * self.rate.per_second > 1e-6 else 0.0  # noqa: PLR2004 - of an event
