"""`python -m h3trio tail`: print what a hub, or any event stream, sends; come back when it is lost.

`h3trio.client` does the reading and the coming back; here is what a command makes of it. What could
not be reached or did not answer a stream at the first attempt is an error, most likely in the
arguments. Once there was a stream, only an answer that means "don't come back" is final: proxies
say 502 to 504 while the server behind them restarts, so these are waited out as well.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._wire.parser import SSEParser
from h3trio.client import EventLimitError, EventSource, EventSourceError, State, StateChange

from . import http
from .common import add_token, counted
from .options import fail

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    import httpx2

    from h3trio._wire.event import SSEEvent

    from .options import Options

IDLE_TIMEOUT: Final = 60.0  # four heartbeats of our own server
MAX_EVENT_SIZE: Final = 16 * 1024 * 1024

RECONNECT_DELAY: Final = 2.0  # seconds, until the server names a delay
_SERVER_ERRORS: Final = range(500, 600)


def add_arguments(parser: Options) -> None:
    """Add the options of `tail`."""
    parser.set_defaults(run=run)
    parser.description = "Print the data of each event of some topics, or of any event stream."
    parser.epilog = http.STATUSES
    add_token(parser)
    topic, number = http.checked(http.topic), http.checked(counted)
    what = "topics, * for all; or one http:// URL of a stream, if --url is not given"
    parser.add_argument("topics", metavar="TOPIC|URL", nargs="+", type=topic, help=what)
    parser.add_option("--url", type=http.base_url, help=f"the hub, else {http.DEFAULT_URL}")
    parser.add_switch("--json", help="print a JSON object for each event: id, event, data")
    start, last_id = parser.add_mutually_exclusive_group(), http.checked(_last_id)
    start.add_argument("--since", metavar="ID", type=last_id, default="", help="begin behind it")
    what = "begin with the last N events, or the oldest there is; else only new ones"
    start.add_argument("--first", metavar="N|oldest", type=http.checked(_first), help=what)
    parser.add_argument("--count", metavar="N", type=number, help="end after so many events")
    parser.add_switch("--no-reconnect", help="end with the first stream")
    parser.add_switch("--quiet", help="don't say when the connection is made or lost")
    what = "seconds of silence after which the connection counts as lost"
    parser.add_option(
        "--idle-timeout", default=IDLE_TIMEOUT, type=http.seconds, metavar="S", help=what
    )
    what = "largest event that is taken, in bytes"
    parser.add_option(
        "--max-event-size", default=MAX_EVENT_SIZE, type=counted, metavar="N", help=what
    )


def _last_id(text: str) -> str:
    """Check a last event id as the parser does."""
    SSEParser(last_event_id=text)
    return text


def _first(text: str) -> str:
    if text == "oldest":
        return text
    try:
        return str(http.whole(text))
    except ValueError:
        raise ValueError(f"{text!r} is neither a whole number nor oldest") from None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Which stream is to be printed, and how. `count` is None for no end."""

    url: str
    since: str
    first: str | None
    json: bool
    count: int | None
    reconnect: bool
    quiet: bool
    token: str | None
    idle_timeout: float
    max_event_size: int


def run(arguments: argparse.Namespace) -> int:
    """Print a stream; return the exit status."""
    job = job_from(arguments)
    http.require_httpx2(job.url)
    return http.run_command(partial(_tail, job))


def job_from(arguments: argparse.Namespace) -> Job:
    """Make the job of parsed arguments; exit with one line if they don't fit together."""
    try:
        url = stream_url(arguments.url, arguments.topics)
    except ValueError as exc:
        fail(str(exc))
    return Job(
        url=url,
        since=arguments.since,
        first=arguments.first,
        json=arguments.json,
        count=arguments.count,
        reconnect=not arguments.no_reconnect,
        quiet=arguments.quiet,
        token=arguments.token,
        idle_timeout=arguments.idle_timeout,
        max_event_size=arguments.max_event_size,
    )


# -- requests


def stream_url(base: str | None, topics: Sequence[str]) -> str:
    """Return the URL of the stream asked for.

    Without a `base` a topic that is a URL for HTTP is the stream's own. With one it is a topic
    like any other: IRIs are usual topics.

    Raises:
        ValueError: such a URL is none, or isn't alone.
    """
    if base is None and any(map(_is_url, topics)):
        if len(topics) > 1:
            raise ValueError("a URL stands alone; are these topics? then give --url as well")
        http.check_url(topics[0])
        return topics[0].partition("#")[0]
    # In the query, as some proxies decode what a path holds.
    query = "&".join(f"topic={http.quoted(topic)}" for topic in topics)
    return f"{base or http.DEFAULT_URL}/events?{query}"


