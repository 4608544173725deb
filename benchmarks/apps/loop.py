"""The shortest HTTP server on Trio and h11: what we would be without all that we add.

One task per connection, no timeouts, no limits, no errors, no bodies: a mark on the wall.

By hand: `python benchmarks/apps/loop.py PORT`.
"""

from __future__ import annotations

import sys
from functools import partial

import h11
import trio

_HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "6")]


async def _serve(stream: trio.SocketStream) -> None:
    http = h11.Connection(h11.SERVER)
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some(65536)
            if not data:
                return
            http.receive_data(data)
        elif isinstance(event, h11.EndOfMessage):
            parts = (
                http.send(h11.Response(status_code=200, headers=_HEADERS)),
                http.send(h11.Data(data=b"hello\n")),
                http.send(h11.EndOfMessage()),
            )
            await stream.send_all(b"".join(part or b"" for part in parts))
            http.start_next_cycle()


if __name__ == "__main__":
    trio.run(partial(trio.serve_tcp, _serve, int(sys.argv[1]), host="127.0.0.1"))
