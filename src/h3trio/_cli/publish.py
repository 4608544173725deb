"""`python -m h3trio publish`: one event, each line of standard input, or a stream of events.

Topics go into the query, where no proxy rewrites them. A hub that doesn't take them there refuses
with 405: posting to the path instead might be acknowledged for another topic.

Lines are published one after the other over one connection, each when the one before is stored:
their order is the hub's order. A line that isn't stored is posted again for `--retry` seconds, with
an idempotency key of its own: a hub that restarts, or an answer that is lost, loses and doubles no
line. With `--sse` standard input is the body of one request, passed on by whole lines as it comes,
so that a comment may go out in every silence and no server gives it up; it can't be sent again.

Standard input is read by a thread. That leaves its flags alone, which belong to the terminal and so
to the shell too; and a file, which no loop can wait for, is read the same way.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import random
import secrets
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio

from h3trio._wire.event import SSEEvent
from h3trio.client import EventSourceError, LostError, StatusError
from h3trio.client._body import read_text
from h3trio.client._errors import without_secret
from h3trio.client._policy import OUTAGE_STATUSES, reconnect_delay, retry_after
from h3trio.client._request import translated

from . import common, http
from .options import fail, refuse

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping

    import httpcore2
    import httpx2

    from .options import Options

READ_BYTES: Final = 64 * 1024
MAX_LINE_BYTES: Final = 16 * 1024 * 1024
HEARTBEAT: Final = 10.0  # seconds; servers commonly give up a silent body after 30 to 60
RETRY: Final = 30.0  # seconds for a line: a hub drains and starts again in less
DELAY: Final = 0.5  # seconds before the second attempt, and a random time on top
MAX_BACKOFF: Final = 5.0  # seconds that repeated failures add: a hub that is back is found soon

_TOO_MANY: Final = 429

_STDIN: Final = 0


def add_arguments(parser: Options) -> None:
    """Add the options of `publish`."""
    parser.description = "Publish to a hub; print the id of each event once it is stored."
    parser.epilog = http.STATUSES
    http.add_client(parser)
    what = "any text; IRIs too"
    parser.add_argument("topic", metavar="TOPIC", type=common.topic, help=what)
    what = "another topic of the same event; may be repeated"
    topic: dict[str, Any] = {"type": common.topic, "action": "append", "default": []}
    parser.add_argument("--topic", "-t", dest="topics", metavar="TOPIC", help=what, **topic)
    what = "data of one event; standard input if - or none"
    parser.add_argument("data", metavar="DATA", nargs="?", help=what)
    parser.add_option("--url", default=http.DEFAULT_URL, type=common.base_url, help="the hub")
    parser.add_argument("--event", metavar="TYPE", help="type of the event, or of each")
    parser.add_argument("--id", help="id of the one event; else the hub gives it one")
    what = "reconnection time to pass on, in milliseconds, or with its unit: 5s"
    convert = common.checked(_reconnection_time)
    parser.add_argument("--reconnection-time", metavar="MS", type=convert, help=what)
    what = "only for subscribers whose token allows the topic"
    parser.add_argument("--private", action="store_true", help=what)
    what = "close the topic behind DATA, or behind the stream of --sse"
    parser.add_argument("--last", action="store_true", help=what)
    what = "Idempotency-Key: publish once only"
    parser.add_argument("--key", type=common.visible, help=what)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--lines", action="store_true", help="an event for each line (the default)")
    how.add_argument("--sse", action="store_true", help="standard input is a text/event-stream")
    parser.add_switch("--quiet", help="print no ids")
    what = (
        "time to post an event again that isn't stored: the hub can't be reached, says 429 or "
        "5xx, or its answer is lost"
    )
    shown = f"{RETRY:g}s for lines, 0 for DATA"
    parser.add_argument("--retry", type=common.duration_or_zero, shown=shown, help=what)
    what = "longest wait for an answer"
    parser.add_option("--timeout", default=30.0, type=common.duration, help=what)
    what = "--sse: silence before a comment is sent"
    parser.add_option("--heartbeat", default=HEARTBEAT, type=common.duration, help=what)


def _reconnection_time(text: str) -> int:
    """Convert milliseconds, as the field `retry` has them, or a time with its unit behind it."""
    if text[-1:].isdigit():
        return common.whole(text)
    return round(common.duration_or_zero(text) * 1000)


def run(arguments: argparse.Namespace) -> int:
    """Publish; return the exit status."""
    url, data = request_from(arguments)
    if data is None and sys.stdin is None:
        fail("standard input is closed: give DATA")
    http.require_client(url)
    return http.run_command(partial(_publish, arguments, url, data))


def request_from(arguments: argparse.Namespace) -> tuple[str, bytes | None]:
    """Return where to post, and the data of the one event; `None` where standard input is read.

    Exits with one line if the arguments don't fit together.
    """
    one = arguments.data not in (None, "-")
    if one and (arguments.lines or arguments.sse):
        fail("--lines and --sse read standard input: give no DATA")
    if not one and (arguments.id is not None or arguments.key is not None):
        fail("--id and --key are for one event: give its DATA")
    if arguments.last and not (one or arguments.sse):
        fail("--last is for one event or a stream: give DATA or --sse")
    if arguments.sse and (arguments.event is not None or arguments.reconnection_time is not None):
        fail("--sse takes --event and --reconnection-time from the stream itself")
    if not arguments.sse:
        refuse(arguments, ["heartbeat"], "needs --sse: it is for the silence of a stream")
    if arguments.sse and arguments.retry is not None:
        fail("--retry posts a line or DATA again: what --sse has sent is gone")
    fields = {"event": arguments.event, "id": arguments.id, "retry": arguments.reconnection_time}
    topics = dict.fromkeys([arguments.topic, *arguments.topics])
    try:
        SSEEvent("", **fields)
    except ValueError as exc:
        # The message begins with the name of the field, which is that of the option but for one.
        fail(f"--{str(exc).replace('retry', 'reconnection-time', 1)}")
    fields["private"] = "on" if arguments.private else None
    fields["last"] = "on" if arguments.last else None
    url = http.events_url(arguments.url, topics, fields)
    return url, os.fsencode(arguments.data) if one else None


# -- input


async def read_some(fd: int) -> bytes:
    """Return what a descriptor has, at most `READ_BYTES`, after waiting for it; `b""` at the end.

    It doesn't block the loop, whatever the descriptor is. What a cancelled read would have returned
    is lost: one reads on from a task that lives as long as the input matters.

    Raises:
        CommandError: it can't be read.
    """
    while True:
        try:
            return await trio.to_thread.run_sync(os.read, fd, READ_BYTES, abandon_on_cancel=True)
        except BlockingIOError:
            # The program that started us made it non-blocking, and may rely on that.
            await trio.lowlevel.wait_readable(fd)
        except OSError as exc:
            raise common.CommandError(f"can't read standard input: {exc.strerror}") from exc


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the lines in some bytes, each without its LF or CRLF, and the rest that has no end.

    Raises:
        CommandError: the rest is longer than any line may be.
    """
    *lines, rest = data.split(b"\n")
    _check_line(rest)
    return [line.removesuffix(b"\r") for line in lines], rest


