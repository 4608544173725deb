"""Draining: viewers see the run to its end, or are told that it was interrupted."""

# ruff: noqa: ARG001 - tests ask for the clock so that time jumps, not to look at it

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pytest
from helpers import MemoryListener, event_source, post
from run_helpers import Site, kinds_of
from tables import table
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from h3trio import HTTPError, Settings, SSEParser, serve

if TYPE_CHECKING:
    import trio
    from trio.testing import MockClock

    from h3trio import Server

SETTINGS = Settings(drain_soft=2, drain_hard=2, drain_finish=10, farewell_timeout=1)


class Served:
    """A site behind a server, over memory streams."""

    def __init__(self, nursery: trio.Nursery, site: Site) -> None:
        self.site = site
        self._nursery = nursery
        self._listener = MemoryListener(memory_stream_pair)
        self.server: Server

    async def start(self) -> None:
        """Serve."""
        serving = partial(serve, self.site.app, listeners=[self._listener], settings=SETTINGS)
        self.server = await self._nursery.start(serving)

    async def ask(self, data: bytes) -> bytes:
        """Send a request; return the answer when the connection is over."""
        stream = await self._listener.connect()
        await stream.send_all(data)
        return b"".join([bytes(piece) async for piece in stream])


def types_of(answer: bytes) -> list[str | None]:
    """Return the types of the events in an answer, with its chunks put together."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.partition(b"\r\n")[0]
    payload = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        payload, body = payload + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return kinds_of(SSEParser().feed(payload))


@dataclass
class Case:
    """A prompt, and the types of the events that a viewer gets."""

    words: int
    types: list[str]
    method: str


CASES = [
    Case(words, types, method)
    for words, types in (
        (8, ["message"] * 8 + ["done"]),
        (30, ["message"] * 9 + ["interrupted"]),
    )
    for method in ("POST", "GET")
]


@table("case", CASES)
async def test_a_drain_lets_viewers_finish(
    nursery: trio.Nursery, autojump_clock: MockClock, case: Case
) -> None:
    """A run that ends in time is done; else it is interrupted, and its viewers are told."""
    served = Served(nursery, Site())
    served.site.model.pause = 0.99
    await served.start()
    answers: list[bytes] = []

    async def ask(data: bytes) -> None:
        answers.append(await served.ask(data))

    if case.method == "POST":
        start = post(b"a " * case.words, "/answers", "Accept: text/event-stream")
        nursery.start_soon(ask, start)
    else:
        run = await served.site.start("a " * case.words)
        nursery.start_soon(ask, event_source(f"/answers/{run.id}"))
    await wait_all_tasks_blocked()
    await served.server.drain()
    await wait_all_tasks_blocked()
    assert types_of(answers[0]) == case.types
    assert answers[0].endswith(b"0\r\n\r\n")


async def test_new_runs_are_refused_while_a_server_drains(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """While viewers finish, a start is 503."""
    served = Served(nursery, Site())
    await served.start()
    run = await served.site.start("a b c d")
    nursery.start_soon(served.ask, event_source(f"/answers/{run.id}"))
    await wait_all_tasks_blocked()
    nursery.start_soon(served.server.drain)
    await wait_all_tasks_blocked()
    with pytest.raises(HTTPError) as caught:
        await served.site.start("x")
    assert caught.value.status == 503
