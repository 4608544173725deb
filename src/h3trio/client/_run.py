"""`SourceRun`: the task of an event source, which attempts, reads, parses and waits, over and over.

Strategy: every error of the network is caught here, judged, and either waited out or left as
`final_error`. Any other exception (a fault of ours, or of a hook) goes up as it is.

There are two last event ids: a reconnect asks with `received_id`, that of the stream; the one that
the consumer has seen travels with each item through the channel.
"""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, final

import trio

from h3trio import EventTooLargeError, SSEEvent, SSEParser

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
from ._policy import is_event_stream, reconnect_delay, retry_after
from ._state import State, StateChange

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

    from ._options import Limits
    from ._request import Requester


class Item(NamedTuple):
    """An event that is handed over, or only the id of a block without data."""

    event: SSEEvent | None
    id: str


@final
class SourceRun:
    """One stream over as many connections as it takes.

    Attributes:
        scope: cancel it to end the task from outside.
        finished: set when the task has ended.
        changed: set, and replaced, with each change of state.
        final_error: why there will be no more, `None` for an end in order.
    """

    def __init__(
        self,
        requester: Requester,
        sender: trio.MemorySendChannel[Item],
        *,
        limits: Limits,
        last_event_id: str,
        reconnect: bool | Callable[[StateChange], bool],
        on_state_change: Callable[[StateChange], object] | None,
    ) -> None:
        self._requester = requester
        self._sender = sender
        self._limits = limits
        self._received_id = last_event_id
        self._reconnect = reconnect
        self._on_state_change = on_state_change
        self._delay = limits.reconnect_delay
        self.scope = trio.CancelScope()
        self.finished = trio.Event()
        self.changed = trio.Event()
        self.state = State.CONNECTING
        self.last_error: EventSourceError | None = None
        self.final_error: EventSourceError | None = None
        self.attempts = self.streams = self.failures = self.silences = 0
        self.bytes_received = self.events_received = self.events_over_limit = 0

    async def run(self, client: httpx2.AsyncClient, *, owns_client: bool) -> None:
        """Read until there is no use in another attempt, or cancelled."""
        try:
            with self.scope:
                if owns_client:
                    async with client:
                        await self._connect(client)
                else:
                    await self._connect(client)
        except trio.Cancelled:
            self._change(State.CLOSED)
            raise
        except BaseException:
            # The sender stays open: the consumer is cancelled, and must not see an end in order.
            self.state = State.CLOSED
            raise
        else:
            self._sender.close()
            self._change(State.CLOSED, self.final_error)
        finally:
            self.finished.set()

    async def _connect(self, client: httpx2.AsyncClient) -> None:
        """Read one stream after the other, until there is no use in another attempt."""
        while True:
            self.attempts += 1
            delivered = self.events_received
            try:
                await self._read_stream(client)
            except EventSourceError as exc:
                error = exc
            else:
                return
            # After it was closed here, no loss is told any more.
            await trio.lowlevel.checkpoint_if_cancelled()
            self.failures = 0 if self.events_received > delivered else self.failures + 1
            self.last_error = error
            self.silences += isinstance(error, SilentError)
            delay = self._delay_after(error)
            if not self._comes_back(error, delay):
                self.final_error = None if isinstance(error, StreamEndedError) else error
                return
            self._change(State.CONNECTING, error, delay)
            await trio.sleep(delay)

    def _delay_after(self, error: EventSourceError) -> float:
        asked = self._delay
        if isinstance(error, StatusError):
            asked = max(asked, error.retry_after or 0)
        limit = self._limits.max_backoff
        return reconnect_delay(asked, self.failures, random.random, max_backoff=limit)

    def _comes_back(self, error: EventSourceError, delay: float) -> bool:
        is_refused_for_now = (
            isinstance(error, StatusError) and error.status in self._limits.retry_statuses
        )
        if not (isinstance(error, LostError) or is_refused_for_now):
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
        self.streams += 1
        self._change(State.OPEN)
        limits = self._limits
        parser = SSEParser(max_event_size=limits.max_event_bytes, last_event_id=self._received_id)
        take = partial(self._take, parser)
        await read_body(response, take, read_timeout=limits.read_timeout)

    async def _take(self, parser: SSEParser, piece: bytes) -> None:
        """Hand on the events that these bytes complete; waits while the buffer is full."""
        self.bytes_received += len(piece)
        too_large = None
        try:
            events = parser.feed(piece)
        except EventTooLargeError as exc:
            events, too_large = [*exc.events], exc
        if parser.retry is not None:
            self._delay = parser.retry / 1000
        for event in events:
            await self._hand_on(Item(event, event.id or ""))
        if too_large is not None:
            self.events_over_limit += 1
            raise EventLimitError(str(too_large)) from too_large
        if parser.last_event_id != self._received_id:
            await self._hand_on(Item(None, parser.last_event_id))

    async def _hand_on(self, item: Item) -> None:
        self._received_id = item.id
        self.events_received += item.event is not None
        await self._sender.send(item)

    # -- its state

    def _change(
        self, state: State, error: EventSourceError | None = None, delay: float | None = None
    ) -> None:
        self.state = state
        self.changed.set()
        self.changed = trio.Event()
        if self._on_state_change is not None:
            self._on_state_change(self._change_to(state, error, delay))

    def _change_to(
        self, state: State, error: EventSourceError | None, delay: float | None
    ) -> StateChange:
        return StateChange(
            state=state,
            url=self._requester.asked,
            attempts=self.attempts,
            failures=self.failures,
            error=error,
            delay=delay,
        )


async def _refusal(response: httpx2.Response) -> StatusError:
    """Return the error for a status that is no stream."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    wait = retry_after(headers.get("retry-after", ""), time.time())
    text = await read_text(response)
    return StatusError(response.status_code, headers=headers, text=text, retry_after=wait)
