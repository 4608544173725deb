"""Runs over HTTP: start, watch, leave and come back, stop, and how they end."""

# ruff: noqa: ARG001 - tests ask for the clock so that time jumps, not to look at it

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import pytest
import trio
from hub_helpers import BusiestStep
from run_helpers import Model, Site, all_events, data_of, kinds_of
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import HTTPError, Settings, SSEEvent, SSEParser
from h3trio.hub import Hub, HubSettings, MemoryHistory, Selection
from h3trio.runs import Run, RunFailedError, Runs, RunsSettings, RunState
from h3trio.testing import Ending, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock


async def test_the_response_to_the_start_is_its_first_viewer(autojump_clock: MockClock) -> None:
    """Whoever starts a run by asking for an event stream sees all of it, and one end."""
    site = Site()
    async with connect(site.app, "/answers", method="POST", content="a b c") as client:
        assert client.status == 200
        events = await all_events(client)
    assert data_of(events) == ["a", "b", "c"]
    assert kinds_of(events) == ["message"] * 3 + ["done"]
    assert events[-1].data == "{}"
    assert client.ending is Ending.COMPLETE
    assert client.headers["content-location"].startswith("/answers/")


async def test_another_start_is_told_where_its_run_is(autojump_clock: MockClock) -> None:
    """Without asking for an event stream the answer is 202, with Location, id and status."""
    site = Site()
    async with site.run():
        async with site.connect("/answers", method="POST", content="a", accept="*/*") as client:
            assert client.status == 202
            told = json.loads(await client.body())
            assert client.headers["location"] == f"/answers/{told['id']}"
        assert told["status"] == "running"
        assert len(told["id"]) == 32
        async with site.connect(client.headers["location"]) as viewer:
            assert data_of(await all_events(viewer)) == ["a"]


async def test_a_run_goes_on_without_its_client(autojump_clock: MockClock) -> None:
    """A viewer that leaves cancels nothing: who comes back by an id gets the rest, once."""
    site = Site()
    async with site.run():
        async with site.connect("/answers", method="POST", content="a b c d e") as client:
            first = [await client.next_event(), await client.next_event()]
            path = client.headers["content-location"]
        assert site.runs.statistics().viewers == 0
        await trio.sleep(100)
        async with site.connect(path, last_event_id=first[-1].id) as other:
            rest = await all_events(other)
        assert data_of([*first, *rest]) == ["a", "b", "c", "d", "e"]
        assert kinds_of(rest)[-1] == "done"
        async with site.connect(path) as late:
            assert await all_events(late) == [*first, *rest]


async def test_who_has_the_end_is_told_not_to_come_back(autojump_clock: MockClock) -> None:
    """With the id of the terminal event the answer is 204: an EventSource stops."""
    site = Site()
    async with site.run():
        run = await site.start("a")
        await run.result()
        async with site.connect(f"/answers/{run.id}") as client:
            end = (await all_events(client))[-1]
        async with site.connect(f"/answers/{run.id}", last_event_id=end.id) as client:
            assert client.status == 204


async def test_all_viewers_see_the_same(autojump_clock: MockClock) -> None:
    """Two tabs, whenever they come, see the same events with the same ids."""
    site = Site()
    async with site.run():
        run = await site.start("a b c")
        async with site.connect(f"/answers/{run.id}") as one:
            await one.next_event()
            async with site.connect(f"/answers/{run.id}") as two:
                assert site.runs.statistics().viewers == 2
                assert site.runs.statistics().watched == 1
                assert (await all_events(one)) == (await all_events(two))[1:]


async def test_a_run_is_stopped(autojump_clock: MockClock) -> None:
    """A stop cancels the function and is told at once; a second one says how it ended."""
    site = Site()
    async with site.run():
        run = await site.start("a b c d e")
        async with site.connect(f"/answers/{run.id}") as client:
            await client.next_event()
            async with site.connect(f"/answers/{run.id}", method="DELETE") as stopping:
                assert stopping.status == 204
            events = await all_events(client)
        assert kinds_of(events)[-1] == "stopped"
        assert json.loads(events[-1].data or "") == {"reason": "by request"}
        assert len(events) < 4
        assert site.model.unwound == 1
        status = await site.runs.stop(run.id, reason="again")
        assert (status.state, status.detail) == (RunState.STOPPED, "by request")
        assert site.runs.statistics().ended == {"stopped": 1}