@final
class WholeLines:
    """Passes an event stream on by whole lines, so that between two pieces a comment may stand.

    A line ends at CRLF, CR or LF. Where a comment went out behind a CR, an LF that follows is
    dropped: the CR ended the line, and behind the comment the LF would be a blank line, which ends
    the event.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._ends_with_cr = False
        self._drops_lf = False

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return the whole lines there are now.

        Raises:
            CommandError: a line is longer than the limit.
        """
        if self._drops_lf:
            self._drops_lf = False
            chunk = chunk.removeprefix(b"\n")
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        passed = bytes(self._held + chunk[:end]) if end else b""
        if passed:
            self._held.clear()
            self._ends_with_cr = passed.endswith(b"\r")
        self._held += chunk[end:]
        if self._held:
            self._ends_with_cr = False
        _check_line(self._held)
        return passed

    def comment(self) -> bytes:
        """Return an empty comment, to be sent now."""
        self._drops_lf = self._drops_lf or self._ends_with_cr
        self._ends_with_cr = False
        return b":\n"

    def rest(self) -> bytes:
        """At the end of input: return what was held."""
        rest, self._held = bytes(self._held), bytearray()
        return rest


def _check_line(line: bytes | bytearray) -> None:
    if len(line) > MAX_LINE_BYTES:
        raise common.CommandError(f"a line of standard input is longer than {MAX_LINE_BYTES} bytes")


