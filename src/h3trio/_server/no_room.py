"""Connections that there is no place for, and how they are told.

A refusal is an answer, so that the client knows when to come again; it passes
the entrance first, where there is one. Only so many are told at once: refusing
must not become what a server is busy with. Beyond that they are just closed.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio

    from h3trio._http.errors import HTTPError

    from .context import Context
    from .handshakes import Arrival, Entrance

logger = logging.getLogger("h3trio.server")

_MAX_TOLD: Final = 100


async def contain(run: Callable[[], Awaitable[None]], what: object) -> None:
    """Run what belongs to one connection; an error in it is logged and hurts no other."""
    try:
        await run()
    except Exception:
        logger.exception("%r: internal error", what)


@final
class Refusals:
    """The refusals of one server that are under way."""

    __slots__ = ("_context", "_count", "_entrance", "_on_end")

    def __init__(self, context: Context, entrance: Entrance, *, on_end: Callable[[], None]) -> None:
        self._context = context
        self._entrance = entrance
        self._on_end = on_end
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def no_room(self, arrival: Arrival, nursery: trio.Nursery) -> None:
        """Refuse one above the limit of all: 503."""
        self._context.counts.refused += 1
        self._context.met("max_connections")
        self._refuse(arrival, self._context.no_room(), nursery)

    def too_many(self, arrival: Arrival, nursery: trio.Nursery) -> None:
        """Refuse one above the limit of its address: 429."""
        self._context.counts.refused_by_address += 1
        self._context.met("max_connections_per_address")
        self._refuse(arrival, self._context.too_many("connections"), nursery)

    def _refuse(self, arrival: Arrival, refusal: HTTPError, nursery: trio.Nursery) -> None:
        name = f"h3trio refusal of {arrival.client}"
        if self._count >= _MAX_TOLD:
            nursery.start_soon(contain, arrival.transport.aclose, arrival.transport, name=name)
            return
        self._count += 1
        nursery.start_soon(self._run, arrival, refusal, name=name)

    async def _run(self, arrival: Arrival, refusal: HTTPError) -> None:
        try:
            await contain(partial(self._tell, arrival, refusal), arrival)
        finally:
            self._count -= 1
            self._on_end()

    async def _tell(self, arrival: Arrival, refusal: HTTPError) -> None:
        arrival.is_refused = False
        if not arrival.is_inside:
            await self._entrance.enter(arrival)
        if arrival.is_inside:
            await arrival.connection(self._context, refusal).run()
