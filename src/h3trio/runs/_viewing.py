"""`Viewing`: the answers to those who start and watch runs.

A viewer is a subscription to the topic of its run. It begins behind the record of the start, or
behind the id that its client comes back with, so that whatever is missing is told by `reset`; and
it ends behind the terminal event, which closes the topic. An answer that ends earlier is cut off,
so that it doesn't look whole.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Self, final

import trio

from h3trio import CloseReason, HTTPError, Response, SSEEvent
from h3trio.hub import EndReason, HistoryError, HistoryFullError, OverloadedError, PinnedFullError

from ._state import ENDED, SNAPSHOT, RunState, RunStatus

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Callable,
        Generator,
        Mapping,
        Sequence,
    )

    from h3trio import H3Event, SSEWriter
    from h3trio.hub import EventChannel, Hub, Selection, Start

    from ._draining import Draining
    from ._ledger import About, Ledger
    from ._local import Local

    Reduce = Callable[[Sequence[SSEEvent]], str]

_WEIGHT: Final = re.compile(r"[01](\.[0-9]{0,3})?")


@final
class Viewing:
    """Answers requests with runs.

    Args:
        hub: where the events of runs are.
        ledger: tells of runs.
        running: the runs of this process, by their ids.
        draining: is told of the servers that requests come to.
        limits: where the limits that are met are counted.
    """

    def __init__(
        self,
        hub: Hub,
        ledger: Ledger,
        *,
        running: Mapping[str, Local],
        draining: Draining,
        limits: Counter[str],
    ) -> None:
        self._hub = hub
        self._ledger = ledger
        self._running = running
        self._draining = draining
        self.viewers: int = 0
        """Viewers on this node."""
        self._watched: dict[str, _Watched] = {}
        self._limits = limits

    # -- answers

    def reply(
        self,
        about: About,
        status: RunStatus,
        event: H3Event,
        *,
        location: str | None,
    ) -> Response | None:
        """Answer the request that started a run; see `Run.reply`."""
        self._draining.note(event)
        if location is None:
            location = f"{event.raw_path.decode('ascii').rstrip('/')}/{about.id}"
        stream_weight, json_weight = _weights(event)
        if not stream_weight or json_weight > stream_weight:
            told = {"id": about.id, "status": status.state.value}
            code = 202 if status.state is RunState.RUNNING else 200
            headers = {"Location": location, "Cache-Control": "no-store"}
            return Response.json(told, status=code, headers=headers)

        event.response_headers["Content-Location"] = location
        event.response_headers["Last-Event-ID"] = about.cursor
        event.start_sse(drain="finish")
        event.set_stream_callback(partial(self._stream, event, about))
        return None

    async def watch(self, event: H3Event, id: str, *, by: str, reduce: Reduce) -> None:
        """Answer with a stream of a run, or with its status; see `Runs.watch`.

        All that a stream needs is in this one frame: each more would last as long.
        """
        self._draining.note(event)
        with store_errors(self._limits):
            about = await self.require(id, by)
            found = await self._begin(event, about, reduce)
        if found is None:
            return
        start, snapshot = found
        del about, found
        async with event.start_sse(drain="finish") as writer:
            if snapshot is not None:
                await writer.send(snapshot)
                snapshot = None
            start = self._enter(id, start)
            try:
                # Not `resync`: who fell out of the history comes back for what is left and the end.
                reason = await self._hub.subscribe(
                    writer, start, info={"run": id, "client": event.client}, policy="disconnect"
                )
            finally:
                self._leave(id)
            if reason is not EndReason.COMPLETE:
                await _cut_off(event)

    async def _begin(
        self, event: H3Event, about: About, reduce: Reduce
    ) -> tuple[Start, SSEEvent | None] | None:
        """Find where a stream begins, and its snapshot; `None` if the answer is none."""
        stream_weight, json_weight = _weights(event)
        if json_weight > stream_weight:
            event.response_headers["Cache-Control"] = "no-store"
            status = await self.status(about)
            async with event.start_stream("application/json") as writer:
                await writer.send_json(status.to_json())
            return None
        beginning = event.query.get("from")
        if beginning not in (None, "start", SNAPSHOT):
            raise HTTPError(400, f"from is start, {SNAPSHOT} or not given, not {beginning!r}")
        after, snapshot = event.last_event_id or about.cursor, None
        if beginning == SNAPSHOT and not event.last_event_id:
            snapshot = await self._snapshot(about, reduce, event.max_event_bytes)
            if snapshot is not None:
                after = snapshot.id or after
        start = await self._locate(about, after)
        event.response_headers.update(start.headers)
        if snapshot is not None:
            event.response_headers["Last-Event-ID"] = about.cursor
        if start.complete:  # 204: an EventSource doesn't come back
            event.response_headers["Cache-Control"] = "no-store"
            return None
        return start, snapshot

    async def _snapshot(self, about: About, reduce: Reduce, most: int) -> SSEEvent | None:
        """Make one event of all that there is; `None` if it isn't all, or more than clients take.

        Then the stream begins with the first event, as without a snapshot.
        """
        events, cursor, is_whole = await self._ledger.events(about)
        if not is_whole:
            return None
        snapshot = SSEEvent(reduce(events), event=SNAPSHOT, id=cursor)
        await trio.lowlevel.checkpoint()
        return snapshot if len(snapshot.encode()) <= most else None

    async def _locate(self, about: About, after: str) -> Start:
        topic = self._ledger.topic(about.id)
        return await self._hub.locate([topic], last_event_id=after, allow=[topic])

    async def status(self, about: About) -> RunStatus:
        """Return how a run stands."""
        local = self._running.get(about.id)
        if local is None:
            return await self._ledger.status(about)
        return local.ended or about.status(RunState.RUNNING)

    async def find(self, id: str) -> About | None:
        """Return the run of an id, `None` if there is none."""
        local = self._running.get(id)
        return await self._ledger.find(id) if local is None else local.about

    async def require(self, id: str, by: str) -> About:
        """Return a run that somebody may watch and stop.

        Raises:
            HTTPError: 404, the same whether there is none or it is somebody else's.
        """
        about = await self.find(id)
        if about is None or not about.is_for(by):
            raise _unknown()
        return about

    async def status_if_kept(self, about: About) -> RunStatus:
        """Return how a run stands that was found earlier.

        Raises:
            HTTPError: 404, it was removed since.
        """
        if await self.find(about.id) is None:
            raise _unknown()
        return await self.status(about)

    # -- streams

    async def _stream(self, event: H3Event, about: About, writer: SSEWriter) -> None:
        """Send a run's events from the first on, as `watch` does."""
        id = about.id
        start = self._enter(id, await self._locate(about, about.cursor))
        try:
            reason = await self._hub.subscribe(
                writer, start, info={"run": id, "client": event.client}, policy="disconnect"
            )
        finally:
            self._leave(id)
        if reason is not EndReason.COMPLETE:
            await _cut_off(event)

    @asynccontextmanager
    async def follow(
        self, about: About, event: H3Event, *, last_event_id: str | None
    ) -> AsyncGenerator[AsyncIterator[SSEEvent]]:
        """Read a run's events up to its terminal event; see `Run.follow`."""
        self._draining.note(event)
        after = last_event_id or about.cursor
        start = self._enter(about.id, await self._locate(about, after))
        try:
            async with self._hub.subscription(
                start.topics.topics,
                last_event_id=after,
                allow=start.allow.topics,
                info={"run": about.id, "client": event.client},
                policy="disconnect",
            ) as events:
                yield _Following(events, event)
        finally:
            self._leave(about.id)

    def _enter(self, id: str, start: Start) -> Start:
        """Count a viewer; return its start, with selections that all viewers of a run share."""
        local, watched = self._running.get(id), self._watched.get(id)
        self.viewers += 1
        if watched is None:
            watched = self._watched[id] = _Watched(start.topics)
        watched.viewers += 1
        if local is not None:
            local.viewers += 1
            local.seen()
        return replace(start, topics=watched.topics, allow=watched.topics)

    def _leave(self, id: str) -> None:
        """Count a viewer less."""
        local, watched = self._running.get(id), self._watched[id]
        self.viewers -= 1
        watched.viewers -= 1
        if not watched.viewers:
            del self._watched[id]
        if local is not None:
            local.viewers -= 1
            local.seen()

    def watched_elsewhere(self) -> list[str]:
        """Return the ids of runs that have viewers here, and aren't of this process."""
        return [id for id in self._watched if id not in self._running]

    def cut_off(self, id: str) -> None:
        """End the streams of a run that was removed: nothing comes any more, not even an end."""
        if id in self._watched:
            self._hub.kick(lambda one: one.info.get("run") == id)

    async def wait_ended(self, about: About, local: Local | None) -> RunStatus:
        """Wait until a run has ended; return how. Whoever waits counts as a viewer."""
        self._enter(about.id, await self._locate(about, about.cursor))
        try:
            if local is None:
                await self._wait_elsewhere(about)
            else:
                await local.done.wait()
        finally:
            self._leave(about.id)
        if local is not None and local.ended is not None:
            return local.ended
        status = await self._ledger.status(about)
        if status.state is RunState.RUNNING:
            raise _unknown()
        return status

    async def _wait_elsewhere(self, about: About) -> None:
        topic = self._ledger.topic(about.id)
        async with self._hub.subscription(
            [topic], last_event_id=about.cursor, allow=[topic], info={"run": about.id}
        ) as events:
            async for _ in events:
                pass


