"""The bounds of runs: how many, how large, how long, how long kept, and how long unwatched."""

# ruff: noqa: ARG001 - tests ask for the clock so that time jumps, not to look at it

from __future__ import annotations

import gc
import json
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
from run_helpers import Site, all_events, data_of, kinds_of
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import HTTPError, Settings
from h3trio.hub import Hub, MemoryHistory, TopicClosedError
from h3trio.runs import Run, RunsSettings, RunState
from h3trio.testing import Ending

if TYPE_CHECKING:
    from trio.testing import MockClock


@table("name, owner, status", [("max_runs", "", 503), ("max_owner_runs", "ann", 429)])
async def test_runs_under_way_are_bounded(name: str, owner: str, status: int) -> None:
    """One run more than the limit is refused and counted; an ended one makes room."""
    site = Site(settings=RunsSettings(**{name: 2}))
    async with site.run():
        await site.start("a b c", owner=owner)
        last = await site.start("a b c", owner=owner)
        async with site.connect("/answers", method="POST", content="a", user=owner) as client:
            assert client.status == status
            assert client.headers["retry-after"]
        assert site.runs.statistics().limits == {name: 1}
        if owner:
            await site.start("a", owner="bob")
        await site.runs.stop(last.id, by=owner)
        await last.result()
        await site.start("a", owner=owner)


async def test_a_key_of_a_run_under_way_needs_no_room(autojump_clock: MockClock) -> None:
    """Who joins takes no place."""
    site = Site(settings=RunsSettings(max_runs=1))
    async with site.run():
        run = await site.start("a", key="k")
        assert (await site.start("a", key="k")).id == run.id


class Bound(NamedTuple):
    """A limit of one run, the words of one at it and of one beyond, and what is told of that."""

    name: str
    value: float
    at: str
    beyond: str
    problem: str


@table(
    "bound",
    [
        Bound("max_run_events", 3, "a b c", "a b c d e", "has more than 3 events"),
        Bound("max_run_bytes", 27, "a b c", "a b c d e", "has more than 27 bytes"),
        Bound("max_run_seconds", 3.5, "a b c", "a b c d e", "took more than 3.5 s"),
    ],
)
async def test_one_run_is_bounded(autojump_clock: MockClock, bound: Bound) -> None:
    """At the limit a run is whole; beyond it the run fails, by a message that says so."""
    settings = RunsSettings(**{bound.name: bound.value})  # type: ignore[arg-type]  # of its kind
    site = Site(settings=settings)
    async with site.run():
        small = await site.start(bound.at)
        assert (await small.result()).status.state is RunState.DONE
        large = await site.start(bound.beyond)
        events = await site.events_of(large.id)
        assert kinds_of(events) == ["message"] * 3 + ["failed"]
        assert json.loads(events[-1].data or "") == {"message": f"the run {bound.problem}"}
        await large.result()
        assert site.runs.statistics().limits == {bound.name: 1}
        assert site.model.unwound == 2


async def test_a_function_that_goes_on_beyond_a_limit_fails() -> None:
    """To catch what a limit raises makes the run neither longer nor whole."""

    async def stubborn(run: Run) -> None:
        for n in range(5):
            try:
                with trio.CancelScope(shield=True):
                    await run.send(f"{n}")
            except Exception:  # noqa: BLE001, S112 - the function that is tested
                continue

    site = Site(settings=RunsSettings(max_run_events=2))
    async with site.run():
        run = await site.runs.start(stubborn)
        result = await run.result()
        assert (result.status.state, result.text) == (RunState.FAILED, "01")


