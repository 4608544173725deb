"""Delays in a fixed amount of memory: counts in steps that grow with the delay.

32 steps for each power of two of microseconds, so what is read off is at most 3.2 % above the
truth, whatever the number of samples. Histograms of several processes add up, and travel as JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Mapping

_BITS: Final = 5
_STEPS: Final = 1 << _BITS


@final
class Histogram:
    """Counts of delays in seconds."""

    __slots__ = ("_counts", "maximum", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.total = 0
        self.maximum = 0.0

    def record(self, seconds: float, weight: int = 1) -> None:
        """Count a delay, `weight` times; a negative one counts as none."""
        self.maximum = max(self.maximum, seconds)
        us = int(seconds * 1e6) if seconds > 0 else 0
        shift = us.bit_length() - _BITS - 1
        step = us if shift <= 0 else (shift << _BITS) + (us >> shift)
        self._counts[step] = self._counts.get(step, 0) + weight
        self.total += weight

    def quantile(self, share: float) -> float:
        """Return the seconds that this share of the delays is not above; 0 if there are none.

        The upper edge of the step it falls in, and never more than the maximum.
        """
        rank, seen = share * self.total, 0
        for step in sorted(self._counts):
            seen += self._counts[step]
            if seen >= rank:
                return min(_upper_edge(step), self.maximum)
        return self.maximum

    def add(self, other: Histogram) -> None:
        """Add the counts of another."""
        for step, count in other._counts.items():
            self._counts[step] = self._counts.get(step, 0) + count
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)

    def as_json(self) -> dict[str, object]:
        """Return what `from_json` takes."""
        counts = {str(step): count for step, count in self._counts.items()}
        return {"maximum": self.maximum, "counts": counts}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Histogram:
        """Read what `as_json` returned."""
        self = cls()
        self.maximum = float(found["maximum"])
        self._counts = {int(step): int(count) for step, count in found["counts"].items()}
        self.total = sum(self._counts.values())
        return self

    def milliseconds(self) -> dict[str, float] | None:
        """Return p50, p90, p99 and max in milliseconds; None without samples."""
        if not self.total:
            return None
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
        found = {name: self.quantile(share) * 1e3 for name, share in shares.items()}
        return found | {"max": self.maximum * 1e3}


def _upper_edge(step: int) -> float:
    if step < 2 * _STEPS:
        return (step + 1) / 1e6
    shift = (step >> _BITS) - 1
    return ((step - (shift << _BITS) + 1) << shift) / 1e6