@final
@dataclass(slots=True, eq=False)
class _Watched:
    """A run that has viewers on this node."""

    topics: Selection
    """Its topic, as all of them select and are allowed it."""
    viewers: int = 0


@final
class _Following:
    """An iterator over the events of one run, up to the terminal one.

    Args:
        events: the subscription.
        event: the request whose answer is cut off where something is missing.
    """

    def __init__(self, events: EventChannel, event: H3Event) -> None:
        self._events = events
        self._event = event
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SSEEvent:
        if self._is_over:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        try:
            got = await self._events.receive()
        except trio.EndOfChannel:
            await _cut_off(self._event)
            raise
        if got.event == "reset":
            await _cut_off(self._event)
        self._is_over = got.event in ENDED
        return got


def _unknown() -> HTTPError:
    return HTTPError(404, "there is no such run")


async def _cut_off(event: H3Event) -> None:
    """End an answer that isn't whole, so that it doesn't look so: its handler is cancelled here."""
    event.end(CloseReason.DRAINING if event.draining.is_set() else CloseReason.KICKED)
    await trio.lowlevel.checkpoint()  # cancelled here, not behind an end that looks orderly


def _weights(event: H3Event) -> tuple[float, float]:
    """Return how much a client wants a stream, and JSON: the weights in `Accept`, or 0.

    RFC 9110 section 12.4.2. Only what it names counts: `*/*` is no wish for either of them.
    """
    weights = {"text/event-stream": 0.0, "application/json": 0.0}
    for member in event.headers.get("accept", "").lower().split(","):
        name, *parameters = (part.strip() for part in member.split(";"))
        if name in weights:
            weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
            weights[name] = float(weight) if _WEIGHT.fullmatch(weight) else 1.0
    return weights["text/event-stream"], weights["application/json"]


@contextmanager
def store_errors(limits: Counter[str]) -> Generator[None]:
    """Raise 503 for what the store refuses, and count the limit that it met.

    Raises:
        HTTPError: 503.
    """
    try:
        yield
    except (OverloadedError, PinnedFullError) as exc:
        limits[exc.limit] += 1
        raise HTTPError(503, "there is no room for it now") from exc
    except HistoryFullError as exc:
        raise HTTPError(503, "the store has no room") from exc
    except HistoryError as exc:
        raise HTTPError(503, "the store doesn't answer") from exc
