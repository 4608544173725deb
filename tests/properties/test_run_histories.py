"""A run's life: whatever happens, a viewer that stays has all of it once, in order, and one end.

Hypothesis makes a list of actions: runs are started, send, end in each way; viewers come, leave,
come back with their last id or anew; the process ends in order or is killed. Then what each viewer
saw, over all of its connections, is compared with what was acknowledged.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from run_helpers import ENDS, Site
from trio.testing import MockClock

from h3trio.hub import Hub, SQLiteHistory
from h3trio.runs import Run, RunFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h3trio import SSEEvent

which = st.integers(min_value=0, max_value=5)
# To add what else may happen: one more row, and a method `do_NAME` of `Play`.
actions = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.sampled_from(["", "a", "b"])),
        st.tuples(st.just("send"), which),
        st.tuples(st.just("send"), which),
        st.tuples(st.just("watch"), which),
        st.tuples(st.sampled_from(["leave", "come_back", "reload"]), which),
        st.tuples(st.sampled_from(["stop", "fail", "finish"]), which),
        st.tuples(st.sampled_from(["restart", "kill"]), which),
    ),
    max_size=25,
)


@dataclass
class Life:
    """A run as it should be."""

    id: str
    orders: trio.MemorySendChannel[tuple[str, trio.Event]]
    acknowledged: list[str] = field(default_factory=list)
    end: str | None = None


class Viewer:
    """A client, over all of its connections."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.events: list[SSEEvent] = []
        self.scope = trio.CancelScope()
        self.gone, self.has_head, self.is_told = trio.Event(), trio.Event(), trio.Event()
        self.gone.set()
        self.has_head.set()

    def come(self, nursery: trio.Nursery, site: Site) -> None:
        """Watch in a task."""
        self.gone, self.scope = trio.Event(), trio.CancelScope()
        self.has_head = trio.Event()
        nursery.start_soon(self.run, site)

    async def run(self, site: Site) -> None:
        """Watch until the end, or until it is to leave."""
        last = self.events[-1].id if self.events else None
        with self.scope, suppress(trio.EndOfChannel):
            async with site.connect(f"/answers/{self.life.id}", last_event_id=last) as client:
                self.has_head.set()
                assert client.status == (204 if self.is_told.is_set() else 200)
                while True:
                    self.events.append(await client.next_event())
                    if self.events[-1].event in ENDS:
                        self.is_told.set()
        self.gone.set()
        self.has_head.set()

    async def leave(self) -> None:
        """Close the connection."""
        self.scope.cancel()
        await self.gone.wait()


