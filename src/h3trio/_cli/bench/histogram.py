"""`delays`: a hub's `Histogram` with the finer steps that `bench` needs.

32 steps for each power of two of microseconds, so a figure is at most 3.2 % off, whatever the
number of samples. Histograms of several processes add up.
"""

from __future__ import annotations

from typing import Final

from h3trio.hub._fanout.latency import Histogram

# The last is at nearly five hours.
_EDGES: Final = (*range(1, 33), *(edge << shift for shift in range(29) for edge in range(33, 65)))
BOUNDS: Final = tuple(edge / 1e6 for edge in _EDGES)
"""Upper edges of the steps, in seconds."""


def delays() -> Histogram:
    """Make an empty histogram of delays."""
    return Histogram(BOUNDS)


def merge(into: Histogram, other: Histogram) -> None:
    """Add the counts of another process."""
    into.counts = [one + more for one, more in zip(into.counts, other.counts, strict=True)]
    into.sum += other.sum
    into.max = max(into.max, other.max)


def milliseconds(histogram: Histogram) -> dict[str, float] | None:
    """Return p50, p90, p99 and max in milliseconds; `None` without samples."""
    found = histogram.statistics()
    if not found.count:
        return None
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    quantiles = {name: found.quantile(share) * 1e3 for name, share in shares.items()}
    return quantiles | {"max": found.max * 1e3}
