"""`python -m h3trio`: the commands, each in a module of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import _cli_serve
from ._options import Options
from ._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def main(argv: Sequence[str] | None = None, *, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; return its exit status.

    Raises:
        SystemExit: the arguments are wrong (2), or help was asked for (0).
    """
    parser = Options(prog="h3trio", description="Server-Sent Events on Trio.")
    parser.add_argument("--version", action="version", version=f"h3trio {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Options)
    serve = commands.add_parser("serve", help="serve the hub, or an app")
    serve.set_defaults(options=serve)
    _cli_serve.add_arguments(serve)
    arguments = parser.parse_args(argv)
    arguments.options.complete(arguments, environ)
    status: int = arguments.run(arguments)
    return status
