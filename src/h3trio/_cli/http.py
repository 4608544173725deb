"""What `publish` and `tail` share: addresses, the HTTP client, messages and exit statuses.

httpx2 comes with an extra and takes a moment to import, so it is imported where it is used, and
only here: the commands see its client and responses, and errors of our own. `run_command` turns
whatever ends a command into its exit status and at most one line.

What a server says is cut to one line of printable characters before a terminal shows it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast, final
from urllib.parse import quote, urlsplit

import trio

from h3trio._nursery import members
from h3trio._version import __version__
from h3trio.client._errors import reason_of, without_secret

from .options import fail

if TYPE_CHECKING:
    import ssl
    from collections.abc import (
        AsyncIterable,
        Awaitable,
        Callable,
        Generator,
        Mapping,
    )
    from types import FrameType

    import httpx2

    OnStep = Callable[[str, Mapping[str, Any]], Awaitable[None]]

T = TypeVar("T")

DEFAULT_URL: Final = "http://localhost:3000"

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE: Final = 141  # 128 + SIGPIPE: what it is for other tools whose reader left

STATUSES: Final = (
    "exit status: 0 done; 1 the server refused, can't be reached or was lost, and standard error "
    "says what it answered; 2 the arguments are wrong; 130 interrupted; 141 nobody reads the output"
)

CONNECT_TIMEOUT: Final = 10.0
KEEPALIVE: Final = 60.0  # seconds; shorter than what servers commonly grant, ours included
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_MESSAGE: Final = 500


class CommandError(Exception):
    """Ends a command with status 1; its text is the line for people."""


@final
class LostError(CommandError):
    """There is no answer, or no more of it: another try may help.

    Attributes:
        connected: whether there was a connection, so that something may have been sent.
    """

    def __init__(self, message: str, *, connected: bool = True) -> None:
        super().__init__(message)
        self.connected = connected


# -- messages


def write_line(text: str) -> None:
    """Write a line to standard output, at once; in UTF-8, as event streams are."""
    sys.stdout.buffer.write(text.encode() + b"\n")
    sys.stdout.buffer.flush()


def say(message: str) -> None:
    """Write one line to standard error."""
    print(f"h3trio: {one_line(message)}", file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Cut a text of anybody's to one line that a terminal only shows."""
    words = " ".join(text.split())
    shown = "".join(char if char.isprintable() else "?" for char in words[:MAX_MESSAGE])
    return shown + "…" * (len(words) > MAX_MESSAGE)


# -- arguments


def checked(convert: Callable[[str], T]) -> Callable[[str], T]:
    """Make a converter whose `ValueError` argparse repeats in its own words."""

    def convert_or_say_why(text: str) -> T:
        try:
            return convert(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc

    return convert_or_say_why


def base_url(text: str) -> str:
    """Check the address of a hub, which may have a path; return it without a slash at its end.

    Raises:
        ValueError: it is no such address.
    """
    check_url(text)
    if "?" in text or "#" in text:
        raise ValueError(f"{text!r} has a query or a fragment: give the hub's own address")
    return text.rstrip("/")


def check_url(text: str) -> None:
    """Raise `ValueError` unless a text is an absolute URL for HTTP."""
    # What `urlsplit` would silently drop, and what no URL has.
    if " " in text or not text.isprintable():
        raise ValueError(f"{text!r} holds a space or a control character")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r} is not of the form http://HOST:PORT")
    _ = parts.port  # raises `ValueError` itself


def topic(text: str) -> str:
    """Check a topic as far as a client can; raise `ValueError` otherwise."""
    if not text:
        raise ValueError("a topic is not empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} is not UTF-8") from None
    return text


