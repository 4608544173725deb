"""Requests that the C programs don't make: streams of events, TLS, and the id of the last one.

Written on bare sockets, with a limit on each wait. `publish_stream` is what a publisher does who
has many events at hand: one request whose body is an event stream.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from .load import FailedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

_PATIENCE: Final = 30.0


async def last_event_id(port: int, path: str) -> str:
    """Publish one event, and return the id with which it comes.

    Raises:
        FailedError: it doesn't come, or has none.
    """
    try:
        return await trio.to_thread.run_sync(_last_event_id, port, path)
    except TimeoutError:
        raise FailedError("the event doesn't come") from None


def _last_event_id(port: int, path: str) -> str:
    with _connect(port) as stream:
        stream.sendall(_head("GET", path, port) + b"Accept: text/event-stream\r\n\r\n")
        received = stream.recv(65536)
        with _connect(port) as publisher:
            body = b"marker-of-the-last"
            publisher.sendall(_head("POST", path, port) + _length(len(body)) + body)
            publisher.recv(65536)
        while b"marker-of-the-last\n" not in received:
            if not (piece := stream.recv(65536)):
                raise FailedError("the stream ended")
            received += piece
    found = re.findall(rb"^id: ?(.+?)\r?$", received, re.MULTILINE)
    if not found:
        raise FailedError("the event has no id")
    last: bytes = found[-1]
    return last.decode()


async def publish_stream(port: int, path: str, events: int, size: int) -> float:
    """Publish so many events as one stream; return the seconds until it is answered.

    Raises:
        FailedError: it isn't accepted.
    """
    body = b"".join(b"data: %b\n\n" % str(n).encode().ljust(size, b"x") for n in range(events))
    return await trio.to_thread.run_sync(_publish_stream, port, path, body)


def _publish_stream(port: int, path: str, body: bytes) -> float:
    with _connect(port) as connection:
        began = time.perf_counter()
        kind = b"Content-Type: text/event-stream\r\n"
        connection.sendall(_head("POST", path, port) + kind + _length(len(body)) + body)
        answer = connection.recv(65536)
        took = time.perf_counter() - began
    if b" 200 " not in answer[:20]:
        raise FailedError(f"not published: {answer[:200]!r}")
    return took


@asynccontextmanager
async def tls_subscribers(
    port: int, path: str, count: int, *, certificate: Path
) -> AsyncGenerator[None]:
    """Hold so many event streams over TLS, which the C programs don't speak.

    Raises:
        FailedError: one isn't answered.
    """
    held: list[ssl.SSLSocket] = []
    try:
        subscribe = partial(_subscribe_over_tls, port, path, certificate=certificate, held=held)
        await trio.to_thread.run_sync(subscribe, count)
        yield
    finally:
        for connection in held:
            connection.close()


def _subscribe_over_tls(
    port: int, path: str, count: int, *, certificate: Path, held: list[ssl.SSLSocket]
) -> None:
    context = ssl.create_default_context(cafile=certificate)
    for _ in range(count):
        connection = context.wrap_socket(_connect(port), server_hostname="127.0.0.1")
        held.append(connection)
        connection.sendall(_head("GET", path, port) + b"Accept: text/event-stream\r\n\r\n")
        if b" 200 " not in (answer := connection.recv(65536))[:20]:
            raise FailedError(f"no stream over TLS: {answer[:200]!r}")


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)


def _head(method: str, path: str, port: int) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()


def _length(size: int) -> bytes:
    return f"Content-Length: {size}\r\n\r\n".encode()
