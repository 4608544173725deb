"""What an event stream ends with; test_exchange.py plays each over a connection."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import trio
from helpers import connect, request

from h3trio import App, CloseReason, H3Event, HTTPError, Settings

if TYPE_CHECKING:
    from trio.testing import MockClock

EVENT_SOURCE = "Accept: text/event-stream"


async def overloaded(event: H3Event) -> None:
    """Be out of everything, and allow other origins to know."""
    event.response_headers["Access-Control-Allow-Origin"] = "*"
    await trio.lowlevel.checkpoint()
    raise HTTPError(503, "no room")


async def endless(event: H3Event) -> None:
    """Stream nothing, for ever."""
    async with event.start_sse():
        await trio.sleep_forever()


async def test_an_event_source_is_never_told_503_by_a_drain(nursery: trio.Nursery) -> None:
    """While the server drains, a 503 for an EventSource is a stream that is over at once."""
    client = connect(nursery, overloaded)
    client.state.draining.set()
    await client.send(request("/", EVENT_SOURCE))
    head, body = await client.response()
    assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")
    assert head.headers["access-control-allow-origin"] == "*"
    assert head.headers["connection"] == "close"
    assert (found := re.fullmatch(rb"retry: (\d+)\n\n", body))
    assert 1000 <= int(found[1]) <= 3000
    assert await client.rest() == b""
    assert client.state.counts.closings == {CloseReason.DRAINING: 1}


@pytest.mark.parametrize(
    ("method", "accept", "draining"),
    [
        ("GET", "*/*", True),
        ("POST", "text/event-stream", True),
        ("GET", "text/event-stream", False),
    ],
)
async def test_others_are_told_503(
    nursery: trio.Nursery, method: str, accept: str, *, draining: bool
) -> None:
    """Who isn't an EventSource gets the 503, as does one whose server stays."""
    client = connect(nursery, overloaded)
    if draining:
        client.state.draining.set()
    await client.send(request("/", f"Accept: {accept}", method=method))
    head, body = await client.response()
    assert (head.status, body) == (503, b"no room\n")
    assert ("connection" in head.headers) == draining


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
async def test_no_request_begins_after_the_soft_phase(nursery: trio.Nursery, accept: str) -> None:
    """Late in a drain an app calls no handler: an EventSource gets its end, others a 503."""

    async def never(_event: H3Event) -> None:
        pytest.fail("must not be called")

    app = App()
    app.get("/")(never)
    client = connect(nursery, app)
    client.state.draining.set()
    client.state.is_closing = True
    await client.send(request("/", f"Accept: {accept}"))
    head, _ = await client.response()
    assert head.status == (503 if accept == "*/*" else 200)
    assert client.state.counts.limits == {"drain_soft": 1}


async def test_farewell_in_time(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A farewell that is taken is counted as no limit met."""
    client = connect(nursery, endless, settings=Settings(lease=10, lease_jitter=0))
    await client.send(request("/"))
    await client.response()
    assert autojump_clock.current_time() == pytest.approx(10, abs=0.1)
    assert client.state.counts.limits == {"lease": 1}
