"""The screens of `top`: drawn over and over with rich, or plain lines.

rich comes with an extra, so it is imported here only where there is a terminal.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

from h3trio._cli.common import write_line

from .view import NODE_HEADS, SLOW_HEADS, TOPIC_HEADS, TopView, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from rich.console import Group
    from rich.table import Table

    from .view import Row

    Show = Callable[[TopView, str], object]
    """Shows a view, and how the connection is doing."""


@contextlib.contextmanager
def printing() -> Generator[Show]:
    """Print each view as lines, with an empty one between two."""
    count = itertools.count()
    # A connection that is lost is said on standard error anyway.
    yield lambda shown, _state: write_line("\n" * (next(count) > 0) + plain(shown))


@contextlib.contextmanager
def drawing() -> Generator[Show]:
    """Take the whole terminal, and give it back as it was."""
    from rich.live import Live  # noqa: PLC0415 - see this module's docstring

    with Live(screen=True, auto_refresh=False, redirect_stderr=False) as live:
        yield lambda shown, state: live.update(
            draw(shown, state, height=live.console.height), refresh=True
        )


def draw(shown: TopView, state: str, *, height: int) -> Group:
    """Make what rich prints; tables have as many rows as fit into so many lines."""
    from rich.console import Group  # noqa: PLC0415 - see this module's docstring
    from rich.text import Text  # noqa: PLC0415 - same

    facts = _table(rows=shown.facts)
    problems = [Text(problem, style="bold red") for problem in shown.problems]
    title = Text(f"{shown.title}, {state}", style="bold", no_wrap=True)
    # The title, the facts, the problems, and the heads of the tables.
    room = max(2, height - 1 - len(shown.facts) - len(problems) - 4 - bool(shown.nodes))
    nodes = shown.nodes[: max(1, room // 2)]
    room -= len(nodes)
    slow = shown.slow[: max(1, room // 3)]
    topics = shown.topics[: max(1, room - len(slow))]
    tables = [
        _table(*heads, rows=rows)
        for heads, rows in (
            (NODE_HEADS, nodes),
            (TOPIC_HEADS, topics),
            (("slow client", *SLOW_HEADS[1:]), slow),
        )
        if rows
    ]
    return Group(title, *problems, facts, *tables)


def _table(*heads: str, rows: Sequence[Row]) -> Table:
    from rich.table import Table  # noqa: PLC0415 - see this module's docstring
    from rich.text import Text  # noqa: PLC0415 - same

    table = Table(box=None, show_header=bool(heads), header_style="reverse", pad_edge=False)
    for head in heads or ("", ""):
        is_number = head in ("subscribers", "events/s", "published", "behind", "delivered")
        table.add_column(
            head, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis"
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table
