"""Batches of encoded frames, and the chunks of HTTP/1.1."""

from __future__ import annotations

import pytest

from h3trio._wire.batch import LAST_CHUNK, Batch, chunk


@pytest.mark.parametrize(
    ("payload", "framed"),
    [
        (b":\n", b"2\r\n:\n\r\n"),
        (b"x" * 26, b"1a\r\n" + b"x" * 26 + b"\r\n"),
        (b"\r\n0\r\n\r\n", b"7\r\n\r\n0\r\n\r\n\r\n"),
    ],
)
def test_chunk(payload: bytes, framed: bytes) -> None:
    """A chunk is its size in hex, a line end, the payload as it is, a line end."""
    assert chunk(payload) == framed


def test_last_chunk() -> None:
    """The last chunk has no payload, and ends the body without trailers."""
    assert LAST_CHUNK == b"0\r\n\r\n"


@pytest.mark.parametrize("frames", [[b"one"], [b"one", b"two"], (b"", b"x")])
def test_batch(frames: list[bytes]) -> None:
    """A batch has its frames joined, their number, and their one chunk."""
    batch = Batch(frames)
    payload = b"".join(frames)
    assert (batch.payload, batch.count) == (payload, len(frames))
    assert batch.chunked == chunk(payload)
    assert repr(batch) == f"<Batch: {len(frames)} frames, {len(payload)} bytes>"


def test_batch_shares() -> None:
    """One frame isn't copied, and the chunk is made once: thousands of streams share both."""
    frame = b"frame"
    batch = Batch([frame])
    assert batch.payload is frame
    assert batch.chunked is batch.chunked


@pytest.mark.parametrize("frames", [[], [b""], [b"", b""]])
def test_batch_of_nothing(frames: list[bytes]) -> None:
    """A batch without a byte is refused: as a chunk it would end the stream."""
    with pytest.raises(ValueError, match="frame"):
        Batch(frames)
