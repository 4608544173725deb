"""What aiohttp with aiohttp-sse serves in the benchmarks: a queue for each subscriber.

Runs in the peers' own environment, so it is not checked for types against them.
By hand: `python benchmarks/apps/aiohttp_peer.py PORT`.
"""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from typing import Any

# Not `import`: type checkers run where these are not installed.
web: Any = import_module("aiohttp.web")
aiohttp_sse: Any = import_module("aiohttp_sse")

TEXT = "~t=0000000000000000000 n=%010d" + "x" * 65
_subscribers: set[asyncio.Queue[str]] = set()


async def stream(request: Any) -> Any:  # noqa: ANN401 - see the top of this file
    """Send `n` events, each by an awaited `send`."""
    async with aiohttp_sse.sse_response(request) as response:
        for number in range(int(request.query["n"])):
            await response.send(TEXT % number)
    return response


async def subscribe(request: Any) -> Any:  # noqa: ANN401 - see the top of this file
    """Stream what is published."""
    queue: asyncio.Queue[str] = asyncio.Queue(1000)
    async with aiohttp_sse.sse_response(request) as response:
        _subscribers.add(queue)
        try:
            while response.is_connected():
                await response.send(await queue.get())
        finally:
            _subscribers.discard(queue)
    return response


async def publish(request: Any) -> Any:  # noqa: ANN401 - see the top of this file
    """Put the body into every queue; a subscriber whose queue is full misses it."""
    text = await request.text()
    for queue in _subscribers:
        if not queue.full():
            queue.put_nowait(text)
    return web.Response()


app = web.Application()
app.add_routes(
    [
        web.get("/stream", stream),
        web.get("/events/{topic}", subscribe),
        web.post("/events/{topic}", publish),
    ]
)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