class Play:
    """Plays actions against a site."""

    def __init__(self, nursery: trio.Nursery, folder: Path | None) -> None:
        self.nursery = nursery
        self.folder = folder
        self.lives: dict[str, Life] = {}
        self.viewers: list[Viewer] = []
        self.hub: Hub | None = None
        self.site: Site
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self.restarts = 0

    async def run(self, script: Sequence[tuple[str, Any]]) -> None:
        """Play all, end what still runs, and compare."""
        await self.nursery.start(self.serve)
        for name, argument in script:
            await getattr(self, f"do_{name}")(argument)
        await self.do_restart(0)
        with trio.fail_after(10):
            for viewer in self.viewers:
                await viewer.is_told.wait()
        for life in self.lives.values():
            late = Viewer(life)
            await late.run(self.site)
            self.viewers.append(late)
        for viewer in self.viewers:
            *tokens, end = viewer.events
            assert [event.data for event in tokens] == viewer.life.acknowledged
            assert end.event == viewer.life.end
        self.scope.cancel()

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run a site until it is cancelled."""
        if self.folder is not None:
            self.hub = Hub(SQLiteHistory(self.folder / "hub.db", durability="fast", tail_events=5))
        self.site = Site(hub=self.hub)
        self.hub, self.scope, self.over = self.site.hub, trio.CancelScope(), trio.Event()
        stopping = self.stopping = trio.Event()
        with self.scope:
            async with self.site.run():
                task_status.started()
                await stopping.wait()
        self.over.set()

    async def function(self, run: Run, orders: trio.MemoryReceiveChannel[Any]) -> None:
        """Do as the play says."""
        async for order, done in orders:
            if order == "fail":
                raise RunFailedError("as ordered")
            if order == "finish":
                return
            await run.send(order)
            done.set()

    def life(self, index: int) -> Life | None:
        """One of the runs, if there are any."""
        return list(self.lives.values())[index % len(self.lives)] if self.lives else None

    # -- actions

    async def do_start(self, key: str) -> None:
        """Start a run, or join the one of a key."""
        send, receive = trio.open_memory_channel[Any](0)
        run = await self.site.runs.start(self.function, receive, key=key or None)
        if run.id not in self.lives:
            self.lives[run.id] = Life(run.id, send)

    async def do_send(self, index: int) -> None:
        """Have a run send an event, and wait until it is acknowledged."""
        if (life := self.life(index)) and life.end is None:
            done, data = trio.Event(), str(len(life.acknowledged))
            await life.orders.send((data, done))
            await done.wait()
            life.acknowledged.append(data)

    async def do_watch(self, index: int) -> None:
        """A viewer comes."""
        if life := self.life(index):
            self.viewers.append(Viewer(life))
            self.viewers[-1].come(self.nursery, self.site)

    async def do_leave(self, index: int) -> None:
        """A viewer leaves for a moment: it comes back at the end, if not before."""
        if self.viewers:
            await self.viewers[index % len(self.viewers)].leave()

    async def do_come_back(self, index: int) -> None:
        """A viewer comes back, with its last id."""
        if self.viewers:
            viewer = self.viewers[index % len(self.viewers)]
            await viewer.leave()
            viewer.come(self.nursery, self.site)

    async def do_reload(self, index: int) -> None:
        """A viewer begins anew, without an id."""
        if self.viewers:
            viewer = self.viewers[index % len(self.viewers)]
            await viewer.leave()
            viewer.events, viewer.is_told = [], trio.Event()
            viewer.come(self.nursery, self.site)

    async def do_stop(self, index: int) -> None:
        """Stop a run; one that has ended stays as it is."""
        if life := self.life(index):
            status = await self.site.runs.stop(life.id)
            life.end = life.end or "stopped"
            assert status.state == life.end

    async def do_fail(self, index: int) -> None:
        """Have a run's function raise."""
        await self.order(index, "fail", "failed")

    async def do_finish(self, index: int) -> None:
        """Have a run's function return."""
        await self.order(index, "finish", "done")

    async def order(self, index: int, order: str, end: str) -> None:
        """Have a function end its run."""
        if (life := self.life(index)) and life.end is None:
            await life.orders.send((order, trio.Event()))
            run = await self.site.runs.get(life.id)
            assert (await run.result()).status.state == end
            life.end = end

    async def do_restart(self, _: int) -> None:
        """End the process in order, and start another; viewers come back."""
        await self.settle()
        self.stopping.set()
        await self.over.wait()
        await self.begin_anew()

    async def do_kill(self, _: int) -> None:
        """Kill the process, if its store outlives it: the next one has the file as it was."""
        if self.folder is None:
            return
        await self.settle()
        self.restarts += 1
        copy = self.folder.parent / f"copy{self.restarts}"
        shutil.copytree(self.folder, copy)
        self.folder = copy
        self.scope.cancel()
        await self.over.wait()
        await self.begin_anew()

    async def settle(self) -> None:
        """Wait until all viewers are answered: none may ask a site that is over."""
        for viewer in self.viewers:
            await viewer.has_head.wait()

    async def begin_anew(self) -> None:
        """Start the next process."""
        for viewer in self.viewers:
            await viewer.leave()
        for life in self.lives.values():
            life.end = life.end or "interrupted"
        await self.nursery.start(self.serve)
        for viewer in self.viewers:
            viewer.come(self.nursery, self.site)


async def play(script: Sequence[tuple[str, Any]], folder: Path | None) -> None:
    """Play a script in a nursery of its own."""
    async with trio.open_nursery() as nursery:
        await Play(nursery, folder).run(script)
        nursery.cancel_scope.cancel()


@given(actions)
def test_viewers_see_all_and_one_end(script: list[tuple[str, Any]]) -> None:
    """Over a history in memory, which outlives the runs but not the process."""
    trio.run(play, script, None, clock=MockClock(autojump_threshold=0))


@pytest.mark.slow
@given(actions)
def test_viewers_see_all_and_one_end_over_kills(script: list[tuple[str, Any]]) -> None:
    """Over SQLite, also where the process is killed in between."""
    with TemporaryDirectory() as path:
        folder = Path(path) / "first"
        folder.mkdir()
        trio.run(play, script, folder)
