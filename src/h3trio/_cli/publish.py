"""`python -m h3trio publish`: one event, each line of standard input, or a stream of events.

Lines are published one after the other over one connection, each when the one before is stored:
their order is the hub's order. With `--sse` standard input is the body of one request, passed on by
whole lines as it comes, so that a comment may go out in every silence and no server gives it up.

Standard input is read by a thread. That leaves its flags alone, which belong to the terminal and so
to the shell too; and a file, which no loop can wait for, is read the same way.

A server may answer before the body is over, usually to refuse it. So while the body waits for
input, it also waits for the server; then the body ends, and the answer is read.
"""

from __future__ import annotations

import itertools
import os
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import urlencode

import trio

from h3trio._wire.event import SSEEvent

from . import http
from .common import add_token, visible
from .options import fail

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Mapping

    import httpx2

    from .options import Options

READ_BYTES: Final = 64 * 1024
MAX_LINE_BYTES: Final = 16 * 1024 * 1024
HEARTBEAT: Final = 10.0  # seconds; servers commonly give up a silent body after 30 to 60
TIMEOUT: Final = 30.0

_STDIN: Final = 0


def add_arguments(parser: Options) -> None:
    """Add the options of `publish`."""
    parser.set_defaults(run=run)
    parser.description = "Publish to a hub; print the id of each event once it is stored."
    parser.epilog = http.STATUSES
    add_token(parser)
    topic, number, key = map(http.checked, (http.topic, http.whole, visible))
    parser.add_argument("topic", metavar="TOPIC", type=topic, help="any text; IRIs too")
    what = "data of one event; standard input if - or none"
    parser.add_argument("data", metavar="DATA", nargs="?", help=what)
    parser.add_option("--url", default=http.DEFAULT_URL, type=http.base_url, help="the hub")
    parser.add_argument("--event", metavar="TYPE", help="type of the event, or of each")
    parser.add_argument("--id", help="id of the one event; else the hub gives it one")
    parser.add_argument("--retry", metavar="MS", type=number, help="reconnection time to pass on")
    parser.add_argument("--key", type=key, help="Idempotency-Key: publish once only")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--lines", action="store_true", help="an event for each line (the default)")
    how.add_argument("--sse", action="store_true", help="standard input is a text/event-stream")
    parser.add_switch("--quiet", help="print no ids")
    what = "seconds to wait for an answer"
    parser.add_option("--timeout", default=TIMEOUT, type=http.seconds, metavar="S", help=what)
    what = "--sse: seconds of silence before a comment is sent"
    parser.add_option("--heartbeat", default=HEARTBEAT, type=http.seconds, metavar="S", help=what)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be published, and how. `data` is None where standard input is read."""

    url: str
    data: bytes | None
    key: str | None
    sse: bool
    quiet: bool
    token: str | None
    timeout: float
    heartbeat: float


def run(arguments: argparse.Namespace) -> int:
    """Publish; return the exit status."""
    job = job_from(arguments)
    if job.data is None and sys.stdin is None:
        fail("standard input is closed: give DATA")
    http.require_httpx2(job.url)
    return http.run_command(partial(_publish, job))


def job_from(arguments: argparse.Namespace) -> Job:
    """Make the job of parsed arguments; exit with one line if they don't fit together."""
    one = arguments.data not in (None, "-")
    if one and (arguments.lines or arguments.sse):
        fail("--lines and --sse read standard input: give no DATA")
    if not one and (arguments.id is not None or arguments.key is not None):
        fail("--id and --key are for one event: give its DATA")
    if arguments.sse and (arguments.event is not None or arguments.retry is not None):
        fail("--sse takes --event and --retry from the stream itself")
    fields = {"event": arguments.event, "id": arguments.id, "retry": arguments.retry}
    try:
        SSEEvent("", **fields)
    except ValueError as exc:
        # It begins with the name of the field, which is that of the option.
        fail(f"--{exc}")
    return Job(
        url=publish_url(arguments.url, arguments.topic, fields),
        data=os.fsencode(arguments.data) if one else None,
        key=arguments.key,
        sse=arguments.sse,
        quiet=arguments.quiet,
        token=arguments.token,
        timeout=arguments.timeout,
        heartbeat=arguments.heartbeat,
    )