def seconds(text: str) -> float:
    """Convert a time; raise `ValueError` unless it is positive and finite."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not 0 < value < float("inf"):
        raise ValueError(f"{text!r} is not a positive number")
    return value


def whole(text: str) -> int:
    """Convert a whole number, zero or more; raise `ValueError` for anything else."""
    # More digits than any of our numbers has are a slip, and Python may refuse to read them.
    if not (text.isascii() and text.isdigit() and len(text) < 20):  # noqa: PLR2004 - 64 bits have 20
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def quoted(text: str) -> str:
    """Percent-encode a text, whole IRIs too, for one segment of a path or one query value."""
    encoded = quote(text, safe="")
    # Clients and proxies resolve "." and ".." segments away (RFC 3986 section 5.2.4).
    return encoded if encoded.strip(".") else encoded.replace(".", "%2E")


# -- the client


class Answer(NamedTuple):
    """A whole answer, its body cut at `MAX_ANSWER_BYTES`."""

    status: int
    body: bytes
    location: str

    @property
    def text(self) -> str:
        """The body, for a person."""
        return self.body.decode("utf-8", "replace")


def require_httpx2(url: str) -> None:
    """Exit with status 2 if httpx2 is missing, or takes the URL for none."""
    if importlib.util.find_spec("httpx2") is None:
        fail("needs httpx2: pip install 'h3trio[client]'")
    import httpx2  # noqa: PLC0415 - see this module's docstring

    try:
        httpx2.URL(url)
    except httpx2.InvalidURL as exc:
        fail(f"{without_secret(url)}: {exc}")


def open_client(
    *,
    timeout: float,
    follow_redirects: bool,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> httpx2.AsyncClient:
    """Make a client, to be used as a context manager; `timeout` is the longest silence.

    The token goes to the hub's own address only: httpx2 drops it where a redirect leads elsewhere.

    Raises:
        CommandError: the proxy that the environment asks for can't be used.
    """
    import httpx2  # noqa: PLC0415 - see this module's docstring

    try:
        return httpx2.AsyncClient(
            headers={
                "User-Agent": f"h3trio/{__version__}",
                "Accept-Encoding": "identity",
                **({} if token is None else {"Authorization": f"Bearer {token}"}),
            },
            timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
            limits=httpx2.Limits(keepalive_expiry=KEEPALIVE),
            follow_redirects=follow_redirects,
            verify=True if tls is None else tls,
        )
    except (ImportError, ValueError, httpx2.InvalidURL) as exc:
        raise CommandError(f"can't use the proxy of the environment: {exc}") from exc


@contextlib.contextmanager
def translated(client: httpx2.AsyncClient, url: str) -> Generator[None]:
    """Turn httpx2's errors into ours.

    Raises:
        LostError: the server can't be reached, is silent, or the connection broke.
        CommandError: the request can't be made.
    """
    import httpx2  # noqa: PLC0415 - see this module's docstring

    try:
        yield
    except (httpx2.ConnectTimeout, httpx2.ConnectError) as exc:
        message = f"can't reach {without_secret(url)}: {reason_of(exc)}"
        raise LostError(message, connected=False) from exc
    except httpx2.TimeoutException as exc:
        raise LostError(f"the server was silent for {client.timeout.read:g} s") from exc
    except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.InvalidURL) as exc:
        raise CommandError(f"can't ask {without_secret(url)}: {exc}") from exc
    except httpx2.RequestError as exc:
        raise LostError(f"the connection was lost: {reason_of(exc)}") from exc


async def read_body(response: httpx2.Response, take: Callable[[bytes], bool]) -> bool:
    """Hand over a body as it comes; stop where `take` returns True, and return whether it did.

    It is stopped by a cancellation, which ends httpx2's nested generators from within: those that
    are left behind are finalised with a warning.
    """
    failure: Exception | None = None
    with trio.CancelScope() as scope:
        async for piece in response.aiter_bytes():
            try:
                enough = scope.cancel_called or take(piece)
            except Exception as exc:  # noqa: BLE001 - it is raised below
                failure, enough = exc, True
            if enough:
                scope.cancel(reason="that was enough")
    if failure is not None:
        raise failure
    return scope.cancel_called


async def read_answer(response: httpx2.Response) -> Answer:
    """Read a plain answer, and no more of it than a person or a JSON parser wants."""
    body, location = bytearray(), response.headers.get("location", "")

    def take(piece: bytes) -> bool:
        body.extend(piece)
        return len(body) > MAX_ANSWER_BYTES

    await read_body(response, take)
    return Answer(response.status_code, bytes(body[:MAX_ANSWER_BYTES]), location)


async def post(
    client: httpx2.AsyncClient,
    url: str,
    content: bytes | AsyncIterable[bytes],
    *,
    headers: dict[str, str],
    on_step: OnStep | None = None,
) -> Answer:
    """Post, and read the answer; httpcore calls `on_step` at each step on the way.

    Raises:
        CommandError: there is no answer.
    """
    extensions = {} if on_step is None else {"trace": on_step}
    try:
        with translated(client, url):
            async with client.stream(
                "POST", url, content=content, headers=headers, extensions=extensions
            ) as response:
                return await read_answer(response)
    except LostError as exc:
        if not exc.connected:
            raise
        raise CommandError(f"{exc}; what was sent may be stored or not") from exc


def refusal(status: int, text: str, location: str = "") -> CommandError:
    """Return the error for an answer that is none of those hoped for."""
    said = text.strip() or (f"it points to {location}" if location else "")
    return CommandError(f"the server answered {status}{f': {said}' if said else ''}")


def json_object(text: bytes | str) -> dict[str, object]:
    """Read a JSON object; anything else is one without fields."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def last_id(answer: Answer) -> str:
    """Return the id of the only or last event that was published, `""` if there was none.

    Raises:
        CommandError: not all was published, or whatever answers is no hub.
    """
    fields = json_object(answer.body)
    published, event_id = fields.get("published"), fields.get("id")
    if answer.status != 200 or "error" in fields:  # noqa: PLR2004 - OK
        said = str(fields.get("error", answer.text))
        progress = f" ({published} published, the last as {event_id})" if published else ""
        raise refusal(answer.status, said + progress, answer.location)
    if not isinstance(event_id, str):
        raise CommandError(f"the server answered 200, but no id, so it is no hub: {answer.text}")
    return event_id


# -- running


def run_command(command: Callable[[], Awaitable[None]]) -> int:
    """Run a command to its end; return the exit status, with one line if it is `EXIT_FAILED`."""
    if sys.stdout is None:
        fail("standard output is closed")
    takes_over = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if takes_over:
        signal.signal(signal.SIGINT, _interrupted)
    try:
        trio.run(command)
    except (CommandError, BrokenPipeError, ExceptionGroup) as exc:
        leaf: BaseException = exc
        while inner := members(leaf):
            leaf = inner[0]
        if isinstance(leaf, BrokenPipeError):
            return EXIT_BROKEN_PIPE
        if isinstance(leaf, CommandError):
            say(f"error: {leaf}")
            return EXIT_FAILED
        raise
    finally:
        if takes_over:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return 0


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    """End at once: an exception might come at a place where it leaves words behind.

    Nothing is lost by it: each line is written when it is printed, and the system closes the rest.
    """
    os._exit(EXIT_INTERRUPTED)
