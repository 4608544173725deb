"""`main`: the command line, `python -m h3trio`, and the table of its commands.

Only the module of the command that runs is imported: what `serve` needs takes longer to import
than `publish` to run. So the table holds the modules' names.
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


# The module of each command, below this package, and what `--help` says of it.
COMMANDS: Final = {
    "serve": (".serve.command", "serve the hub, or an app"),
    "publish": (".publish", "publish an event, lines or a stream of events"),
    "tail": (".tail", "print events as they come"),
    "health": (".health", "ask the hub on this machine whether it is ready"),
    "top": (".top.command", "watch a hub: rates, topics, slow clients"),
    "token": (".token", "mint a token for a hub"),
    "bench": (".bench.command", "measure a server with many streams"),
    "doctor": (".doctor.command", "look at a stream from outside, and say what is wrong"),
}


def main(argv: Sequence[str] | None = None, *, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; return its exit status.

    Raises:
        SystemExit: the arguments are wrong (2), or help was asked for (0).

    Without arguments it lists the commands.
    """
    parser = Options(prog="h3trio", description="Server-Sent Events on Trio.")
    parser.add_argument("--version", action="version", version=f"h3trio {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Options)
    argv = sys.argv[1:] if argv is None else argv
    for name, (_, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        command.set_defaults(options=command)
        # The others are only listed. A word that isn't first can't be the command: `h3trio` itself
        # has no option with a value.
        if argv and argv[0] == name:
            module = load(name)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    if not argv:
        parser.print_help()
        return 0
    arguments = parser.parse_args(argv)
    arguments.options.complete(arguments, environ)
    status: int = arguments.run(arguments)
    return status


def load(name: str) -> ModuleType:
    """Import the module of a command, which has `add_arguments(parser)` and `run(arguments)`."""
    return importlib.import_module(COMMANDS[name][0], __package__)
