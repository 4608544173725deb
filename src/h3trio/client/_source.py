"""`EventSource`: one stream over as many connections as it takes.

    server ─▶ run task: attempt, read, parse, wait, again ─▶ [memory channel] ─▶ `async for`

Strategy: one task owns everything, the HTTP client's connection too. It lives in a nursery inside
the context manager, so when the block is left it has ended. Its events go
through the memory channel, in order; the channel's bound makes a server wait for a slow consumer.

Rules of this file:

1. `last_event_id` moves when an event was handed over, and not when it came.
2. An error of the network is left for the consumer, behind the events that came before it. Any
   other exception of the run task cancels the block, as in any nursery.
3. An exception of the block leaves it bare: see `OwnedNursery`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Self, Unpack, final

import trio

from h3trio import SSEEvent, SSEParser
from h3trio._nursery import OwnedNursery

from ._options import LimitKeywords, Limits
from ._request import Requester, new_client, require_httpx2
from ._run import Item, SourceRun
from ._state import EventSourceStatistics, State, StateChange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    import httpx2

    from ._errors import EventSourceError
    from ._request import HeaderFields

_CLOSED_HERE: Final = "this event source was closed"


@final
class EventSource(trio.abc.ReceiveChannel[SSEEvent]):
    """An event stream to iterate over, which comes back when it is lost (WHATWG HTML, 9.2).

    Use it as an async context manager, once; inside, it is a `trio.abc.ReceiveChannel`:

        async with EventSource(url) as source:
            async for event in source: ...

    The iteration ends when the server says that there is no more (204), and where `reconnect` is
    off with the stream. It raises an `EventSourceError` when there is no use in coming back.

    Args:
        url: of the stream, for HTTP.
        method: of the request, such as POST.
        headers: of the request, in front of ours.
        params: fields to add to the query of the URL.
        content: body of the request, sent anew with each attempt.
        http_client: an `httpx2.AsyncClient` to ask with, and not closed here; its own timeouts and
            its `follow_redirects` don't count. One of our own if not given.
        last_event_id: of an earlier stream, to go on behind it.
        reconnect: whether to come back after a loss, or a function that is asked each time, with
            the `StateChange` that would follow.
        on_state_change: called with each `StateChange`, in the order of time.
        **options: limits and times: the fields of `Limits`.

    Raises:
        ImportError: httpx2 is missing.
        TypeError: an argument has the wrong type.
        ValueError: the URL is none for HTTP, `last_event_id` has a CR, LF or NUL, or a limit is
            out of range.
    """

    def __init__(
        self,
        url: str | httpx2.URL,
        *,
        method: str = "GET",
        headers: HeaderFields | None = None,
        params: Mapping[str, str] | None = None,
        content: bytes | str | None = None,
        http_client: httpx2.AsyncClient | None = None,
        last_event_id: str | None = None,
        reconnect: bool | Callable[[StateChange], bool] = True,
        on_state_change: Callable[[StateChange], object] | None = None,
        **options: Unpack[LimitKeywords],
    ) -> None:
        require_httpx2()
        self._limits = limits = Limits(**options)
        self._requester = Requester(
            url, method=method, headers=headers, params=params, content=content, limits=limits
        )
        self._given_client = http_client
        self._delivered_id = SSEParser(last_event_id=last_event_id or "").last_event_id
        self._delivered = 0
        sender, self._receiver = trio.open_memory_channel[Item](limits.buffer_events)
        self._run = SourceRun(
            self._requester,
            sender,
            limits=limits,
            last_event_id=self._delivered_id,
            reconnect=reconnect,
            on_state_change=on_state_change,
        )
        self._tasks: OwnedNursery | None = None

    def __repr__(self) -> str:
        return f"<EventSource: {self.url}, {self._run.state}, {self._run.attempts} attempts>"

    # -- what can be seen

    @property
    def state(self) -> State:
        """The state now. Events that came before it was closed may still wait to be taken."""
        return self._run.state

    @property
    def url(self) -> str:
        """The URL that was asked last, after redirects; without a user's name and password."""
        return self._requester.asked

    @property
    def last_event_id(self) -> str:
        """The id to save: the last event id of all that was handed over, `""` for none."""
        return self._delivered_id

    @property
    def last_error(self) -> EventSourceError | None:
        """The reason why the last stream or attempt ended, `None` before the first that did."""
        return self._run.last_error

    @property
    def attempts(self) -> int:
        """The number of attempts that were made."""
        return self._run.attempts

    def statistics(self) -> EventSourceStatistics:
        """A snapshot."""
        return EventSourceStatistics(
            state=self._run.state,
            attempts=self._run.attempts,
            streams=self._run.streams,
            failures=self._run.failures,
            redirects=self._requester.redirects,
            bytes_received=self._run.bytes_received,
            events_received=self._run.events_received,
            events_delivered=self._delivered,
            events_over_limit=self._run.events_over_limit,
            silences=self._run.silences,
        )

    async def wait_open(self) -> None:
        """Wait until a stream is open, if only for a moment; returns at once if one is.

        Raises:
            EventSourceError: there will be none, because of this.
            trio.EndOfChannel: there will be none, the server says.
            trio.ClosedResourceError: it was closed here.
        """
        await trio.lowlevel.checkpoint()
        run, seen = self._run, self._run.streams
        while run.state is State.CONNECTING and run.streams == seen:
            await run.changed.wait()
        waiting = run.streams > seen or run.events_received > self._delivered
        if run.state is not State.CLOSED or (waiting and not run.scope.cancel_called):
            return
        if run.scope.cancel_called:
            raise trio.ClosedResourceError(_CLOSED_HERE)
        raise self._end()

    # -- taking events

    async def receive(self) -> SSEEvent:
        """Return the next event, with data, event type and the last event id in force.

        Raises:
            EventSourceError: there will be no more, because of this.
            trio.EndOfChannel: there will be no more.
            trio.ClosedResourceError: it was closed here.
        """
        if self._tasks is None and self._run.state is not State.CLOSED:
            raise RuntimeError("enter the event source first: async with EventSource(...)")
        while True:
            try:
                item = await self._receiver.receive()
            except trio.EndOfChannel:
                break
            if (event := self._hand_over(item)) is not None:
                return event
        raise self._end()

    def receive_nowait(self) -> SSEEvent:
        """Return the next event if it is there.

        Raises:
            trio.WouldBlock: it isn't.
            EventSourceError: see `receive`, as for the others.
        """
        while True:
            try:
                item = self._receiver.receive_nowait()
            except trio.EndOfChannel:
                break
            if (event := self._hand_over(item)) is not None:
                return event
        raise self._end()

    def _end(self) -> Exception:
        return self._run.final_error or trio.EndOfChannel()

    def _hand_over(self, item: Item) -> SSEEvent | None:
        self._delivered_id = item.id
        self._delivered += item.event is not None
        return item.event

    # -- its life

    async def __aenter__(self) -> Self:
        if self._tasks is not None or self._run.finished.is_set():
            raise RuntimeError("an event source is entered once")
        client = self._given_client or new_client(timeout=self._limits.read_timeout)
        self._tasks = OwnedNursery()
        nursery = await self._tasks.__aenter__()
        run = partial(self._run.run, client, owns_client=self._given_client is None)
        nursery.start_soon(run, name=f"h3trio event source {self.url}")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._tasks is not None, "entered before"
        self._close()
        await self._tasks.__aexit__(exc_type, exc, traceback)

    async def aclose(self) -> None:
        """End it: the connection is closed, and what wasn't taken is dropped."""
        self._close()
        if self._tasks is not None:
            await self._run.finished.wait()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        self._run.scope.cancel(reason=_CLOSED_HERE)
        self._receiver.close()
        if self._tasks is None:
            self._run.state = State.CLOSED
            self._run.finished.set()
