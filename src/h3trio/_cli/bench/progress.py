"""The display of a run: progress on standard error while it lasts, a table at its end.

With rich and on a terminal: one line that changes, and a table. Else plain lines, one a second. It
stands apart because rich comes with an extra, `bench`.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, TextIO, final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from .outcome import Outcome


@final
class PlainDisplay:
    """Lines of text."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def step(self, line: str) -> None:
        """Print the line, unless told to be quiet."""
        if not self._quiet:
            print(f"h3trio: {line}", file=sys.stderr, flush=True)

    def end(self, outcome: Outcome | None) -> None:
        """Print the outcome."""
        if outcome is not None:
            print(outcome.as_text(), flush=True)


@final
class RichDisplay:
    """A line that changes, and a table."""

    def __init__(self, progress: Console, results: Console) -> None:
        self._results = results
        self._status: Status = progress.status("")
        self._status.start()

    def step(self, line: str) -> None:
        """Change the line."""
        self._status.update(line)

    def end(self, outcome: Outcome | None) -> None:
        """Take the line away; draw the table."""
        self._status.stop()
        if outcome is None:
            return
        from rich.table import Table  # noqa: PLC0415 - the extra, only where it is there
        from rich.text import Text  # noqa: PLC0415 - same

        # As text: the brackets of an IPv6 address would be markup.
        table = Table(title=Text(outcome.url), show_header=False)
        for row in outcome.rows():
            table.add_row(*row)
        self._results.print(table)
        for line in outcome.remarks():
            self._results.print(line, style="red" if "PROBLEM" in line else None, markup=False)


def display(*, quiet: bool, stream: TextIO) -> PlainDisplay | RichDisplay:
    """Choose: rich if it is there and this stream, where progress goes, is a terminal."""
    if quiet or not stream.isatty() or importlib.util.find_spec("rich") is None:
        return PlainDisplay(quiet=quiet)
    from rich.console import Console  # noqa: PLC0415 - the extra, only where it is there

    return RichDisplay(Console(file=stream), Console())
