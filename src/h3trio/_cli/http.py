"""`run_command` and the HTTP client of the commands: `h3trio.client` does the work.

httpx2 comes with an extra and takes a moment to import, so only functions that need it import
`h3trio.client`'s parts that do. Whatever ends a command becomes its exit status, and at most one
line on standard error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import ssl
import stat
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote, urlencode

import trio

from h3trio._nursery import members
from h3trio.client import EventSource, EventSourceError
from h3trio.client._environment import LateTLS
from h3trio.client._redirect import checked_url
from h3trio.client._request import new_client, require_httpx2

from .common import EXIT_BROKEN_PIPE, EXIT_FAILED, EXIT_INTERRUPTED, CommandError, say, visible
from .options import fail, refuse

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
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

# OpenSSL's words for a chain that ends at nobody whom we trust.
_UNTRUSTED: Final = re.compile("certificate verify failed: .*(self.signed|unable to get)")
_UNTRUSTED_ADVICE: Final = "; --ca-file FILE trusts it"

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


# -- arguments


def add_client(parser: Options) -> None:
    """Add `--token`, and how the server's certificate is checked."""
    add_token(parser)
    what = "authorities to trust, in PEM, instead of the system's"
    parser.add_option("--ca-file", metavar="FILE", help=what)
    parser.add_switch("--insecure", help="don't check the server's certificate")


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


def events_url(base: str, topics: Iterable[str], fields: Mapping[str, object] = _NOTHING) -> str:
    """Return the address of some topics at a hub, with the fields that aren't `None`.

    They are in the query. Of a path, clients and proxies decode escapes, join slashes and resolve
    dots away (RFC 3986 section 6.2.2), and a hub can't tell that another topic was meant.
    """
    given = [(name, value) for name, value in fields.items() if value is not None]
    query = urlencode([*(("topic", topic) for topic in topics), *given], quote_via=quote)
    return f"{base}/events?{query}"


def header_lines(arguments: argparse.Namespace) -> list[str]:
    """Return the fields to send, `NAME: VALUE`: those that were given, and the token.

    Exits with one line if a header takes the token's place.
    """
    lines = cast("list[str]", arguments.header)
    if any(line.lower().startswith("authorization:") for line in lines):
        refuse(arguments, ["token"], "has no effect beside --header Authorization")
        return lines
    token = arguments.token
    return lines if token is None else [*lines, f"Authorization: Bearer {token}"]


def trust_from(arguments: argparse.Namespace) -> Trust:
    """Make what says which certificates are good; exit with one line if that can't be done.

    Each client needs its own, as httpx2 changes the one that it uses.
    """
    if arguments.insecure:
        refuse(arguments, ["ca_file"], "has no effect where no certificate is checked (--insecure)")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if arguments.ca_file is None:
        return LateTLS()  # those of the environment or the system, when they are needed
    try:
        return ssl.create_default_context(cafile=arguments.ca_file)
    except OSError as exc:  # `ssl.SSLError` is one
        fail(f"{arguments.given['ca_file']}: can't load {arguments.ca_file}: {exc.strerror}")


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


def client_from(arguments: argparse.Namespace, *, timeout: float) -> httpx2.AsyncClient:
    """Make the client of a command that has the options of `add_client`; as `open_client`."""
    return open_client(timeout=timeout, token=arguments.token, tls=trust_from(arguments))


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
            say(f"error: {leaf}{_UNTRUSTED_ADVICE if _UNTRUSTED.search(str(leaf)) else ''}")
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
