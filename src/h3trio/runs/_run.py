"""`Run`: one run, as its function and its handlers hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from h3trio import SSEEvent

from ._state import RunResult, join_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from h3trio import H3Event, Response

    from ._ledger import About, Ledger
    from ._local import Local
    from ._state import RunStatus
    from ._viewing import Viewing


class RunFailedError(Exception):
    """A run fails, and its viewers are told why: the message is for the public.

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
            TopicClosedError: the run has ended, and a shield kept its function from ending.
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
        translate: Callable[[SSEEvent], Iterable[SSEEvent]] | None = None,
    ) -> Response | None:
        """Answer the request that started the run: `return run.reply(event)`.

        With `Accept: text/event-stream` the response is a stream of the run from its first event
        on, and the client its first viewer; `Content-Location` says where it comes back to. Else it
        is 202 with `Location` and `{"id": …, "status": …}`.

        Args:
            event: the request.
            location: the path at which the run is watched; the request's own and the id if not
                given.
            translate: as of `Runs.watch`.
        """
        return self._viewing.reply(
            self._about, self.status, event, location=location, translate=translate
        )

    async def result(
        self, *, reduce: Callable[[Sequence[SSEEvent]], str] = join_texts
    ) -> RunResult:
        """Wait until the run has ended; return how, and all of its text.

        Args:
            reduce: makes one text of the events, the last one left out. If not given, the data of
                those without a type of their own is joined.

        Raises:
            HistoryError: the history can't be read.
            HTTPError: 404, it is no longer kept.
        """
        status = await self._viewing.wait_ended(self._about, self._local)
        events, _, is_whole = await self._ledger.events(self._about)
        return RunResult(status=status, text=reduce(events), whole=is_whole)
