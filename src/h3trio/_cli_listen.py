"""Where `python -m h3trio serve` listens and how: the options, made into arguments of `serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._options import fail
from ._tls import server_context

if TYPE_CHECKING:
    import argparse
    import ssl

    from ._options import Options


def add_arguments(parser: Options) -> None:
    """Add the options of listening."""
    parser.add_option("--host", default="127.0.0.1", help="address to listen on")
    parser.add_option("--port", default=3000, type=_port, help="port to listen on, 0 for any")
    parser.add_option("--tls-cert", metavar="PATH", help="PEM file of a certificate: speak TLS")
    parser.add_option("--tls-key", metavar="PATH", help="PEM file of its key, if not in the same")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):  # noqa: PLR2004 - the range of TCP ports
        raise ValueError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def tls_from(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """Load the certificate that the options name; exit with one line if that fails."""
    if arguments.tls_cert is None:
        if arguments.tls_key is not None:
            fail("--tls-key needs --tls-cert")
        return None
    try:
        return server_context(arguments.tls_cert, arguments.tls_key)
    except ValueError as exc:
        fail(str(exc))
