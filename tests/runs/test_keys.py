"""Starts with a key: two with one key are one run, and nobody else learns of it."""

# ruff: noqa: ARG001 - tests ask for the clock so that time jumps, not to look at it

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from run_helpers import Site, all_events, data_of

from h3trio import HTTPError
from h3trio.hub import Hub, SQLiteHistory
from h3trio.runs import Run, RunsSettings, RunState

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


async def test_two_starts_with_one_key_are_one_run(autojump_clock: MockClock) -> None:
    """The second start joins the first, while it goes on and behind its end."""
    site = Site()
    key = {"Idempotency-Key": "k"}
    async with site.run():
        async with site.connect("/answers", method="POST", content="a b", headers=key) as one:
            await one.next_event()
            async with site.connect("/answers", method="POST", content="a b", headers=key) as two:
                assert data_of(await all_events(two)) == ["a", "b"]
        async with site.connect(
            "/answers", method="POST", content="a b", headers=key, accept="*/*"
        ) as three:
            assert three.status == 200
            assert three.headers["location"] == one.headers["content-location"]
        assert site.model.calls == 1
        statistics = site.runs.statistics()
        assert (statistics.started, statistics.joined) == (1, 2)


async def test_starts_at_the_same_time_are_one_run(tmp_path: Path) -> None:
    """However many starts with one key wait for the store, they are one, and take one place."""
    hub = Hub(SQLiteHistory(tmp_path / "hub.db", durability="fast"))
    site = Site(hub=hub, settings=RunsSettings(max_owner_runs=2))
    site.model.pause = 0
    found: list[Run] = []

    async def start() -> None:
        found.append(await site.start("a b", owner="ann", key="k", fingerprint="a b"))

    async with site.run():
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(start)
        assert len({run.id for run in found}) == 1
        assert {(await run.result()).text for run in found} == {"ab"}
    assert site.model.calls == 1
    assert site.runs.statistics().joined == 19


async def test_a_late_start_takes_nothing_from_the_run_of_its_key() -> None:
    """Starts that come while the run of their key begins, or ends at once, leave it whole."""
    site = Site()
    calls = 0

    async def quick(run: Run) -> None:
        nonlocal calls
        calls += 1
        await run.send("a")
        await run.send("b")

    async def start(key: str, turns: int) -> None:
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        found.add((await site.runs.start(quick, key=key)).id)

    found: set[str] = set()
    async with site.run():
        for key in map(str, range(25)):
            async with trio.open_nursery() as nursery:
                for turns in range(20):
                    nursery.start_soon(start, key, turns)
        for id in found:
            result = await (await site.runs.get(id)).result()
            assert (result.text, result.whole) == ("ab", True)
    assert (len(found), calls) == (25, 25)


async def test_another_payload_under_a_key_is_refused(autojump_clock: MockClock) -> None:
    """The answer is 422, for another fingerprint and for another function."""
    site = Site()

    async def other(run: Run, _prompt: str) -> None:
        await run.send("x")

    async with site.run():
        start = partial(site.runs.start, owner="ann", key="k")
        await start(site.model, "a", fingerprint="a")
        for function, fingerprint in ((site.model, "b"), (site.model, None), (other, "a")):
            with pytest.raises(HTTPError) as caught:
                await start(function, "a", fingerprint=fingerprint)
            assert caught.value.status == 422
        with pytest.raises(HTTPError) as caught:
            await site.start("a", key="")
        assert caught.value.status == 400


async def test_a_key_is_its_owners(autojump_clock: MockClock) -> None:
    """The same key of two owners is two runs."""
    site = Site()
    async with site.run():
        ids = {(await site.start("a", owner=owner, key="k")).id for owner in ("", "ann", "bob")}
        assert len(ids) == 3
        joined = await site.start("a", owner="ann", key="k")
        assert joined.id in ids
        assert len({(await site.start("a", owner="ann")).id for _ in range(3)}) == 3


async def test_a_key_is_free_when_its_run_is_gone(autojump_clock: MockClock) -> None:
    """Behind its retention a key starts a run anew, with nothing of the old one."""
    site = Site(retain=10)
    async with site.run():
        old = await site.start("a b", key="k")
        await old.result()
        await trio.sleep(11)
        new = await site.start("c", key="k")
        assert new.id == old.id
        await trio.sleep(80)
        with pytest.raises(HTTPError):
            await site.runs.get(new.id)
        assert site.hub.history.statistics().events == 0


async def test_the_rest_of_an_old_run_doesnt_close_a_new_one(autojump_clock: MockClock) -> None:
    """A start whose record was trimmed before its run's end is begun anew, whole."""
    site = Site()
    async with site.run():
        run = await site.start("a", key="k")
        await run.result()
        await site.hub.purge(f"runs/{run.id}/start")
        again = await site.start("b c", key="k")
        result = await again.result()
        assert (result.status.state, result.text, result.whole) == (RunState.DONE, "bc", True)
        assert data_of(await site.events_of(again.id)) == ["b", "c"]
