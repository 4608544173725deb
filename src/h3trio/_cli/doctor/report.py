"""The findings as a table, as lines and as JSON.

With rich (the extra `bench`) and on a terminal a coloured table, else plain lines: the same words.
What a server says stands among them, so a terminal gets nothing but printable characters.
"""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from h3trio._cli.common import has_rich, one_line, write_line

from .check_head import Severity
from .check_stream import exit_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from .check_head import Finding
    from .seen import Seen

# The figures of a `Reading`, under its own names.
_READ: Final = (
    *("first_byte", "seconds", "bytes", "events", "comments", "heartbeats", "longest_silence"),
    *("last_event_id", "retry"),
)
WIDTH: Final = 100  # of plain lines

_COLOURS: Final = {
    Severity.OK: "green",
    Severity.INFO: "cyan",
    Severity.WARNING: "yellow",
    Severity.ERROR: "red",
}


def as_json(seen: Seen, findings: Sequence[Finding]) -> dict[str, object]:
    """Return the findings and the figures behind them: seconds, and `retry` in milliseconds."""
    return {
        "url": seen.url,
        "findings": [
            {**asdict(found), "severity": found.severity.name.lower()} for found in findings
        ],
        "figures": _figures(seen),
        "status": exit_status(findings),
    }


def _figures(seen: Seen) -> dict[str, object]:
    head, reading = seen.head, seen.reading
    figures: dict[str, object] = {
        "status": head and head.status,
        "head": head and head.seconds,
        "protocol": seen.offered,
    }
    if reading is not None:
        figures |= {name: getattr(reading, name) for name in _READ}
        arrived, sent = reading.arrivals, seen.sent or []
        figures["published"] = len(sent)
        figures["delays"] = [arrived[e.mark] - e.at for e in sent if e.mark in arrived]
    return figures


def as_text(seen: Seen, findings: Sequence[Finding]) -> str:
    """Return a line for each finding, its advice below, and the sum."""
    width = max((len(found.check) for found in findings), default=0)
    lines = [seen.url]
    for found in findings:
        start = f"{found.severity.name.lower():7}  {found.check:{width}}  "
        lines += _folded(start, found.text)
        if found.advice:
            lines += _folded(" " * (len(start)) + "→ ", found.advice)
    return "\n".join([*lines, summary(findings)])


def _folded(start: str, text: str) -> Iterator[str]:
    """Break a text into lines; a URL or header that is longer than one stays whole."""
    indent = " " * len(start)
    yield from textwrap.wrap(
        one_line(text),
        WIDTH,
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def summary(findings: Sequence[Finding]) -> str:
    """Count the errors and warnings."""
    counts = Counter(found.severity for found in findings)
    said = [
        f"{counts[severity]} {severity.name.lower()}{'s' * (counts[severity] > 1)}"
        for severity in (Severity.ERROR, Severity.WARNING)
        if counts[severity]
    ]
    return " and ".join(said) or "no problems"


def show(seen: Seen, findings: Sequence[Finding]) -> None:
    """Write the findings to standard output: a table on a terminal, if rich is there."""
    if has_rich(sys.stdout):
        from rich.console import Console  # noqa: PLC0415 - the extra, only where it is there

        draw(Console(), seen, findings)
    else:
        write_line(as_text(seen, findings))


def draw(console: Console, seen: Seen, findings: Sequence[Finding]) -> None:
    """Draw the table."""
    from rich.table import Table  # noqa: PLC0415 - the extra, only where it is there
    from rich.text import Text  # noqa: PLC0415 - same

    # As `Text`: the words of a server may look like markup.
    table = Table(title=Text(seen.url), show_header=False)
    for found in findings:
        what = Text(one_line(found.text))
        if found.advice:
            what.append(f"\n→ {one_line(found.advice)}", style="dim")
        colour = _COLOURS[found.severity]
        table.add_row(Text(found.severity.name.lower(), style=colour), Text(found.check), what)
    console.print(table)
    console.print(Text(summary(findings)))
