"""`handshake`: everything that comes before HTTP on a new connection.

A proxy's PROXY header says who the client is; then it is known under which address the connection
counts; then TLS begins, which may be as slow as the client likes. Each step has its own deadline,
and whatever goes wrong in one ends that connection alone: it is counted, said in one line without a
traceback (half the world's scanners come by), and closed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from .logs.redaction import printable
from .peers.proxy_protocol import ProxyProtocolError, parse
from .sockets.tls import TLSTransport, explain

if TYPE_CHECKING:
    import ssl

    from h3trio._http.errors import HTTPError

    from .peer import Peer
    from .peers.proxy_protocol import ProxyHeader
    from .sockets.transport import Transport
    from .state import ServerState

logger = logging.getLogger("h3trio.server")


async def handshake(
    transport: Transport,
    peer: Peer,
    *,
    state: ServerState,
    ssl_context: ssl.SSLContext | None,
    rejection: HTTPError | None = None,
) -> tuple[Transport, bytes, HTTPError | None] | None:
    """Bring a connection to where HTTP begins.

    Args:
        transport: as it was accepted.
        peer: who connected; named anew by a PROXY header, and counted under its address.
        state: of the server; a drain ends the handshakes in its registry.
        ssl_context: speaks TLS, if given.
        rejection: what a connection is to be told that there is no room for.

    Returns:
        The transport that HTTP is spoken over, what has come of it, and what to reject the
        connection with; `None` where it came to nothing.
    """
    received = b""
    if not peer.expects_header and ssl_context is None:
        return transport, received, rejection or peer.take_connection()
    scope = trio.CancelScope()
    state.handshakes.add(scope)
    try:
        with scope:
            # What is here already makes a step no checkpoint.
            await trio.lowlevel.checkpoint_if_cancelled()
            if peer.expects_header:
                behind = await _read_proxy_header(transport, peer, state)
                if behind is None:
                    return None
                received = behind
            rejection = rejection or peer.take_connection()
            if ssl_context is not None:
                secured = TLSTransport(transport, ssl_context, received=received)
                if not await _shake_hands(secured, peer, state):
                    return None
                transport, received = secured, b""
            return transport, received, rejection
    finally:
        state.handshakes.discard(scope)
    return None  # drained


async def _read_proxy_header(transport: Transport, peer: Peer, state: ServerState) -> bytes | None:
    """Name the peer by its PROXY header; return what came behind that, `None` if there is none."""
    try:
        with trio.fail_after(state.settings.head_timeout):
            header, behind = await _header(transport)
    except trio.TooSlowError:
        why = "it took too long"
    except trio.BrokenResourceError:
        why = "the connection was lost"
    except ProxyProtocolError as exc:
        why = str(exc)
    else:
        if header.client is not None:
            peer.name(header.client)
        return behind
    state.counts.failed_proxy_headers += 1
    logger.info("%s: PROXY header failed: %s", printable(peer.client), printable(why))
    return None


async def _header(transport: Transport) -> tuple[ProxyHeader, bytes]:
    """Read a PROXY header; return it and what came behind it.

    Bounded without a count of its own: `parse` asks for no more than a header may have.
    """
    data = b""
    while (header := parse(data)) is None:
        received = await transport.receive_some()
        if not received:
            raise ProxyProtocolError("the connection ended in the PROXY header")
        data += received
    return header, data[header.size :]


async def _shake_hands(transport: TLSTransport, peer: Peer, state: ServerState) -> bool:
    try:
        with trio.fail_after(state.settings.tls_handshake_timeout):
            await transport.handshake()
    except trio.TooSlowError:
        state.count_limit("tls_handshake_timeout")
        why = "it took too long"
    except trio.BrokenResourceError as exc:
        why = explain(exc)
    else:
        return True
    state.counts.failed_handshakes += 1
    logger.info("%s: TLS handshake failed: %s", printable(peer.client), printable(why))
    return False
