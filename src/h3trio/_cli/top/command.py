"""`python -m h3trio top`: watch a hub, as `top` shows a machine.

It reads `/statistics` by `h3trio.client`, and comes back when the connection is lost. On a terminal
rich draws; what goes elsewhere, and with `--once`, is plain lines. Ctrl-C gives the terminal back
before the program ends.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._cli import common, http
from h3trio._cli.options import fail, refuse
from h3trio._extras import install
from h3trio.client._errors import without_secret

from .screen import drawing, printing
from .view import Snapshot, view

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import httpx2

    from h3trio._cli.options import Options
    from h3trio.client import StateChange

    from .screen import Show

_BOUNDS: Final = (0.5, 60.0)  # those of the hub
_SILENCE: Final = 30.0  # seconds beyond the interval until a connection counts as lost
_STOP: Final = (signal.SIGINT, signal.SIGTERM)


def add_arguments(parser: Options) -> None:
    """Add the options of `top`."""
    parser.description = "Watch a hub: rates, connections, topics, slow clients, latencies."
    parser.epilog = http.STATUSES
    http.add_client(parser)
    url = common.base_url
    parser.add_option("url", metavar="URL", type=url, default=http.DEFAULT_URL, help="the hub")
    parser.add_switch("--once", help="print one snapshot as plain lines, and end")
    what = "time between two snapshots, from 500ms to 60s"
    parser.add_option("--interval", default=1.0, type=_interval, metavar="TIME", help=what)


def _interval(text: str) -> float:
    value = common.duration(text)
    if not _BOUNDS[0] <= value <= _BOUNDS[1]:
        raise ValueError(f"{text!r} is not from {_BOUNDS[0]:g}s to {_BOUNDS[1]:g}s")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Watch; return the exit status."""
    if arguments.once:
        refuse(arguments, ["interval"], "is the time between two snapshots: --once prints one")
    http.require_client(arguments.url)
    is_drawn = not arguments.once and sys.stdout is not None and sys.stdout.isatty()
    if is_drawn and not common.has_rich(sys.stdout):
        fail(f"needs rich to draw on a terminal: {install('top')}; or ask with --once")
    watching = Watching(arguments, is_drawn=is_drawn)
    status = http.run_command(watching.run)
    return 128 + watching.signal if watching.signal else status


@final
class Watching:
    """One hub, watched until somebody has seen enough."""

    def __init__(self, arguments: argparse.Namespace, *, is_drawn: bool) -> None:
        self._arguments = arguments
        self._silence: float = arguments.interval + _SILENCE
        self._is_drawn = is_drawn
        self._last: Snapshot | None = None
        self._before: Snapshot | None = None
        self.signal = 0  # the number of the one that ended it, 0 if none did

    async def run(self) -> None:
        """Show what comes.

        Raises:
            EventSourceError: the hub refuses or can't be reached.
            CommandError: it is none.
        """
        client = http.client_from(self._arguments, timeout=self._silence)
        async with client, http.while_read(), trio.open_nursery() as nursery:
            stop = partial(nursery.cancel_scope.cancel, reason="there is no more to show")
            if not self._arguments.once:
                await nursery.start(self._watch_signals, stop)
            with drawing() if self._is_drawn else printing() as show:
                await self.watch(client, show)
            stop()

    async def _watch_signals(
        self, stop: Callable[[], None], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """End in order: a terminal that was drawn on has to be given back."""
        with trio.open_signal_receiver(*_STOP) as signals:
            task_status.started()
            async for number in signals:
                self.signal = number
                stop()

    async def watch(self, client: httpx2.AsyncClient, show: Show) -> None:
        """Show what comes, asking with a client; raises as `run`."""

        def draw(state: str) -> None:
            if self._last is not None:
                show(view(self._last, self._before), common.one_line(state))

        def notice(change: StateChange) -> None:
            if change.delay is not None:
                (draw if self._is_drawn else common.say)(
                    f"{change.error}; again in {change.delay:.1f} s"
                )

        source = http.event_source(
            client,
            f"{self._arguments.url}/statistics",
            silence=self._silence,
            reconnect=not self._arguments.once,
            on_state_change=notice,
            params={"interval": f"{self._arguments.interval:g}"},
        )
        async with source:
            async for event in source:
                if event.event == "statistics":
                    self._take(common.json_object(event.data or ""))
                    draw(without_secret(self._arguments.url))
                    if self._arguments.once:
                        return
        raise common.CommandError("the server has no statistics to show")

    def _take(self, snapshot: Snapshot) -> None:
        if not isinstance(snapshot.get("hub"), dict):
            raise common.CommandError("what the server tells are no statistics of a hub")
        self._before, self._last = self._last, snapshot
