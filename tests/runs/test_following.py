"""`Run.follow`: answers in shapes of other clients, cut off where they aren't whole."""

# ruff: noqa: ARG001 - tests ask for the clock so that time jumps, not to look at it

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from run_helpers import Site, all_events

from h3trio import App, H3Event, Response
from h3trio.hub import Hub
from h3trio.runs import Run, Runs, RunState
from h3trio.testing import Ending, connect

if TYPE_CHECKING:
    from trio.testing import MockClock


class Shaped(Site):
    """A site whose answers have a shape of their own, at `/shaped/ID`."""

    def __init__(self) -> None:
        super().__init__()

        @self.app.get("/shaped/:id")
        async def shaped(event: H3Event) -> None:
            run = await self.runs.get(event.params["id"], by=event.subject)
            after = event.last_event_id
            async with (
                run.follow(event, last_event_id=after) as items,
                event.start_sse(drain="finish") as writer,
            ):
                await writer.send("begin")
                async for item in items:
                    await writer.send(f"{item.event}: {item.data}", id=item.id)
                await writer.send(f"[{(await self.runs.get(run.id)).status.state}]")

        _ = shaped


async def test_a_handler_makes_a_shape_of_its_own(autojump_clock: MockClock) -> None:
    """It sends before the first event, for each, and behind the last, where the run has ended."""
    site = Shaped()
    async with site.run():
        run = await site.start("a b")
        async with site.connect(f"/shaped/{run.id}") as client:
            begun = [await client.next_event()]
            assert autojump_clock.current_time() == 0
            assert site.runs.statistics().viewers == 1
            events = begun + await all_events(client)
            assert client.ending is Ending.COMPLETE
        assert [event.data for event in events] == [
            *("begin", "message: a", "message: b", "done: {}", "[done]"),
        ]
        assert site.runs.statistics().viewers == 0
        async with site.connect(f"/shaped/{run.id}", last_event_id=events[1].id) as client:
            assert (await all_events(client))[1:] == events[2:]


async def test_a_shape_is_told_of_a_stop(autojump_clock: MockClock) -> None:
    """A run that is stopped ends it by its terminal event, as any other viewer's."""
    site = Shaped()
    async with site.run():
        run = await site.start("a b c d")
        async with site.connect(f"/shaped/{run.id}") as client:
            assert (await client.next_event()).data == "begin"
            await site.runs.stop(run.id, reason="enough")
            events = await all_events(client)
        assert events[-2].data == 'stopped: {"reason": "enough"}'
        assert events[-1].data == "[stopped]"


async def test_a_shape_that_the_hub_ends_is_cut_off(autojump_clock: MockClock) -> None:
    """An operator's kick amid the run doesn't look like its end."""
    site = Shaped()
    async with site.run():
        run = await site.start("a b c d")
        async with site.connect(f"/shaped/{run.id}", accept="*/*") as client:
            assert (await client.next_event()).data == "begin"
            assert site.hub.kick(lambda subscription: subscription.info["run"] == run.id) == 1
            assert await all_events(client) == []
            assert client.ending is Ending.CUT


async def test_a_shape_without_its_beginning_is_cut_off(autojump_clock: MockClock) -> None:
    """Where events are gone, no handler makes a whole of the rest."""
    site = Shaped()
    async with site.run():
        run = await site.start("a b c d")
        await trio.sleep(2.5)
        await site.hub.purge(f"runs/{run.id}")
        async with site.connect(f"/shaped/{run.id}", accept="*/*") as client:
            assert [event.data for event in await all_events(client)] == ["begin"]
            assert client.ending is Ending.CUT


async def test_a_result_so_far_waits_for_nothing(autojump_clock: MockClock) -> None:
    """`result(wait=False)` has the text of what goes on, and the same as ever behind the end."""
    site = Site()
    async with site.run():
        run = await site.start("a b c d")
        await trio.sleep(2.5)
        now = await run.result(wait=False)
        assert (now.status.state, now.text, now.whole) == (RunState.RUNNING, "ab", True)
        assert autojump_clock.current_time() == 2.5
        await run.result()
        ended = await run.result(wait=False)
        assert (ended.status.state, ended.text) == (RunState.DONE, "abcd")


async def test_a_start_has_one_time(autojump_clock: MockClock) -> None:
    """Whoever asks when a run was started is told the same, also behind its end."""
    site = Site()
    async with site.run():
        run = await site.start("a", owner="me")
        started = run.status.started
        assert (await run.result()).status.started == started
        (listed,) = await site.runs.list(owner="me")
        assert listed.started == started
        assert (await site.runs.get(run.id, by="me")).status.started == started


async def test_the_lifespan_of_an_app_runs_the_hub_too(autojump_clock: MockClock) -> None:
    """`App(lifespan=runs.lifespan)` is all that an app with one hub needs."""
    runs = Runs(Hub())
    app = App(lifespan=runs.lifespan)

    @app.post("/answers")
    async def start(event: H3Event) -> Response | None:
        return (await runs.start(answer)).reply(event)

    async def answer(run: Run) -> None:
        await run.send("a")

    async with connect(
        app, "/answers", method="POST", headers={"Accept": "text/event-stream"}
    ) as client:
        assert [event.event for event in await all_events(client)] == ["message", "done"]
