"""`BodyStream`: the body of a request as a handler reads it.

It asks the responder to tell a client that waits for `100 Continue` to send the body. So it stands
above the responder, and the buffer that it reads from below.

With a decoder it gives what the bytes stand for. Each step of that is bounded, and has a checkpoint
before it: a few of the bytes that were sent may take a while to unpack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from h3trio._http.content import STEP_BYTES

if TYPE_CHECKING:
    from h3trio._http.content import Decoder

    from .body import BodyBuffer
    from .responder import Responder


@final
class BodyStream(trio.abc.ReceiveStream):
    """A request body as a `trio.abc.ReceiveStream`: iterate it, or `receive_some`."""

    __slots__ = ("_body", "_decoder", "_responder")

    def __init__(
        self, body: BodyBuffer, responder: Responder | None, decoder: Decoder | None = None
    ) -> None:
        self._body = body
        self._responder = responder
        self._decoder = decoder

    def __repr__(self) -> str:
        return f"<BodyStream: {self._body!r}>"

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes, `b""` at the end. A checkpoint if it must wait, or decodes.

        Raises:
            HTTPError: 400 if the body's framing or its coding is broken, 408 if it stalls.
            trio.ClosedResourceError: the body was closed.
            ValueError: `max_bytes` is less than 1.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes!r}")
        if self._decoder is None:
            return await self._receive(max_bytes)
        return await self._decode(self._decoder, max_bytes or STEP_BYTES)

    async def _decode(self, decoder: Decoder, max_bytes: int) -> bytes:
        while True:
            if decoder.needs_input:
                data = await self._receive(STEP_BYTES)
                if not data:
                    decoder.finish()
                    return b""
                decoder.feed(data)
            await trio.lowlevel.checkpoint()
            if piece := decoder.step(max_bytes):
                return piece

    async def _receive(self, max_bytes: int | None) -> bytes:
        body = self._body
        body.is_wanted = True
        body.require_open()
        while body.is_waiting:
            if self._responder is not None:
                await self._responder.send_continue()
            # Looked at again: the rest may have come while that was on its way.
            if body.is_waiting:
                await body.wait()
            body.require_open()
        return body.take(max_bytes)

    async def read(self, max_bytes: int) -> bytes | None:
        """Return the whole body, or `None` if it is longer than `max_bytes`."""
        data = bytearray()
        while piece := await self.receive_some():
            data += piece
            if len(data) > max_bytes:
                return None
        return bytes(data)

    async def aclose(self) -> None:
        """Discard the rest of the body."""
        self._body.discard()
        await trio.lowlevel.checkpoint()
