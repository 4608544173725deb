"""`serve --reload`: `watchfiles.run_process` starts the server again when Python files change.

The app is loaded in a child process, for modules can't be unloaded: what they started and
registered stays. The child is a function of this module, with the command's own arguments.

It has a session of its own. Ctrl-C in a terminal goes to everybody in the foreground, and a server
takes its second signal as "at once": so only the parent gets it, and passes it on as one.

A child that ends by itself, by a syntax error too, isn't started again until something
changes: it would only end the same way.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from h3trio._cli.common import say
from h3trio._cli.main import main
from h3trio._cli.options import fail
from h3trio._extras import install

if TYPE_CHECKING:
    from collections.abc import Sequence

FLAG: Final = "--reload"
_TWIN: Final = "H3TRIO_RELOAD"
# Nobody waits for a stream to end well while they edit: the browser comes back.
_DRAIN: Final = ("--drain-soft", "0", "--drain-hard", "1", "--drain-finish", "0")
_PATIENCE: Final = 3
"""Seconds from SIGINT to SIGKILL: the drain above, and the interpreter's own end."""


def run(app: str) -> int:
    """Serve an app with this process's own arguments, again after each change, until a signal."""
    try:
        watchfiles = importlib.import_module("watchfiles")
    except ImportError:
        fail(f"{FLAG} needs watchfiles: {install('dev')}")
    # The warnings of watchfiles tell, for example, that a child had to be killed.
    logging.basicConfig(format="h3trio: %(message)s")
    # A shell's background job ignores SIGINT, which is no reason to go on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):  # a signal while a child is started or ended
        watchfiles.run_process(
            *watched(app),
            target=serve_in_child,
            args=(child_arguments(sys.argv[1:]),),
            watch_filter=watchfiles.PythonFilter(),
            callback=_tell_change,
            sigint_timeout=_PATIENCE,
        )
    return 0


def child_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of the child: the parent's, without the flag, with a short drain."""
    return [argument for argument in arguments if argument != FLAG] + [*_DRAIN]


def watched(app: str) -> list[Path]:
    """Return the folders to watch: this one, and that of the app's file."""
    name = app.rpartition(":")[0]
    folders = [Path.cwd(), *([Path(name).absolute().parent] if name.endswith(".py") else [])]
    return list(dict.fromkeys(folders))


def serve_in_child(arguments: Sequence[str]) -> None:
    """Serve until a signal; say so if the server ends by itself."""
    os.setsid()
    environ = {name: value for name, value in os.environ.items() if name != _TWIN}
    status: object = 0
    try:
        status = main(arguments, environ=environ)
    except SystemExit as exc:
        status = exc.code
    except KeyboardInterrupt:
        return  # a change came before the server took over its signals
    if status:
        say(f"the server ended with status {status}: waiting for a change")
        sys.exit(status)


def _tell_change(changes: set[tuple[object, str]]) -> None:
    name = os.path.relpath(min(path for _, path in changes))
    say(f"{name!r} changed: starting again")
