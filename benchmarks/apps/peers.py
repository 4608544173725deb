"""What the peers serve: ASGI applications, as their documentation writes them.

Runs in the peers' own environment, so it is not checked for types against them. Streams go through
Starlette and sse-starlette, as that is what their users have; the small answer is bare ASGI, with
no framework to blame.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# Not `import`: type checkers run where these are not installed.
anyio: Any = import_module("anyio")
starlette: Any = import_module("starlette.applications")
responses: Any = import_module("starlette.responses")
routing: Any = import_module("starlette.routing")
sse_starlette: Any = import_module("sse_starlette")

TEXT = "~t=0000000000000000000 n=%010d" + "x" * 65


async def stream(request: Any) -> Any:  # noqa: ANN401 - see the top of this file
    """Send `n` events; sse-starlette awaits the sending of each."""

    async def events() -> AsyncGenerator[dict[str, str]]:
        for number in range(int(request.query_params["n"])):
            yield {"data": TEXT % number}

    return sse_starlette.EventSourceResponse(events())


async def idle(_request: Any) -> Any:  # noqa: ANN401 - see the top of this file
    """Open a stream and wait."""

    async def events() -> AsyncGenerator[dict[str, str]]:
        await anyio.sleep_forever()
        yield {}

    return sse_starlette.EventSourceResponse(events())


_subscribers: set[Any] = set()


async def subscribe(_request: Any) -> Any:  # noqa: ANN401 - see the top of this file
    """Stream what is published: a queue for each subscriber, as one writes it by hand."""
    send, receive = anyio.create_memory_object_stream(1000)

    async def events() -> AsyncGenerator[dict[str, str]]:
        _subscribers.add(send)
        try:
            async with receive:
                async for text in receive:
                    yield {"data": text}
        finally:
            _subscribers.discard(send)

    return sse_starlette.EventSourceResponse(events())


async def publish(request: Any) -> Any:  # noqa: ANN401 - see the top of this file
    """Put the body into every queue; a subscriber whose queue is full is too slow for it."""
    text = (await request.body()).decode()
    for queue in list(_subscribers):
        try:
            queue.send_nowait(text)
        except anyio.WouldBlock:
            _subscribers.discard(queue)
            queue.close()
    return responses.PlainTextResponse("")


streams = starlette.Starlette(
    routes=[
        routing.Route("/stream", stream),
        routing.Route("/idle", idle),
        routing.Route("/events/{topic}", subscribe, methods=["GET"]),
        routing.Route("/events/{topic}", publish, methods=["POST"]),
    ]
)


async def small(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - see the top of this file
    """Answer a small request."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"6")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello\n"})


async def _live(receive: Any, send: Any) -> None:  # noqa: ANN401 - see the top of this file
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})
