"""How long things took: counts in fixed steps, so what is kept doesn't grow.

The steps are 1, 2 and 5 of each power of ten. Finer ones would read off truer quantiles, but
each is a time series for whoever collects them.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, final

BOUNDS: Final = (
    *(0.000_01, 0.000_02, 0.000_05),
    *(0.000_1, 0.000_2, 0.000_5),
    *(0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0),
    10.0,
)
"""Upper edges of the steps, in seconds; what takes longer falls into one more."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStatistics:
    """A snapshot of how long something took, in seconds."""

    count: int
    """How often it was measured."""
    sum: float
    """Seconds in total."""
    max: float
    """The longest, in seconds; 0 if there was none."""
    buckets: tuple[tuple[float, int], ...]
    """Upper bounds in seconds, ascending, each with how many took no longer; the last is `inf`."""

    def quantile(self, share: float) -> float:
        """Estimate the seconds that a share (0 to 1) took no longer than; 0 without samples.

        Evenly spread within a step, as Prometheus' `histogram_quantile` does, and never
        more than the maximum.
        """
        rank, low, below = share * self.count, 0.0, 0
        for bound, count in self.buckets:
            if count >= rank and count > below:
                high = min(bound, self.max)
                return min(low + (high - low) * (rank - below) / (count - below), self.max)
            low, below = bound, count
        return self.max


@final
class Histogram:
    """Counts of durations."""

    __slots__ = ("_counts", "_max", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0
        self._max = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Count one, or several that took as long each."""
        self._counts[bisect_left(BOUNDS, seconds)] += count
        self._sum += seconds * count
        self._max = max(self._max, seconds)

    def statistics(self) -> LatencyStatistics:
        """A snapshot."""
        counts = tuple(accumulate(self._counts))
        bounds = (*BOUNDS, float("inf"))
        return LatencyStatistics(
            count=counts[-1],
            sum=self._sum,
            max=self._max,
            buckets=tuple(zip(bounds, counts, strict=True)),
        )
