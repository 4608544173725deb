"""`Replay`: its work between two checkpoints, where log and rights decide how much there is."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hub_helpers import BusiestStep, FakeSink, Matcher, record
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio.hub import Hub, MemoryHistory, Selection
from h3trio.hub._fanout.feed import MAX_BATCH_BYTES, Subscriber
from h3trio.hub._fanout.replay import CACHED_PAGES, MAX_CACHED_BYTES, MAX_PAGE_RECORDS, Replay
from h3trio.hub._history.selection import MATCH_COST, MAX_SCAN

if TYPE_CHECKING:
    import trio

TEMPLATES = 40


async def hub_with_secrets(nursery: trio.Nursery, count: int, *, size: int = 1) -> Hub:
    """Run a hub that holds so many private events, each in a topic of its own."""
    hub = await nursery.start(Hub(MemoryHistory()).run)
    for n in range(count):
        await hub.publish("x" * size, topics=[f"user/{n}"], private=True)
    assert isinstance(hub, Hub)
    return hub


def templates(*prefixes: str) -> tuple[list[Matcher], Counter[str]]:
    """Make matchers that share a count: forty that match nothing, and some more."""
    asked = Counter[str]()
    names = [f"never/{n}" for n in range(TEMPLATES - len(prefixes))]
    return [Matcher(name, asked) for name in (*names, *prefixes)], asked


@pytest.mark.slow
@table(
    "options, seen",
    [({"first": "oldest"}, 111), ({"first": 100}, 100), ({"last_event_id": "unknown"}, 112)],
)
async def test_rights_are_asked_for_a_few_records_between_checkpoints(
    nursery: trio.Nursery, options: dict[str, Any], seen: int
) -> None:
    """A token of forty templates over many private events stops nobody for long."""
    hub = await hub_with_secrets(nursery, 300)
    allow, asked = templates("user/1")
    sink = FakeSink()
    with BusiestStep(Matcher.matches) as busiest:
        nursery.start_soon(partial(hub.subscribe, sink, ["*"], allow=allow, **options))
        await wait_all_tasks_blocked()
    assert len(sink.events) == seen
    assert asked["calls"] > 150 * TEMPLATES
    assert busiest.most <= MAX_SCAN // MATCH_COST


@pytest.mark.slow
async def test_a_selection_of_templates_is_matched_a_few_between_checkpoints(
    nursery: trio.Nursery,
) -> None:
    """So is who selects by templates: in the log, and in the table of gaps."""
    hub = await hub_with_secrets(nursery, 300)
    for n in range(100):
        await hub.purge(f"user/{n}")
    select, asked = templates("user/29")
    sink = FakeSink()
    with BusiestStep(Matcher.matches) as busiest:
        subscribe = partial(hub.subscribe, sink, select, allow=["*"], first="oldest")
        nursery.start_soon(subscribe)
        await wait_all_tasks_blocked()
    assert len(sink.events) == 10
    assert asked["calls"] > 150 * TEMPLATES
    assert busiest.most <= 2 * (MAX_SCAN // MATCH_COST)


async def test_who_falls_behind_asks_about_gaps_a_few_topics_between_checkpoints(
    nursery: trio.Nursery,
) -> None:
    """While a client stalled, many topics may have lost events."""
    hub = await hub_with_secrets(nursery, 300)
    select, _asked = templates("news")
    sink = FakeSink()
    nursery.start_soon(partial(hub.subscribe, sink, select, allow=["*"]))
    await wait_all_tasks_blocked()
    sink.stalled = True
    await hub.publish("1", topics=["news"])
    await wait_all_tasks_blocked()
    for n in range(300):
        await hub.purge(f"user/{n}")
    await hub.publish("2", topics=["news"])
    with BusiestStep(Matcher.matches) as busiest:
        sink.resume()
        await wait_all_tasks_blocked()
    assert sink.data == ["1", "2"]
    assert busiest.total > 150 * TEMPLATES
    assert busiest.most <= 2 * (MAX_SCAN // MATCH_COST)


@pytest.mark.slow
async def test_what_is_filtered_away_counts_as_what_is_sent(nursery: trio.Nursery) -> None:
    """Who may see nothing yields after each page of records, as who sees everything does."""
    hub = await hub_with_secrets(nursery, 4 * MAX_PAGE_RECORDS)
    sink = FakeSink()
    with BusiestStep(Selection.matches) as busiest:
        nursery.start_soon(partial(hub.subscribe, sink, ["*"], first="oldest"))
        await wait_all_tasks_blocked()
    assert sink.events == []
    assert (busiest.total, busiest.most) == (4 * MAX_PAGE_RECORDS, MAX_PAGE_RECORDS)


async def test_what_was_filtered_away_once_is_skipped(nursery: trio.Nursery) -> None:
    """The next one with the same rights goes over more pages than are kept, in one step."""
    hub = await hub_with_secrets(nursery, 2 * CACHED_PAGES, size=MAX_BATCH_BYTES)
    totals: list[int] = []
    for _ in range(2):
        sink = FakeSink()
        with BusiestStep(Selection.matches) as busiest:
            nursery.start_soon(partial(hub.subscribe, sink, ["*"], first="oldest"))
            await wait_all_tasks_blocked()
        assert sink.events == []
        totals.append(busiest.total)
    assert totals == [2 * CACHED_PAGES, 1]


async def test_pages_that_are_kept_are_bounded_in_bytes() -> None:
    """Large events are few pages, or they would be in memory twice."""
    async with MemoryHistory() as history:
        replay = Replay(history)
        for position in range(1, 21):
            history.log.append(record(position, data="x" * 1_000_000))
        reader = Subscriber(FakeSink(), selection=Selection(["*"]), allow=Selection(), info={})
        assert await replay.catch_up(reader, None)
        kept = [page for page in replay._pages.values() if page.batch]  # noqa: SLF001 - nothing public tells of them
        assert 1 < len(kept) < 20
        assert sum(page.size for page in kept) <= MAX_CACHED_BYTES