async def test_to_stop_what_has_ended_says_how_it_did(autojump_clock: MockClock) -> None:
    """A stop behind the end is no error, and changes nothing."""
    site = Site()
    async with site.run():
        run = await site.start("a")
        await run.result()
        assert (await site.runs.stop(run.id)).state is RunState.DONE
        assert kinds_of(await site.events_of(run.id)) == ["message", "done"]


async def test_a_stop_is_told_before_the_function_has_unwound(autojump_clock: MockClock) -> None:
    """A function that takes its time to unwind delays no viewer, and publishes nothing more."""
    refused: list[BaseException] = []

    async def slow(run: Run) -> None:
        try:
            await run.send("a")
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(30)
                try:
                    await run.send("late")
                except BaseException as exc:
                    refused.append(exc)
                    raise

    site = Site()
    async with site.run():
        run = await site.runs.start(slow)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        assert (await site.runs.stop(run.id)).state is RunState.STOPPED
        assert trio.current_time() == began
        assert kinds_of(await site.events_of(run.id)) == ["message", "stopped"]
        assert (await run.result()).status.state is RunState.STOPPED
        assert trio.current_time() == began + 30
    assert len(refused) == 1


@table(
    "error, message",
    [
        (RunFailedError("the model is busy"), "the model is busy"),
        (HTTPError(502, "no model"), "no model"),
        (ValueError("secret"), "the run failed"),
        (ExceptionGroup("", [RunFailedError("in a nursery")]), "in a nursery"),
        (ExceptionGroup("", [ValueError("secret"), RunFailedError("x")]), "the run failed"),
    ],
)
async def test_a_function_that_raises_fails_its_run(error: Exception, message: str) -> None:
    """The end is `failed`, with a message for the public and never the traceback."""

    async def fail(run: Run) -> None:
        await run.send("a")
        raise error

    site = Site()
    async with site.run():
        run = await site.runs.start(fail)
        result = await run.result()
        assert (result.status.state, result.status.detail) == (RunState.FAILED, message)
        assert result.text == "a"
        events = await site.events_of(run.id)
        assert kinds_of(events) == ["message", "failed"]
        assert json.loads(events[-1].data or "") == {"message": message}


async def test_no_failure_ends_the_others(autojump_clock: MockClock) -> None:
    """A run that fails is logged, and the others go on."""

    async def fail(_run: Run) -> None:
        raise RuntimeError("a bug")

    site = Site()
    async with site.run():
        run = await site.start("a b")
        await (await site.runs.start(fail)).result()
        assert (await run.result()).text == "ab"


@table(
    "text, told, max_event_bytes",
    [
        ("a\ud800b", "a?b", 2**20),
        ("x" * 1001, "x" * 999 + "…", 2**20),
        ("é" * 1000, "", 500),
    ],
)
async def test_an_end_is_told_whatever_its_text(
    text: str, told: str, max_event_bytes: int, autojump_clock: MockClock
) -> None:
    """A reason or a message that no event can have ends its run, and nothing else."""

    async def fail(_run: Run) -> None:
        raise RunFailedError(text)

    site = Site(hub=Hub(settings=HubSettings(max_event_bytes=max_event_bytes)))
    async with site.run():
        other, stopped = await site.start("a b"), await site.start("a b")
        failed = await (await site.runs.start(fail)).result()
        assert (failed.status.state, failed.status.detail) == (RunState.FAILED, told)
        assert (await site.runs.stop(stopped.id, reason=text)).detail == told
        [end] = await site.events_of(stopped.id)
        assert json.loads(end.data or "") == {"reason": told}
        assert (await other.result()).text == "ab"


