"""Writes docs/reference/command-line.md: `python docs/command_line.py`.

Strategy: what stands above the mark is written by hand. What stands below is made of the commands'
own parsers, so it says what `--help` says. The page is kept in the repository for those who read it
there; tests/test_docs.py holds it against the parsers.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

from h3trio._cli.main import COMMANDS, load
from h3trio._cli.options import Options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

PAGE: Final = Path(__file__).parent / "reference" / "command-line.md"
MARK: Final = "<!-- what follows is written by `python docs/command_line.py` -->\n"
# What `Options` puts behind the help of an option: "[H3TRIO_PORT, default 3000]", or one of both.
TWIN: Final = re.compile(r" \[(?:(H3TRIO_\w+)(?:, )?)?(?:default (.+))?\]$", re.DOTALL)
CODE: Final = re.compile(r"(--[\w-]+|H3TRIO_\w+|\*|\?\w+=)([,;:.]?)$")
ESCAPED: Final = re.compile(r"([*<>|\[\]_`\\])")


def written() -> str:
    """Return the page as it should be."""
    by_hand, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    return by_hand + mark + "".join(map(section, parsers()))


def parsers() -> Iterator[Options]:
    """Make the parser of each command, in the order of `python -m h3trio --help`."""
    for name in COMMANDS:
        parser = Options(prog=name)
        load(name).add_arguments(parser)
        yield parser


def section(parser: Options) -> str:
    """Describe one command."""
    parts = [f"## `{parser.prog}`"]
    if parser.description:
        parts.append(inline(parser.description))
    for title, actions in groups(parser):
        parts += [f"**{title[0].upper()}{title[1:]}**"] if title else []
        parts.append("\n".join(table(actions)))
    for paragraph in filter(None, (parser.epilog or "").split("\n\n")):
        title, _, examples = paragraph.partition("\n")
        if examples:
            parts.append("```\n" + textwrap.dedent(examples).strip() + "\n```")
        else:
            parts.append(f"{inline(title[0].upper() + title[1:])}.")
    if parser.grammar:
        parts.append(inline(parser.grammar))
    return "\n" + "\n\n".join(parts) + "\n"


def groups(parser: Options) -> Iterator[tuple[str, list[argparse.Action]]]:
    """Yield the titles of a command's help with what stands below; first what has none."""
    own: list[argparse.Action] = []
    titled: list[tuple[str, list[argparse.Action]]] = []
    for group in parser._action_groups:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - argparse names its options nowhere else
        actions = [action for action in group._group_actions if action.dest != "help"]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as above
        if group.title in ("positional arguments", "options"):
            own += actions
        else:
            titled.append((group.title or "", actions))
    yield "", own
    yield from titled


def table(actions: list[argparse.Action]) -> Iterator[str]:
    """Yield the rows of arguments and flags."""
    yield "| flag, and its twin in the environment | what it does | default |"
    yield "|---|---|---|"
    for action in sorted(actions, key=lambda action: bool(action.option_strings)):
        help_text = (action.help or "").replace("%%", "%")
        variable, default = "", ""
        if found := TWIN.search(help_text):
            help_text = help_text[: found.start()]
            variable = f"<br>`{found[1]}`" if found[1] else ""
            default = f"`{found[2]}`" if found[2] else ""
        yield f"| {names(action)}{variable} | {inline(help_text)} | {default} |"


def names(action: argparse.Action) -> str:
    """Write an argument as it is typed: `--port PORT`, `[DATA]`."""
    value = str(action.metavar or action.dest)
    if not action.option_strings:
        return code(
            f"[{value}]" if action.nargs == "?" else f"{value}..." if action.nargs else value
        )
    if action.choices is not None:
        value = "|".join(map(str, action.choices))
    elif action.metavar is None:
        value = value.upper()
    behind = "" if action.nargs == 0 else f" {value}"
    return ", ".join(code(flag + behind) for flag in action.option_strings)


def code(text: str) -> str:
    """Write a code span that may stand in a table."""
    return "`" + text.replace("|", "\\|") + "`"


def inline(text: str) -> str:
    """Write plain text as Markdown that may stand in a table; what looks like code is code."""
    return " ".join(
        f"`{found[1]}`{found[2]}" if (found := CODE.match(word)) else ESCAPED.sub(r"\\\1", word)
        for word in text.split()
    )


def main() -> None:
    """Write the page."""
    PAGE.write_text(written(), encoding="utf-8")


if __name__ == "__main__":
    main()
