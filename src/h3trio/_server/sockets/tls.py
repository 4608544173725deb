"""`TLSTransport`: TLS over another transport, by Trio's `SSLStream`.

A client that leaves without `close_notify`, as browsers do, is EOF and no error (RFC 9112 section
9.8), as HTTP has its own framing. The same section asks a server to send it. Trio's
`https_compatible` doesn't, so it isn't used. Closing sends it if it fits at once, without waiting.

`send_nowait` takes nothing, as a record can't be sent in part. The transport below is told how
long a send may stall: it knows how much the kernel still holds.
"""

from __future__ import annotations

import contextlib
import math
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import trio

from .transport import RECEIVE_SIZE, Transport

if TYPE_CHECKING:
    import os

# One slice of a long send: encrypted as a whole, so it is what a stalled client holds twice.
_SLICE: Final = 64 * 1024
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


def server_context(
    certificate: str | os.PathLike[str], key: str | os.PathLike[str] | None = None
) -> ssl.SSLContext:
    """Make a context for a server: TLS 1.2 and later, HTTP/1.1 alone by ALPN.

    Args:
        certificate: a PEM file: the certificate, then the chain up to the root.
        key: a PEM file with its private key; in the file of the certificate if not given.

    Raises:
        ValueError: a file can't be read, or they aren't a certificate and its key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # RFC 8996: nothing older may be used.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # RFC 7301 section 6: a client that wants HTTP/2 alone learns here that it is not spoken.
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except ssl.SSLError as exc:
        text = Path(certificate).read_bytes()
        if key is None and b"BEGIN CERT" in text and b"PRIVATE KEY" not in text:
            raise ValueError(
                f"{certificate} has no private key: give its file (--tls-key)"
            ) from exc
        what = f"{certificate} and {key}" if key else f"{certificate}"
        raise ValueError(f"{what}: not a certificate and its key ({_reason(exc)})") from exc
    except OSError as exc:
        what = f"{certificate} or {key}" if key else f"{certificate}"
        raise ValueError(f"can't read {what}: {exc.strerror}") from exc
    return context


def _refuse_password() -> str:
    # OpenSSL would ask on the terminal, where a server has nobody to answer.
    raise ValueError("the key of the certificate is encrypted: store it without a passphrase")


def explain(exc: BaseException) -> str:
    """Say in few words why a handshake failed."""
    cause = exc.__cause__
    if not isinstance(cause, ssl.SSLError):
        return "the connection was lost"
    if cause.reason == "HTTP_REQUEST":
        return "plain HTTP where TLS is spoken"
    if isinstance(cause, ssl.SSLEOFError):
        return "the client left"
    return _reason(cause)


def _reason(exc: ssl.SSLError) -> str:
    return (exc.reason or str(exc)).lower().replace("_", " ")


@final
class TLSTransport(Transport):
    """The server's side of TLS, over another transport."""

    __slots__ = ("_below", "_is_encrypted", "_resets", "_stream")

    def __init__(
        self, transport: Transport, context: ssl.SSLContext, *, received: bytes = b""
    ) -> None:
        self._below = _Below(transport, received)
        self._stream = trio.SSLStream(self._below, context, server_side=True)
        self._is_encrypted = False
        self._resets = False

    def __repr__(self) -> str:
        return f"<TLSTransport: {self._below.transport!r}>"

    async def handshake(self) -> None:
        """Shake hands; close afterwards if that fails.

        Raises:
            trio.BrokenResourceError: it failed; `explain` says why.
        """
        await self._stream.do_handshake()
        self._is_encrypted = True

    async def send_all(self, data: bytes | memoryview, *, stall_timeout: float) -> None:
        self._below.stall_timeout = stall_timeout
        rest = memoryview(data)
        while rest:
            await self._stream.send_all(rest[:_SLICE])
            rest = rest[_SLICE:]

    async def receive_some(self) -> bytes:
        if not self._below.stays:
            try:
                return bytes(await self._stream.receive_some(RECEIVE_SIZE))
            except _GONE as exc:
                if not self._below.stays:
                    if isinstance(exc.__cause__, ssl.SSLEOFError | ssl.SSLSyscallError):
                        return b""
                    raise
        return await self._below.transport.receive_some()

    async def send_eof(self) -> None:
        """Send `close_notify` if it fits at once, and FIN; all that comes later is thrown away.

        So a client that waits for the end, as one of HTTP/1.0 does, has it before we linger.
        """
        self._below.never_waits = self._below.stays = True
        if not self._is_encrypted:
            await self._below.transport.send_eof()
            return
        with contextlib.suppress(*_GONE):
            await self._stream.aclose()

    def reset_at_close(self, *, on: bool) -> None:
        self._resets = on
        self._below.transport.reset_at_close(on=on)

    async def aclose(self) -> None:
        # Not encrypted yet: Trio would shake hands first. And `close_notify` is an orderly end.
        if self._below.stays or self._resets or not self._is_encrypted:
            await self._below.transport.aclose()
            return
        self._below.never_waits = True
        with contextlib.suppress(*_GONE):
            await self._stream.aclose()


@final
class _Below(trio.abc.Stream):
    """The transport below, as a stream for `SSLStream`."""

    def __init__(self, transport: Transport, received: bytes) -> None:
        self.transport = transport
        self.stall_timeout = math.inf
        self.never_waits = False
        self.stays = False
        """Whether it is open still when TLS is over, to read away what comes."""
        self._received = received

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.never_waits:
            self.transport.send_nowait(bytes(data))
        else:
            await self.transport.send_all(bytes(data), stall_timeout=self.stall_timeout)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        del max_bytes  # what has arrived has a bound of its own
        if self._received:
            received, self._received = self._received, b""
            return received
        return await self.transport.receive_some()

    async def aclose(self) -> None:
        await (self.transport.send_eof() if self.stays else self.transport.aclose())
