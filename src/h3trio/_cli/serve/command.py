"""`python -m h3trio serve`: load an app or take the hub, serve it until a signal.

The first SIGTERM, SIGINT or SIGHUP drains and exits 0; a second exits at once. If the
drain is late by five seconds the process exits 70: a handler that swallows
cancellation or blocks the loop can't keep it. Signals are therefore watched by
a thread, for the loop may be what hangs.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from h3trio._cli.common import EXIT_FAILED, one_of
from h3trio._cli.main import COMMANDS
from h3trio._cli.main import load as load_command
from h3trio._cli.options import Options, fail, refuse, settings_from
from h3trio._server.logs.json_log import JSONFormatter
from h3trio._server.logs.redaction import LogFormatter
from h3trio._server.serve import Server, serve
from h3trio._server.sockets.systemd import notify, watchdog_interval

from . import hub, listen
from . import reload as _reload
from .load_app import FACTORY, describe, load
from .signals import GRACE, StopSignals

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from h3trio._server.event import Handler

    Serving = Callable[..., Awaitable[None]]
    Ready = Callable[[Sequence[str]], str]

logger = logging.getLogger("h3trio.server")

# Collections of the middle generation before one of all objects; Python's default is 10.
_FULL_COLLECTION: Final = 50

# Seconds for what stands behind the `yield` of a lifespan, before it is cancelled: less than GRACE,
# so that a worker which nobody cancels doesn't make a shutdown late.
_CLOSING: Final = 3.0

# Kubernetes and Docker name the addresses of a service called h3trio so.
_OF_LINKS: Final = re.compile(r"_PORT\b|_PORT_|_SERVICE_")

_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


EXAMPLES: Final = """\
examples:
  h3trio serve --store sqlite:events.db --max-age 7d      a hub that keeps a week of events
  h3trio serve --host 0.0.0.0 --jwt-key-file hub.pem      one for other machines, with tokens
  h3trio serve app.py:app --reload                        an app of yours, while you write it
