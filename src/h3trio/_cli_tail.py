"""`python -m h3trio tail`: print what a hub, or any event stream, sends; come back when it is lost.

A client as WHATWG HTML, 9.2.3, describes it: it comes back after the delay that the server asked
for, with the last event id, so that the server can send what was missed. What it adds is to wait
longer the more often it fails. It takes a stream that is silent for long as lost: servers send
comments against just that.

What could not be reached or did not answer a stream at the first attempt is an error, most likely
in the arguments. Once there was a stream, only an answer that means "don't come back" is final.
"""

from __future__ import annotations

import enum
import errno
import json
import os
import random
import stat
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio

from . import _cli_http as http
from ._cli_common import add_token, counted
from ._options import fail
from ._parser import EventTooLargeError, SSEParser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence

    import httpx

    from ._options import Options
    from ._sse import SSEEvent

IDLE_TIMEOUT: Final = 60.0  # four heartbeats of our own server
MAX_EVENT_SIZE: Final = 16 * 1024 * 1024

RECONNECT_DELAY: Final = 2.0  # seconds, until the server names a delay
MIN_DELAY: Final = 0.1  # "retry: 0" with a server that ends each stream at once
MAX_DELAY: Final = 30.0  # for what we add; a server may ask for more
MAX_RETRY_AFTER: Final = 3600
_MAX_DOUBLINGS: Final = 16

_MIME_TYPE: Final = "text/event-stream"


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
    http.require_httpx(job.url)
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


def request_for(
    url: str, *, last_event_id: str, first: str | None
) -> tuple[str, list[tuple[bytes, bytes]]]:
    """Return the URL and the headers that ask for what comes after an event, `""` for none.

    `first` counts only as long as there is no id. An id that no header can hold goes into the
    query: one with a space at an end, or a control character.
    """
    headers = [(b"Accept", _MIME_TYPE.encode()), (b"Cache-Control", b"no-store")]
    if not last_event_id:
        return url if first is None else with_query(url, "first", first), headers
    if last_event_id != last_event_id.strip(" ") or any(char < " " for char in last_event_id):
        return with_query(url, "last_event_id", last_event_id), headers
    # UTF-8, as WHATWG HTML, 9.2.3, says.
    return url, [*headers, (b"Last-Event-ID", last_event_id.encode())]


@final
class Verdict(enum.Enum):
    """What an answer means for a client that wants a stream."""

    STREAM = "here it is"
    OVER = "there is no more, don't come back"
    LATER = "not now"
    REFUSED = "no"


def judge(status: int, content_type: str) -> Verdict:
    """Tell what an answer means (WHATWG HTML, 9.2.2 and 9.2.3).

    A server that fails is asked again, which browsers don't: proxies say 502 to 504 while the
    server behind them restarts.
    """
    if status == 200:  # noqa: PLR2004 - OK, the only status that a stream has
        is_stream = content_type.partition(";")[0].strip().lower() == _MIME_TYPE
        return Verdict.STREAM if is_stream else Verdict.REFUSED
    if status == 204:  # noqa: PLR2004 - No Content: "a client can be told to stop reconnecting"
        return Verdict.OVER
    return Verdict.LATER if status >= 500 else Verdict.REFUSED  # noqa: PLR2004 - its own errors


def reconnect_delay(asked: float, failures: int, draw: Callable[[], float]) -> float:
    """Return how long to wait, in seconds, before the next attempt.

    Never less than the server asked for. It doubles with each attempt that failed since there was
    a stream, up to `MAX_DELAY`, and is spread over half of that so that clients don't come at once.

    Args:
        asked: seconds that the server asked for.
        failures: attempts that failed.
        draw: gives a number from 0 to 1.
    """
    asked = max(asked, MIN_DELAY)
    longest = min(asked * 2.0 ** (min(failures, _MAX_DOUBLINGS) + 1), max(asked, MAX_DELAY))
    return max(asked, longest * (1 + draw()) / 2)


def retry_after(value: str) -> float:
    """Return the seconds of a `Retry-After` header, 0 if it has none, at most `MAX_RETRY_AFTER`."""
    try:
        return float(min(http.whole(value), MAX_RETRY_AFTER))
    except ValueError:
        return 0.0


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

    def __init__(self, client: httpx.AsyncClient, job: Job) -> None:
        self._client = client
        self._job = job
        self._last_id = job.since
        self._asked = RECONNECT_DELAY
        self._failures = 0
        self._not_before = 0.0
        self._was_connected = False
        self._printer = Printer(as_json=job.json, count=job.count)

    async def run(self) -> None:
        """Print events until there are enough, or no more will come.

        Raises:
            http.CommandError: the stream was refused, can't be reached, or can't be read further.
        """
        while True:
            self._not_before = 0.0
            try:
                if await self._read_stream() or not self._job.reconnect:
                    return
                why = "the server ended the stream"
            except http.LostError as exc:
                if not (self._was_connected and self._job.reconnect):
                    raise
                why = str(exc)
            await self._pause(why)

    async def _pause(self, why: str) -> None:
        delay = reconnect_delay(self._asked, self._failures, random.random)
        delay = max(delay, self._not_before)
        self._failures += 1
        self._notice(f"{why}; again in {delay:.1f} s")
        await trio.sleep(delay)

    def _notice(self, message: str) -> None:
        if not self._job.quiet:
            http.say(message)

    async def _read_stream(self) -> bool:
        """Print what comes over one connection; True if that was all there is to print."""
        job = self._job
        url, headers = request_for(job.url, last_event_id=self._last_id, first=job.first)
        with http.translated(self._client, url):
            async with self._client.stream("GET", url, headers=headers) as response:
                verdict = judge(response.status_code, response.headers.get("content-type", ""))
                if verdict is Verdict.STREAM:
                    return await self._print(response)
                if verdict is not Verdict.OVER:
                    raise await self._failure(response, verdict)
        self._notice("the server answered 204: there is no more")
        return True

    async def _failure(self, response: httpx.Response, verdict: Verdict) -> http.CommandError:
        if response.status_code == 200:  # noqa: PLR2004 - OK
            found = response.headers.get("content-type") or "nothing said"
            return http.CommandError(f"the server answered 200, but no {_MIME_TYPE}: {found}")
        answer = await http.read_answer(response)
        error = http.refusal(answer.status, answer.text, answer.location)
        self._not_before = retry_after(response.headers.get("retry-after", ""))
        return http.LostError(str(error)) if verdict is Verdict.LATER else error

    async def _print(self, response: httpx.Response) -> bool:
        self._was_connected = True
        self._failures = 0
        self._notice(f"connected to {http.without_secret(str(response.url))}")
        size = self._job.max_event_size
        parser = SSEParser(max_event_size=size, last_event_id=self._last_id)
        return await http.read_body(response, partial(self._take, parser))

    def _take(self, parser: SSEParser, chunk: bytes) -> bool:
        """Print the events that a chunk completes; True if they were enough."""
        too_large = None
        try:
            events: Sequence[SSEEvent] = parser.feed(chunk)
        except EventTooLargeError as exc:
            events, too_large = exc.events, exc
        self._last_id = parser.last_event_id
        if parser.retry is not None:
            self._asked = parser.retry / 1000
        if self._printer.print(events):
            return True
        if too_large is not None:
            # To come back would bring the same event again.
            raise http.CommandError(f"{too_large}; see --max-event-size") from too_large
        return False
