"""`BodyStream`: the body of a request as a handler reads it.

It asks the responder to tell a client that waits for `100 Continue` to send the body. So it stands
above the responder, and the buffer that it reads from below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from .body import BodyBuffer
    from .responder import Responder


@final
class BodyStream(trio.abc.ReceiveStream):
    """A request body as a `trio.abc.ReceiveStream`: iterate it, or `receive_some`."""

    __slots__ = ("_body", "_responder")

    def __init__(self, body: BodyBuffer, responder: Responder | None) -> None:
        self._body = body
        self._responder = responder

    def __repr__(self) -> str:
        return f"<BodyStream: {self._body!r}>"

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes, `b""` at the end. A checkpoint only if it must wait.

        Raises:
            HTTPError: 400 if the body's framing is broken, 408 if it stalls.
            trio.ClosedResourceError: the body was closed.
            ValueError: `max_bytes` is less than 1.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes!r}")
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
