"""`EventSource`: one stream over as many connections as it takes.

    server ─▶ run task: attempt, read, parse, wait, again ─▶ [memory channel] ─▶ `async for`

Strategy: one task owns everything, the HTTP client's connection too. It lives in a nursery inside
the context manager, so when the block is left it has ended. Its events go through the memory
channel, in order; the channel's bound makes a server wait for a slow consumer.

Rules of this file:

1. There are two last event ids. A reconnect asks with `_received_id`, that of the stream; the one
   for the consumer travels with each item, and moves when that is handed over.
2. Every error of the network is caught in the run task, judged, and either waited out or left for
   the consumer, behind the events that came before it. Any other exception of the task (a fault of
   ours, or of a hook) cancels the block, as in any nursery.
3. An exception of the block leaves it bare: see `OwnedNursery`.
"""

from __future__ import annotations

import contextlib
import random
import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Self, Unpack, final

import trio

from h3trio import EventTooLargeError, SSEEvent, SSEParser
from h3trio._nursery import OwnedNursery

from ._body import is_readable, read_body, read_text
from ._errors import (
    ContentEncodingError,
    ContentTypeError,
    EventLimitError,
    EventSourceError,
    LostError,
    SilentError,
    StatusError,
    StreamEndedError,
)
from ._options import LimitKeywords, Limits
from ._policy import is_event_stream, reconnect_delay, retry_after
from ._request import Requester, new_client, require_httpx2
from ._state import EventSourceStatistics, State, StateChange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    import httpx2

    from ._request import HeaderFields

_CLOSED_HERE: Final = "this event source was closed"


