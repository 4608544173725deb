"""`Run`: one run, as its function and its handlers hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from h3trio import SSEEvent

from ._state import RunResult, join_texts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from h3trio import H3Event, Response

    from ._ledger import About, Ledger
    from ._local import Local
    from ._state import RunStatus
    from ._viewing import Viewing


class RunFailedError(Exception):
    """A run fails, and its viewers are told why: the message is for the public.

    Behind 1,000 characters it is cut.

    Raised by a run's function. Any other exception but `HTTPError`, whose detail is public too, is
    logged, and the viewers are told that the run failed and no more.
    """


@final
class Run:
    """A run: what `Runs.start` and `Runs.get` return, and what a run's function gets.

    The function publishes by `send`. All else is for handlers, on any node, whether the run goes on
    or has ended.
    """

    def __init__(
        self,
        ledger: Ledger,
        viewing: Viewing,
        about: About,
        *,
        local: Local | None,
        status: RunStatus,
    ) -> None:
        self._ledger = ledger
        self._viewing = viewing
        self._about = about
        self._local = local
        self._known = status

    def __repr__(self) -> str:
        return f"<Run {self.id}: {self.status.state}>"

    @property
    def id(self) -> str:
        """The id: 32 hexadecimal digits. Who has it and the same owner may watch."""
        return self._about.id

    @property
    def status(self) -> RunStatus:
        """How it stands now; of a run on another node, as it stood when this object was made."""
        if self._local is None:
            return self._known
        return self._local.ended or self._known

    async def send(
        self, value: str | SSEEvent, *, event: str | None = None, id: str | None = None
    ) -> str:
        """Publish data with optional fields, or a ready event; return its id, once it is stored.

        For the run's function. Never waits for a viewer. Where the run has ended meanwhile, as it
        was stopped, the function is cancelled in here, and nothing is published.

        Args:
            value: the data of the event, or the event.
            event: its type; not one of the runs' own: `running`, `done`, `failed`, `stopped`,
                `interrupted`, `snapshot`. A browser calls `onerror` for the type `error`.
            id: an id of your own, under which a client may come back. The hub gives one if not.

        Raises:
            ValueError: the type is one of the runs' own, or as of `Hub.publish`.
            TypeError: an event together with fields.
            RuntimeError: the run goes on in another process, or went on in an earlier one.
            PinnedFullError, OverloadedError, HistoryError, OutcomeUnknownError: as of
                `Hub.publish`. A function that lets one out fails the run.
            TopicClosedError: the run has ended: sent by a handler, or a shield kept the function
                from ending.
        """
        if isinstance(value, SSEEvent):
            if event is not None or id is not None:
                raise TypeError("an SSEEvent has its own event and id")
            made = value
        else:
            made = SSEEvent(value, event=event, id=id)
        if self._local is None:
            raise RuntimeError("this run isn't of this process: only its own function sends")
        return await self._local.send(made)

    def reply(
        self,
        event: H3Event,
        *,
        location: str | None = None,
    ) -> Response | None:
        """Answer the request that started the run: `return run.reply(event)`.

        With `Accept: text/event-stream` the response is a stream of the run from its first event
        on, and the client its first viewer; `Content-Location` says where it comes back to. Else it
        is 202 with `Location` and `{"id": …, "status": …}`.

        Args:
            event: the request.
            location: the path at which the run is watched; the request's own and the id if not
                given.
        """
        return self._viewing.reply(self._about, self.status, event, location=location)

    def follow(
        self, event: H3Event, *, last_event_id: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[SSEEvent]]:
        """Read the run's events, for a handler that answers in a shape of its own.

        ::

            async with run.follow(event) as items, event.start_sse(drain="finish") as writer:
                async for item in items:
                    ...

        The iterator gives the events from the first on, with the type `"message"` where none was
        sent, and the terminal one last. Where the hub ends it earlier, or events are gone, the
        request is ended as by `H3Event.end`: its handler is cancelled, and the client sees that
        its answer isn't whole. Meanwhile the client counts as a viewer. It costs more than
        `Runs.watch`.

        Args:
            event: the request.
            last_event_id: begin behind this event, not at the first.

        Raises:
            HistoryError: on entering, the history can't be read.
        """
        return self._viewing.follow(self._about, event, last_event_id=last_event_id)

    async def result(
        self,
        *,
        wait: bool = True,
        reduce: Callable[[Sequence[SSEEvent]], str] = join_texts,
    ) -> RunResult:
        """Wait until the run has ended; return how, and all of its text.

        Args:
            wait: whether to wait; else it is what there is now.
            reduce: makes one text of the events but the terminal one. If not given, the data of
                those without a type of their own is joined.

        Raises:
            HistoryError: the history can't be read.
            HTTPError: 404, it is no longer kept.
        """
        if wait:
            status = await self._viewing.wait_ended(self._about, self._local)
        else:
            status = await self._viewing.status_if_kept(self._about)
        events, _, is_whole = await self._ledger.events(self._about)
        return RunResult(status=status, text=reduce(events), whole=is_whole)
