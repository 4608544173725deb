"""Taking streams out of their compression, in bounded pieces."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h3trio.client import ContentEncodingError, LostError
from h3trio.client._decoding import PIECE, decoder_for

if TYPE_CHECKING:
    from collections.abc import Callable


def decode(kind: str, raw: bytes, cut: int) -> list[bytes]:
    """Decode bytes that come in cuts."""
    decoder = decoder_for(kind)
    cuts = [raw[at : at + cut] for at in range(0, len(raw), cut)]
    return [piece for part in cuts for piece in decoder.pieces(part)]


def plain(body: bytes) -> bytes:
    """Leave bytes as they are."""
    return body


KINDS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("", plain),
    ("Identity", plain),
    ("gzip", gzip.compress),
    (" X-GZIP", gzip.compress),
    ("deflate", zlib.compress),
]


@pytest.mark.parametrize(("kind", "encode"), KINDS)
@given(body=st.binary(), cut=st.integers(1, 50))
def test_what_was_encoded_is_decoded(
    kind: str, encode: Callable[[bytes], bytes], body: bytes, cut: int
) -> None:
    """Each compression gives back what went in, however its bytes come; several in a row too."""
    assert b"".join(decode(kind, encode(body) + encode(body), cut)) == body * 2


@pytest.mark.parametrize(("kind", "encode"), KINDS)
def test_pieces_are_bounded(kind: str, encode: Callable[[bytes], bytes]) -> None:
    """No piece is longer than the bound, whatever a few bytes may stand for."""
    body = bytes(3 * PIECE + 1)
    pieces = decode(kind, encode(body), 10**9)
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) == PIECE


@given(st.binary(min_size=2))
def test_damage_is_a_loss(raw: bytes) -> None:
    """Bytes that aren't compressed are a loss or nothing, and no other error."""
    with contextlib.suppress(LostError):
        decode("gzip", raw, 7)
    with pytest.raises(LostError, match="compression is damaged"):
        decode("gzip", b"no" + raw, 7)


def test_unknown_compression() -> None:
    """What isn't known is an error that names it."""
    with pytest.raises(ContentEncodingError, match="'br, gzip'"):
        decoder_for("br, gzip")
