"""Samples, their medians, and how they are shown.

A *sample* is what one subject did in one round. Rounds go through all subjects before the next
begins, so a ratio is taken within a round, between neighbours in time, and its median over the
rounds is what is judged: on a shared machine the figures themselves drift more than they differ.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import isnan
from statistics import median
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one subject did in one round."""

    subject: str
    round: int
    values: Mapping[str, float]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A figure held against its target; `bound` is a least or a most."""

    name: str
    values: Sequence[float]
    bound: float
    at_least: bool

    @property
    def median(self) -> float:
        """The figure that is judged."""
        return median(self.values)

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.median >= self.bound if self.at_least else self.median <= self.bound


@final
@dataclass(slots=True, kw_only=True)
class Report:
    """One table and what follows from it."""

    title: str
    columns: Mapping[str, str]
    """Key in `Sample.values` → heading, unit included."""
    plotted: str = ""
    """Key of what a plot shows; the first column's unless given."""
    samples: list[Sample] = field(default_factory=list[Sample])
    checks: list[Check] = field(default_factory=list[Check])
    notes: list[str] = field(default_factory=list[str])

    def round(self, number: int) -> Round:
        """Return the place for the figures of one round."""
        return Round(report=self, number=number)

    def values(self, subject: str, key: str) -> list[float]:
        """List a subject's figures, one a round."""
        return [s.values[key] for s in self.samples if s.subject == subject and key in s.values]

    def check(
        self, name: str, values: Sequence[float], *, least: float | None = None, most: float = 0
    ) -> None:
        """Judge a figure, if there is one; a least if given, else a most."""
        if values:
            bound, at_least = (most, False) if least is None else (least, True)
            self.checks.append(Check(name=name, values=values, bound=bound, at_least=at_least))

    def ratios(self, key: str, subject: str, to: str) -> list[float]:
        """Divide one subject's figure by another's, round by round."""
        theirs = {s.round: s.values[key] for s in self.samples if s.subject == to}
        return [
            s.values[key] / theirs[s.round]
            for s in self.samples
            if s.subject == subject and theirs.get(s.round)
        ]

    def as_json(self) -> dict[str, object]:
        """All samples and all that was made of them."""
        checks = [asdict(c) | {"median": c.median, "met": c.met} for c in self.checks]
        samples = [asdict(sample) for sample in self.samples]
        return {
            "title": self.title,
            "samples": samples,
            "checks": checks,
            "notes": self.notes,
        }

    def as_text(self) -> str:
        """Return the table, the checks and the notes, for people."""
        return "\n".join(
            ["", self.title, "", *self._table(), "", *self._verdicts(), *self._remarks()]
        )

    def _table(self) -> Iterator[str]:
        rows = [["", *self.columns.values()]]
        rows += (
            [subject, *(spread(self.values(subject, key)) for key in self.columns)]
            for subject in dict.fromkeys(sample.subject for sample in self.samples)
        )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield "  ".join(["", first, *others]).rstrip()

    def _verdicts(self) -> Iterator[str]:
        for check in self.checks:
            verdict = "met" if check.met else "MISSED"
            sign = "≥" if check.at_least else "≤"
            target = f"{sign} {figure(check.bound)}"
            yield f"  {verdict:6}  {check.name}: {spread(check.values)}, target {target}"

    def _remarks(self) -> Iterator[str]:
        for note in self.notes:
            yield f"  note: {note}"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of a report."""

    report: Report
    number: int

    def add(self, subject: str, **values: float) -> None:
        """Add one subject's figures."""
        self.report.samples.append(Sample(subject=subject, round=self.number, values=values))


def spread(values: Sequence[float]) -> str:
    """Write the median, and in brackets the least and the most if they differ."""
    if not values:
        return "-"
    low, middle, high = (figure(value) for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


_PLAIN: Final = 10_000


def figure(value: float) -> str:
    """Write a number with about three digits that count; a dash where there is none."""
    if isnan(value):
        return "-"
    if abs(value) >= _PLAIN:
        return f"{value / 1000:,.0f}k" if abs(value) < 1e6 else f"{value / 1e6:.2f}M"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