@table(
    "options, end",
    [
        ({"settings": RunsSettings(max_run_seconds=5)}, (RunState.FAILED, "more than 5 s")),
        ({"cancel_unwatched_after": 5}, (RunState.STOPPED, "nobody watched")),
    ],
)
@table("how", ["swallows", "shields", "raises", "unwinds late"])
async def test_a_function_that_keeps_its_cancellation_isnt_done(
    options: dict[str, Any], end: tuple[RunState, str], how: str, autojump_clock: MockClock
) -> None:
    """Whatever a function makes of the end of its time, its answer doesn't look whole."""

    async def stubborn(run: Run) -> None:
        await run.send("a")
        if how == "shields":
            with trio.CancelScope(shield=True):
                await trio.sleep(10)
                with suppress(TopicClosedError):
                    await run.send("b")
            return
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if how == "raises":
                raise RuntimeError("a library's own") from None
            if how == "unwinds late":
                with trio.CancelScope(shield=True):
                    await trio.sleep(1000)

    site = Site(**options)
    async with site.run():
        run = await site.runs.start(stubborn)
        await trio.sleep(3000)
        result = await run.result(wait=False)
        assert result.status.state is end[0]
        assert end[1] in result.status.detail
        [limit] = site.runs.statistics().limits
        assert limit in ("max_run_seconds", *options)


async def test_a_stop_meets_no_limit(autojump_clock: MockClock) -> None:
    """A run that somebody stops isn't counted as one that nobody watched."""
    site = Site()
    async with site.run():
        run = await site.start("a b")
        await site.runs.stop(run.id)
        await run.result()
        assert site.runs.statistics().limits == {}


async def test_events_of_runs_under_way_outlast_noise(autojump_clock: MockClock) -> None:
    """While a run goes on its first events stay, whatever else is published."""
    site = Site(hub=Hub(MemoryHistory(max_events=100)))
    async with site.run():
        run = await site.start(" ".join("abcdefgh"))
        await trio.sleep(5.5)
        for _ in range(1000):
            await site.hub.publish("noise", topics=["noise"])
        assert data_of(await site.events_of(run.id)) == list("abcdefgh")
        for _ in range(1000):
            await site.hub.publish("noise", topics=["noise"])
        assert data_of(await site.events_of(run.id)) == list("abcdefgh")
        await trio.sleep(31)
        assert site.hub.history.statistics().pinned_topics == 0
        await site.hub.publish("noise", topics=["noise"])
        async with site.connect(f"/answers/{run.id}") as client:
            assert client.status == 404


async def test_runs_that_go_on_take_the_room_of_those_that_have_ended(
    autojump_clock: MockClock,
) -> None:
    """What is pinned of runs behind their end refuses no start and fails no run."""
    site = Site(hub=Hub(MemoryHistory(max_events=5, max_pinned_events=8)))
    async with site.run():
        for _ in range(3):
            run = await site.start("a b c d")
            result = await run.result()
            assert (result.status.state, result.text) == (RunState.DONE, "abcd")
        assert site.runs.statistics().limits == {}


async def test_a_run_without_room_is_refused_or_fails(autojump_clock: MockClock) -> None:
    """Where pinned topics have no room left, a start is 503, and a run that goes on fails."""
    site = Site(hub=Hub(MemoryHistory(max_pinned_events=4)))
    async with site.run():
        one = await site.start("a b c d e")
        two = await site.start("a b c d e")
        with pytest.raises(HTTPError) as caught:
            await site.start("a")
        assert caught.value.status == 503
        assert site.runs.statistics().limits == {"max_pinned_events": 1}
        for run in (one, two):
            result = await run.result()
            assert result.status.state is RunState.FAILED
            assert result.text == "a"
            assert kinds_of(await site.events_of(run.id))[-1] == "failed"


async def test_a_run_is_kept_for_a_time_and_then_404(autojump_clock: MockClock) -> None:
    """Behind its retention nobody finds a run, and nothing of it is left."""
    site = Site(retain=100)
    async with site.run():
        run = await site.start("a b", owner="ann")
        await run.result()
        await trio.sleep(99)
        assert data_of(await site.events_of(run.id, user="ann")) == ["a", "b"]
        await trio.sleep(2)
        async with site.connect(f"/answers/{run.id}", user="ann") as client:
            assert client.status == 404
        assert await site.runs.list(owner="ann") == []
        await trio.sleep(60)
        assert site.hub.history.statistics().events == 0
        with pytest.raises(HTTPError):
            await run.result(wait=False)


