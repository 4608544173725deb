"""`read_body` and `read_text`: the body of an answer in small steps, with httpx2 left in order.

Strategy: what a server sends decides how much work it is, so a step is bounded by what comes out of
it. Each takes at most `STEP_BYTES`, unpacked, and is followed by a checkpoint: whatever the bytes
are (a hundred chunks of one byte, gzip that unpacks to a thousand times its size or to nothing,
lines that a parser passes over), other tasks run in between. httpx2 unpacks a MiB at once, and goes
on without a checkpoint while nothing comes out, so that is done here.

httpx2 reads a body through several async generators, one inside the other. Whoever leaves such a
loop half-way leaves one of the inner ones to the garbage collector, which can't close a connection,
and Trio warns of it. A cancellation ends them from within: so whatever ends the reading here, a
failure of ours too, becomes one first.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from typing import TYPE_CHECKING, Final, final

import trio

from ._errors import DamagedError, LostError
from ._request import silent, translated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import httpx2

STEP_BYTES: Final = 2048
"""Bytes of a body, unpacked, between two checkpoints. The dearest to parse are events without data,
lines of nothing but a name, and 2 KiB of these take a slow core about 2 ms; a checkpoint takes a
hundredth of that."""
MAX_TEXT_BYTES: Final = 64 * 1024  # of an answer that is an error: enough for a person
TEXT_TIMEOUT: Final = 5.0  # for all of it: a server that refuses has no more to say

_GZIP: Final = zlib.MAX_WBITS | 16
_ZLIB_METHOD: Final = 8  # in the low four bits of the first byte (RFC 1950 section 2.2)


def coding_of(content_encoding: str) -> str | None:
    """Return the one coding that a `Content-Encoding` names: gzip, deflate, or `""` for none.

    `None` for what can't be undone here: others, and several.
    """
    codings = [part.strip().lower() for part in content_encoding.split(",")]
    named = [coding for coding in codings if coding not in ("", "identity")] or [""]
    known = {"": "", "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
    return known.get(named[0]) if len(named) == 1 else None


def is_readable(content_encoding: str) -> bool:
    """Tell whether the coding that a `Content-Encoding` names can be undone, `""` for none."""
    return coding_of(content_encoding) is not None


@final
class _Unpacker:
    """Undoes one coding, in steps; what follows the end of the compressed data counts for nothing.

    A `deflate` is in zlib's format (RFC 9110 section 8.4.1.2), or bare as some servers send it.
    """

    def __init__(self, coding: str) -> None:
        self._is_plain = not coding
        self._first = b""  # of a `deflate`: two bytes tell the format
        self._unpacking = zlib.decompressobj(_GZIP) if coding == "gzip" else None

    def steps(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out, at most `STEP_BYTES` at once; `b""` is a step too.

        Raises:
            DamagedError: it isn't in this coding.
        """
        for at in range(0, len(data), STEP_BYTES):
            piece = data[at : at + STEP_BYTES]
            if self._is_plain:
                yield piece
                continue
            try:
                yield from self._unpacked(piece)
            except zlib.error as exc:
                raise DamagedError(f"the stream's compression is damaged: {exc}") from exc

    def _unpacked(self, piece: bytes) -> Iterator[bytes]:
        if self._unpacking is None:
            self._first = piece = self._first + piece
            if len(piece) < 2:  # noqa: PLR2004 - see RFC 1950 section 2.2
                yield b""
                return
            is_zlib = piece[0] & 15 == _ZLIB_METHOD and int.from_bytes(piece[:2]) % 31 == 0
            self._unpacking = zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        while not self._unpacking.eof:
            unpacked = self._unpacking.decompress(piece, STEP_BYTES)
            piece = self._unpacking.unconsumed_tail
            yield unpacked
            # Less than was asked for: there is no more, in zlib's own buffers either.
            if len(unpacked) < STEP_BYTES and not piece:
                return
        yield b""


async def read_body(
    response: httpx2.Response,
    take: Callable[[bytes], Awaitable[None]],
    *,
    read_timeout: float,
) -> None:
    """Hand over a body as it comes, unpacked, to its end; nothing is read while `take` waits.

    Each call of `take` gets at most `STEP_BYTES`, and has a checkpoint behind it.

    Raises:
        SilentError: nothing came for `read_timeout` seconds.
        LostError: the connection broke, or the compression is damaged.
        BaseException: what `take` raised.
    """
    failure: BaseException | None = None
    coding = coding_of(response.headers.get("content-encoding", "")) or ""
    with trio.CancelScope() as scope:
        scope.deadline = trio.current_time() + read_timeout
        try:
            with translated(str(response.url), read_timeout):
                # A transport may have read and unpacked all before.
                is_whole = response.is_stream_consumed
                unpacker = _Unpacker("" if is_whole else coding)
                async for piece in response.aiter_bytes() if is_whole else response.aiter_raw():
                    if scope.cancel_called:
                        continue
                    # The silence while `take` waits isn't the server's.
                    scope.deadline = math.inf
                    try:
                        await _take_all(take, unpacker.steps(piece))
                    except BaseException as exc:  # noqa: BLE001 - raised below, a cancellation too
                        failure = exc
                        scope.cancel(reason="the rest of the body is not wanted")
                    else:
                        scope.deadline = trio.current_time() + read_timeout
        except LostError:
            if failure is None:
                raise
    if failure is not None:
        raise failure
    if scope.cancel_called:
        raise silent(read_timeout)


async def _take_all(take: Callable[[bytes], Awaitable[None]], steps: Iterator[bytes]) -> None:
    for step in steps:
        if step:
            await take(step)
        # For each step, whatever `take` does: most bytes make no event, and so no checkpoint.
        await trio.lowlevel.checkpoint()


async def read_text(response: httpx2.Response) -> str:
    """Return the start of an answer, as far as it comes soon."""
    body = bytearray()

    async def take(piece: bytes) -> None:
        body.extend(piece)
        if len(body) >= MAX_TEXT_BYTES:
            scope.cancel(reason="there is no need to read on")

    with trio.move_on_after(TEXT_TIMEOUT) as scope:
        with contextlib.suppress(LostError):
            await read_body(response, take, read_timeout=TEXT_TIMEOUT)
    return bytes(body[:MAX_TEXT_BYTES]).decode("utf-8", "replace")
