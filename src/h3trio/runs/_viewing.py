"""`Viewing`: the answers to those who start and watch runs.

A viewer is a subscription to the topic of its run. It begins behind the record of the start, or
behind the id that its client comes back with, so that whatever is missing is told by `reset`; and
it ends behind the terminal event, which closes the topic. An answer that ends earlier is cut off,
so that it doesn't look whole.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio import CloseReason, HTTPError, Response, SSEEvent
from h3trio.hub import EndReason, HistoryError, HistoryFullError, OverloadedError, PinnedFullError

from ._state import SNAPSHOT, RunState, RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from h3trio import H3Event, SSEWriter
    from h3trio.hub import Hub, Start

    from ._draining import Draining
    from ._ledger import About, Ledger
    from ._local import Local

    Translate = Callable[[SSEEvent], Iterable[SSEEvent]]
    Reduce = Callable[[Sequence[SSEEvent]], str]

_ENDED: Final = frozenset(RunState) - {RunState.RUNNING}


@final
class Viewing:
    """Answers requests with runs.

    Args:
        hub: where the events of runs are.
        ledger: tells of runs.
        running: the runs of this process, by their ids.
        draining: is told of the servers that requests come to.
    """

    def __init__(
        self, hub: Hub, ledger: Ledger, running: Mapping[str, Local], draining: Draining
    ) -> None:
        self._hub = hub
        self._ledger = ledger
        self._running = running
        self._draining = draining
        self.viewers: int = 0
        """Viewers on this node."""
        self._watching = Counter[str]()

    # -- answers

    def reply(
        self,
        about: About,
        status: RunStatus,
        event: H3Event,
        *,
        location: str | None,
        translate: Translate | None,
    ) -> Response | None:
        """Answer the request that started a run; see `Run.reply`."""
        self._draining.note(event)
        if location is None:
            location = f"{event.raw_path.decode('ascii').rstrip('/')}/{about.id}"
        if "text/event-stream" not in _accepted(event):
            told = {"id": about.id, "status": status.state.value}
            code = 202 if status.state is RunState.RUNNING else 200
            headers = {"Location": location, "Cache-Control": "no-store"}
            return Response.json(told, status=code, headers=headers)

        async def stream(writer: SSEWriter) -> None:
            await self._stream(event, writer, about, about.cursor, translate=translate)

        event.response_headers["Content-Location"] = location
        event.response_headers["Last-Event-ID"] = about.cursor
        event.start_sse(drain="finish")
        event.set_stream_callback(stream)
        return None

    async def watch(
        self,
        about: About,
        event: H3Event,
        *,
        reduce: Reduce,
        translate: Translate | None,
    ) -> None:
        """Answer with a stream of a run, or with its status; see `Runs.watch`."""
        self._draining.note(event)
        accepted = _accepted(event)
        if "application/json" in accepted and "text/event-stream" not in accepted:
            event.response_headers["Cache-Control"] = "no-store"
            status = await self.status(about)
            async with event.start_stream("application/json") as writer:
                await writer.send_json(status.to_json())
            return
        beginning = event.query.get("from")
        if beginning not in (None, "start", SNAPSHOT):
            raise HTTPError(400, f"from is start, {SNAPSHOT} or not given, not {beginning!r}")
        after, snapshot = event.last_event_id or about.cursor, None
        if beginning == SNAPSHOT and not event.last_event_id:
            snapshot = await self._snapshot(about, reduce)
            if snapshot is not None:
                after = snapshot.id or after
        start = await self._locate(about, after)
        event.response_headers.update(start.headers)
        if snapshot is not None:
            event.response_headers["Last-Event-ID"] = about.cursor
        if start.complete:  # 204: an EventSource doesn't come back
            event.response_headers["Cache-Control"] = "no-store"
            return
        async with event.start_sse(drain="finish") as writer:
            if snapshot is not None:
                for made in [snapshot] if translate is None else translate(snapshot):
                    await writer.send(made)
            await self._stream(
                event, writer, about, start if translate is None else after, translate=translate
            )

    async def _snapshot(self, about: About, reduce: Reduce) -> SSEEvent | None:
        """Make one event of all that there is; `None` if it wouldn't be all."""
        events, cursor, is_whole = await self._ledger.events(about)
        return SSEEvent(reduce(events), event=SNAPSHOT, id=cursor) if is_whole else None

    async def _locate(self, about: About, after: str) -> Start:
        topic = self._ledger.topic(about.id)
        return await self._hub.locate([topic], last_event_id=after, allow=[topic])

    async def status(self, about: About) -> RunStatus:
        """Return how a run stands."""
        local = self._running.get(about.id)
        if local is None:
            return await self._ledger.status(about)
        return local.ended or about.status(RunState.RUNNING)

    # -- streams

    async def _stream(
        self,
        event: H3Event,
        writer: SSEWriter,
        about: About,
        start: Start | str,
        *,
        translate: Translate | None,
    ) -> None:
        """Send a run's events from a start on, or behind an id, up to its terminal event."""
        topic, info = self._ledger.topic(about.id), {"run": about.id, "client": event.client}
        with self._counted(about.id):
            if translate is None:
                if isinstance(start, str):
                    start = await self._locate(about, start)
                # Not `resync`: who fell out of the history comes back for what is left and the end.
                reason = await self._hub.subscribe(writer, start, info=info, policy="disconnect")
                is_over = reason is EndReason.COMPLETE
            else:
                assert isinstance(start, str), "a channel is opened by an id"
                is_over = False
                async with self._hub.subscription(
                    [topic], last_event_id=start, allow=[topic], info=info, policy="disconnect"
                ) as events:
                    async for got in events:
                        is_over = got.event in _ENDED
                        for made in translate(got):
                            await writer.send(made)
        if not is_over:
            event.end(CloseReason.DRAINING if event.draining.is_set() else CloseReason.KICKED)
            await trio.lowlevel.checkpoint()  # cancelled here, not behind an end that looks orderly

    @contextmanager
    def _counted(self, id: str) -> Generator[None]:
        """Count a viewer while the block runs."""
        local = self._running.get(id)
        self.viewers += 1
        self._watching[id] += 1
        if local is not None:
            local.viewers += 1
            local.seen()
        try:
            yield
        finally:
            self.viewers -= 1
            self._watching[id] -= 1
            if not self._watching[id]:
                del self._watching[id]
            if local is not None:
                local.viewers -= 1
                local.seen()

    def watched_elsewhere(self) -> list[str]:
        """Return the ids of runs that have viewers here, and aren't of this process."""
        return [id for id in self._watching if id not in self._running]

    def cut_off(self, id: str) -> None:
        """End the streams of a run that was removed: nothing comes any more, not even an end."""
        if id in self._watching:
            self._hub.kick(lambda one: one.info.get("run") == id)

    async def wait_ended(self, about: About, local: Local | None) -> RunStatus:
        """Wait until a run has ended; return how."""
        topic = self._ledger.topic(about.id)
        with self._counted(about.id):
            if local is not None:
                await local.done.wait()
                if local.ended is not None:
                    return local.ended
            async with self._hub.subscription(
                [topic], last_event_id=about.cursor, allow=[topic], info={"run": about.id}
            ) as events:
                async for _ in events:
                    pass
        status = await self._ledger.status(about)
        if status.state is RunState.RUNNING:
            raise HTTPError(404, "there is no such run")
        return status


def _accepted(event: H3Event) -> set[str]:
    accept = event.headers.get("accept", "").lower()
    return {part.partition(";")[0].strip() for part in accept.split(",")}


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
