"""The turns of others: what one connection does at most between two checkpoints.

Each way in has a unit, and a bound on how many of them one step takes. A step is bounded by its
units and not by time, so a test of it is as true on a busy machine.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from fakes import FakeTransport
from helpers import LargestStep, connect, post, request
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import H3Event, HTTPError
from h3trio._http.content import STEP_BYTES
from h3trio._http.strict import CHUNKS_AT_ONCE

if TYPE_CHECKING:
    import trio

    from h3trio._server.event import Handler

CHUNK = b"1\r\nx\r\n"
CHUNKS = 2_000
CHUNKED = request("/a", "Transfer-Encoding: chunked", method="POST")


async def not_found(_event: H3Event) -> None:
    """Want nothing of the body."""
    raise HTTPError(404)


async def read_whole(event: H3Event) -> str:
    """Want the whole body."""
    return str(len(await event.body()))


async def read_stream(event: H3Event) -> str:
    """Want the body as a stream."""
    size = 0
    async for piece in event.stream():
        size += len(piece)
    return str(size)


@pytest.mark.slow
@table("handler", [not_found, read_whole, read_stream])
@table("behind", [b"", CHUNK])
async def test_tiny_chunks(nursery: trio.Nursery, handler: Handler, behind: bytes) -> None:
    """Of a read full of one-byte chunks `CHUNKS_AT_ONCE` are parsed, whoever wants the body."""
    client = connect(nursery, handler)
    await client.send(CHUNKED + behind)
    await wait_all_tasks_blocked()
    http = client.connection._http  # noqa: SLF001 - nothing else tells what is parsed
    with LargestStep(lambda: -http.buffered) as step:
        await client.send(CHUNK * CHUNKS + b"0\r\n\r\n")
        await wait_all_tasks_blocked()
    assert http.buffered == 0
    assert step.most <= CHUNKS_AT_ONCE * len(CHUNK)
    assert step.steps >= CHUNKS // CHUNKS_AT_ONCE


async def test_tiny_chunks_behind_a_request(nursery: trio.Nursery) -> None:
    """So it is with a body that came before its request had its turn."""
    client = connect(nursery, not_found)
    http = client.connection._http  # noqa: SLF001 - as above
    body = CHUNK * 1_000
    with LargestStep(lambda: -http.buffered) as step:
        await client.send((request("/a") + CHUNKED + body + b"0\r\n\r\n") * 2)
        await wait_all_tasks_blocked()
    assert http.buffered == 0
    assert step.most <= CHUNKS_AT_ONCE * len(CHUNK) + len(CHUNKED)


async def test_tiny_chunks_at_the_start(nursery: trio.Nursery) -> None:
    """So it is with what came before the connection spoke HTTP, as behind a proxy's own line."""
    client = connect(nursery, not_found)
    http = client.connection._http  # noqa: SLF001 - as above
    http.receive(CHUNKED + CHUNK * 1_000)
    with LargestStep(lambda: -http.buffered) as step:
        await wait_all_tasks_blocked()
    assert http.buffered == 0
    assert step.most <= CHUNKS_AT_ONCE * len(CHUNK) + len(CHUNKED)


async def test_tiny_requests(nursery: trio.Nursery) -> None:
    """Of a read full of requests one is handled."""
    handled = 0

    async def handler(_event: H3Event) -> None:
        nonlocal handled
        handled += 1

    # A fake that takes everything: a send is no checkpoint.
    client = connect(nursery, handler, transport=FakeTransport())
    with LargestStep(lambda: handled) as step:
        await client.send(request() * 100)
        await wait_all_tasks_blocked()
    assert handled == 100
    assert step.most == 1


async def test_unpacking(nursery: trio.Nursery) -> None:
    """Of a compressed body 64 KiB are unpacked, though a few bytes stand for more."""
    unpacked = 0

    async def handler(event: H3Event) -> None:
        nonlocal unpacked
        async for piece in event.stream(decode=True):
            unpacked += len(piece)

    client = connect(nursery, handler)
    with LargestStep(lambda: unpacked) as step:
        body = gzip.compress(bytes(50 * STEP_BYTES))
        await client.send(post(body, "/", "Content-Encoding: gzip"))
        assert (await client.response())[0].status == 204
    assert unpacked == 50 * STEP_BYTES
    assert step.most == STEP_BYTES
