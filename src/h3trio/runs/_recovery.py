"""`Recovery`: ends the runs of processes that are gone, and acts on what other nodes tell.

Where a history has one owner, everything that runs at the start is of a process that is gone. Where
several hubs share it, a node is gone once `Nodes` finds it so.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, final

from h3trio.hub import PinnedFullError

from ._runner import for_each
from ._state import RunState

if TYPE_CHECKING:
    from ._ledger import About, Ledger
    from ._local import Local
    from ._nodes import Nodes
    from ._retention import Retention
    from ._runner import Runner
    from ._viewing import Viewing


@final
class Recovery:
    """Goes through the runs of other processes.

    Args:
        ledger: has all runs.
        runner: has those of this process, and publishes how one ends.
        retention: is told of those that have ended.
        node: the name of this node.
        nodes: the others, if there are any.
    """

    def __init__(
        self,
        ledger: Ledger,
        runner: Runner,
        retention: Retention,
        *,
        node: str,
        nodes: Nodes | None,
    ) -> None:
        self._ledger = ledger
        self._runner = runner
        self._retention = retention
        self._node = node
        self._nodes = nodes

    async def look_over(self, *, node: str | None, gone: bool) -> None:
        """Go through all runs: end those of a node, or of all, and remove what has ended.

        Args:
            node: its name, or `None` for all but this one.
            gone: whether it is known to be gone; else it is waited for.
        """
        found = [
            about
            for about in await self._ledger.all()
            if about.node != self._node and node in (None, about.node)
        ]
        running: list[About] = []

        async def look_at(about: About) -> None:
            status = await self._ledger.status(about)
            if status.state is RunState.RUNNING:
                running.append(about)
            else:
                self._retention.add(about, ended=status.ended)

        await for_each(look_at, found)
        if not gone:
            if self._nodes is not None:
                self._nodes.expect({about.node for about in running})
            return
        # All of them before the first event is published, with which retention goes on.
        for about in running:
            with suppress(PinnedFullError):
                self._runner.pins.keep(self._runner.pins.pin(about.id))
        await for_each(self._interrupt, running)

    async def _interrupt(self, about: About) -> None:
        ended = await self._runner.publish_end(about, RunState.INTERRUPTED, "")
        self._runner.ended[ended.state.value] += 1
        self._retention.add(about)
        if self._nodes is not None:
            await self._nodes.tell("ended", about.id)

    async def _look_for_start(self, local: Local) -> None:
        """End a run of this node that the store has lost the start of.

        No other node knows of it, and another run may be started with its key.
        """
        found = await self._ledger.find(local.about.id)
        if found is None:
            await self._runner.end_local(local, RunState.INTERRUPTED, "")
        elif found.cursor != local.about.cursor:
            # Its topic is another run's: nothing more is published there.
            local.end(local.about.status(RunState.INTERRUPTED, ended=self._ledger.clock()))

    async def hear_of(self, nodes: Nodes, viewing: Viewing) -> None:
        """Act on what other nodes tell, until cancelled."""
        while True:
            kind, name = await nodes.next_news()
            local = self._runner.running.get(name)
            if kind == "lost":
                await for_each(self._look_for_start, list(self._runner.running.values()))
            elif kind == "removed":
                viewing.cut_off(name)
            elif kind == "gone":
                try:
                    await self.look_over(node=name, gone=True)
                except BaseException:
                    nodes.expect([name])  # it is found again
                    raise
            elif local is not None and kind == "ended":
                local.cancel(RunState.INTERRUPTED, "")
            elif local is not None:
                local.seen()
