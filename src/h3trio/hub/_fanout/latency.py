"""`Histogram`: durations counted in fixed steps, so that its memory doesn't grow.

The steps of a hub are 1, 2 and 5 of each power of ten. Finer ones would give truer quantiles, but
each is a time series for whoever collects them. `bench` keeps its own in finer steps.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Sequence

BOUNDS: Final = (
    *(0.000_01, 0.000_02, 0.000_05),
    *(0.000_1, 0.000_2, 0.000_5),
    *(0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0),
    10.0,
)
"""Upper edges of the steps, in seconds; a longer duration falls into one more."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStatistics:
    """A snapshot of the durations of one thing, in seconds."""

    count: int
    """The number of durations."""
    sum: float
    """Seconds in total."""
    max: float
    """The longest, in seconds; 0 if there was none."""
    buckets: tuple[tuple[float, int], ...]
    """Upper bounds in seconds, ascending, each with the number of durations that aren't longer;
    the last is `inf`."""

    def quantile(self, share: float) -> float:
        """Estimate the seconds that a share (0 to 1) of them is not longer than; 0 without any.

        They count as evenly spread within a step, as in Prometheus' `histogram_quantile`, and it
        is never more than the maximum.
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
    """Counts of durations.

    Args:
        bounds: upper edges of the steps, in seconds, ascending.
    """

    def __init__(self, bounds: Sequence[float] = BOUNDS) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Durations in each step; the last is for those above the last bound."""
        self.sum = 0.0
        """Seconds in total."""
        self.max = 0.0
        """The longest, in seconds."""

    def add(self, seconds: float, count: int = 1) -> None:
        """Count a duration, or several as long."""
        self.counts[bisect_left(self._bounds, seconds)] += count
        self.sum += seconds * count
        self.max = max(self.max, seconds)

    def statistics(self) -> LatencyStatistics:
        """Return a snapshot."""
        counts = tuple(accumulate(self.counts))
        bounds = (*self._bounds, float("inf"))
        return LatencyStatistics(
            count=counts[-1],
            sum=self.sum,
            max=self.max,
            buckets=tuple(zip(bounds, counts, strict=True)),
        )
