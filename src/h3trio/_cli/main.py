"""`python -m h3trio`: the commands, each in a module of its own.

Only the module of the command that runs is imported: what `serve` needs costs `publish`
a third of a second otherwise.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Final

from h3trio._version import __version__

from .options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

COMMANDS: Final = {
    "serve": "serve the hub, or an app",
    "publish": "publish an event, lines or a stream of events",
    "tail": "print events as they come",
    "top": "watch a hub: rates, topics, slow clients",
    "token": "mint a token for a hub",  # nosec B105
    "bench": "measure a server with many streams",
    "doctor": "look at a stream from outside, and say what is wrong",
}
"""The commands, and what `--help` says of each."""
# Those of one file are one file here; the others are folders.
_FOLDERS: Final = frozenset({"serve", "top", "bench", "doctor"})


def main(argv: Sequence[str] | None = None, *, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; return its exit status.

    Raises:
        SystemExit: the arguments are wrong (2), or help was asked for (0).
    """
    parser = Options(prog="h3trio", description="Server-Sent Events on Trio.")
    parser.add_argument("--version", action="version", version=f"h3trio {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Options)
    argv = sys.argv[1:] if argv is None else argv
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        command.set_defaults(options=command)
        # The others are only listed. What isn't first can't be the command: `h3trio` itself
        # has no option with a value.
        if argv and argv[0] == name:
            load(name).add_arguments(command)
    arguments = parser.parse_args(argv)
    arguments.options.complete(arguments, environ)
    status: int = arguments.run(arguments)
    return status


def load(name: str) -> ModuleType:
    """Import the module of a command, which has `add_arguments(parser)`."""
    path = f".{name}.command" if name in _FOLDERS else f".{name}"
    return importlib.import_module(path, __package__)