"""
STATUSES: Final = (
    "exit status: 0 a signal stopped it; 1 it can't start now: the store, an address, or the app's "
    "own start; 2 the arguments, a key or the app can't be used; 70 its shutdown was late; 128 + N "
    "a second signal N"
)


def add_arguments(parser: Options) -> None:
    """Add the options of `serve`."""
    parser.usage = "%(prog)s [app] [option...]"
    parser.description = "Serve the hub, or an app."
    parser.epilog = f"{EXAMPLES}\n{STATUSES}"
    parser.add_argument("app", nargs="?", help="module:app or path.py:app; the hub if absent")
    parser.add_switch(FACTORY, help="the app is a function: call it, and serve what it returns")
    parser.add_switch(
        _reload.FLAG, help="start again when a Python file changes, to develop an app"
    )
    listen.add_arguments(parser)
    with parser.group("what it logs"):
        what = "least level that is logged"
        parser.add_option("--log-level", default="info", type=_level, help=what)
        what = "how it is logged: text, or json for a JSON object a line"
        parser.add_option("--log-format", default="text", type=one_of("text", "json"), help=what)
        parser.add_switch("--no-access-log", help="don't log requests")
    others = parser.dests
    hub.add_arguments(parser)
    parser.set_defaults(hub_options=parser.dests - others)
    parser.add_settings()


def _level(text: str) -> str:
    if text.upper() not in logging.getLevelNamesMapping():
        raise ValueError(f"{text!r} is not a log level")
    return text.lower()


def run(arguments: argparse.Namespace) -> int:
    """Serve; return the exit status."""
    settings = settings_from(arguments)
    if not arguments.app:
        refuse(arguments, ["factory"], "needs an app: the hub is made by h3trio itself")
    if arguments.reload:
        if not arguments.app:
            fail(f"{_reload.FLAG} needs an app: the hub has no files of yours")
        return _reload.run(arguments.app)
    to_terminal = logging.StreamHandler(sys.stderr)
    is_json = arguments.log_format == "json"
    to_terminal.setFormatter(JSONFormatter() if is_json else LogFormatter(_LOG_FORMAT))
    logging.basicConfig(level=arguments.log_level.upper(), handlers=[to_terminal])
    if arguments.no_access_log:
        logging.getLogger("h3trio.access").disabled = True
    for name in unknown_variables(arguments, os.environ):
        logger.warning("%s is set, and is no option: is it misspelt?", name)
    handler: Handler
    listening = listen.listening_from(arguments, os.environ)
    if arguments.app:
        refuse(arguments, arguments.hub_options, f"is the hub's, and {arguments.app} is served")
        handler = load(arguments.app, is_factory=arguments.factory)
        what: Callable[[], str] = partial(str, arguments.app)
    else:
        parts = hub.hub_from(arguments, settings)
        handler, settings, what = parts.app(), parts.settings, parts.store
    serving = partial(serve, handler, settings=settings, **listening)
    stop = StopSignals(settings.drain_soft + settings.drain_hard + GRACE)
    ready = _ready_record if is_json else _ready_line
    failure = trio.run(_main, serving, partial(ready, what), stop)
    stop.restore()
    if failure is not None:
        # Most of this passes (a full disk, a port in use): a service manager may try again.
        fail(f"can't start: {failure}", EXIT_FAILED)
    return 0


def unknown_variables(arguments: argparse.Namespace, environ: Mapping[str, str]) -> list[str]:
    """Return the variables that look like ours and are of no option, of the other commands too."""
    ours = [name for name in environ if name.startswith("H3TRIO_") and not _OF_LINKS.search(name)]
    if unknown := set(ours) - arguments.options.variables:
        for command in COMMANDS:
            parser = Options(prog=command)
            load_command(command).add_arguments(parser)
            unknown -= parser.variables
    return sorted(unknown)


# -- running


async def _main(serving: Serving, ready: Ready, stop: StopSignals) -> str | None:
    """Serve until a signal; return what went wrong before the server was ready, if anything."""
    asked = stop.watch()
    async with trio.open_nursery() as nursery:
        server: Server | None = None
        starting = trio.CancelScope()
        nursery.start_soon(_cancel_when, asked, starting)
        try:
            with starting:
                server = await nursery.start(serving)
        except (trio.Cancelled, KeyboardInterrupt):
            raise
        except BaseException as exc:  # noqa: BLE001 - binding and the app's lifespan fail in many ways
            nursery.cancel_scope.cancel(reason="the server didn't start")
            return describe(exc)
        if server is not None:
            # All objects that there are by now stay for good: a full collection needn't go through
            # them each time, while all streams wait.
            gc.collect()
            gc.freeze()
            # And it comes after five times as many new objects as usual: it stops all streams, and
            # is a good part of the cost of opening them. Young objects are collected as often as
            # ever, which is quick.
            young, middle, _old = gc.get_threshold()
            gc.set_threshold(young, middle, _FULL_COLLECTION)
            print(ready(server.addresses), file=sys.stderr, flush=True)
            manager = os.environ.get("NOTIFY_SOCKET")
            notify("READY=1", manager)
            async with trio.open_nursery() as feeding:
                if interval := watchdog_interval(os.environ):
                    feeding.start_soon(_feed_watchdog, manager, interval)
                await asked.wait()
                stop.patience = server.drain_time + GRACE
                notify("STOPPING=1", manager)
                await server.drain()
                feeding.cancel_scope.cancel(reason="the server has stopped")
            # Behind its `yield` a lifespan may wait: a hub tells the other nodes that it leaves.
            nursery.cancel_scope.deadline = trio.current_time() + _CLOSING
    return None


async def _feed_watchdog(manager: str | None, interval: float) -> None:
    """Tell the service manager that the event loop turns; it ends a process that doesn't."""
    while True:
        notify("WATCHDOG=1", manager)
        # sd_watchdog_enabled(3): "every half of the time returned".
        await trio.sleep(interval / 2)


def _ready_line(what: Callable[[], str], addresses: Sequence[str]) -> str:
    return f"h3trio: {' '.join(addresses)} ({what()})"


def _ready_record(what: Callable[[], str], addresses: Sequence[str]) -> str:
    """Write a log record, without a logger: this line is promised at every log level."""
    fields = {"name": logger.name, "levelname": "INFO", "msg": _ready_line(what, addresses)}
    return JSONFormatter().format(logging.makeLogRecord({**fields, "addresses": addresses}))


async def _cancel_when(asked: trio.Event, scope: trio.CancelScope) -> None:
    await asked.wait()
    scope.cancel(reason="a signal asked to stop")
