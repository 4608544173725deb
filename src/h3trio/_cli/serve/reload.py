"""`serve --reload`: a parent that starts the server again when a Python file has changed.

The app is loaded in a child process, for modules can't be unloaded: what they started and
registered stays. The parent holds nothing of it: it watches the files (in a thread, by watchfiles),
the signals, and the child.

The child has a session of its own. Ctrl-C in a terminal goes to everybody in the foreground, and a
server takes its second signal as "at once": so only the parent gets it, and passes it on as one.

A child that ends by itself, by a syntax error too, isn't started again until something
changes: it would only end the same way.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._cli.options import fail

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FLAG: Final = "--reload"
_TWIN: Final = "H3TRIO_RELOAD"
# Nobody waits for a stream to end well while they edit: the browser comes back.
_DRAIN: Final = ("--drain-soft", "0", "--drain-hard", "1")
_PATIENCE: Final = 3.0
"""Seconds from SIGTERM to SIGKILL: the drain above, and the interpreter's own end."""


def run(app: str) -> int:
    """Serve an app with this process's own arguments, again after each change, until a signal."""
    try:
        importlib.import_module("watchfiles")
    except ImportError:
        fail(f"{FLAG} needs watchfiles: pip install 'h3trio[dev]'")
    environ = {name: value for name, value in os.environ.items() if name != _TWIN}
    trio.run(Supervisor(child_command(sys.orig_argv), environ, watched(app)).run)
    return 0


def child_command(argv: Sequence[str]) -> list[str]:
    """Return the command of the child: that of the parent, without the flag, with a short drain."""
    arguments = [argument for argument in argv[1:] if argument != FLAG]
    return [sys.executable, *arguments, *_DRAIN]


def watched(app: str) -> list[Path]:
    """Return the folders to watch: this one, and that of the app's file."""
    name = app.rpartition(":")[0]
    folders = [Path.cwd(), *([Path(name).absolute().parent] if name.endswith(".py") else [])]
    return list(dict.fromkeys(folders))


def _changes(paths: Sequence[Path], stop: threading.Event) -> Iterator[str]:
    """Give the name of a file for each bundle of changes; for a thread."""
    from watchfiles import PythonFilter, watch  # noqa: PLC0415 - an extra

    for changes in watch(*paths, watch_filter=PythonFilter(), stop_event=stop):
        yield os.path.relpath(min(path for _, path in changes))


@final
class Supervisor:
    """One child at a time, and what it is to be ended for."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], paths: Sequence[Path]
    ) -> None:
        self._command = command
        self._environ = environ
        self._paths = paths
        self._unwatch = threading.Event()
        self._stopping = False
        self._changed = trio.Event()
        self._process: trio.Process | None = None

    async def run(self) -> None:
        """Supervise until SIGINT or SIGTERM; the child is gone when this returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, self._watch)
            await nursery.start(self._follow_signals)
            try:
                while not self._stopping:
                    self._changed = trio.Event()
                    await self._run_child()
            finally:
                self._unwatch.set()
                if self._process is not None and self._process.returncode is None:
                    self._process.kill()
            nursery.cancel_scope.cancel(reason="a signal asked to stop")

    def _watch(self) -> None:
        for name in _changes(self._paths, self._unwatch):
            trio.from_thread.run_sync(self._on_change, name)

    def _on_change(self, name: str) -> None:
        if not self._changed.is_set():
            say(f"{name!r} changed: starting again")
            self._changed.set()

    async def _follow_signals(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if self._stopping and self._process is not None:
                    self._process.kill()
                self._stopping = True
                self._changed.set()

    async def _run_child(self) -> None:
        process = self._process = await trio.lowlevel.open_process(
            self._command, env=self._environ, start_new_session=True
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_end, process)
            await self._changed.wait()
            nursery.cancel_scope.cancel(reason="the child is to end")
        if process.returncode is None:
            process.terminate()
        with trio.move_on_after(_PATIENCE):
            await process.wait()
            return
        say(f"the server didn't end in {_PATIENCE:g} s: killing it")
        process.kill()
        await process.wait()

    async def _tell_end(self, process: trio.Process) -> None:
        say(f"the server ended with status {await process.wait()}: waiting for a change")


def say(message: str) -> None:
    """Tell whoever sits at the terminal."""
    print(f"h3trio: {message}", file=sys.stderr, flush=True)
