"""`drive`: the steps that a connection takes with a client's bytes, without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from h3trio import HTTPError, Settings
from h3trio._http.http1 import Http1, RequestHead, Signal
from h3trio._http.request import split_target
from h3trio._http.strict import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CANARY: Final = b"GET /canary HTTP/1.1\r\nHost: canary\r\n\r\n"
JUNK: Final = b"\0\xff\r\n\r\n"

SETTINGS: Final = Settings()


class Seen(NamedTuple):
    """A request that was answered."""

    method: str
    target: bytes
    body: bytes


class Outcome(NamedTuple):
    """The requests answered with 200, then what the connection does."""

    requests: list[Seen]
    end: str
    """A status if the rest was refused; `closes`; `waits` for more of a request; or `open`."""


def drive(pieces: Iterable[bytes]) -> Outcome:
    """Feed the pieces to a connection whose handler reads each body and answers 200."""
    http, seen = Http1(SETTINGS), list[Seen]()
    head, body = None, b""
    try:
        for piece in pieces:
            http.receive(piece)
            while (value := http.next()) not in (Signal.NEED_DATA, Signal.PAUSED):
                if isinstance(value, RequestHead):
                    split_target(value.target)
                    head, body = value, b""
                elif isinstance(value, bytes):
                    body += value
                else:
                    assert head is not None
                    seen.append(Seen(head.method, head.target, body))
                    head = None
                    http.response(200, [], b"")
                    if not http.next_cycle():
                        return Outcome(seen, "closes")
    except (ProtocolError, HTTPError) as error:
        return Outcome(seen, str(error.status))
    return Outcome(seen, "waits" if head is not None or http.buffered else "open")


def splits(sent: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """List the ways to send bytes, each with a name."""
    yield "whole", [sent]
    yield "byte by byte", [sent[i : i + 1] for i in range(len(sent))]
    for size in (2, 7):
        yield f"{size} bytes each", [sent[i : i + size] for i in range(0, len(sent), size)]
