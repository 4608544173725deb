"""The turns of others, at the hub's doors: what one publisher does between two checkpoints."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from helpers import LargestStep, connect, post
from tables import table

from h3trio.hub import Hub, MemoryHistory
from h3trio.hubserver import AccessControl, AnonymousAccess, Limits, Rate, create_app
from h3trio.hubserver._publish import PARSED_AT_ONCE, PUBLISHED_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import trio

    from h3trio import App

SMALL = b"data\n\n"
EVENTS = 2_000
KIND = "Content-Type: text/event-stream"


@pytest.fixture
async def hub() -> AsyncGenerator[tuple[Hub, App]]:
    """A hub that anybody may publish to, at any rate that a test has time for."""
    running = Hub(MemoryHistory(max_events=100))
    access = AccessControl(
        anonymous=AnonymousAccess(allow_anonymous_publish=True),
        limits=Limits(publish_rate=Rate(per_second=1e9, burst=10**9)),
    )
    app = create_app(running, access=access)
    async with app.lifespan():
        yield running, app


@pytest.mark.slow
@table("refused", [b"", b"event: reset\ndata\n\n"])
@table("packed", [False, True])
async def test_small_events(
    nursery: trio.Nursery, hub: tuple[Hub, App], refused: bytes, *, packed: bool
) -> None:
    """Of a read full of events `PUBLISHED_AT_ONCE` are published, and so if one is refused."""
    running, app = hub
    body, lines = SMALL * EVENTS + refused, [KIND]
    if packed:
        body, lines = gzip.compress(body), [KIND, "Content-Encoding: gzip"]
    before = running.statistics().published
    client = connect(nursery, app)
    with LargestStep(lambda: running.statistics().published) as step:
        await client.send(post(body, "/events/news", *lines))
        head, _ = await client.response()
    assert head.status == (400 if refused else 200)
    assert running.statistics().published - before == EVENTS
    assert 0 < step.most <= PUBLISHED_AT_ONCE


async def test_line_ends(nursery: trio.Nursery, hub: tuple[Hub, App]) -> None:
    """A body of line ends, of which each is six bytes more, is refused before it is encoded."""
    body = b"\n" * 500_000
    client = connect(nursery, hub[1])
    await client.send(post(body, "/events/news"))
    head, text = await client.response()
    assert head.status == 413
    # What it would have had without its head and end, so it wasn't made.
    assert b"this one has %d\n" % (7 * len(body)) in text


async def test_empty_lines(nursery: trio.Nursery, hub: tuple[Hub, App]) -> None:
    """Of a read full of lines that make no event, `PARSED_AT_ONCE` bytes are parsed."""
    turns = 0

    def turn() -> int:
        nonlocal turns
        turns += 1
        return turns

    client, took = connect(nursery, hub[1]), list[int]()
    for slices in (1, 1, 16):  # the first one opens the connection
        turns = 0
        with LargestStep(turn):
            body = b":\n" * (slices * PARSED_AT_ONCE // 2)
            await client.send(post(body, "/events/news", KIND))
            assert (await client.response())[0].status == 200
        took.append(turns // 2)  # read before and after each step
    # Each slice more is a turn more; the head takes a part of the first read.
    assert took[2] - took[1] >= 14
