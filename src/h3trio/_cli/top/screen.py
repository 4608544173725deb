"""The screens of `top`: drawn over and over with rich, or plain lines.

rich comes with an extra, so it is imported here only where there is a terminal.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, final

from h3trio._cli.common import write_line

from .view import TopView, plain

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Group
    from rich.live import Live
    from rich.table import Table


class Screen(AbstractContextManager[object], Protocol):
    """Shows one view after the other: `with screen`."""

    def show(self, shown: TopView, state: str) -> None:
        """Show a view, and how the connection is doing."""
        ...


@final
class PlainScreen:
    """Each view as lines, with an empty one between two."""

    def __init__(self) -> None:
        self._count = 0

    def __enter__(self) -> object:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, shown: TopView, state: str) -> None:
        """Print the view; a connection that is lost is said on standard error anyway."""
        del state
        write_line("\n" * (self._count > 0) + plain(shown))
        self._count += 1


@final
class RichScreen:
    """The whole terminal, which is given back as it was."""

    def __init__(self) -> None:
        from rich.live import Live  # noqa: PLC0415 - see this module's docstring

        self._live: Live = Live(screen=True, auto_refresh=False, redirect_stderr=False)

    def __enter__(self) -> object:
        return self._live.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(exc_type, exc, traceback)

    def show(self, shown: TopView, state: str) -> None:
        """Draw the view, as much of it as the terminal has room for."""
        self._live.update(draw(shown, state, height=self._live.console.height), refresh=True)


def draw(shown: TopView, state: str, *, height: int) -> Group:
    """Make what rich prints; tables have as many rows as fit into so many lines."""
    from rich.console import Group  # noqa: PLC0415 - see this module's docstring
    from rich.text import Text  # noqa: PLC0415 - same

    facts = _table()
    for fact in shown.facts:
        facts.add_row(*map(Text, fact))
    problems = [Text(problem, style="bold red") for problem in shown.problems]
    title = Text(f"{shown.title}, {state}", style="bold", no_wrap=True)
    # The title, the facts, the problems, and the heads of two tables.
    room = max(2, height - 1 - len(shown.facts) - len(problems) - 4)
    slow = shown.slow[: max(1, room // 3)]
    topics = shown.topics[: max(1, room - len(slow))]
    tables: list[Table] = []
    if topics:
        tables.append(_table("topic", "subscribers", "events/s", "published"))
        for topic in topics:
            tables[-1].add_row(*map(Text, topic))
    if slow:
        tables.append(_table("slow client", "behind", "for", "topics"))
        for client in slow:
            tables[-1].add_row(*map(Text, client))
    return Group(title, *problems, facts, *tables)


def _table(*heads: str) -> Table:
    from rich.table import Table  # noqa: PLC0415 - see this module's docstring

    table = Table(box=None, show_header=bool(heads), header_style="reverse", pad_edge=False)
    for head in heads or ("", ""):
        is_number = head in ("subscribers", "events/s", "published", "behind")
        table.add_column(
            head, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis"
        )
    return table