async def stream_body(
    pieces: trio.MemoryReceiveChannel[bytes], *, heartbeat: float, is_answered: Callable[[], bool]
) -> AsyncGenerator[bytes]:
    """Yield the body of a request: input as it comes, and a comment in each silence.

    Args:
        pieces: the input; its end is the body's.
        heartbeat: seconds of silence before a comment is sent.
        is_answered: tells whether the server has answered, which ends the body too.
    """
    lines = WholeLines()
    with contextlib.suppress(trio.EndOfChannel):
        while True:
            piece = b""
            with trio.move_on_after(heartbeat):
                while not piece:
                    piece = lines.feed(await pieces.receive())
            if is_answered():
                return
            yield piece or lines.comment()
    if rest := lines.rest():
        yield rest


# -- publishing


async def _publish(arguments: argparse.Namespace, url: str, data: bytes | None) -> None:
    async with http.client_from(arguments, timeout=arguments.timeout) as client:
        publisher = Publisher(client, url, quiet=arguments.quiet, retry=arguments.retry)
        if arguments.sse:
            await publisher.publish_stream(_STDIN, heartbeat=arguments.heartbeat)
        elif data is None:
            await publisher.publish_lines(_STDIN)
        else:
            publisher.print_id(await publisher.publish(data, key=arguments.key))


