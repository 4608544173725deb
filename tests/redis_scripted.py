"""A Redis in memory: it answers as it is told, and notes what it was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import hiredis
import trio
from trio.testing import memory_stream_pair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from h3trio._redis.address import Place

INFO: Final = (
    "redis_version:7.0.15\r\nrun_id:r1\r\nrole:{role}\r\nmaster_replid:m1\r\n"
    "master_replid2:0000000000000000000000000000000000000000\r\n"
)


def bulk(text: str) -> bytes:
    """Frame a string."""
    data = text.encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def good_answers(role: str = "master") -> dict[str, bytes]:
    """Answer as a server does that lets anybody in."""
    return {
        "HELLO": b"%1\r\n+proto\r\n:3\r\n",
        "SELECT": b"+OK\r\n",
        "INFO": bulk(INFO.format(role=role)),
        "CONFIG": b"-NOPERM this user has no permissions\r\n",
        "PING": b"+PONG\r\n",
    }


@final
class ScriptedRedis:
    """Servers by the names of their hosts; each command is answered by its first word.

    Args:
        nursery: runs them.
        servers: their answers. A command without one isn't answered; a server without any isn't
            there.
    """

    def __init__(self, nursery: trio.Nursery, servers: Mapping[str, Mapping[str, bytes]]) -> None:
        self._nursery = nursery
        self._servers = servers
        self.asked: list[tuple[str, list[str]]] = []
        """Each command with the host that it was sent to."""
        self.ended: list[str] = []
        """The hosts whose connections were closed by the client."""

    async def open(self, place: Place) -> trio.abc.Stream:
        """Connect to a server."""
        await trio.lowlevel.checkpoint()
        host = place if isinstance(place, str) else place.host
        if host not in self._servers:
            raise ConnectionRefusedError("nobody listens")
        client, server = memory_stream_pair()
        self._nursery.start_soon(self._serve, host, server)
        return client

    async def _serve(self, host: str, stream: trio.abc.Stream) -> None:
        reader = hiredis.Reader()
        async for data in stream:
            reader.feed(bytes(data))
            while (command := reader.gets()) is not False:
                words = [word.decode() for word in command]
                self.asked.append((host, words))
                await stream.send_all(self._servers[host].get(words[0], b""))
        self.ended.append(host)

    def commands(self, host: str) -> list[list[str]]:
        """Return what a server was asked."""
        return [words for name, words in self.asked if name == host]
