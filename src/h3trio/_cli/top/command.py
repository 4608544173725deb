"""`python -m h3trio top`: watch a hub, as `top` shows a machine.

It reads `/statistics` by `h3trio.client`, and comes back when the connection is lost. On a terminal
rich draws; what goes elsewhere, and with `--once`, is plain lines. Ctrl-C gives the terminal back
before the program ends.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._cli import http
from h3trio._cli.common import add_token
from h3trio._cli.options import fail
from h3trio._cli.tail import end_with_reader
from h3trio.client import EventSource, EventSourceError, State, StateChange
from h3trio.client._errors import without_secret

from .screen import PlainScreen, RichScreen, Screen
from .view import Snapshot, view

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import httpx2

    from h3trio._cli.options import Options

INTERVAL: Final = 1.0
_BOUNDS: Final = (0.5, 60.0)  # those of the hub
_SILENCE: Final = 30.0  # seconds beyond the interval until a connection counts as lost
_MAX_SNAPSHOT: Final = 16 * 1024 * 1024
_RECONNECT_DELAY: Final = 2.0
_SERVER_ERRORS: Final = range(500, 600)
_STOP: Final = (signal.SIGINT, signal.SIGTERM)


def add_arguments(parser: Options) -> None:
    """Add the options of `top`."""
    parser.set_defaults(run=run)
    parser.description = "Watch a hub: rates, connections, topics, slow clients, latencies."
    parser.epilog = http.STATUSES
    add_token(parser)
    what = f"the hub, {http.DEFAULT_URL} unless given"
    url = http.checked(http.base_url)
    default = http.DEFAULT_URL
    parser.add_argument("url", metavar="URL", nargs="?", type=url, default=default, help=what)
    parser.add_switch("--once", help="print one snapshot as plain lines, and end")
    what = "seconds between two snapshots, from 0.5 to 60"
    parser.add_option("--interval", default=INTERVAL, type=_interval, metavar="S", help=what)


def _interval(text: str) -> float:
    value = http.seconds(text)
    if not _BOUNDS[0] <= value <= _BOUNDS[1]:
        raise ValueError(f"{text!r} is not from {_BOUNDS[0]:g} to {_BOUNDS[1]:g}")
    return value


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Which hub is to be watched, and how."""

    url: str
    token: str | None
    once: bool
    interval: float


def run(arguments: argparse.Namespace) -> int:
    """Watch; return the exit status."""
    job = Job(
        url=arguments.url,
        token=arguments.token,
        once=arguments.once,
        interval=arguments.interval,
    )
    http.require_httpx2(job.url)
    watching = Watching(job, _screen(once=job.once))
    status = http.run_command(watching.run)
    return 128 + watching.signal if watching.signal else status


def _screen(*, once: bool) -> Screen:
    if once or sys.stdout is None or not sys.stdout.isatty():
        return PlainScreen()
    if importlib.util.find_spec("rich") is None:
        fail("needs rich to draw on a terminal: pip install 'h3trio[top]'; or ask with --once")
    return RichScreen()


@final
class Watching:
    """One hub, watched until somebody has seen enough."""

    def __init__(self, job: Job, screen: Screen) -> None:
        self._job = job
        self._screen = screen
        self._was_connected = False
        self._last: Snapshot | None = None
        self._before: Snapshot | None = None
        self.signal = 0
        """The number of the one that ended it, if one did."""

    async def run(self) -> None:
        """Show what comes.

        Raises:
            http.CommandError: the hub refuses, can't be reached, or is none.
        """
        async with (
            http.open_client(
                timeout=self._job.interval + _SILENCE, follow_redirects=True, token=self._job.token
            ) as client,
            trio.open_nursery() as nursery,
        ):
            stop = partial(nursery.cancel_scope.cancel, reason="there is no more to show")
            if not self._job.once:
                await nursery.start(self._watch_signals, stop)
            nursery.start_soon(end_with_reader, sys.stdout.fileno())
            with self._screen:
                await self._watch(client)
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

    async def _watch(self, client: httpx2.AsyncClient) -> None:
        source = EventSource(
            f"{self._job.url}/statistics",
            params={"interval": f"{self._job.interval:g}"},
            http_client=client,
            reconnect=self._comes_back,
            on_state_change=self._notice,
            connect_timeout=http.CONNECT_TIMEOUT,
            read_timeout=self._job.interval + _SILENCE,
            reconnect_delay=_RECONNECT_DELAY,
            max_event_bytes=_MAX_SNAPSHOT,
            retry_statuses=_SERVER_ERRORS,
        )
        try:
            async with source:
                async for event in source:
                    if event.event == "statistics":
                        self._show(http.json_object(event.data or ""))
                        if self._job.once:
                            return
        except EventSourceError as exc:
            raise http.CommandError(str(exc)) from exc
        raise http.CommandError("the server has no statistics to show")

    def _show(self, snapshot: Snapshot) -> None:
        if not isinstance(snapshot.get("hub"), dict):
            raise http.CommandError("what the server tells are no statistics of a hub")
        self._before, self._last = self._last, snapshot
        self._draw(http.one_line(without_secret(self._job.url)))

    def _draw(self, state: str) -> None:
        if self._last is not None:
            self._screen.show(view(self._last, self._before), state)

    def _comes_back(self, _change: StateChange) -> bool:
        return self._was_connected and not self._job.once

    def _notice(self, change: StateChange) -> None:
        if change.state is State.OPEN:
            self._was_connected = True
        elif change.delay is not None:
            lost = f"{change.error or 'the stream ended'}; again in {change.delay:.1f} s"
            if isinstance(self._screen, PlainScreen):
                http.say(lost)
            else:
                self._draw(http.one_line(lost))
