"""`publish`: the answer of `POST /events`, which takes one event or a stream of them.

Any body is the data of one event, whatever its type; `event`, `id` and `retry` come by the query,
as do `private=on` and `last=on`, by which it is the last of its topics. A body of type
`text/event-stream` is a stream of events, published as they arrive: what one read brought is one
step into the log, or a few. One event above the publisher's rate is refused; a stream is read no
faster than the rate instead, as its publisher has nothing else to wait for. An `Idempotency-Key` is
for one event: with a stream of them it is refused.

Between two checkpoints a bounded number of bytes is parsed, or of events published: a read may hold
ten thousand events of six bytes each, and everybody else waits meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from h3trio import EventTooLargeError, H3Event, HTTPError, Response, SSEEvent, SSEParser

from ._errors import HUB_ERRORS, http_error, hub_errors
from ._query import check_query, check_utf8, topic_parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from h3trio.hub import Hub

    from ._access.rate_limit import Bucket

PARSED_AT_ONCE: Final = 4 * 1024
"""Bytes parsed between two checkpoints: at worst 2,000 lines with nothing in them."""

PUBLISHED_AT_ONCE: Final = 128
"""Events published between two checkpoints: as many as one connection may publish in 2 ms. A store
has as many for one commit."""

_FIELDS: Final = ("event", "id", "retry", "private", "last")
_STREAM_FIELDS: Final = ("private", "last")  # each event of a stream has its own
_STREAM_TYPE: Final = "text/event-stream"
_ON: Final = ("on", "1", "true", "")


async def publish(
    hub: Hub,
    event: H3Event,
    topics: Sequence[str],
    *,
    pace: Bucket | None,
    still: Callable[[], None],
) -> Response:
    """Publish what a request brings, each event once for all topics; answer once it is stored.

    `pace` holds the publisher to its rate. `still` raises `HTTPError` once its grant has ended: a
    body of events may take longer than that lasts.

    Raises:
        HTTPError: 400, 409, 413, 415, 422, 429, 500 or 503, saying what is wrong.
    """
    content_type = event.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_stream = content_type == _STREAM_TYPE
    check_query(event, *topic_parameter(event), *(_STREAM_FIELDS if is_stream else _FIELDS))
    event.require_utf8()
    private, last = _is_on(event, "private"), _is_on(event, "last")
    dedup = event.headers.get("idempotency-key")
    with hub_errors(event):
        if is_stream:
            if dedup is not None:
                # How far such a body came is known by its answer alone: a part has no key.
                raise HTTPError(400, "an Idempotency-Key is for one event, not for a body of them")
            hub.check_topics(topics)  # before a body that may be empty, or never end
            return await _Stream(hub, event, topics, pace, still, private, last).publish()
        if pace is not None:
            pace.check()
        update = await _single(event)
        stored = await hub.publish(update, topics=topics, private=private, dedup=dedup, last=last)
        return Response.json({"id": stored})


def _is_on(event: H3Event, name: str) -> bool:
    """Whether a parameter is set; what is neither on nor absent is refused, not guessed."""
    value = event.query.get(name)
    if value is not None and value not in _ON:
        raise HTTPError(400, f"{name} is on or not given, not {value!r}")
    return value is not None


async def _single(event: H3Event) -> SSEEvent:
    query = event.query
    kind, own_id, retry = query.get("event"), query.get("id"), query.get("retry")
    check_utf8(event, kind, own_id)  # ids of other bytes would become the same one
    if retry is not None and not (retry.isascii() and retry.isdigit()):
        raise HTTPError(400, f"retry must be a number of milliseconds, not {retry!r}")
    body = await event.body(decode=True)
    if len(body) > event.max_event_bytes:
        raise EventTooLargeError(f"an event may have {event.max_event_bytes} bytes")
    return SSEEvent(
        body,
        event=kind,
        id=own_id,
        retry=None if retry is None else int(retry),
    )


@dataclass(slots=True)
class _Stream:
    """A request body of events on its way into the hub; the fields are those of `publish`."""

    hub: Hub
    event: H3Event
    topics: Sequence[str]
    pace: Bucket | None
    still: Callable[[], None]
    private: bool
    closes: bool
    published: int = 0
    last: str = ""
    id_in_force: str = ""

    async def publish(self) -> Response:
        """Publish until the body ends; on an error say how far it came."""
        status, headers, error = 200, None, {}
        parser = SSEParser(max_event_size=self.event.max_event_bytes)
        try:
            async for piece in self.event.stream(decode=True):
                await self._feed(parser, bytes(piece))
            if self.closes:
                self.still()
                await self.hub.close(*self.topics, private=self.private)
        except (*HUB_ERRORS, HTTPError) as exc:
            refusal = exc if isinstance(exc, HTTPError) else http_error(self.event, exc)
            status, headers, error = refusal.status, refusal.headers, {"error": refusal.detail}
        result = {"published": self.published, "id": self.last, **error}
        return Response.json(result, status=status, headers=headers)

    async def _feed(self, parser: SSEParser, piece: bytes) -> None:
        """Publish the events that a piece of the body completes."""
        parsed: list[SSEEvent] = []
        for start in range(0, len(piece), PARSED_AT_ONCE):
            if start:
                await trio.lowlevel.checkpoint()
            try:
                parsed += parser.feed(piece[start : start + PARSED_AT_ONCE])
            except EventTooLargeError as exc:
                await self._publish_paced([*parsed, *exc.events])
                raise
        await self._publish_paced(parsed)

    async def _publish_paced(self, parsed: Sequence[SSEEvent]) -> None:
        most = PUBLISHED_AT_ONCE
        if self.pace is not None:
            most = max(1, min(most, self.pace.rate.burst))
        for start in range(0, len(parsed), most):
            some = parsed[start : start + most]
            if self.pace is not None:
                await self.pace.wait(len(some))
            await self._publish(some)

    async def _publish(self, parsed: Sequence[SSEEvent]) -> None:
        before = self.id_in_force
        try:
            await self._publish_step(parsed)
        except ValueError:
            if len(parsed) < 2:  # noqa: PLR2004 - nothing stands before the only one
                raise
            # One of them is refused, so none was stored. The ones before it are published.
            self.id_in_force = before
            for event in parsed:
                await self._publish_step([event])

    async def _publish_step(self, parsed: Sequence[SSEEvent]) -> None:
        self.still()
        events = [self._own(event) for event in parsed]
        ids = await self.hub.publish_all(events, topics=self.topics, private=self.private)
        self.published += len(ids)
        self.last = ids[-1]

    def _own(self, parsed: SSEEvent) -> SSEEvent:
        """Undo what parsing adds: the default type, and the id of an earlier event."""
        own_id = None if parsed.id == self.id_in_force else parsed.id
        self.id_in_force = parsed.id or ""
        name = None if parsed.event == "message" else parsed.event
        return SSEEvent(parsed.data, event=name, id=own_id or None)