@final
class Publisher:
    """Posts events to one URL, and prints the ids.

    `retry` is for how many seconds an event that isn't stored is posted again. If it is `None`,
    that are `RETRY` for lines and 0 for one event; and a server that can't be reached before it has
    stored anything is an error at once then, most likely in the arguments.
    """

    def __init__(
        self, client: httpx2.AsyncClient, url: str, *, quiet: bool, retry: float | None = None
    ) -> None:
        self._client = client
        self._url = url
        self._quiet = quiet
        self._retry = retry
        self._has_stored = False

    def print_id(self, event_id: str) -> None:
        """Print an id, unless told to be quiet."""
        if not self._quiet:
            common.write_line(event_id)

    async def publish(self, data: bytes, *, key: str | None = None) -> str:
        """Publish one event; return its id.

        Raises:
            CommandError: nobody knows whether it is stored, or whatever answers is no hub.
            EventSourceError: the server refused or can't be reached, or the request can't be made.
        """
        # What may have been stored is only sent again with a key.
        key = key or (secrets.token_hex(16) if self._retry else None)
        return await self._publish(data, key=key, patience=self._retry or 0, name="")

    async def publish_lines(self, fd: int) -> None:
        """Publish each line when it is there; raises as `publish`."""
        held, run, numbers = bytearray(), secrets.token_hex(16), itertools.count(1)
        while chunk := await read_some(fd):
            held += chunk
            if b"\n" not in chunk:
                _check_line(held)
                continue
            lines, rest = split_lines(bytes(held))
            held = bytearray(rest)
            for line in lines:
                await self._publish_line(run, next(numbers), line)
        if held:
            await self._publish_line(run, next(numbers), bytes(held).removesuffix(b"\r"))

    async def _publish_line(self, run: str, number: int, line: bytes) -> None:
        name, patience = f"line {number}: ", RETRY if self._retry is None else self._retry
        try:
            event_id = await self._publish(
                line, key=f"{run}-{number}", patience=patience, name=name
            )
        except (common.CommandError, EventSourceError) as exc:
            raise common.CommandError(f"{name}{exc}") from exc
        self.print_id(event_id)

    async def _publish(self, data: bytes, *, key: str | None, patience: float, name: str) -> str:
        """Post an event until it is stored, for so many seconds from the first failure."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if key is not None:
            headers["Idempotency-Key"] = key
        deadline, failures, is_unknown = math.inf, 0, False
        while True:
            try:
                event_id = await self._post(data, headers)
            except (LostError, StatusError) as exc:
                error = exc
            else:
                self._has_stored = True
                return event_id
            now, delay = trio.current_time(), self._delay_after(error, failures)
            deadline = min(deadline, now + patience)
            is_unknown |= isinstance(error, LostError) and error.connected
            if now + delay > deadline and is_unknown:
                raise common.CommandError(f"{error}; what was sent may be stored or not") from error
            if now + delay > deadline:
                raise error
            failures += 1
            if not self._quiet:
                common.say(f"{name}{error}; again in {delay:.1f} s")
            await trio.sleep(delay)

    def _delay_after(self, error: LostError | StatusError, failures: int) -> float:
        """Return the seconds to wait before another attempt, infinity where it is of no use."""
        asked = DELAY
        if isinstance(error, StatusError):
            if error.status != _TOO_MANY and error.status not in OUTAGE_STATUSES:
                return math.inf
            asked = max(asked, error.retry_after or 0)
        elif self._retry is None and not (self._has_stored or error.connected):
            return math.inf
        return reconnect_delay(asked, failures, random.random, max_backoff=MAX_BACKOFF)

    async def publish_stream(self, fd: int, *, heartbeat: float) -> None:
        """Publish what an event stream holds, in one request.

        A server may answer before the body is over, usually to refuse it. httpx2 reads no answer
        before that, so the body ends with the next piece or comment.
        """
        send, receive = trio.open_memory_channel[bytes](0)
        connection: httpcore2.AsyncNetworkStream | None = None

        async def on_step(name: str, info: Mapping[str, Any]) -> None:
            nonlocal connection
            if name == "connection.connect_tcp.complete":
                connection = info["return_value"]
            elif "start_tls" in name:
                # Bytes need not be an answer then: TLS 1.3 sends tickets of its own.
                connection = None

        def is_answered() -> bool:
            return connection is not None and bool(connection.get_extra_info("is_readable"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_feed, fd, send)
            body = stream_body(receive, heartbeat=heartbeat, is_answered=is_answered)
            headers = {"Content-Type": "text/event-stream"}
            try:
                event_id = await self._post(body, headers, {"trace": on_step})
            except LostError as exc:
                if not exc.connected:
                    raise
                raise common.CommandError(f"{exc}; what was sent may be stored or not") from exc
            is_early = receive.statistics().open_send_channels > 0
            nursery.cancel_scope.cancel(reason="the server answered")
        if is_early:
            said = f"the last event is {event_id}" if event_id else "nothing is published"
            raise common.CommandError(f"the server ended the stream early: {said}")
        if event_id:
            self.print_id(event_id)

    async def _post(
        self,
        content: bytes | AsyncIterable[bytes],
        headers: dict[str, str],
        extensions: dict[str, Any] | None = None,
    ) -> str:
        """Post; return the id of the only or last event that was published, `""` if none was.

        Raises:
            CommandError: whatever answers is no hub.
            EventSourceError: the server refused or can't be reached, the answer was lost, or the
                request can't be made.
        """
        with translated(without_secret(self._url), self._client.timeout.read or 0):
            async with self._client.stream(
                "POST", self._url, content=content, headers=headers, extensions=extensions
            ) as response:
                text, fields = await read_text(response), response.headers
                wait = retry_after(fields.get("retry-after", ""), time.time())
                location = fields.get("location", "")
                return last_id(response.status_code, text, location, wait=wait)


async def _feed(fd: int, send: trio.MemorySendChannel[bytes]) -> None:
    async with send:
        while chunk := await read_some(fd):
            await send.send(chunk)


def last_id(status: int, text: str, location: str = "", *, wait: float | None = None) -> str:
    """Return the id of the only or last event that was published, `""` if there was none.

    Raises:
        StatusError: not all was published; with the seconds that the server asks to wait.
        CommandError: whatever answers is no hub.
    """
    fields = common.json_object(text)
    published, event_id = fields.get("published"), fields.get("id")
    if status != 200 or "error" in fields:  # noqa: PLR2004 - OK
        said = str(fields.get("error", text))
        if published:
            said += f" ({published} published, the last as {event_id})"
        headers = {"location": location}
        raise StatusError(status, text=said, headers=headers, retry_after=wait)
    if not isinstance(event_id, str):
        raise common.CommandError(f"the server answered 200, but no id, so it is no hub: {text}")
    return event_id
