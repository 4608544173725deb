"""`Draining`: the end of the servers whose requests came here, as the runs need to know of it.

A server that drains lets streams of viewers finish, up to `Settings.drain_finish`. What still runs
by then is interrupted so much earlier that its viewers are told: by the time of a farewell. A
server is known by its first request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from h3trio import H3Event, Settings


@final
class Draining:
    """Watches servers for their drain."""

    def __init__(self) -> None:
        self.begun: bool = False
        """Whether one of them drains: then nothing new is begun."""
        self.over: trio.Event = trio.Event()
        """Set when it is time to interrupt what still runs."""
        self._servers: set[trio.Event] = set()
        self._nursery: trio.Nursery | None = None

    def open(self, nursery: trio.Nursery) -> None:
        """Watch by tasks of this nursery, one for each server."""
        self._nursery = nursery

    def note(self, event: H3Event) -> None:
        """Take note of the server that a request came to."""
        draining = event.draining
        if draining.is_set():
            self.begun = True
        if draining not in self._servers and self._nursery is not None:
            self._servers.add(draining)
            name = "h3trio runs: drain of a server"
            self._nursery.start_soon(self._watch, draining, event.settings, name=name)

    async def _watch(self, draining: trio.Event, settings: Settings) -> None:
        await draining.wait()
        self.begun = True
        await trio.sleep(max(0.0, settings.drain_finish - settings.farewell_timeout))
        self.over.set()
