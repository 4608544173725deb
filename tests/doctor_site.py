"""A deployed event stream in memory, for httpx2: a small hub, and what is wrong on the way from it.

`Site` answers GET with a stream, POST by publishing to it, HEAD and OPTIONS. What the way does to a
stream is a setting each: it holds bytes until there are so many, compresses, cuts, redirects.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

import httpx2
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OPENING: Final = b":\nretry: 2000\nid: e-0\n\n"
FIELDS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "Transfer-Encoding": "chunked",
}


@dataclass(kw_only=True)
class Way:
    """What a stream is like, and what happens to it; times in seconds."""

    status: int = 200
    text: bytes = b""
    fields: dict[str, str] = field(default_factory=lambda: dict(FIELDS))
    opening: bytes = OPENING
    heartbeat: float = 15.0
    head_after: float = 0.0
    hold_bytes: int = 0
    delay: float = 0.0
    encoding: str = ""
    flushes: bool = True
    ends_after: float = math.inf
    is_cut: bool = False
    numbers: bool = True
    resumes: bool = True
    refuses_posts: str = ""
    head_status: int = 200
    redirects: dict[str, tuple[int, str]] = field(default_factory=dict[str, "tuple[int, str]"])
    allows: str | None = None


@final
class Site(httpx2.AsyncBaseTransport):
    """The deployment, as httpx2 reaches it."""

    def __init__(self, way: Way | None = None) -> None:
        self.way = way or Way()
        self.log: list[bytes] = []
        self.requests: list[httpx2.Request] = []
        self.open_streams = 0
        self.news = trio.Event()

    def client(self) -> httpx2.AsyncClient:
        """Make a client that reaches nothing else."""
        return httpx2.AsyncClient(transport=self)

    def asked(self, method: str) -> list[httpx2.Request]:
        """Return the requests of a method."""
        return [request for request in self.requests if request.method == method]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer."""
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        way = self.way
        if request.method == "POST":
            return await self._take(request)
        if request.method == "HEAD":
            return httpx2.Response(way.head_status, headers=way.fields, request=request)
        if request.method == "OPTIONS":
            return self._preflight(request)
        if (hop := way.redirects.get(str(request.url))) is not None:
            return httpx2.Response(hop[0], headers={"Location": hop[1]}, request=request)
        await trio.sleep(way.head_after)
        if way.status != 200:
            return httpx2.Response(
                way.status, headers=way.fields, content=way.text, request=request
            )
        encoding = way.encoding
        if encoding not in request.headers["accept-encoding"]:
            encoding = ""
        fields = way.fields | ({"Content-Encoding": encoding} if encoding else {})
        last_id = request.headers.get("last-event-id")
        body = _Body(self, self._place(last_id), encoding)
        return httpx2.Response(200, headers=fields, stream=body, request=request)

    async def _take(self, request: httpx2.Request) -> httpx2.Response:
        if self.way.refuses_posts:
            return httpx2.Response(403, text=self.way.refuses_posts, request=request)
        self.publish(await request.aread())
        return httpx2.Response(200, json={"id": f"e-{len(self.log)}"}, request=request)

    def publish(self, data: bytes) -> None:
        """Give every stream an event."""
        number = b"id: e-%d\n" % (len(self.log) + 1) if self.way.numbers else b""
        self.log.append(b"%sdata: %s\n\n" % (number, data))
        self.news.set()
        self.news = trio.Event()

    def _preflight(self, request: httpx2.Request) -> httpx2.Response:
        if self.way.allows is None:
            return httpx2.Response(405, request=request)
        fields = {"Access-Control-Allow-Headers": self.way.allows}
        return httpx2.Response(204, headers=fields, request=request)

    def _place(self, last_id: str | None) -> int:
        if last_id is None:
            return len(self.log)
        return int(last_id.removeprefix("e-")) if self.way.resumes else 0


@final
class _Body(httpx2.AsyncByteStream):
    def __init__(self, site: Site, place: int, encoding: str) -> None:
        self._site = site
        self._place = place
        self._compress = zlib.compressobj(wbits=31) if encoding == "gzip" else None
        self._is_garbled = encoding not in ("", "gzip")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        way, site, held = self._site.way, self._site, b""
        ends_at = trio.current_time() + way.ends_after
        site.open_streams += 1
        try:
            piece = way.opening
            while True:
                held += self._coded(piece)
                if held and len(held) >= way.hold_bytes:
                    await trio.sleep(way.delay)
                    yield held
                    held = b""
                news, heard = site.news, False
                if self._place == len(site.log):
                    beat = trio.current_time() + way.heartbeat
                    with trio.move_on_at(min(beat, ends_at)):
                        await news.wait()
                        heard = True
                    if trio.current_time() >= ends_at:
                        break
                piece = b":\n\n" if self._place == len(site.log) and not heard else self._next()
        finally:
            site.open_streams -= 1
        if way.is_cut:
            raise httpx2.RemoteProtocolError("peer closed connection without a final chunk")

    def _next(self) -> bytes:
        self._place += 1
        return self._site.log[self._place - 1]

    def _coded(self, piece: bytes) -> bytes:
        if self._is_garbled:
            return bytes(byte ^ 0xFF for byte in piece)
        if self._compress is None or not piece:
            return piece
        coded = self._compress.compress(piece)
        return coded + self._compress.flush(zlib.Z_SYNC_FLUSH) if self._site.way.flushes else coded
