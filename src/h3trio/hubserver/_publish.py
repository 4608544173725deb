"""`POST /events/TOPIC`: one event, or a stream of them.

Any body is the data of one event, whatever its type; `event`, `id` and `retry`
come by the query, as does `private=on`. A body of type `text/event-stream` is a stream
of events, published as they arrive: what one read brought is one step into the
log. One event above the publisher's rate is refused; a stream is read no faster
than that instead, for its publisher has nothing else to wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from h3trio import EventTooLargeError, H3Event, HTTPError, Response, SSEEvent, SSEParser
from h3trio.hub import HistoryError, Hub, OutcomeUnknownError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._access.access import Pace

_STREAM_TYPE: Final = "text/event-stream"
_ON: Final = ("on", "1", "true", "")


async def publish(
    hub: Hub, event: H3Event, topic: str, *, pace: Pace | None, still: Callable[[], None]
) -> Response:
    """Publish what a request brings; answer once it is stored.

    Args:
        hub: where to.
        event: the request.
        topic: the one topic of all it brings.
        pace: what holds the publisher to its rate.
        still: raises `HTTPError` once the publisher's rights have ended: a body of events
            may take longer than they last.

    Raises:
        HTTPError: 400, 413, 429 or 503, saying what is wrong.
    """
    try:
        hub.check_topics([topic])
        private = _private(event)
        if event.headers.get("content-type", "").partition(";")[0].strip().lower() == _STREAM_TYPE:
            return await _Stream(
                hub, event, topic, pace=pace, private=private, still=still
            ).publish()
        if pace is not None:
            pace.check()
        update = await _single(event)
        dedup = event.headers.get("idempotency-key")
        stored = await hub.publish(update, topics=[topic], private=private, dedup=dedup)
        return Response.json({"id": stored})
    except (ValueError, HistoryError, OverloadedError) as exc:
        raise _refusal(event, exc) from exc


def _private(event: H3Event) -> bool:
    """Whether `private` is set; what is neither on nor absent is refused, not guessed."""
    value = event.query.get("private")
    if value is None:
        return False
    if value not in _ON:
        raise HTTPError(400, f"private is on or not given, not {value!r}")
    return True


async def _single(event: H3Event) -> SSEEvent:
    query = event.query
    retry = query.get("retry")
    if retry is not None and not (retry.isascii() and retry.isdigit()):
        raise HTTPError(400, f"retry must be a number of milliseconds, not {retry!r}")
    body = await event.body()
    if len(body) > event.max_event_bytes:
        raise EventTooLargeError(f"an event may have {event.max_event_bytes} bytes")
    return SSEEvent(
        body,
        event=query.get("event"),
        id=query.get("id"),
        retry=None if retry is None else int(retry),
    )


def _refusal(event: H3Event, error: Exception) -> HTTPError:
    if isinstance(error, EventTooLargeError):
        event.count_limit("max_event_bytes")
    return as_http_error(error)


def as_http_error(error: Exception) -> HTTPError:
    """Return the status that tells a publisher what to do next."""
    if isinstance(error, EventTooLargeError):
        return HTTPError(413, str(error))
    if isinstance(error, ValueError):
        return HTTPError(400, str(error))
    if isinstance(error, OutcomeUnknownError):
        return HTTPError(500, f"{error}; it may be stored: repeat it with an Idempotency-Key")
    return HTTPError(503, str(error))


class _Stream:
    """A request body of events on its way into the hub."""

    def __init__(
        self,
        hub: Hub,
        event: H3Event,
        topic: str,
        *,
        pace: Pace | None,
        private: bool,
        still: Callable[[], None],
    ) -> None:
        self._hub = hub
        self._event = event
        self._topic = topic
        self._pace = pace
        self._private = private
        self._still = still
        self._parser = SSEParser(max_event_size=event.max_event_bytes)
        self._published = 0
        self._last = ""
        self._id_in_force = ""

    async def publish(self) -> Response:
        """Publish until the body ends; on an error say how far it came."""
        try:
            async for piece in self._event.stream():
                await self._feed(bytes(piece))
        except (ValueError, HistoryError, OverloadedError, HTTPError) as exc:
            error = exc if isinstance(exc, HTTPError) else _refusal(self._event, exc)
            return Response.json(
                {**self._result(), "error": error.detail},
                status=error.status,
                headers=error.headers,
            )
        return Response.json(self._result())

    def _result(self) -> dict[str, object]:
        return {"published": self._published, "id": self._last}

    async def _feed(self, piece: bytes) -> None:
        try:
            await self._publish_paced(self._parser.feed(piece))
        except EventTooLargeError as exc:
            await self._publish_paced(exc.events)
            raise

    async def _publish_paced(self, parsed: Sequence[SSEEvent]) -> None:
        if self._pace is None:
            await self._publish(parsed)
            return
        most = self._pace.most
        for start in range(0, len(parsed), most):
            some = parsed[start : start + most]
            await self._pace.wait(len(some))
            await self._publish(some)

    async def _publish(self, parsed: Sequence[SSEEvent]) -> None:
        before = self._id_in_force
        try:
            await self._publish_step(parsed)
        except ValueError:
            if len(parsed) < 2:  # noqa: PLR2004 - nothing stands before the only one
                raise
            # One of them is refused, so none was stored: those before it shall stand.
            self._id_in_force = before
            for event in parsed:
                await self._publish_step([event])

    async def _publish_step(self, parsed: Sequence[SSEEvent]) -> None:
        if parsed:
            self._still()
            events = [self._own(event) for event in parsed]
            ids = await self._hub.publish_all(events, topics=[self._topic], private=self._private)
            self._published += len(ids)
            self._last = ids[-1]

    def _own(self, parsed: SSEEvent) -> SSEEvent:
        """Undo what parsing adds: the default type, and the id of an earlier event."""
        own_id = None if parsed.id == self._id_in_force else parsed.id
        self._id_in_force = parsed.id or ""
        name = None if parsed.event == "message" else parsed.event
        return SSEEvent(parsed.data, event=name, id=own_id or None)
