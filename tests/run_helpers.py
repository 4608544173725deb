"""A site with runs, as its handlers would be written, and what its clients saw."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from h3trio import App, H3Event, Response, SSEEvent
from h3trio.hub import Hub
from h3trio.runs import Run, Runs
from h3trio.testing import connect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from h3trio.testing import Client

ENDS = ("done", "failed", "stopped", "interrupted")


class Model:
    """A function of a run: a word each second of Trio's clock, and counts."""

    def __init__(self, pause: float = 1.0) -> None:
        self.pause = pause
        self.calls = 0
        self.unwound = 0

    async def __call__(self, run: Run, prompt: str) -> None:
        """Send the words of a prompt."""
        self.calls += 1
        try:
            for word in prompt.split():
                await trio.sleep(self.pause)
                await run.send(word)
        finally:
            self.unwound += 1


class Site:
    """An app with runs; `X-User` says who asks."""

    def __init__(
        self,
        *,
        hub: Hub | None = None,
        runs: Runs | None = None,
        **options: Any,  # noqa: ANN401 - those of `Runs`
    ) -> None:
        self.hub = hub or Hub()
        self.runs = runs or Runs(self.hub, **options)
        self.model = Model()
        self.app = App(lifespan=self.run)
        self.app.use(_authenticate)

        @self.app.post("/answers")
        async def start(event: H3Event) -> Response | None:
            body = await event.text()
            key = event.headers.get("idempotency-key")
            run = await self.runs.start(
                self.model, body, owner=event.subject, key=key, fingerprint=body
            )
            return run.reply(event)

        @self.app.get("/answers/:id")
        async def watch(event: H3Event) -> None:
            await self.runs.watch(event, event.params["id"])

        @self.app.delete("/answers/:id")
        async def stop(event: H3Event) -> None:
            await self.runs.stop(event.params["id"], by=event.subject, reason="by request")

        _ = start, watch, stop

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Run hub and runs, as the app's lifespan."""
        async with self.hub, self.runs:
            yield

    def connect(
        self,
        target: str,
        *,
        user: str = "",
        accept: str = "text/event-stream",
        headers: dict[str, str] | None = None,
        **options: Any,  # noqa: ANN401 - those of `connect`
    ) -> Client:
        """Connect a client of somebody, while the site runs."""
        told = {"Accept": accept, **({"X-User": user} if user else {}), **(headers or {})}
        return connect(self.app, target, headers=told, lifespan=False, **options)

    async def start(self, prompt: str, **options: Any) -> Run:  # noqa: ANN401 - those of `start`
        """Start the model's answer to a prompt, without a client."""
        return await self.runs.start(self.model, prompt, **options)

    async def events_of(self, id: str, **options: Any) -> list[SSEEvent]:  # noqa: ANN401 - those of `connect`
        """Watch a run to its end."""
        async with self.connect(f"/answers/{id}", **options) as client:
            assert client.status == 200
            return await all_events(client)


async def _authenticate(event: H3Event, next: Callable[[], Any]) -> Any:  # noqa: A002, ANN401 - as middleware is
    event.subject = event.headers.get("x-user", "")
    return await next()


async def all_events(client: Client) -> list[SSEEvent]:
    """Take events until the response ends."""
    events: list[SSEEvent] = []
    while True:
        try:
            events.append(await client.next_event())
        except trio.EndOfChannel:
            return events


def data_of(events: Sequence[SSEEvent]) -> list[str | None]:
    """Return the data of the events that a function published."""
    return [event.data for event in events if event.event not in ENDS]


def kinds_of(events: Sequence[SSEEvent]) -> list[str | None]:
    """Return the types of events."""
    return [event.event for event in events]
