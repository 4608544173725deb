"""`Buckets`: token buckets, which bound how often each of many keys may do something.

A bucket is one number: the time at which it is full again (the generic cell rate algorithm). A full
bucket needs no memory, so if there are too many the one unused for longest is dropped: it is the
one most likely full.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, final

MAX_BUCKETS: Final = 10_000
"""Publishers whose rate is remembered at once; about a megabyte of them."""

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
class Buckets:
    """A bucket for each key. Times are seconds, on whatever clock the caller has.

    Args:
        rate: of each bucket.
        max_buckets: how many are kept.
    """

    def __init__(self, rate: Rate, *, max_buckets: int = MAX_BUCKETS) -> None:
        self.rate = rate
        self._interval = 1 / rate.per_second
        self._tolerance = (rate.burst - 1) * self._interval
        self._max = max_buckets
        # Least recently used first; a value is when the bucket is full again.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def try_take(self, key: str, now: float) -> float:
        """Take one; return 0, or, if there is none, the seconds until there is."""
        full_at = max(self._full_at.get(key, now), now)
        if wait := self._wait(full_at, now):
            return wait
        self._store(key, full_at + self._interval)
        return 0.0

    def take(self, key: str, count: int, now: float) -> float:
        """Take some, even if they aren't there yet; return the seconds until they are."""
        full_at = max(self._full_at.get(key, now), now) + count * self._interval
        self._store(key, full_at)
        return self._wait(full_at - self._interval, now)

    def _wait(self, full_at: float, now: float) -> float:
        wait = full_at - self._tolerance - now
        # A wait that only comes of rounding is none.
        return wait if wait > self._interval * 1e-6 else 0.0

    def _store(self, key: str, full_at: float) -> None:
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._max:
            self._full_at.popitem(last=False)
