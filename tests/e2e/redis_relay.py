"""A relay in front of Redis: it lets one hub's messages wait, and cuts its connections."""

from __future__ import annotations

from functools import partial

import trio


class Relay:
    """Lets a hub's connections through."""

    def __init__(self, nursery: trio.Nursery, port: int) -> None:
        self._nursery = nursery
        self._port = port
        self._streams: set[trio.SocketStream] = set()
        self._gate = trio.Event()
        self.release()
        self.url = ""
        self.connections = 0
        """Connections that the hub has made, or tried to."""

    async def start(self) -> None:
        """Listen."""
        serve = partial(trio.serve_tcp, self._pass, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await self._nursery.start(serve)
        self.url = f"redis://127.0.0.1:{listeners[0].socket.getsockname()[1]}"

    async def _pass(self, near: trio.SocketStream) -> None:
        self.connections += 1
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self._port)
        except OSError:
            await near.aclose()
            return
        self._streams |= {near, far}
        ears: list[bool] = []
        async with near, far, trio.open_nursery() as nursery:

            async def forward(source: trio.SocketStream, target: trio.SocketStream) -> None:
                try:
                    async for data in source:
                        if b"SUBSCRIBE" in data:
                            ears.append(True)
                        elif ears and source is far:
                            await self._gate.wait()
                        await target.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(forward, near, far)
            nursery.start_soon(forward, far, near)
        self._streams -= {near, far}

    @property
    def is_held(self) -> bool:
        """Whether messages wait."""
        return not self._gate.is_set()

    def hold(self) -> None:
        """Let messages wait."""
        if self._gate.is_set():
            self._gate = trio.Event()

    def release(self) -> None:
        """Let them through."""
        self._gate.set()

    def cut(self) -> None:
        """Cut all connections."""
        for stream in self._streams:
            stream.socket.close()
