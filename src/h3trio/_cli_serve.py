"""`python -m h3trio serve`: load an app or take the hub, serve it until a signal.

The first SIGTERM or SIGINT drains and exits 0; a second exits at once. If the
drain is late by five seconds the process exits 70: a handler that swallows
cancellation or blocks the loop can't keep it. Signals are therefore watched by
a thread, for the loop may be what hangs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import importlib.util
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast, final

import trio

from . import _cli_hub, _cli_listen, _reload
from ._json_log import JSONFormatter
from ._options import fail, settings_from
from ._redaction import LogFormatter
from ._server import Server, serve
from ._systemd import notify
from .hub import HistoryError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Sequence
    from types import FrameType, ModuleType

    from ._context import Handler
    from ._options import Options

    Serving = Callable[..., Awaitable[None]]
    Ready = Callable[[Sequence[str]], str]

logger = logging.getLogger("h3trio.server")

# Collections of what is a little older before one of everything; Python's default is 10.
_FULL_COLLECTION: Final = 50

EXIT_STUCK: Final = 70
_GRACE: Final = 5.0
_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def add_arguments(parser: Options) -> None:
    """Add the options of `serve`."""
    parser.set_defaults(run=run)
    parser.add_argument("app", nargs="?", help="module:app or path.py:app; the hub if absent")
    _cli_listen.add_arguments(parser)
    parser.add_option("--log-level", default="info", type=_level, help="least level that is logged")
    what = "how it is logged: text, or json for a JSON object a line"
    parser.add_option("--log-format", default="text", type=_log_format, help=what)
    parser.add_switch("--no-access-log", help="don't log requests")
    parser.add_switch(
        _reload.FLAG, help="start again when a Python file changes, to develop an app"
    )
    _cli_hub.add_arguments(parser)
    parser.add_settings()


def _level(text: str) -> str:
    if text.upper() not in logging.getLevelNamesMapping():
        raise ValueError(f"{text!r} is not a log level")
    return text.lower()


def _log_format(text: str) -> str:
    if text not in ("text", "json"):
        raise ValueError(f"{text!r} is neither text nor json")
    return text


def run(arguments: argparse.Namespace) -> int:
    """Serve; return the exit status."""
    settings = settings_from(arguments)
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
    handler: Handler
    listening = _cli_listen.listening_from(arguments, os.environ)
    if arguments.app:
        handler, what = load(arguments.app), arguments.app
    else:
        handler, settings, what = _cli_hub.hub_from(arguments, settings)
    serving = partial(serve, handler, settings=settings, **listening)
    stop = StopSignals(settings.drain_soft + settings.drain_hard + _GRACE)
    ready = _ready_record if is_json else _ready_line
    failure = trio.run(_main, serving, partial(ready, what), stop)
    for number in _STOP:
        # What is left is the interpreter's own end: nothing to wait for.
        signal.signal(number, signal.SIG_DFL)
    if failure is not None:
        fail(f"can't start: {failure}")
    return 0


# -- the app


def load(target: str) -> Handler:
    """Import `module:attribute` or `path.py:attribute`; exit 2 with one line if that fails."""
    name, colon, attribute = target.rpartition(":")
    if not colon or not name or not attribute:
        fail(f"{target!r} is not of the form module:app or path.py:app")
    handler = getattr(_import(name), attribute, None)
    if handler is None:
        fail(f"{name} has no attribute {attribute!r}")
    if not callable(handler):
        fail(f"{target} is not an app: {handler!r} can't be called")
    return cast("Handler", handler)


def _import(name: str) -> ModuleType:
    path = Path(name) if name.endswith(".py") else None
    if path is not None and not path.is_file():
        fail(f"there is no file {name!r}")
    try:
        if path is not None:
            return _import_file(path)
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(name)
    except SystemExit as exc:
        fail(f"{name} ended the program while it was imported: exit status {exc.code}")
    except Exception as exc:  # noqa: BLE001 - whatever the app's code raises is said in one line
        if isinstance(exc, ModuleNotFoundError) and _is_part(exc.name, name):
            fail(f"there is no module {exc.name!r}")
        fail(f"{name} can't be imported: {describe(exc)}")


def _is_part(missing: str | None, name: str) -> bool:
    """Tell whether what is missing is the module asked for, and not one that it imports."""
    return missing is not None and f"{name}.".startswith(f"{missing}.")


def _import_file(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.parent.absolute()))
    # Under its own name, as the file's classes may be looked for there; but never in the place of
    # a module that is in use.
    name = path.stem if path.stem not in sys.modules else f"{path.stem} (served)"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a .py file has a loader"
    assert spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def describe(exc: BaseException) -> str:
    """Say in one line what failed in the app's code, and where."""
    exc = _unwrap(exc)
    if isinstance(exc, SyntaxError):
        return f"{type(exc).__name__}: {exc}"
    if isinstance(exc, OSError) and exc.filename is None:
        return str(exc.strerror or exc)
    if isinstance(exc, HistoryError):
        return str(exc)
    frames = traceback.extract_tb(exc.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(exc).__name__}: {exc}{where}"


