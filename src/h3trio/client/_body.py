"""`read_body` and `read_text`: the body of an answer, with httpx2's generators ended in order.

httpx2 reads a body through several async generators, one inside the other. Whoever leaves such a
loop half-way leaves one of the inner ones to the garbage collector, which can't close a connection,
and Trio warns of it. A cancellation ends them from within: so whatever ends the reading here, a
failure of ours too, becomes one first.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Final

import trio

from ._errors import LostError
from ._request import silent, translated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx2

MAX_TEXT_BYTES: Final = 64 * 1024  # of an answer that is an error: enough for a person
TEXT_TIMEOUT: Final = 5.0  # for all of it: a server that refuses has no more to say

# httpx2 undoes these in bounded pieces, and leaves a coding that it doesn't know as it is.
_CODINGS: Final = frozenset({"", "identity", "gzip", "deflate"})


def is_readable(content_encoding: str) -> bool:
    """Tell whether httpx2 undoes the codings of a `Content-Encoding` header, `""` for none."""
    return all(coding.strip().lower() in _CODINGS for coding in content_encoding.split(","))


async def read_body(
    response: httpx2.Response,
    take: Callable[[bytes], Awaitable[None]],
    *,
    read_timeout: float,
) -> None:
    """Hand over a body as it comes, decompressed, to its end; nothing is read while `take` waits.

    Raises:
        SilentError: nothing came for `read_timeout` seconds.
        LostError: the connection broke, or the compression is damaged.
        BaseException: what `take` raised.
    """
    failure: BaseException | None = None
    with trio.CancelScope() as scope:
        scope.deadline = trio.current_time() + read_timeout
        try:
            with translated(str(response.url), read_timeout):
                async for piece in response.aiter_bytes():
                    if scope.cancel_called:
                        continue
                    # The silence while `take` waits isn't the server's.
                    scope.deadline = math.inf
                    try:
                        await take(piece)
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


async def read_text(response: httpx2.Response) -> str:
    """Return the start of an answer, as far as it comes soon."""
    body = bytearray()

    async def take(piece: bytes) -> None:
        body.extend(piece)
        if len(body) >= MAX_TEXT_BYTES:
            scope.cancel(reason="there is no need to read on")
        await trio.lowlevel.checkpoint()

    with trio.move_on_after(TEXT_TIMEOUT) as scope:
        with contextlib.suppress(LostError):
            await read_body(response, take, read_timeout=TEXT_TIMEOUT)
    return bytes(body[:MAX_TEXT_BYTES]).decode("utf-8", "replace")
