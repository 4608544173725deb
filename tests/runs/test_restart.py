"""Runs over SQLite: what a process that was killed left is told, whole and once, by the next."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel
from run_helpers import Site, data_of, kinds_of

from h3trio import HTTPError
from h3trio.hub import HistoryFullError, Hub, OutcomeUnknownError, SQLiteHistory
from h3trio.runs import Run, RunsSettings, RunState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Endless:
    """A function that sends some words and then waits for ever."""

    def __init__(self) -> None:
        self.sent = trio.Event()

    async def __call__(self, run: Run, words: str) -> None:
        """Send words, and wait."""
        for word in words.split():
            await run.send(word)
        self.sent.set()
        await trio.sleep_forever()


def site_on(path: Path, *, clock: Callable[[], float] = time.time) -> Site:
    """Make a site on a file."""
    history = SQLiteHistory(path / "hub.db", durability="fast", clock=clock)
    return Site(hub=Hub(history), clock=clock)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what a store's thread brings about."""
    with trio.fail_after(5):
        while not is_so():  # noqa: ASYNC110 - no event tells of it
            await trio.sleep(0.01)


async def leave_behind(path: Path) -> tuple[Run, Run]:
    """Make files as a process leaves them that is killed: a run that goes on, one that ended."""
    made = path / "made"
    made.mkdir()
    site, endless = site_on(made), Endless()
    site.model.pause = 0
    async with site.run():
        ended = await site.start("x y", owner="ann")
        await ended.result()
        run = await site.runs.start(endless, "a b c", owner="ann", key="k")
        await endless.sent.wait()
        for file in made.iterdir():
            shutil.copy(file, path)
    return run, ended


async def test_what_was_killed_is_interrupted_at_the_next_start(tmp_path: Path) -> None:
    """All that was acknowledged is there, once and in order, and then one end."""
    run, ended = await leave_behind(tmp_path)
    for _ in range(2):
        site = site_on(tmp_path)
        async with site.run():
            events = await site.events_of(run.id, user="ann")
            assert data_of(events) == ["a", "b", "c"]
            assert kinds_of(events)[3:] == ["interrupted"]
            assert kinds_of(await site.events_of(ended.id, user="ann"))[2:] == ["done"]
            rest = await site.events_of(run.id, user="ann", last_event_id=events[1].id)
            assert rest == events[2:]
            listed = await site.runs.list(owner="ann")
            assert [one.state for one in listed] == [RunState.INTERRUPTED, RunState.DONE]
            assert listed[0].id == run.id
            result = await (await site.runs.get(run.id, by="ann")).result()
            assert (result.text, result.whole) == ("abc", True)
            with pytest.raises(HTTPError):
                await site.runs.get(run.id)


async def test_a_key_still_stands_for_its_run_behind_a_restart(tmp_path: Path) -> None:
    """A client that didn't get its answer, and tries again, joins what there is."""
    run, _ = await leave_behind(tmp_path)
    site, endless = site_on(tmp_path), Endless()
    async with site.run():
        again = await site.runs.start(endless, "a b c", owner="ann", key="k")
        assert again.id == run.id
        assert again.status.state is RunState.INTERRUPTED
        assert not endless.sent.is_set()


async def test_retention_goes_on_behind_a_restart(tmp_path: Path) -> None:
    """What ended before a restart is removed when its time is over, not later."""
    run, ended = await leave_behind(tmp_path)
    for seconds, kept in ((3590, {run.id, ended.id}), (3610, {run.id})):
        site = site_on(tmp_path, clock=lambda: ended.status.started + seconds)  # noqa: B023 - called in this turn
        async with site.run():
            with trio.fail_after(5):
                while {one.id for one in await site.runs.list(owner="ann")} != kept:  # noqa: ASYNC110 - as `until`
                    await trio.sleep(0.01)


