"""`Batch`: encoded frames that a hub makes once and gives to many streams.

A hub knows nothing of HTTP and a stream knows nothing of topics. They share this, and the
`FrameSink` that takes it without waiting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def chunk(payload: bytes) -> bytes:
    """Frame a non-empty payload as one HTTP/1.1 chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


LAST_CHUNK = b"0\r\n\r\n"


@final
class Batch:
    """Joined frames, and the same as one HTTP/1.1 chunk.

    Both are made at once: nearly every batch goes to a chunked stream.

    Raises:
        ValueError: no frames, or empty ones: an empty chunk would end the stream.
    """

    __slots__ = ("chunked", "count", "payload")

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.count: int = len(frames)
        self.payload: bytes = frames[0] if self.count == 1 else b"".join(frames)
        if not self.payload:
            raise ValueError("a batch needs a frame that isn't empty")
        self.chunked: bytes = chunk(self.payload)

    def __repr__(self) -> str:
        return f"<Batch: {self.count} frames, {len(self.payload)} bytes>"


class FrameSink(Protocol):
    """A taker of a hub's frames, such as `SSEWriter`.

    One whose peer is a browser's `EventSource`, to which the head of its stream says nothing, may
    have an attribute `is_event_source` that is `True`.
    """

    @property
    def send_batch_nowait(self) -> Callable[[Batch], bool]:
        """`sink.send_batch_nowait(batch)`: take the whole batch; `True` if idle after it.

        `False` means that a part of it waits inside the sink, which is then not idle until
        `flush` returns. A method will do; a property may return a callable that is bound once.

        Raises, when called:
            trio.WouldBlock: the sink is not idle; nothing was taken.
            trio.BrokenResourceError: the peer is gone.
            trio.ClosedResourceError: the sink was closed on our side.
        """
        ...

    async def flush(self) -> None:
        """Wait until nothing waits inside the sink.

        Raises:
            trio.BrokenResourceError: the peer is gone.
            trio.ClosedResourceError: the sink was closed on our side.
        """