@table(
    "event, state",
    [
        (SSEEvent("[DONE]", event="done"), RunState.DONE),
        (SSEEvent("[" * 100_000, event="failed"), RunState.FAILED),
        (SSEEvent("{}", event="running"), RunState.INTERRUPTED),
        (SSEEvent("{}", event="over"), RunState.INTERRUPTED),
    ],
)
async def test_an_end_by_somebody_else_ends_one_run(
    event: SSEEvent, state: RunState, autojump_clock: MockClock
) -> None:
    """Who has the right to close the topic of a run, and does, harms no other one."""
    site = Site()
    async with site.run():
        other, run = await site.start("a b"), await site.start("a b")
        await site.hub.publish(event, topics=[f"runs/{run.id}"], private=True, last=True)
        assert (await run.result()).status.state is state
        assert (await site.runs.get(run.id)).status.state is state
        assert (await other.result()).text == "ab"
    async with site.run():
        assert (await site.runs.get(run.id)).status.state is state


@table(
    "data",
    ["[]", "5", "{", '{"id": "../x", "function": "", "owner": "", "public": 1, "started": 1}'],
)
async def test_a_start_by_somebody_else_is_passed_over(data: str) -> None:
    """What stands in the index of runs and isn't the record of a start keeps no process from it."""
    site = Site()
    async with site.run():
        await site.hub.publish(data, topics=["runs/started"])
    async with site.run():
        assert site.runs.statistics().ended == {}


async def test_types_of_the_runs_own_are_refused() -> None:
    """A function can't publish an event that would be taken for an end or a snapshot."""
    refused: list[str] = []

    async def forge(run: Run) -> None:
        for name in ("done", "failed", "stopped", "interrupted", "snapshot", "running"):
            with pytest.raises(ValueError, match="the runs' own"):
                await run.send("x", event=name)
            refused.append(name)
        with pytest.raises(TypeError):
            await run.send(SSEEvent("x"), event="y")

    site = Site()
    async with site.run():
        run = await site.runs.start(forge)
        assert (await run.result()).status.state is RunState.DONE
        with pytest.raises(RuntimeError, match="isn't of this process"):
            await (await site.runs.get(run.id)).send("x")
    assert len(refused) == 6


async def test_ids_of_the_functions_own_bring_a_client_back(autojump_clock: MockClock) -> None:
    """An event may have an id of its own, such as a number, and who has it goes on behind it."""

    async def count(run: Run) -> None:
        for n in range(4):
            await run.send(SSEEvent(f"{n}", id=f"n{n}"))

    site = Site()
    async with site.run():
        run = await site.runs.start(count)
        await run.result()
        async with site.connect(f"/answers/{run.id}", last_event_id="n1") as client:
            assert data_of(await all_events(client)) == ["2", "3"]


JSON, STREAM = "application/json", "text/event-stream"


@table(
    "accept, reply, watch",
    [
        ("*/*", JSON, STREAM),
        ("", JSON, STREAM),
        ("text/html", JSON, STREAM),
        (STREAM, STREAM, STREAM),
        (STREAM.upper(), STREAM, STREAM),
        (JSON, JSON, JSON),
        (f"{JSON}, {STREAM}", STREAM, STREAM),
        (f"{JSON}, {STREAM};q=0.5", JSON, JSON),
        (f"{JSON};q=0.5,{STREAM} ; q=0.6", STREAM, STREAM),
        (f"{JSON}, text/plain, */*", JSON, JSON),
        (f"{JSON};q=0", JSON, STREAM),
        (f"{STREAM};q=0", JSON, STREAM),
        (f"{STREAM};q=0, {JSON}", JSON, JSON),
        (f"{STREAM};q=0.000, */*", JSON, STREAM),
        (f"{STREAM};charset=utf-8;q=nan", STREAM, STREAM),
    ],
)
async def test_accept_says_what_a_client_gets(
    accept: str, reply: str, watch: str, autojump_clock: MockClock
) -> None:
    """A start is answered with a stream if it asks for one, and a watch with JSON if for that."""
    site = Site()
    async with site.run():
        async with site.connect("/answers", method="POST", content="a", accept=accept) as client:
            assert client.headers["content-type"].partition(";")[0] == reply
        run = await site.start("a")
        async with site.connect(f"/answers/{run.id}", accept=accept) as client:
            assert client.headers["content-type"].partition(";")[0] == watch