def publish_url(base: str, topic: str, fields: Mapping[str, str | int | None]) -> str:
    """Return where to post an event: the topic as one segment, its fields in the query."""
    query = urlencode({name: value for name, value in fields.items() if value is not None})
    return f"{base}/events/{http.quoted(topic)}{'?' if query else ''}{query}"


# -- input


@final
class Input:
    """A file descriptor that is read without blocking the loop, whatever it is.

    What a cancelled read would have returned is lost: one reads on from a task that lives as
    long as the input matters.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def receive_some(self) -> bytes:
        """Return what is there, at most `READ_BYTES`, after waiting for it; `b""` at the end.

        Raises:
            http.CommandError: it can't be read.
        """
        while True:
            try:
                return await trio.to_thread.run_sync(
                    os.read, self._fd, READ_BYTES, abandon_on_cancel=True
                )
            except BlockingIOError:
                # Whoever started us made it non-blocking, and so it stays.
                await trio.lowlevel.wait_readable(self._fd)
            except OSError as exc:
                raise http.CommandError(f"can't read standard input: {exc.strerror}") from exc


@final
class LineSplitter:
    """Cuts bytes into lines, without the LF or CRLF that ends each."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._held = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes; return the lines that they complete.

        Raises:
            http.CommandError: a line is longer than the limit.
        """
        first, *others = chunk.split(b"\n")
        self._held += first
        _check_line(self._held, self._limit)
        if not others:
            return []
        lines = [bytes(self._held), *others]
        self._held = bytearray(lines.pop())
        return [line.removesuffix(b"\r") for line in lines]

    def rest(self) -> list[bytes]:
        """At the end of input: return the line that lacks its line end, if there is one."""
        rest, self._held = bytes(self._held), bytearray()
        return [rest.removesuffix(b"\r")] if rest else []


@final
class WholeLines:
    """Passes an event stream on by whole lines, so that between two pieces a comment may stand.

    A line ends at CRLF, CR or LF. Where a comment went out behind a CR, an LF that follows is
    dropped: the CR ended the line, and behind the comment the LF would be a blank line, which ends
    the event.
    """

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._held = bytearray()
        self._ends_with_cr = False
        self._drops_lf = False

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return the whole lines there are now.

        Raises:
            http.CommandError: a line is longer than the limit.
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
        _check_line(self._held, self._limit)
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


def _check_line(line: bytearray, limit: int) -> None:
    if len(line) > limit:
        raise http.CommandError(f"a line of standard input is longer than {limit} bytes")


@final
class StreamBody:
    """The body of a request, from pieces of input that come when they come.

    Args:
        pieces: the input; its end is the body's.
        heartbeat: seconds of silence before a comment is sent.
        answered: waits until the server answers. It is called for each piece.
    """

    def __init__(
        self,
        pieces: trio.MemoryReceiveChannel[bytes],
        *,
        heartbeat: float,
        answered: Callable[[], Awaitable[None]],
    ) -> None:
        self._pieces = pieces
        self._heartbeat = heartbeat
        self._wait_answered = answered
        self._lines = WholeLines()
        self._ended = False
        self.answered = False

    def __aiter__(self) -> StreamBody:
        return self

    async def __anext__(self) -> bytes:
        """Return what to send next; end with the input, or when the server has answered."""
        while not self._ended and not self.answered:
            if piece := await self._next():
                return piece
        raise StopAsyncIteration

    async def _next(self) -> bytes:
        piece = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            with trio.move_on_after(self._heartbeat) as silence:
                piece = await self._whole_lines()
            nursery.cancel_scope.cancel(reason="there is something to send")
        return self._lines.comment() if silence.cancelled_caught else piece

    async def _whole_lines(self) -> bytes:
        try:
            while not (passed := self._lines.feed(await self._pieces.receive())):
                pass
        except trio.EndOfChannel:
            self._ended = True
            passed = self._lines.rest()
        return passed

    async def _watch(self, waiting: trio.CancelScope) -> None:
        await self._wait_answered()
        self.answered = True
        waiting.cancel(reason="the server answered before the body's end")


@final
class _Connection:
    """The connection of one request, as far as httpcore's `trace` extension shows it."""

    def __init__(self) -> None:
        self._socket: trio.socket.SocketType | None = None

    async def on_step(self, name: str, info: Mapping[str, Any]) -> None:
        """Take the socket when it is there."""
        if name == "connection.connect_tcp.complete":
            self._socket = info["return_value"].get_extra_info("socket")
        elif "start_tls" in name:
            # What comes then need not be an answer: TLS 1.3 sends tickets of its own.
            self._socket = None

    async def wait_readable(self) -> None:
        """Wait until the server sends something; for ever, if that can't be told."""
        if self._socket is None:
            await trio.sleep_forever()
        else:
            await trio.lowlevel.wait_readable(self._socket)


