"""The hub's last three minutes, which a page gets as it opens."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio.hub import Hub
from h3trio.hubserver import create_app
from h3trio.hubserver._monitoring.samples import STEP, WINDOW, Samples
from h3trio.testing import connect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock

    from h3trio import App


@pytest.fixture
async def hub() -> Hub:
    """A hub in memory, not yet running."""
    await trio.lowlevel.checkpoint()
    return Hub()


@pytest.fixture
async def app(hub: Hub) -> AsyncGenerator[App]:
    """Its app, which runs."""
    made = create_app(hub)
    async with made.lifespan():
        yield made


async def ask(app: App, query: str) -> tuple[str, dict[str, Any]]:
    """Open a stream of statistics; return the type and the data of its first event."""
    async with connect(app, f"/statistics{query}", lifespan=False) as client:
        event = await client.next_event()
        return event.event or "", json.loads(event.data or "")


async def test_a_page_gets_the_minutes_before_it_came(
    hub: Hub, app: App, autojump_clock: MockClock
) -> None:
    """The counts of each second, though nobody looked; in front of the first snapshot."""
    await wait_all_tasks_blocked()
    await hub.publish("1", topics=["a"])
    await trio.sleep(2.5)
    await hub.publish("2", topics=["a"])
    await trio.sleep(1)
    kind, found = await ask(app, "?samples=on")
    assert kind == "samples"
    rows = [dict(zip(found["fields"], values, strict=True)) for values in found["samples"]]
    assert [row["published"] for row in rows] == [0, 1, 1, 2]
    assert all(row["subscribers"] == row["delivered"] == 0 for row in rows)
    assert [row["uptime"] for row in rows] == sorted(row["uptime"] for row in rows)
    assert autojump_clock.current_time() == 3.5


async def test_who_doesnt_ask_gets_none(
    app: App,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
) -> None:
    """A stream begins with a snapshot, as before."""
    assert (await ask(app, ""))[0] == "statistics"
    assert (await ask(app, "?samples=off"))[0] == "statistics"


@table("samples", ["", "yes", "180"])
async def test_another_word_is_refused(app: App, samples: str) -> None:
    """400 that says which words there are."""
    async with connect(app, f"/statistics?samples={samples}", lifespan=False) as client:
        assert client.status == 400
        assert b"on or off" in await client.body()


async def test_they_are_bounded(autojump_clock: MockClock) -> None:
    """Those of the window are kept, both of its ends among them, in as little as is documented."""
    async with Hub() as hub, trio.open_nursery() as nursery:
        samples = Samples(hub)
        nursery.start_soon(samples.run)
        await trio.sleep(3 * WINDOW + 0.5)
        kept = json.loads(samples.json())["samples"]
        nursery.cancel_scope.cancel()
    assert len(kept) == WINDOW / STEP + 1
    size = sum(sys.getsizeof(row) + sum(map(sys.getsizeof, row)) for row in samples._kept)  # noqa: SLF001 - its size
    assert size < 60 * 1024
    assert autojump_clock.current_time() < 4 * WINDOW