async def test_the_status_is_given_as_json(autojump_clock: MockClock) -> None:
    """With `Accept: application/json` the answer is how the run stands."""
    site = Site()
    async with site.run():
        run = await site.start("a b")
        for wanted in ("running", "done"):
            async with site.connect(f"/answers/{run.id}", accept="application/json") as client:
                told = json.loads(await client.body())
            assert told["status"] == wanted
            assert ("ended" in told) == (wanted == "done")
            await run.result()


@table("target", ["/answers/nope", f"/answers/{'0' * 32}", f"/answers/{'0' * 31}%2F"])
async def test_an_unknown_run_is_404(target: str) -> None:
    """There is no run, whatever the id looks like."""
    site = Site()
    async with site.run():
        for method in ("GET", "DELETE"):
            async with site.connect(target, method=method) as client:
                assert client.status == 404


async def test_owners_are_told_apart_and_not_told_of(autojump_clock: MockClock) -> None:
    """Another's run is 404 as one that isn't there; a public one is for whoever has its id."""
    site = Site()
    async with site.run():
        own = await site.runs.start(site.model, "a b", owner="ann")
        public = await site.runs.start(site.model, "a b", owner="ann", public=True)
        answers = {}
        for id in (own.id, "0" * 32):
            for method in ("GET", "DELETE"):
                async with site.connect(f"/answers/{id}", method=method, user="bob") as client:
                    answers[id, method] = client.status, await client.body()
        assert len(set(answers.values())) == 1
        assert answers[own.id, "GET"][0] == 404
        async with site.connect(f"/answers/{own.id}", user="ann") as client:
            assert data_of(await all_events(client)) == ["a", "b"]
        async with site.connect(f"/answers/{public.id}", user="bob") as client:
            assert data_of(await all_events(client)) == ["a", "b"]
        with pytest.raises(HTTPError) as caught:
            await site.runs.get(own.id, by="bob")
        assert caught.value.status == 404


async def test_runs_are_private_to_who_has_their_topic(autojump_clock: MockClock) -> None:
    """Whoever subscribes to everything sees nothing of a run that isn't public."""
    site = Site()
    async with site.run(), site.hub.subscription(["*"]) as all_of_them:
        await (await site.runs.start(site.model, "a", owner="ann")).result()
        await (await site.runs.start(site.model, "b", public=True)).result()
        assert [(await all_of_them.receive()).data for _ in range(2)] == ["b", "{}"]


async def test_another_device_finds_the_runs_of_an_owner(autojump_clock: MockClock) -> None:
    """The list has those of one owner, the newest first, and nothing for an empty owner."""
    site = Site()
    async with site.run():
        first = await site.runs.start(site.model, "a", owner="ann")
        await first.result()
        await site.runs.start(site.model, "a", owner="bob")
        await site.runs.start(site.model, "a")
        second = await site.runs.start(site.model, "a", owner="ann")
        listed = await site.runs.list(owner="ann")
        assert [(one.id, one.state) for one in listed] == [
            (second.id, RunState.RUNNING),
            (first.id, RunState.DONE),
        ]
        assert [one.id for one in await site.runs.list(owner="ann", limit=1)] == [second.id]
        assert await site.runs.list(owner="") == []


@pytest.mark.slow
async def test_a_long_list_holds_nobody_up(autojump_clock: MockClock) -> None:
    """Between two checkpoints some runs of an owner are read, and never all of them."""
    site = Site(settings=RunsSettings(max_owner_runs=300))
    site.model.pause = 0
    async with site.run():
        for _ in range(300):
            await site.start("a", owner="ann")
        with BusiestStep(SSEParser.feed) as busiest:
            assert len(await site.runs.list(owner="ann")) == 100
        assert busiest.total >= 300
        assert busiest.most <= 51


