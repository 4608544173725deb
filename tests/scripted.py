"""Servers in memory for httpx2: each request is answered by the next step of a script.

A body is a list: bytes that come, seconds that pass before the next, an error that ends it, `...`
for silence without end. `Script` counts what is open, so a test sees what a client leaves behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import httpx2
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from types import EllipsisType

    Piece = bytes | float | Exception | EllipsisType
    Step = Callable[[httpx2.Request], Awaitable[httpx2.Response]]

STREAM: Final = {"Content-Type": "text/event-stream"}
URL: Final = "http://test/events"


@final
class Body(httpx2.AsyncByteStream):
    """A scripted body."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self.taken = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                await trio.lowlevel.checkpoint()
                self.taken += 1
                yield piece
            elif isinstance(piece, Exception):
                raise piece
            else:
                await trio.sleep(float("inf") if piece is ... else piece)

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True


def answer(status: int, *pieces: Piece, **headers: str) -> Step:
    """Answer with a status; `_` in the name of a header stands for `-`."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}

    async def step(request: httpx2.Request) -> httpx2.Response:
        await trio.lowlevel.checkpoint()
        return httpx2.Response(status, headers=fields, stream=Body(pieces), request=request)

    return step


def stream(*pieces: Piece, **headers: str) -> Step:
    """Answer with an event stream."""
    return answer(200, *pieces, Content_Type="text/event-stream", **headers)


def failing(error: Exception) -> Step:
    """Answer with no answer at all."""

    async def step(_request: httpx2.Request) -> httpx2.Response:
        await trio.lowlevel.checkpoint()
        raise error

    return step


async def silent(_request: httpx2.Request) -> httpx2.Response:
    """Never answer."""
    await trio.sleep_forever()
    raise AssertionError


@final
class Script(httpx2.AsyncBaseTransport):
    """Takes requests to the steps, one each; after the last there is no more (204)."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.requests: list[httpx2.Request] = []
        self.times: list[float] = []
        self.bodies: list[Body] = []
        self.client = httpx2.AsyncClient(transport=self)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request."""
        await request.aread()
        self.requests.append(request)
        self.times.append(trio.current_time())
        step = self._steps.pop(0) if self._steps else answer(204)
        response = await step(request)
        assert isinstance(response.stream, Body)
        self.bodies.append(response.stream)
        return response

    @property
    def open_bodies(self) -> int:
        """How many bodies nobody has closed."""
        return sum(not body.closed for body in self.bodies)

    def asked(self, header: str) -> list[str | None]:
        """Return what a header said in each request."""
        return [request.headers.get(header) for request in self.requests]
