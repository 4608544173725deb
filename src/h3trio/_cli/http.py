"""`run_command` and the HTTP client of the commands: `h3trio.client` does the work.

httpx2 comes with an extra and takes a moment to import, so only functions that need it import
`h3trio.client`'s parts that do. Whatever ends a command becomes its exit status, and at most one
line on standard error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import sys
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import trio

from h3trio._nursery import members
from h3trio.client import EventSource, EventSourceError
from h3trio.client._redirect import checked_url
from h3trio.client._request import new_client, require_httpx2

from .common import EXIT_BROKEN_PIPE, EXIT_FAILED, EXIT_INTERRUPTED, CommandError, say, visible
from .options import fail

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from types import FrameType

    import httpx2

    from h3trio.client import StateChange
    from h3trio.client._environment import Trust

    from .options import Options

DEFAULT_URL: Final = "http://localhost:3000"

STATUSES: Final = (
    "exit status: 0 done; 1 the server refused, can't be reached or was lost, and standard error "
    "says what it answered; 2 the arguments are wrong; 130 interrupted; 141 nobody reads the output"
)

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
CONNECT_TIMEOUT: Final = 10.0
RECONNECT_DELAY: Final = 2.0  # seconds, until the server names a delay


# -- arguments


def add_token(parser: Options) -> None:
    """Add `--token`, whose twin `H3TRIO_TOKEN` no other user of the machine sees."""
    what = "token to show the hub; other users of this machine can see flags, not the environment"
    parser.add_option("--token", type=_token, metavar="TOKEN", help=what)


def _token(text: str) -> str:
    try:
        return visible(text)
    except ValueError:
        # The message doesn't repeat the text, which is a secret.
        raise ValueError("a token is visible ASCII, without spaces") from None


def quoted(text: str) -> str:
    """Percent-encode a text, whole IRIs too, for one segment of a path or one query value."""
    encoded = quote(text, safe="")
    # Clients and proxies resolve "." and ".." segments away (RFC 3986 section 5.2.4).
    return encoded if encoded.strip(".") else encoded.replace(".", "%2E")


def require_client(url: str) -> None:
    """Exit with status 2 if httpx2 is missing, or takes the URL for none."""
    try:
        require_httpx2()
        checked_url(url)
    except (ImportError, ValueError) as exc:
        fail(str(exc))


# -- the client


def open_client(
    *, timeout: float, token: str | None = None, tls: Trust | None = None
) -> httpx2.AsyncClient:
    """Make a client, to be used as a context manager; `timeout` is the longest silence.

    The token goes to the hub's own address only: httpx2 drops it where a redirect leads elsewhere.

    Raises:
        RequestError: a proxy of the environment can't be used.
    """
    fields = {} if token is None else {"Authorization": f"Bearer {token}"}
    return new_client(timeout=timeout, headers=fields, tls=tls)


def event_source(
    client: httpx2.AsyncClient,
    url: str,
    *,
    silence: float,
    reconnect: bool,
    on_state_change: Callable[[StateChange], object],
    last_event_id: str = "",
    params: Mapping[str, str] | None = None,
    max_event_bytes: int = MAX_EVENT_BYTES,
) -> EventSource:
    """Make the event source of a command.

    A server that can't be reached or sends no stream at the first attempt is an error, most likely
    in the arguments. Once there was a stream, it comes back as any `EventSource`.

    `silence` is in seconds: a connection that is silent for so long counts as lost. What isn't
    said here is as `EventSource` has it.
    """

    def comes_back(_change: StateChange) -> bool:
        return reconnect and source.statistics().streams > 0

    source = EventSource(
        url,
        params=params,
        http_client=client,
        last_event_id=last_event_id,
        reconnect=comes_back,
        on_state_change=on_state_change,
        connect_timeout=min(silence, CONNECT_TIMEOUT),
        read_timeout=silence,
        reconnect_delay=RECONNECT_DELAY,
        max_event_bytes=max_event_bytes,
    )
    return source


@contextlib.asynccontextmanager
async def while_read() -> AsyncGenerator[None]:
    """Run a block until nobody reads standard output any more.

    Raises:
        BrokenPipeError: its reader left.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_with_reader, sys.stdout.fileno())
        yield
        nursery.cancel_scope.cancel(reason="the block has ended")


async def end_with_reader(fd: int) -> None:
    """Fail as soon as nobody reads a pipe any more: the next write to it may be far away.

    Raises:
        BrokenPipeError: the other end is closed.
    """
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        # A pipe's end for writing never becomes readable, but an error wakes every waiting task.
        await trio.lowlevel.wait_readable(fd)
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


# -- running


def run_command(command: Callable[[], Awaitable[int | None]]) -> int:
    """Run a command; return its exit status, with one line if an error ended it."""
    if sys.stdout is None:
        fail("standard output is closed")
    takes_over = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if takes_over:
        signal.signal(signal.SIGINT, _interrupted)
    try:
        status = trio.run(command)
    except (CommandError, EventSourceError, BrokenPipeError, ExceptionGroup) as exc:
        leaf: BaseException = exc
        while inner := members(leaf):
            leaf = inner[0]
        if isinstance(leaf, BrokenPipeError):
            return EXIT_BROKEN_PIPE
        if isinstance(leaf, CommandError | EventSourceError):
            say(f"error: {leaf}")
            return leaf.status if isinstance(leaf, CommandError) else EXIT_FAILED
        raise
    finally:
        if takes_over:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return status or 0


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    """End at once: an exception might come at a place where it leaves words behind.

    Nothing is lost by it: each line is written when it is printed, and the system closes the rest.
    """
    os._exit(EXIT_INTERRUPTED)