async def test_a_snapshot_has_all_so_far_in_one_event(autojump_clock: MockClock) -> None:
    """A late viewer gets the joined texts, then what follows; by its id it goes on behind them."""
    site = Site()
    async with site.run():
        run = await site.start("a b c d")
        await trio.sleep(2.5)
        async with site.connect(f"/answers/{run.id}?from=snapshot") as client:
            snapshot = await client.next_event()
            assert (snapshot.event, snapshot.data) == ("snapshot", "ab")
            assert data_of(await all_events(client)) == ["c", "d"]
        async with site.connect(
            f"/answers/{run.id}?from=snapshot", last_event_id=snapshot.id
        ) as client:
            assert data_of(await all_events(client)) == ["c", "d"]
        async with site.connect(f"/answers/{run.id}?from=snapshot") as client:
            events = await all_events(client)
            assert [(e.event, e.data) for e in events] == [("snapshot", "abcd"), ("done", "{}")]
        async with site.connect(f"/answers/{run.id}?from=x") as client:
            assert client.status == 400


@table("most, kinds", [(637, ["snapshot", "done"]), (600, ["message"] * 6 + ["done"])])
async def test_a_text_that_no_client_takes_at_once_comes_in_pieces(
    most: int, kinds: list[str]
) -> None:
    """Where a snapshot would be larger than an event may be, the stream begins with the first."""
    site = Site()
    site.model.pause = 0
    async with site.run():
        run = await site.start(" ".join(["x" * 100] * 6))
        await run.result()
        settings = Settings(max_event_bytes=most + len(run.id))
        events = await site.events_of(f"{run.id}?from=snapshot", settings=settings)
        assert kinds_of(events) == kinds


@pytest.mark.slow
@table("function, most", [(SSEParser.feed, 50), (Selection.matches, 501)])
async def test_a_snapshot_of_many_events_holds_nobody_up(
    function: Callable[..., object], most: int
) -> None:
    """Between two checkpoints some events are read and parsed, and never all of them."""

    async def many(run: Run) -> None:
        for _ in range(1100):
            await run.send("a")

    site = Site()
    async with site.run():
        run = await site.runs.start(many)
        await run.result()
        with BusiestStep(function) as busiest:
            assert (await run.result(wait=False)).text == "a" * 1100
        assert busiest.total >= 1100
        assert busiest.most <= most


@table("method, ending", [("POST", Ending.CUT), ("GET", Ending.COMPLETE)])
async def test_a_stream_without_an_end_is_cut_off(method: str, ending: Ending) -> None:
    """A viewer that is kicked isn't given what looks whole, unless it comes back by itself."""
    site = Site()
    async with site.run():
        path = "/answers" if method == "POST" else f"/answers/{(await site.start('a b')).id}"
        async with site.connect(path, method=method, content="a") as client:
            await wait_all_tasks_blocked()
            assert site.hub.kick(lambda one: "run" in one.info) == 1
            assert await all_events(client) == []
            assert client.ending is ending


async def test_what_still_runs_at_the_end_is_interrupted(autojump_clock: MockClock) -> None:
    """At the end of the lifespan the function is cancelled, and the end is told."""
    site = Site()
    async with site.hub:
        async with site.runs:
            run = await site.start("a b c")
            await trio.sleep(1.5)
        assert site.model.unwound == 1
        async with site.runs:
            assert kinds_of(await site.events_of(run.id)) == ["message", "interrupted"]
            assert (await site.runs.get(run.id)).status.state is RunState.INTERRUPTED


async def test_what_is_cancelled_with_its_hub_is_interrupted_as_well() -> None:
    """Everything is cancelled at once: a history in memory still takes the end."""
    site, run = Site(), None
    with trio.CancelScope() as scope:
        async with site.hub, site.runs:
            run = await site.start("a b c")
            await wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()
    assert run is not None
    async with site.hub, site.runs:
        assert kinds_of(await site.events_of(run.id))[-1] == "interrupted"


