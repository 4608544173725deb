"""Write what was measured into the documentation: tables in Markdown, a plot for each workload.

`python -m benchmarks --write` replaces what stands between two marks in docs/benchmarks.md, and the
pictures in docs/benchmarks/. In front stands one table of all targets, met or not. Each table says
when it was measured, by which command, with which versions, and how much of the server's core
others took; that belongs to the figures. Only the workloads that ran are replaced.

A plot shows one column, `Report.plotted`, for each subject: the median, with a line from least to
most.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from .bench import NODE_PEERS, PEERS
from .machine import MissingError, describe
from .report import figure, spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .report import Report

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
BEGIN: Final = "<!-- begin: written by python -m benchmarks --write -->"
END: Final = "<!-- end -->"
CAVEATS: Final = (
    "Written by the benchmarks themselves. Medians of the rounds, with the least and the most in "
    "brackets; a check's ratio is taken within a round. Read the ratios: the figures belong to one "
    "machine on one day."
)
_CHECKS_HEAD: Final = "| figure | at least, at most | measured | met, not met |"
_MET: Final = "| met |"
_MISSED: Final = "| **not met** |"
_WIDTH: Final = 8.0
_BAR: Final = 0.4


def write(reports: Mapping[str, Report], arguments: str, docs: Path = DOCS) -> None:
    """Put reports into the page and draw their plots; `arguments` are those of the command line.

    Raises:
        MissingError: the page has no place for them, or matplotlib isn't installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingError("--write needs matplotlib: pip install --group bench")
    page = docs / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text.partition(BEGIN)[2]:
        raise MissingError(f"{page} lacks {BEGIN} or {END}")
    (docs / "benchmarks").mkdir(exist_ok=True)
    head = (
        f"Measured {time.strftime('%Y-%m-%d')} by `python -m benchmarks {arguments}`: {versions()}."
    )
    sections: dict[str, str] = {}
    for name, report in reports.items():
        sections[name] = section(name, report, head)
        plot(report, docs / "benchmarks" / f"{name}.png")
    page.write_text(replaced(text, sections), encoding="utf-8")


def replaced(page: str, sections: Mapping[str, str]) -> str:
    """Return the page with new sections between its marks, beside those already there."""
    before, _, rest = page.partition(BEGIN)
    inside, _, after = rest.partition(END)
    parts = re.split(r"^### `(\w+)`$", inside, flags=re.MULTILINE)
    held = {
        name: f"### `{name}`{body}".strip()
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    found = held | dict(sections)
    all_of_them = "\n\n".join([CAVEATS, *_targets(found), *found.values()])
    return f"{before}{BEGIN}\n\n{all_of_them}\n\n{END}{after}"


def _targets(sections: Mapping[str, str]) -> Iterator[str]:
    """Collect the checks of all sections, the kept ones too, as they are written in them."""
    rows = [
        f"| `{name}` {line}"
        for name, text in sections.items()
        for line in text.partition(_CHECKS_HEAD)[2].partition("\n\n")[0].splitlines()[2:]
    ]
    if rows:
        missed = sum(row.endswith(_MISSED) for row in rows)
        yield f"Targets: {len(rows) - missed} met, {missed} not met."
        yield "\n".join([f"| workload {_CHECKS_HEAD}", "|---|---|---|---|---|", *rows])


def section(name: str, report: Report, head: str) -> str:
    """Write one report as Markdown."""
    return "\n\n".join([f"### `{name}`", f"{report.title}. {head}", *_parts(name, report)])


def _parts(name: str, report: Report) -> Iterator[str]:
    yield "\n".join(_table(report))
    if report.checks:
        yield "\n".join(_checks(report))
    if report.notes:
        yield "\n".join(f"- {note}" for note in report.notes)
    yield f"![{report.title}](benchmarks/{name}.png)"


def _table(report: Report) -> Iterator[str]:
    yield f"| | {' | '.join(report.columns.values())} |"
    yield "|---" * (len(report.columns) + 1) + "|"
    for subject in _subjects(report):
        cells = [spread(report.values(subject, key)) for key in report.columns]
        yield f"| {subject} | {' | '.join(cells)} |"


def _checks(report: Report) -> Iterator[str]:
    yield _CHECKS_HEAD
    yield "|---|---|---|---|"
    for check in report.checks:
        target = f"{'at least' if check.at_least else 'at most'} {figure(check.bound)}"
        verdict = _MET if check.met else _MISSED
        yield f"| {check.name} | {target} | {spread(check.values)} {verdict}"


def _subjects(report: Report) -> list[str]:
    return list(dict.fromkeys(sample.subject for sample in report.samples))


def versions() -> str:
    """Name the machine and all whose versions matter."""
    machine = describe()
    found = [f"kernel {machine['kernel']}, {machine['cores']} cores, Python {machine['python']}"]
    found += [f"{name} {version(name)}" for name in ("h3trio", "trio", "h11")]
    found += [_printed("nginx", "-v"), f"Node.js {_printed('node', '--version')}"]
    found += [peer for peer in (*PEERS, *NODE_PEERS) if not peer.startswith(("trio", "h11"))]
    return ", ".join(filter(None, found))


def _printed(command: str, flag: str) -> str:
    path = shutil.which(command, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if path is None:
        return "none"
    done = subprocess.run([path, flag], capture_output=True, text=True, check=False, timeout=10)
    return (done.stdout + done.stderr).strip().removeprefix("nginx version: ")


def plot(report: Report, into: Path) -> None:
    """Draw the first column of a report as bars, the first subject on top."""
    # Not `import`: it comes with the dependency group `bench`, and pyplot wants a display.
    figures: Any = importlib.import_module("matplotlib.figure")
    key = report.plotted or next(iter(report.columns))
    bars = {name: found for name in _subjects(report) if (found := report.values(name, key))}
    drawn = figures.Figure(figsize=(_WIDTH, 1.2 + _BAR * len(bars)), layout="constrained")
    axes = drawn.subplots()
    names, middles = list(bars), [median(values) for values in bars.values()]
    below = [m - min(v) for m, v in zip(middles, bars.values(), strict=True)]
    above = [max(v) - m for m, v in zip(middles, bars.values(), strict=True)]
    colours = ["#1f6f5c" if name.startswith(("h3trio", "send")) else "#9aa5b1" for name in names]
    axes.barh(names, middles, xerr=[below, above], color=colours, capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel(report.columns[key])
    axes.set_title(report.title, fontsize="medium", loc="left")
    drawn.savefig(into, dpi=110)