def _is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def with_query(url: str, name: str, value: str) -> str:
    """Return a URL with one more field in its query."""
    return f"{url}{'&' if '?' in url else '?'}{name}={http.quoted(value)}"


# -- events


def format_event(event: SSEEvent, *, as_json: bool) -> str:
    """Return what is printed for an event, without the last line end."""
    if not as_json:
        return event.data or ""
    fields = {"id": event.id, "event": event.event, "data": event.data}
    return json.dumps(fields, ensure_ascii=False)


def reset_notice(event: SSEEvent) -> str | None:
    """Return the warning for a hub's `reset`, None for any other event.

    Another server's event of that type, without a hub's data, is an event like any other.
    """
    if event.event != "reset":
        return None
    fields = http.json_object(event.data or "")
    reason, asked = fields.get("reason"), fields.get("id")
    if not isinstance(reason, str):
        return None
    return f"reset ({reason}): events{f' after {asked}' if asked else ''} may be missing"


@final
class Printer:
    """Prints events, and counts them; warns of each reset, which isn't one of them."""

    def __init__(self, *, as_json: bool, count: int | None) -> None:
        self._as_json = as_json
        self._count = count
        self._printed = 0

    def print(self, events: Iterable[SSEEvent]) -> bool:
        """Print events, up to the last one wanted; True if that was among them."""
        return any(map(self._print, events))

    def _print(self, event: SSEEvent) -> bool:
        if (notice := reset_notice(event)) is not None:
            http.say(f"warning: {notice}")
            return False
        http.write_line(format_event(event, as_json=self._as_json))
        self._printed += 1
        return self._printed == self._count


# -- the stream


async def _tail(job: Job) -> None:
    async with (
        http.open_client(
            timeout=job.idle_timeout, follow_redirects=True, token=job.token
        ) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(end_with_reader, sys.stdout.fileno())
        await Tail(client, job).run()
        nursery.cancel_scope.cancel(reason="there is no more to print")


async def end_with_reader(fd: int) -> None:
    """Fail as soon as nobody reads a pipe any more: its next event may be far away.

    Raises:
        BrokenPipeError: the other end is closed.
    """
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        # The end for writing never becomes readable; but an error wakes whoever waits for anything.
        await trio.lowlevel.wait_readable(fd)
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@final
class Tail:
    """One stream over as many connections as it takes."""

    def __init__(self, client: httpx2.AsyncClient, job: Job) -> None:
        self._job = job
        self._was_connected = False
        self._unsaid: list[str] = []
        self._printer = Printer(as_json=job.json, count=job.count)
        self._source = EventSource(
            job.url if job.first is None else with_query(job.url, "first", job.first),
            http_client=client,
            last_event_id=job.since,
            reconnect=self._comes_back,
            on_state_change=self._notice,
            connect_timeout=min(job.idle_timeout, http.CONNECT_TIMEOUT),
            read_timeout=job.idle_timeout,
            reconnect_delay=RECONNECT_DELAY,
            max_event_bytes=job.max_event_size,
            retry_statuses=_SERVER_ERRORS,
        )

    async def run(self) -> None:
        """Print events until there are enough, or no more will come.

        Raises:
            http.CommandError: the stream was refused, can't be reached, or can't be read further.
        """
        try:
            async with self._source as source:
                async for event in source:
                    if self._printer.print([event]):
                        return
                    self._catch_up()
        except EventLimitError as exc:
            raise http.CommandError(f"{exc}; see --max-event-size") from exc
        except EventSourceError as exc:
            raise http.CommandError(str(exc)) from exc
        if self._job.reconnect or source.last_error is None:
            self._say("the server answered 204: there is no more")

    def _comes_back(self, _change: StateChange) -> bool:
        return self._was_connected and self._job.reconnect

    def _notice(self, change: StateChange) -> None:
        if change.state is State.OPEN:
            self._was_connected = True
            self._say(f"connected to {change.url}")
        elif change.delay is not None:
            self._say(f"{change.error}; again in {change.delay:.1f} s")

    def _say(self, message: str) -> None:
        self._unsaid.append(message)
        self._catch_up()

    def _catch_up(self) -> None:
        """Say what is due: a message comes behind the events that came before it."""
        counts = self._source.statistics()
        while self._unsaid and counts.events_delivered == counts.events_received:
            message = self._unsaid.pop(0)
            if not self._job.quiet:
                http.say(message)