async def test_runs_need_their_block() -> None:
    """Outside the lifespan the error says what is missing; inside, a second entry is refused."""
    site = Site()
    with pytest.raises(trio.ClosedResourceError, match="lifespan"):
        await site.start("a")
    with pytest.raises(trio.ClosedResourceError, match="hub"):
        async with site.runs:
            pass
    async with site.run():
        with pytest.raises(trio.BusyResourceError):
            async with site.runs:
                pass


async def test_an_exception_of_the_block_comes_out_bare() -> None:
    """The nursery of the runs makes no group of it."""
    async with Hub() as hub:
        with pytest.raises(KeyError):  # noqa: PT012 - what is raised is the block's
            async with Runs(hub) as runs:
                await runs.start(Model(), "a b")
                raise KeyError


async def test_a_browser_is_given_a_stream_as_any_other(autojump_clock: MockClock) -> None:
    """An EventSource gets the same events; what it comes back with leads to the rest, then 204."""
    site = Site()
    browser = {"User-Agent": "Mozilla/5.0", "Cache-Control": "no-cache"}
    async with site.run():
        run = await site.start("a b c")
        async with site.connect(f"/answers/{run.id}", headers=browser) as client:
            first = await client.next_event()
            assert (first.event, first.data) == ("message", "a")
            await client.reconnect()
            assert kinds_of(await all_events(client)) == ["message", "message", "done"]
            await client.reconnect()
            assert client.status == 204


async def test_a_head_tells_where_a_stream_would_begin(autojump_clock: MockClock) -> None:
    """HEAD is answered by the head alone, and counts no viewer."""
    site = Site()
    async with site.run():
        run = await site.start("a")
        async with site.connect(f"/answers/{run.id}", method="HEAD") as client:
            assert client.status == 200
            assert client.headers["content-type"].startswith("text/event-stream")
            assert client.headers["last-event-id"]
            await client.wait_closed()
        assert site.runs.statistics().viewers == 0


async def test_what_is_gone_of_a_run_is_told(autojump_clock: MockClock) -> None:
    """A run of which events were removed opens with `reset`, and gives no snapshot."""
    site = Site(hub=Hub(MemoryHistory(max_topic_events=3)))
    async with site.run():
        run = await site.start("a b c d e")
        await run.result()
        for query in ("", "?from=snapshot"):
            async with site.connect(f"/answers/{run.id}{query}") as client:
                events = await all_events(client)
            assert kinds_of(events) == ["reset", "message", "message", "done"]
        result = await (await site.runs.get(run.id)).result()
        assert (result.text, result.whole) == ("de", False)


async def generate(run: Run) -> AsyncIterator[str]:
    """Yield tokens, as handlers of other libraries do."""
    yield "token"


def forgot_async(run: Run) -> None:
    """Do nothing that can be awaited."""


async def takes_a_prompt(run: Run, prompt: str) -> None:
    """Take an argument behind the run."""


@table(
    "function, args, told",
    [
        (generate, (), r"send each event by `await run.send\(...\)` instead of `yield`"),
        (forgot_async, (), r"write `async def forgot_async\(run\)`"),
        (takes_a_prompt, (), r"a run's function is called with \(run\); what stands behind"),
        (takes_a_prompt, ("a", "b"), r"a run's function is called with \(run, arg1, arg2\)"),
        ("answer", (), r"'answer' can't be called"),
    ],
)
async def test_what_cannot_run_is_refused_where_it_is_started(
    function: Callable[..., Awaitable[object]], args: tuple[str, ...], told: str
) -> None:
    """It is an error of the program, so no run is made of it: the handler is told at once."""
    site = Site()
    start = cast("Callable[..., Awaitable[Run]]", site.runs.start)
    async with site.run():
        with pytest.raises(TypeError, match=told):
            await start(function, *args)
        assert site.runs.statistics().started == 0