async def test_so_many_ended_runs_are_kept(autojump_clock: MockClock) -> None:
    """With one more the oldest is gone, and it is counted; a viewer still gets all of it."""
    site = Site(settings=RunsSettings(max_ended_runs=2))
    site.model.pause = 0
    async with site.run():
        runs = [await site.start(word) for word in "abc"]
        for run in runs:
            await run.result()
        await trio.sleep(1)
        assert site.runs.statistics().limits == {"max_ended_runs": 1}
        gone = []
        for run in runs:
            async with site.connect(f"/answers/{run.id}") as client:
                gone.append(client.status == 404)
        assert sum(gone) == 1


async def test_a_run_that_has_ended_holds_no_task(autojump_clock: MockClock) -> None:
    """While it stays pinned nothing is held of it but that: neither its arguments nor a task."""
    site = Site()
    site.model.pause = 0
    async with site.run():
        await wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        arguments = [Argument() for _ in range(20)]
        held = [weakref.ref(each) for each in arguments]

        async def take(run: Run, argument: Argument) -> None:
            await run.send(str(argument))

        while arguments:
            await (await site.runs.start(take, arguments.pop())).result()
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before
        gc.collect()
        assert [each() for each in held] == [None] * 20


class Argument:
    """Something that a function is called with."""


async def test_a_viewer_that_came_in_time_gets_all(autojump_clock: MockClock) -> None:
    """Who watches as the retention ends still gets every event, and the end."""
    site = Site(retain=10)
    async with site.run():
        run = await site.start("a b")
        await run.result()
        await trio.sleep(9.999)
        async with site.connect(f"/answers/{run.id}", buffer_bytes=1) as client:
            client.stall()
            await trio.sleep(5)
            client.resume()
            assert data_of(await all_events(client)) == ["a", "b"]


async def test_a_viewer_that_is_too_slow_is_cut_off(autojump_clock: MockClock) -> None:
    """Who hasn't got all when the events go isn't left waiting for an end that is gone."""
    site = Site(retain=10)
    site.model.pause = 0
    async with site.run():
        run = await site.start(" ".join(["x" * 10_000] * 100))
        await run.result()
        settings = Settings(write_timeout=500)
        async with site.connect(f"/answers/{run.id}", settings=settings) as client:
            client.stall()
            await trio.sleep(200)
            assert site.hub.history.statistics().events == 0
            client.resume()
            assert set(kinds_of(await all_events(client))) == {"message"}
            assert client.ending is Ending.CUT
        assert site.runs.statistics().viewers == 0


async def test_a_run_that_nobody_watches_is_stopped(autojump_clock: MockClock) -> None:
    """It is stopped so long behind its start or its last viewer; a viewer keeps it."""
    site = Site(cancel_unwatched_after=5)
    async with site.run():
        never = await site.start(" ".join("abcdefghijkl"))
        seen = await site.start(" ".join("abcdefghijklmnop"))
        await trio.sleep(4)
        async with site.connect(f"/answers/{seen.id}"):
            await trio.sleep(0.9)
            assert site.runs.statistics().running == 2
            await trio.sleep(0.2)
            assert never.status.state is RunState.STOPPED
            await trio.sleep(2)
            assert site.runs.statistics().unwatched == 0
        assert site.runs.statistics().unwatched == 1
        await trio.sleep(4.8)
        assert seen.status.state is RunState.RUNNING
        await trio.sleep(0.3)
        ended = await site.events_of(seen.id)
        assert (ended[-1].event, ended[-1].data) == ("stopped", '{"reason": "nobody watched it"}')
        assert site.runs.statistics().limits == {"cancel_unwatched_after": 2}


async def test_who_waits_for_the_result_watches(autojump_clock: MockClock) -> None:
    """A handler that waits for the whole answer keeps the run."""
    site = Site(cancel_unwatched_after=2)
    async with site.run():
        assert (await (await site.start("a b c d e")).result()).text == "abcde"
