"""The options of `serve` that say where it listens and how, made into arguments of the server."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

from h3trio._cli.common import whole
from h3trio._cli.options import fail, refuse
from h3trio._server.peers.addresses import is_local
from h3trio._server.peers.trusted_proxies import TrustedProxies
from h3trio._server.sockets.systemd import adopt, inherited_descriptors
from h3trio._server.sockets.tls import server_context

if TYPE_CHECKING:
    import argparse
    import ssl
    from collections.abc import Iterable, MutableMapping

    from h3trio._cli.options import Options

# Who may connect may ask, whatever rights it has: so by default only our own user's programs may.
_UNIX_MODE: Final = 0o600


def add_arguments(parser: Options) -> None:
    """Add the options of listening."""
    with parser.group("where it listens"):
        parser.add_option("--host", default="127.0.0.1", help="address to listen on")
        parser.add_option("--port", default=3000, type=_port, help="port to listen on, 0 for any")
        parser.add_option(
            "--unix", metavar="PATH", help="unix socket to listen on, instead of host and port"
        )
        what, shown = "permissions of its file", f"{_UNIX_MODE:o}"
        parser.add_option("--unix-mode", type=_mode, metavar="MODE", shown=shown, help=what)
        what = "inherited sockets to listen on, instead of host and port"
        parser.add_option("--fd", default=(), type=_descriptors, metavar="N[,N]", help=what)
        parser.add_option("--tls-cert", metavar="PATH", help="PEM file of a certificate: speak TLS")
        parser.add_option(
            "--tls-key", metavar="PATH", help="PEM file of its key, if not in the same"
        )
        what = "proxies to believe: addresses, networks, unix or *, by commas"
        parser.add_option("--forwarded-allow-ips", default="", metavar="LIST", help=what)
        parser.add_switch("--proxy-protocol", help="their connections begin with a PROXY header")


def _port(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (port := whole(text)) <= 65535:  # noqa: PLR2004 - the range of TCP ports
            return port
    raise ValueError(f"{text!r} is not a port (0 to 65535)")


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:  # noqa: PLR2004 - the permissions there are
        raise ValueError(f"{text!r} is not a file mode, such as 660")
    return mode


def _descriptors(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(whole, text.split(",")))
    except ValueError:
        raise ValueError(f"{text!r} is not a list of descriptors, such as 3,4") from None


def listening_from(
    arguments: argparse.Namespace, environ: MutableMapping[str, str]
) -> dict[str, Any]:
    """Make what the options say of listening into arguments of `serve`.

    Where the sockets are inherited, `arguments.host` is set to where they listen, so that
    the rules for a host hold for them too.
    """
    if not arguments.unix:
        refuse(arguments, ["unix_mode"], "needs --unix")
    if arguments.unix and arguments.fd:
        fail(f"give only one of {arguments.given['unix']} and {arguments.given['fd']}")
    ssl_context = tls_from(arguments)
    try:
        descriptors = [*arguments.fd, *inherited_descriptors(environ)]
        sockets = [adopt(number) for number in dict.fromkeys(descriptors)]
    except ValueError as exc:
        fail(str(exc))
    if sockets or arguments.unix:
        arguments.host = _widest(sockets)
    return {
        "host": arguments.host,
        "port": arguments.port,
        "unix": arguments.unix,
        "unix_mode": _UNIX_MODE if arguments.unix_mode is None else arguments.unix_mode,
        "listeners": sockets or None,
        "ssl_context": ssl_context,
        "proxies": proxies_from(arguments),
    }


def _widest(sockets: Iterable[socket.socket]) -> str:
    """The host at which other machines reach a socket; a loopback one if none does."""
    hosts = [sock.getsockname()[0] for sock in sockets if sock.family != socket.AF_UNIX]
    return next((host for host in hosts if not is_local(host)), "127.0.0.1")


def proxies_from(arguments: argparse.Namespace) -> TrustedProxies | None:
    """Read who is a proxy; exit with one line if that makes no sense."""
    allow = [*filter(None, map(str.strip, arguments.forwarded_allow_ips.split(",")))]
    if not allow:
        if arguments.proxy_protocol:
            fail(f"{arguments.given['proxy_protocol']} needs --forwarded-allow-ips")
        return None
    try:
        return TrustedProxies(allow, proxy_protocol=arguments.proxy_protocol)
    except ValueError as exc:
        fail(f"{arguments.given['forwarded_allow_ips']}: {exc}")


def tls_from(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """Load the certificate that the options name; exit with one line if that fails."""
    if arguments.tls_cert is None:
        if arguments.tls_key is not None:
            fail(f"{arguments.given['tls_key']} needs --tls-cert")
        return None
    try:
        return server_context(arguments.tls_cert, arguments.tls_key)
    except ValueError as exc:
        fail(str(exc))
