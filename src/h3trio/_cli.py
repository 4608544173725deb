"""`python -m h3trio`: the commands, each in a module of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from . import _cli_bench, _cli_publish, _cli_serve, _cli_tail, _cli_token
from ._options import Options
from ._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COMMANDS: Final = {
    "serve": (_cli_serve, "serve the hub, or an app"),
    "publish": (_cli_publish, "publish an event, lines or a stream of events"),
    "tail": (_cli_tail, "print events as they come"),
    "token": (_cli_token, "mint a token for a hub"),
    "bench": (_cli_bench, "measure a server with many streams"),
}


def main(argv: Sequence[str] | None = None, *, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; return its exit status.

    Raises:
        SystemExit: the arguments are wrong (2), or help was asked for (0).
    """
    parser = Options(prog="h3trio", description="Server-Sent Events on Trio.")
    parser.add_argument("--version", action="version", version=f"h3trio {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Options)
    for name, (module, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        command.set_defaults(options=command)
        module.add_arguments(command)
    arguments = parser.parse_args(argv)
    arguments.options.complete(arguments, environ)
    status: int = arguments.run(arguments)
    return status