def _unwrap(exc: BaseException) -> BaseException:
    """Take an error out of the groups that nurseries put around it."""
    inner: tuple[BaseException, ...] = getattr(exc, "exceptions", ())
    return _unwrap(inner[0]) if len(inner) == 1 else exc


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
        except Exception as exc:  # noqa: BLE001 - binding and the app's lifespan fail in many ways
            nursery.cancel_scope.cancel(reason="the server didn't start")
            return describe(exc)
        if server is not None:
            # What is there by now stays for good: a full collection needn't go through it each
            # time, for which all streams would wait (10 ms and more).
            gc.collect()
            gc.freeze()
            # And it comes after 350,000 new objects, not 70,000: at 2,000 streams it stops all of
            # them for 150 ms, and was a tenth of what their opening cost. What is young is
            # collected as often as ever, in a millisecond.
            young, middle, _old = gc.get_threshold()
            gc.set_threshold(young, middle, _FULL_COLLECTION)
            print(ready(server.addresses), file=sys.stderr, flush=True)
            notify("READY=1", os.environ.get("NOTIFY_SOCKET"))
            await asked.wait()
            notify("STOPPING=1", os.environ.get("NOTIFY_SOCKET"))
            await server.drain()
    return None


def _ready_line(what: str, addresses: Sequence[str]) -> str:
    return f"h3trio: {' '.join(addresses)} ({what})"


def _ready_record(what: str, addresses: Sequence[str]) -> str:
    """As a record, but not by a logger: whatever level is logged, the line is the contract's."""
    fields = {"name": logger.name, "levelname": "INFO", "msg": _ready_line(what, addresses)}
    return JSONFormatter().format(logging.makeLogRecord({**fields, "addresses": addresses}))


async def _cancel_when(asked: trio.Event, scope: trio.CancelScope) -> None:
    await asked.wait()
    scope.cancel(reason="a signal asked to stop")


@final
class StopSignals:
    """SIGTERM and SIGINT, and what to do when they aren't followed.

    A signal handler of Python's runs when the main thread comes to it, which may be never. What
    doesn't wait for that is the wakeup descriptor: the number of the signal is written there at
    once. So a thread reads the descriptor, and the handlers do nothing.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._reader, self._writer = socket.socketpair()
        self._writer.settimeout(0)

    def watch(self) -> trio.Event:
        """Take over the signals of a process in which Trio runs; return what the first one sets."""
        asked = trio.Event()
        token = trio.lowlevel.current_trio_token()
        for number in _STOP:
            signal.signal(number, _do_nothing)
        # Trio's own; it is put back when Trio ends, with the handlers.
        others = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # A daemon: it must outlive the loop, and may not keep the process.
        threading.Thread(
            target=self._watch, args=(token, asked, others), name="h3trio signals", daemon=True
        ).start()
        return asked

    def _watch(self, token: trio.lowlevel.TrioToken, asked: trio.Event, others: int) -> None:
        self._wait_stop(others, deadline=math.inf)
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(asked.set)
        logger.info("draining; once more to exit at once")
        number = self._wait_stop(others, deadline=time.monotonic() + self._patience)
        if number is None:
            logger.critical("the shutdown is %s s late; this is where each thread is:", _GRACE)
            faulthandler.dump_traceback()
        os._exit(EXIT_STUCK if number is None else 128 + number)

    def _wait_stop(self, others: int, *, deadline: float) -> int | None:
        """Wait for a signal to stop, `None` if none came; pass on what is not for us."""
        while (left := deadline - time.monotonic()) > 0:
            self._reader.settimeout(None if left == math.inf else left)
            with contextlib.suppress(TimeoutError):
                number = self._reader.recv(1)[0]
                if number in _STOP:
                    return number
                with contextlib.suppress(OSError):
                    os.write(others, bytes([number]))
        return None


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Be a handler: without one, the signal would end the process before it is written."""
