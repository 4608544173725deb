"""Tests of a streaming app that need no port, no sleep and no luck.

    pip install pytest pytest-trio
    pytest -o trio_mode=true examples/test_your_app.py

Each of them takes milliseconds: `autojump_clock` is a clock that jumps ahead when all wait. The
hub keeps the newest 10,000 events, from one test to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from h3trio import App, CloseReason, H3Event
from h3trio.hub import Hub
from h3trio.testing import connect

if TYPE_CHECKING:
    from trio.testing import MockClock

app = App()


@app.get("/ticks")
async def ticks(event: H3Event) -> None:
    """One event a minute, without end; a client that returns goes on where it was."""
    n = int(event.last_event_id or 0)
    async with event.start_sse() as writer:
        while True:
            n += 1
            await writer.send(f"tick {n}", id=str(n))
            await trio.sleep(60)


@app.get("/flood")
async def flood(event: H3Event) -> None:
    """As much as the client takes."""
    async with event.start_sse() as writer:
        while True:
            await writer.send("x" * 1000)


news_hub = Hub()
news_app = App(lifespan=lambda: news_hub)


@news_app.get("/news")
async def news(event: H3Event) -> None:
    """What is published, and what a client that returns has missed."""
    start = await news_hub.locate(["news"], last_event_id=event.last_event_id)
    event.response_headers.update(start.headers)
    async with event.start_sse() as writer:
        await news_hub.subscribe(writer, start)


async def test_endless_stream(autojump_clock: MockClock) -> None:
    """Two ticks are a minute apart, and a client that comes back misses none."""
    async with connect(app, "/ticks") as client:
        assert client.status == 200
        assert (await client.next_event()).data == "tick 1"
        assert (await client.next_event()).data == "tick 2"
        assert autojump_clock.current_time() == 60
        client.vanish()
        await client.reconnect()
        assert (await client.next_event()).data == "tick 3"


async def test_heartbeat(autojump_clock: MockClock) -> None:
    """A stream that is silent for 15 s sends a comment, so that proxies keep it open."""
    async with connect(app, "/ticks") as client:
        assert await client.next_comment() == ""  # the one that opens every stream
        assert await client.next_comment() == ""
        assert 12 <= autojump_clock.current_time() <= 15


async def test_slow_client(autojump_clock: MockClock) -> None:
    """A client that stops reading is closed after 30 s without progress."""
    async with connect(app, "/flood") as client:
        await client.next_event()
        client.stall()
        closing = await client.wait_closed()
        assert closing.reason is CloseReason.SLOW
        assert 30 <= autojump_clock.current_time() <= 31


async def test_app_with_a_hub() -> None:
    """A client that comes back gets what was published meanwhile; a second one what comes."""
    async with connect(news_app, "/news") as client:
        await news_hub.publish("one", topics=["news"])
        assert (await client.next_event()).data == "one"
        client.vanish()
        await news_hub.publish("two", topics=["news"])
        await client.reconnect()
        assert (await client.next_event()).data == "two"
        async with connect(news_app, "/news", lifespan=False) as second:
            await news_hub.publish("three", topics=["news"])
            assert (await second.next_event()).data == "three"