# -- publishing


async def _publish(job: Job) -> None:
    async with http.open_client(
        timeout=job.timeout, follow_redirects=False, token=job.token
    ) as client:
        publisher = Publisher(client, job)
        if job.sse:
            await publisher.publish_stream(Input(_STDIN))
        elif job.data is None:
            await publisher.publish_lines(Input(_STDIN))
        else:
            publisher.print_id(await publisher.publish(job.data))


@final
class Publisher:
    """Posts events to one URL, and prints the ids."""

    def __init__(self, client: httpx2.AsyncClient, job: Job) -> None:
        self._client = client
        self._job = job

    def print_id(self, event_id: str) -> None:
        """Print an id, unless told to be quiet."""
        if not self._job.quiet:
            http.write_line(event_id)

    async def publish(self, data: bytes) -> str:
        """Publish one event; return its id."""
        job, headers = self._job, {"Content-Type": "text/plain; charset=utf-8"}
        if job.key is not None:
            headers["Idempotency-Key"] = job.key
        answer = await http.post(self._client, job.url, data, headers=headers)
        return http.last_id(answer)

    async def publish_lines(self, source: Input) -> None:
        """Publish each line when it is there."""
        splitter, numbers = LineSplitter(), itertools.count(1)
        while chunk := await source.receive_some():
            for line in splitter.feed(chunk):
                await self._publish_line(next(numbers), line)
        for line in splitter.rest():
            await self._publish_line(next(numbers), line)

    async def _publish_line(self, number: int, line: bytes) -> None:
        try:
            event_id = await self.publish(line)
        except http.CommandError as exc:
            raise http.CommandError(f"line {number}: {exc}") from exc
        self.print_id(event_id)

    async def publish_stream(self, source: Input) -> None:
        """Publish what an event stream holds, in one request."""
        job, connection = self._job, _Connection()
        send, receive = trio.open_memory_channel[bytes](0)
        body = StreamBody(receive, heartbeat=job.heartbeat, answered=connection.wait_readable)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_feed, source, send)
            headers = {"Content-Type": "text/event-stream"}
            answer = await http.post(
                self._client, job.url, body, headers=headers, on_step=connection.on_step
            )
            nursery.cancel_scope.cancel(reason="the server answered")
        event_id = http.last_id(answer)
        if body.answered:
            said = f"the last event is {event_id}" if event_id else "nothing is published"
            raise http.CommandError(f"the server ended the stream early: {said}")
        if event_id:
            self.print_id(event_id)


async def _feed(source: Input, send: trio.MemorySendChannel[bytes]) -> None:
    async with send:
        while chunk := await source.receive_some():
            await send.send(chunk)
