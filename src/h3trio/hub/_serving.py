"""`Serving`: brings one subscription from where it begins to its end.

It is run by the task that called `Hub.subscribe`: that finds the start, catches up out of the log,
and is parked while the subscriber stands in a feed and the sweep does the work; and again, whenever
the sweep gives the subscriber back.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeAlias, final

import trio

from ._fanout.subscription import EndReason, Start

if TYPE_CHECKING:
    from ._fanout.feed import Subscriber
    from ._fanout.subscription import Policy
    from ._inflow import Inflow

    Asked: TypeAlias = tuple[str | None, int | str | None]
    """A last event id, and where to begin without one."""


@final
class Serving:
    """Serves the subscriptions of one hub.

    Args:
        inflow: finds starts, and has the log, the feeds and the replay.
        reconnect_delay: seconds after which clients reconnect, about.
    """

    def __init__(self, inflow: Inflow, reconnect_delay: float) -> None:
        self._inflow = inflow
        self._reconnect_delay = reconnect_delay
        self._random = random.Random()  # noqa: S311 - it spreads load, it guards nothing

    async def serve(
        self, subscriber: Subscriber, policy: Policy, asked: Start | Asked | None
    ) -> None:
        """Catch up, be ready, and again whenever the sweep gives the subscriber back."""
        inflow = self._inflow
        while subscriber.end_reason is None:
            is_up = False
            with trio.CancelScope() as scope:
                subscriber.interrupt_by(scope)
                start = None if asked is None else await self._begin(subscriber, asked)
                is_up = await inflow.replay.catch_up(subscriber, start)
                if not is_up and policy == "disconnect":
                    subscriber.end(EndReason.LAGGED)
                elif not is_up:
                    await inflow.replay.resync(subscriber)
            subscriber.interrupt_by(None)
            asked = start = None
            del scope  # or it is held for as long as the stream is idle, as the start would be
            if is_up and subscriber.end_reason is None:
                subscriber.position = inflow.history.log.head
                inflow.feeds.join(subscriber)
                await subscriber.park()

    async def _begin(self, subscriber: Subscriber, asked: Start | Asked) -> Start:
        """Find the start, if it isn't found yet, and open the stream there."""
        if not isinstance(asked, Start):
            asked = await self._inflow.locate(subscriber.selection, subscriber.allow, *asked)
        retry = round(1000 * self._reconnect_delay * self._random.uniform(0.5, 1.5))
        await self._inflow.replay.begin(subscriber, asked, retry=retry)
        return asked
