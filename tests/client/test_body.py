"""The body of an answer: unpacked, and in steps that leave the loop to others.

Steps are counted and not timed: an instrument of Trio looks at the counters behind each step of a
task, which is what runs between two checkpoints.
"""

# ruff: noqa: ARG001 - tests ask for the clock so that time jumps, not to look at it

from __future__ import annotations

import gzip
import itertools
import zlib
from typing import TYPE_CHECKING, final

import httpx2
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from scripted import URL
from tables import table

from h3trio.client import EventSource
from h3trio.client._body import STEP_BYTES, _Unpacker, coding_of
from h3trio.client._errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trio.testing import MockClock


def raw_deflate(data: bytes) -> bytes:
    """Compress without the two bytes of zlib's format in front."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "plain": ("", bytes),
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "bare": ("deflate", raw_deflate),
}


# -- unpacking


@table("header, coding", [("", ""), ("identity", ""), ("GZip ", "gzip"), ("x-gzip", "gzip")])
def test_known_codings(header: str, coding: str) -> None:
    """One coding, in letters of either case, can be undone; others and several can't."""
    assert coding_of(header) == coding
    assert [coding_of(f"{header},{other}") for other in ("br", "gzip, deflate")] == [None] * 2


@given(st.binary(max_size=3 * STEP_BYTES), st.lists(st.integers(0, 4 * STEP_BYTES), max_size=8))
@pytest.mark.parametrize("name", CODINGS)
def test_unpacked_as_it_was(name: str, data: bytes, places: list[int]) -> None:
    """However a body is cut, what comes out is what went in; junk behind it counts for nothing."""
    coding, pack = CODINGS[name]
    packed = pack(data) + (b"junk" * 99 if coding else b"")
    for cuts in (places, range(len(packed)), ()):
        ends = sorted({0, len(packed), *(place % (len(packed) + 1) for place in cuts)})
        unpacker = _Unpacker(coding)
        steps = [
            step
            for start, end in itertools.pairwise(ends)
            for step in unpacker.steps(packed[start:end])
        ]
        assert b"".join(steps) == data
        assert max(map(len, steps), default=0) <= STEP_BYTES


def test_a_flush_comes_out_at_once() -> None:
    """What a server has flushed isn't held back, however large it is."""
    for size in (1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 9 * STEP_BYTES):
        packer, unpacker = zlib.compressobj(wbits=zlib.MAX_WBITS | 16), _Unpacker("gzip")
        for letter in (b"a", b"b"):
            packed = packer.compress(letter * size) + packer.flush(zlib.Z_SYNC_FLUSH)
            assert b"".join(unpacker.steps(packed)) == letter * size


@table("coding", ["gzip", "deflate"])
def test_damage(coding: str) -> None:
    """What isn't in the coding, at its start or later, is a loss: another attempt may help."""
    packed = bytearray(gzip.compress(bytes(range(256)) * 99) if coding == "gzip" else b"")
    for damaged in (b"no such coding", bytes(packed[:30] + b"\xff" * 99)):
        with pytest.raises(DamagedError, match="the stream's compression is damaged"):
            list(_Unpacker(coding).steps(damaged + b"\xff" * 99))


# -- between two checkpoints


@final
class Burst(httpx2.AsyncByteStream):
    """A body whose pieces are all there: as from one read, there is no checkpoint between them."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.taken += 1
            yield piece


@final
class Steps(trio.abc.Instrument):
    """The most that some counters rose in one step of any task."""

    def __init__(self, counters: Callable[[], tuple[int, ...]]) -> None:
        self._counters = counters
        self._before = counters()
        self.most = self._before

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - Trio's interface
        """Look how far the counters went."""
        now = self._counters()
        rises = (b - a for a, b in zip(self._before, now, strict=True))
        self.most = tuple(map(max, self.most, rises))
        self._before = now


async def rises(pieces: Sequence[bytes], coding: str) -> tuple[int, int, int]:
    """Read a stream; return the most pieces, bytes and events between two checkpoints."""
    body = Burst(pieces)
    headers = {"Content-Type": "text/event-stream", "Content-Encoding": coding}

    def handle(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=headers, stream=body)

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(handle))
    async with EventSource(URL, http_client=client, reconnect=False) as source:

        def counters() -> tuple[int, ...]:
            seen = source.statistics()
            return body.taken, seen.bytes_received, seen.events_received

        steps = Steps(counters)
        trio.lowlevel.add_instrument(steps)
        async for _ in source:
            pass
        trio.lowlevel.remove_instrument(steps)
    assert body.taken == len(pieces)
    taken, received, events = steps.most
    return taken, received, events


@pytest.mark.slow
@table(
    "unit", [b":\n", b"\n", b"id\n\n", b"retry: 1\n", b"data\n\n", b"id\ndata\n\n", b"data: xyz\n"]
)
async def test_a_bomb_leaves_the_loop_to_others(unit: bytes, autojump_clock: MockClock) -> None:
    """Whatever much comes out of little, no more than a step of it runs between two checkpoints."""
    whole = unit * (3 * STEP_BYTES // len(unit))
    for coding, pack in CODINGS.values():
        taken, received, events = await rises([pack(whole)], coding)
        assert 0 < received <= STEP_BYTES
        assert taken == 1
        assert events == (b"data\n\n" in unit), "each event has a checkpoint of its own"


@pytest.mark.slow
async def test_small_chunks_leave_the_loop_to_others(autojump_clock: MockClock) -> None:
    """A hundred chunks of one read are a hundred steps, whether an event comes out, or a byte."""
    for coding, pack in CODINGS.values():
        packed = pack(b": hello\n" * 500)
        pieces = [packed[at : at + 1] for at in range(len(packed))]
        taken, received, _ = await rises(pieces, coding)
        assert taken == 1
        assert 0 < received <= STEP_BYTES
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    empty = [packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(200)]
    assert await rises([*empty, packer.flush()], "gzip") == (1, 0, 0)