class _Item(NamedTuple):
    """An event that is handed over, or only the id of a block without data."""

    event: SSEEvent | None
    id: str


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
        headers: of the request, in front of ours. A redirect to another origin takes along those
            alone that any server may see, such as `Accept` and `User-Agent`.
        params: fields to add to the query of the URL.
        content: body of the request, sent anew with each attempt, and to no other origin.
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
        self._reconnect = reconnect
        self._on_state_change = on_state_change
        self._delivered_id = SSEParser(last_event_id=last_event_id or "").last_event_id
        self._received_id = self._delivered_id
        self._delay = limits.reconnect_delay
        self._sender, self._receiver = trio.open_memory_channel[_Item](limits.buffer_events)
        self._tasks: OwnedNursery | None = None
        self._scope = trio.CancelScope()
        self._finished = trio.Event()
        self._changed = trio.Event()  # set, and replaced, with each change of state
        self._state = State.CONNECTING
        self._last_error: EventSourceError | None = None
        self._final_error: EventSourceError | None = None  # `None` for an end in order, too
        self._attempts = self._streams = self._failures = self._silences = 0
        self._bytes = self._received = self._delivered = self._over_limit = 0

    def __repr__(self) -> str:
        return f"<EventSource: {self.url}, {self._state}, {self._attempts} attempts>"

    # -- what can be seen

    @property
    def state(self) -> State:
        """The state now. Events that came before it was closed may still wait to be taken."""
        return self._state

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
        return self._last_error

    @property
    def attempts(self) -> int:
        """The number of attempts that were made."""
        return self._attempts

    def statistics(self) -> EventSourceStatistics:
        """A snapshot."""
        return EventSourceStatistics(
            state=self._state,
            attempts=self._attempts,
            streams=self._streams,
            failures=self._failures,
            redirects=self._requester.redirects,
            bytes_received=self._bytes,
            events_received=self._received,
            events_delivered=self._delivered,
            events_over_limit=self._over_limit,
            silences=self._silences,
        )

    async def wait_open(self) -> None:
        """Wait until a stream is open, if only for a moment; returns at once if one is.

        Raises:
            EventSourceError: there will be none, because of this.
            trio.EndOfChannel: there will be none, the server says.
            trio.ClosedResourceError: it was closed here.
        """
        await trio.lowlevel.checkpoint()
        seen = self._streams
        while self._state is State.CONNECTING and self._streams == seen:
            await self._changed.wait()
        waiting = self._streams > seen or self._received > self._delivered
        if self._state is not State.CLOSED or (waiting and not self._scope.cancel_called):
            return
        if self._scope.cancel_called:
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
        if self._tasks is None and self._state is not State.CLOSED:
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
        return self._final_error or trio.EndOfChannel()

    def _hand_over(self, item: _Item) -> SSEEvent | None:
        self._delivered_id = item.id
        self._delivered += item.event is not None
        return item.event

    # -- its life

    async def __aenter__(self) -> Self:
        if self._tasks is not None or self._finished.is_set():
            raise RuntimeError("an event source is entered once")
        client = self._given_client or new_client(timeout=self._limits.read_timeout)
        self._tasks = OwnedNursery()
        nursery = await self._tasks.__aenter__()
        nursery.start_soon(self._run, client, name=f"h3trio event source {self.url}")
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
            await self._finished.wait()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        self._scope.cancel(reason=_CLOSED_HERE)
        self._receiver.close()
        if self._tasks is None:
            self._state = State.CLOSED
            self._finished.set()

    # -- the run task

    async def _run(self, client: httpx2.AsyncClient) -> None:
        """Read until there is no use in another attempt, or cancelled."""
        try:
            with self._scope:
                async with client if self._given_client is None else contextlib.nullcontext():
                    await self._connect(client)
        except trio.Cancelled:
            self._change(State.CLOSED)
            raise
        except BaseException:
            # The sender stays open: the consumer is cancelled, and must not see an end in order.
            self._state = State.CLOSED
            raise
        else:
            self._sender.close()
            self._change(State.CLOSED, self._final_error)
        finally:
            self._finished.set()

    async def _connect(self, client: httpx2.AsyncClient) -> None:
        """Read one stream after the other, until there is no use in another attempt."""
        while True:
            self._attempts += 1
            delivered = self._received
            try:
                await self._read_stream(client)
            except EventSourceError as exc:
                error = exc
            else:
                return
            # After it was closed here, no loss is told any more.
            await trio.lowlevel.checkpoint_if_cancelled()
            self._failures = 0 if self._received > delivered else self._failures + 1
            self._last_error = error
            self._silences += isinstance(error, SilentError)
            delay = self._delay_after(error)
            if not self._comes_back(error, delay):
                self._final_error = None if isinstance(error, StreamEndedError) else error
                return
            self._change(State.CONNECTING, error, delay)
            await trio.sleep(delay)

    def _delay_after(self, error: EventSourceError) -> float:
        asked = self._delay
        if isinstance(error, StatusError):
            asked = max(asked, error.retry_after or 0)
        limit = self._limits.max_backoff
        return reconnect_delay(asked, self._failures, random.random, max_backoff=limit)

    def _comes_back(self, error: EventSourceError, delay: float) -> bool:
        is_for_now = isinstance(error, LostError)
        if isinstance(error, StatusError):
            is_for_now = error.status in self._limits.retry_statuses or (
                self._streams > 0 and error.status in self._limits.outage_statuses
            )
        if not is_for_now:
            return False
        if isinstance(self._reconnect, bool):
            return self._reconnect
        return self._reconnect(self._change_to(State.CONNECTING, error, delay))

    async def _read_stream(self, client: httpx2.AsyncClient) -> None:
        """Make one attempt; returns where the server says that there is no more."""
        response = await self._requester.open(client, self._received_id)
        try:
            # WHATWG HTML, 9.2.3: a stream is status 200 with its type, 204 ends it for good.
            if response.status_code == 204:  # noqa: PLR2004 - No Content
                return
            if response.status_code != 200:  # noqa: PLR2004 - OK
                raise await _refusal(response)
            if not is_event_stream(kind := response.headers.get("content-type", "")):
                raise ContentTypeError(kind)
            if not is_readable(coding := response.headers.get("content-encoding", "")):
                raise ContentEncodingError(f"the stream is compressed with {coding[:50]!r}")
            await self._read_events(response)
        finally:
            await response.aclose()
        raise StreamEndedError("the server ended the stream")

    async def _read_events(self, response: httpx2.Response) -> None:
        self._streams += 1
        self._change(State.OPEN)
        limits = self._limits
        parser = SSEParser(max_event_size=limits.max_event_bytes, last_event_id=self._received_id)
        take = partial(self._take, parser)
        await read_body(response, take, read_timeout=limits.read_timeout)

    async def _take(self, parser: SSEParser, piece: bytes) -> None:
        """Hand on the events that these bytes complete; waits while the buffer is full."""
        self._bytes += len(piece)
        too_large = None
        try:
            events = parser.feed(piece)
        except EventTooLargeError as exc:
            events, too_large = [*exc.events], exc
        if parser.retry is not None:
            self._delay = parser.retry / 1000
        for event in events:
            await self._hand_on(_Item(event, event.id or ""))
        if too_large is not None:
            self._over_limit += 1
            raise EventLimitError(str(too_large)) from too_large
        if parser.last_event_id != self._received_id:
            await self._hand_on(_Item(None, parser.last_event_id))

    async def _hand_on(self, item: _Item) -> None:
        self._received_id = item.id
        self._received += item.event is not None
        await self._sender.send(item)

    def _change(
        self, state: State, error: EventSourceError | None = None, delay: float | None = None
    ) -> None:
        self._state = state
        self._changed.set()
        self._changed = trio.Event()
        if self._on_state_change is not None:
            self._on_state_change(self._change_to(state, error, delay))

    def _change_to(
        self, state: State, error: EventSourceError | None, delay: float | None
    ) -> StateChange:
        return StateChange(
            state=state,
            url=self._requester.asked,
            attempts=self._attempts,
            failures=self._failures,
            error=error,
            delay=delay,
        )


async def _refusal(response: httpx2.Response) -> StatusError:
    """Return the error for a status that is no stream."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    wait = retry_after(headers.get("retry-after", ""), time.time())
    text = await read_text(response)
    return StatusError(response.status_code, headers=headers, text=text, retry_after=wait)
