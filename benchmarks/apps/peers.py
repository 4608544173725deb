"""What the peers serve: ASGI applications, as their documentation writes them.

Runs in the peers' own environment, so it is not checked for types against them. Streams go through
Starlette and sse-starlette, as that is what their users have; the small answer is bare ASGI, with
no framework to blame.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# Not `import`: type checkers run where these are not installed.
starlette: Any = import_module("starlette.applications")
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
        await trio.sleep_forever()
        yield {}

    return sse_starlette.EventSourceResponse(events())


streams = starlette.Starlette(
    routes=[routing.Route("/stream", stream), routing.Route("/idle", idle)]
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
