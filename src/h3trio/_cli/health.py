"""`python -m h3trio health`: ask the hub on this machine whether it is ready.

It takes the flags and the environment of `serve`, and so finds the hub where `serve` puts it: a
health check of an image follows what the image is told. The standard library does the asking, as
one request needs no client, and a check that runs every few seconds should start fast.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING, Final, final

from . import common
from .options import fail
from .serve.command import add_arguments as add_serve_arguments

if TYPE_CHECKING:
    import argparse

    from .options import Options

_PATH: Final = "/healthz/ready"
_TIMEOUT: Final = 5.0  # seconds; a hub that takes longer isn't ready
_OK: Final = 200


def add_arguments(parser: Options) -> None:
    """Add the options of `serve`."""
    add_serve_arguments(parser)
    parser.usage = "%(prog)s [option...]"
    parser.description = "Ask the hub on this machine whether it is ready. The flags are serve's."
    parser.epilog = "exit status: 0 it is ready; 1 it isn't, or can't be reached"


def run(arguments: argparse.Namespace) -> int:
    """Ask; return the exit status."""
    if arguments.app:
        fail("health asks the hub; an app has paths of its own")
    if arguments.fd or not (arguments.port or arguments.unix):
        fail("can't know where the hub listens: give --port or --unix as its environment has it")
    connection = _connection(arguments)
    try:
        connection.request("GET", _PATH, headers={"Host": "localhost"})
        response = connection.getresponse()
        answer = response.read(common.MAX_MESSAGE).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as exc:
        where = arguments.unix or f"http{'s' * bool(arguments.tls_cert)}://{_netloc(connection)}"
        why = (exc.strerror if isinstance(exc, OSError) else None) or exc
        common.say(f"can't reach {where}{_PATH}: {why}")
        return common.EXIT_FAILED
    finally:
        connection.close()
    common.write_line(common.one_line(answer))
    return 0 if response.status == _OK else common.EXIT_FAILED


def _connection(arguments: argparse.Namespace) -> http.client.HTTPConnection:
    host = _reached(arguments.host)
    if arguments.unix:
        return _UnixConnection(arguments.unix)
    if arguments.tls_cert is None:
        return http.client.HTTPConnection(host, arguments.port, timeout=_TIMEOUT)
    # Its certificate is for another name than that of this machine, which is asked.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, arguments.port, timeout=_TIMEOUT, context=context)


def _netloc(connection: http.client.HTTPConnection) -> str:
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    return f"{host}:{connection.port}"


def _reached(host: str) -> str:
    """Return where a hub is reached that listens there: on all addresses, by the loopback one."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or "localhost"
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 - of the protocol


@final
class _UnixConnection(http.client.HTTPConnection):
    """A connection by a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT)
        self.sock.connect(self._path)
