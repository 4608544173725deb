"""`python -m h3trio`: the commands, each in a module of its own.

Only the module of the command that runs is imported: what `serve` needs costs `publish`
a third of a second otherwise.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Final

from ._options import Options
from ._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COMMANDS: Final = {
    "serve": "serve the hub, or an app",
    "publish": "publish an event, lines or a stream of events",
    "tail": "print events as they come",
    "top": "watch a hub: rates, topics, slow clients",
    "token": "mint a token for a hub",  # nosec B105
    "bench": "measure a server with many streams",
    "doctor": "look at a stream from outside, and say what is wrong",
}


def main(argv: Sequence[str] | None = None, *, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; return its exit status.

    Raises:
        SystemExit: the arguments are wrong (2), or help was asked for (0).
    """
    parser = Options(prog="h3trio", description="Server-Sent Events on Trio.")
    parser.add_argument("--version", action="version", version=f"h3trio {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Options)
    argv = sys.argv[1:] if argv is None else argv
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        command.set_defaults(options=command)
        # The others are only listed. What isn't first can't be the command: `h3trio` itself
        # has no option with a value.
        if argv and argv[0] == name:
            importlib.import_module(f"._cli_{name}", __package__).add_arguments(command)
    arguments = parser.parse_args(argv)
    arguments.options.complete(arguments, environ)
    status: int = arguments.run(arguments)
    return status