async def test_an_end_that_cant_be_stored_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full store ends no run in silence: its end is stored once there is room."""
    history = SQLiteHistory(tmp_path / "hub.db", durability="fast")
    site, endless = Site(hub=Hub(history)), Endless()
    refusing = True
    append = history.append

    async def full(updates: list[object]) -> object:
        if refusing and any(getattr(update, "last", False) for update in updates):
            raise HistoryFullError("no room")
        return await append(updates)  # type: ignore[arg-type]  # as it came

    history.append = full  # type: ignore[method-assign, assignment]  # a disk that is full
    async with site.run():
        run = await site.runs.start(endless, "a b")
        await endless.sent.wait()
        assert (await site.runs.stop(run.id, reason="enough")).state is RunState.RUNNING
        await trio.sleep(0.01)
        assert run.status.state is RunState.RUNNING
        refusing = False
        status = (await run.result()).status
        assert (status.state, status.detail) == (RunState.STOPPED, "enough")
        assert kinds_of(await site.events_of(run.id)) == ["message"] * 2 + ["stopped"]
    assert "isn't stored yet" in caplog.text


async def test_a_store_that_never_takes_the_end_doesnt_hold_up_the_process(tmp_path: Path) -> None:
    """The end of the lifespan is bounded; the next start tells what is missing."""
    history = SQLiteHistory(tmp_path / "hub.db", durability="fast")
    settings = RunsSettings(close_timeout=0.05)
    site, endless = Site(hub=Hub(history), settings=settings), Endless()
    append = history.append

    async def stuck(updates: list[object]) -> object:
        if any(getattr(update, "last", False) for update in updates):
            await trio.sleep_forever()
        return await append(updates)  # type: ignore[arg-type]  # as it came

    history.append = stuck  # type: ignore[method-assign, assignment]  # a disk that hangs
    with trio.fail_after(5):
        async with site.run():
            run = await site.runs.start(endless, "a b")
            await endless.sent.wait()
    site = site_on(tmp_path)
    async with site.run():
        assert kinds_of(await site.events_of(run.id)) == ["message"] * 2 + ["interrupted"]


async def test_a_start_outlives_who_asked(tmp_path: Path) -> None:
    """A client that leaves before the store has answered leaves a run that goes on, and ends."""
    site = site_on(tmp_path)
    site.model.pause = 0
    async with site.run():
        with trio.CancelScope() as scope:
            scope.cancel()
            await site.start("a b", key="k")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.start, "c d")
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        joined = await site.start("a b", key="k")
        assert (await joined.result()).text == "ab"
        await until(lambda: site.runs.statistics().ended == {"done": 2})


@pytest.mark.slow
async def test_a_start_without_an_answer_is_settled(tmp_path: Path) -> None:
    """Where the store leaves it open, the start is 503; with its key it is the same run later."""
    history = SQLiteHistory(tmp_path / "hub.db", durability="fast")
    site = Site(hub=Hub(history))
    site.model.pause = 0
    append, failures = history.append, iter([True, True, False, True])

    async def lossy(updates: list[object]) -> object:
        answers = await append(updates)  # type: ignore[arg-type]  # as it came
        if any("/start" in str(update) for update in updates) and next(failures, False):
            for answer in answers:
                if answer.record is not None:
                    history.log.append(answer.record)
            raise OutcomeUnknownError("the answer was lost")
        return answers

    history.append = lossy  # type: ignore[method-assign, assignment]  # a connection that breaks
    async with site.run():
        with pytest.raises(HTTPError) as caught:
            await site.start("a b", key="k")
        assert caught.value.status == 503
        await until(lambda: site.runs.statistics().ended == {"done": 1})
        assert (await (await site.start("a b", key="k")).result()).text == "ab"
        before = history.log.topics
        with pytest.raises(HTTPError):
            await site.start("c")
        await until(lambda: history.log.topics == before)
    assert site.model.calls == 1


async def test_limits_of_the_history_spare_what_was_killed(tmp_path: Path) -> None:
    """Noise that came behind a run's beginning doesn't take it before its end is told."""
    made = tmp_path / "made"
    made.mkdir()
    limits = {"max_events": 20}
    endless = Endless()
    site = Site(hub=Hub(SQLiteHistory(made / "hub.db", durability="fast", **limits)))  # type: ignore[arg-type]  # limits
    async with site.run():
        run = await site.runs.start(endless, "a b c")
        await endless.sent.wait()
        for _ in range(100):
            await site.hub.publish("noise", topics=["noise"])
        for file in made.iterdir():
            shutil.copy(file, tmp_path)
    site = Site(hub=Hub(SQLiteHistory(tmp_path / "hub.db", durability="fast", **limits)))  # type: ignore[arg-type]  # limits
    async with site.run():
        assert data_of(await site.events_of(run.id)) == ["a", "b", "c"]
