"""`observe`: looks at an event stream from outside, as a browser asks for it, and returns a `Seen`.

Strategy: one stream is read for a while. Beside it, on other connections, events are published,
HEAD and OPTIONS asked, and ALPN looked up. Then a client comes back with an id that was seen. Every
step has an end: an answer `timeout` seconds, the reading `wait` seconds, all `longest` seconds.

Times are Trio's clock when a piece came, before anything was done with it.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast, final
from urllib.parse import urlsplit

import trio

from h3trio._wire.parser import SSEParser
from h3trio.client._body import is_readable, read_body, read_text
from h3trio.client._errors import (
    DamagedError,
    EventSourceError,
    LostError,
    RedirectError,
    SilentError,
    StatusError,
    without_secret,
)
from h3trio.client._redirect import following, public
from h3trio.client._request import translated

from .reading import MAX_EVENT_BYTES, Reading
from .seen import Head, Probe, Redirect, Resumed, Seen, Sent

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    import httpx2

    from h3trio._wire.event import SSEEvent
    from h3trio.client._environment import Trust

EVENTS: Final = 5
PUBLISH_AFTER: Final = 0.5  # seconds after the head: what subscribes behind it has done so
PUBLISH_EVERY: Final = 0.3  # seconds: far more than two writes that a busy server joins
RESUME_WAIT: Final = 3.0  # seconds for events that have to come
RESUME_LOOK: Final = 1.0  # seconds where none has to
MAX_REDIRECTS: Final = 10
MAX_TEXT: Final = 200
MAX_RESUMED: Final = 1000  # events after coming back: enough to judge, whatever is sent

# The fields that browsers send for an EventSource; all of today offer these codings over TLS.
_ASKED: Final = {
    "Accept": "text/event-stream",
    "Cache-Control": "no-cache",
    "Accept-Encoding": "gzip, deflate, br, zstd",
}
_PLAIN: Final = {**_ASKED, "Accept-Encoding": "identity"}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorPlan:
    """The stream to look at, and how."""

    url: str
    wait: float  # seconds to read it
    timeout: float  # seconds an answer may take
    publish_url: str | None = None  # where to publish events for it; None for nowhere
    origin: str | None = None  # the origin whose pages are to read it; None for its own
    is_trusting: bool = False  # whether certificates go unchecked
    tls: Trust | None = None  # for looking up the protocol; None to leave that out

    @property
    def longest(self) -> float:
        """The most that everything may take: twice asked for the stream, read, and come back."""
        return 3 * self.timeout + self.wait + RESUME_WAIT


async def observe(
    client: httpx2.AsyncClient, plan: DoctorPlan, say: Callable[[str], object]
) -> Seen:
    """Look at everything; what goes wrong is part of what is seen."""
    seen = Seen(
        url=without_secret(plan.url),
        wait=plan.wait,
        origin=plan.origin,
        is_trusting=plan.is_trusting,
    )
    with trio.move_on_after(plan.longest) as scope:
        await _Observer(client, plan, seen, say).run()
    seen.ran_out = scope.cancelled_caught
    return seen


@final
class _Observer:
    def __init__(
        self, client: httpx2.AsyncClient, plan: DoctorPlan, seen: Seen, say: Callable[[str], object]
    ) -> None:
        self._client = client
        self._plan = plan
        self._seen = seen
        self._say = say
        self._origin = {} if plan.origin is None else {"Origin": plan.origin}
        self._home = client.build_request("GET", plan.url).url.origin

    async def run(self) -> None:
        """See whether there is a stream; if so, everything about it."""
        seen = self._seen
        try:
            response, seen.head = await self._open(_ASKED, seen.hops)
        except LostError as exc:
            seen.problem = str(exc)
            seen.is_untrusted = "certificate verify failed" in seen.problem
            seen.is_silent = isinstance(exc, SilentError)
            if seen.is_silent:
                # HEAD has no body, so no buffer on the way waits to be filled.
                await self._ask_head()
            return
        except EventSourceError as exc:
            seen.problem = str(exc)
            return
        if not seen.is_stream:
            seen.text = (await read_text(response))[:MAX_TEXT].strip()
            await response.aclose()
            return
        coding = seen.head.get("content-encoding") or ""
        if not is_readable(coding):
            await response.aclose()
            response, head = await self._open(_PLAIN, [])
            coding = head.get("content-encoding") or ""
        seen.reading = reading = Reading(is_readable=is_readable(coding))
        self._say(f"reading for {self._plan.wait:g} s")
        async with trio.open_nursery() as beside:
            beside.start_soon(self._ask_head)
            beside.start_soon(self._ask_before)
            beside.start_soon(self._look_up)
            await self._read(response, reading)
        self._say("coming back")
        await self._resume(reading)

    # -- requests

    async def _open(
        self, fields: dict[str, str], hops: list[Redirect]
    ) -> tuple[httpx2.Response, Head]:
        """Ask for the stream; return the answer after all redirects, its body unread.

        Raises:
            EventSourceError: there is no answer.
        """
        began = trio.current_time()
        # In UTF-8, as an id has to be (WHATWG HTML, 9.2.3).
        headers = [(k.encode(), v.encode()) for k, v in (fields | self._origin).items()]
        request = self._client.build_request("GET", self._plan.url, headers=headers)
        with trio.move_on_after(self._plan.timeout):
            for _ in range(MAX_REDIRECTS + 1):
                response = await self._send(request)
                try:
                    after = following(self._client, response)
                except RedirectError:
                    await response.aclose()
                    raise
                if after is None:
                    return response, _head(response, trio.current_time() - began)
                await response.aclose()
                here, there = str(request.url), str(after.url)
                hops.append(
                    Redirect(response.status_code, without_secret(here), without_secret(there))
                )
                request = after
            raise StatusError(hops[-1].status, text=f"more than {MAX_REDIRECTS} redirects")
        raise SilentError(f"no head within {self._plan.timeout:g} s")

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        with translated(without_secret(str(request.url)), self._plan.timeout):
            return await self._client.send(request, stream=True, follow_redirects=False)

    async def _probe(self, method: str, fields: Mapping[str, str]) -> Probe:
        """Ask something else at the stream's address."""
        head, began = self._seen.head, trio.current_time()
        url = self._plan.url if head is None else head.url
        request = self._client.build_request(method, url, headers=fields)
        if request.url.origin != self._home:
            request = public(self._client, request)
        problem = f"{method} isn't answered within {self._plan.timeout:g} s"
        with trio.move_on_after(self._plan.timeout):
            try:
                response = await self._send(request)
                await response.aclose()
                return Probe(_head(response, trio.current_time() - began))
            except EventSourceError as exc:
                problem = str(exc)
        return Probe(None, problem)

    async def _ask_head(self) -> None:
        self._seen.head_probe = await self._probe("HEAD", {**_ASKED, **self._origin})

    async def _ask_before(self) -> None:
        if self._plan.origin is not None:
            asked = {
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "authorization,cache-control,last-event-id",
            }
            self._seen.preflight = await self._probe("OPTIONS", {**self._origin, **asked})

    async def _look_up(self) -> None:
        """See which protocol the server chooses of those that browsers offer (RFC 7301)."""
        assert self._seen.head is not None, "there is a stream"
        parts = urlsplit(self._seen.head.url)
        if parts.scheme == "https" and self._plan.tls is not None:
            failures = (OSError, trio.BrokenResourceError, EventSourceError)
            with trio.move_on_after(self._plan.timeout), contextlib.suppress(*failures):
                self._seen.offered = await chosen_protocol(
                    parts.hostname or "", parts.port or 443, self._plan.tls
                )

    # -- the stream

    async def _read(self, response: httpx2.Response, reading: Reading) -> None:
        """Read for as long as was said, or to the end; publish meanwhile."""
        began, how = trio.current_time(), ""
        async with trio.open_nursery() as nursery:
            if self._plan.publish_url is not None:
                self._seen.sent = []
                nursery.start_soon(self._publish, began, self._plan.publish_url)

            async def take(piece: bytes) -> None:
                reading.feed(trio.current_time() - began, piece)

            with trio.move_on_after(self._plan.wait):
                try:
                    await read_body(response, take, read_timeout=float("inf"))
                    how = "end"
                except DamagedError as exc:
                    reading.damage = str(exc)
                except LostError:
                    how = "cut"
            reading.end(trio.current_time() - began, how)
            nursery.cancel_scope.cancel(reason="the stream is read")
        await response.aclose()

    async def _publish(self, began: float, url: str) -> None:
        """Publish at a fixed pace, whether the events come or not."""
        reading, sent = self._seen.reading, self._seen.sent
        assert reading is not None, "the stream is open"
        assert sent is not None, "the list is made before this is started"
        name = secrets.token_hex(4)
        async with trio.open_nursery() as nursery:
            for number in range(EVENTS):
                await trio.sleep_until(began + PUBLISH_AFTER + number * PUBLISH_EVERY)
                event = Sent(f"h3trio doctor {name} {number}", trio.current_time() - began)
                reading.look_for(event.mark)
                sent.append(event)
                nursery.start_soon(self._publish_one, url, event, began)

    async def _publish_one(self, url: str, event: Sent, began: float) -> None:
        fields = {"Content-Type": "text/plain; charset=utf-8", "Accept": "*/*"}
        request = self._client.build_request("POST", url, headers=fields, content=event.mark)
        with trio.move_on_after(self._plan.timeout):
            try:
                response = await self._send(request)
                event.answered = trio.current_time() - began
                said = "" if response.is_success else (await read_text(response))[:MAX_TEXT].strip()
                await response.aclose()
            except EventSourceError as exc:
                event.problem = str(exc)
            else:
                event.problem = ""
                if not response.is_success:
                    event.problem = f"{response.status_code}{': ' if said else ''}{said}"

    # -- coming back

    async def _resume(self, reading: Reading) -> None:
        """Come back with an id behind which something is known to have come, if there is one."""
        ids = list(reading.ids)[-EVENTS:]
        asked = ids[0] if ids else reading.last_event_id
        if not asked.isprintable() or asked != asked.strip() or not asked:
            return
        expected, began = tuple(ids[1:]), trio.current_time()
        came: list[SSEEvent] = []
        status, problem = 0, ""
        try:
            response, head = await self._open({**_PLAIN, "Last-Event-ID": asked}, [])
            status = head.status
            if head.is_stream:
                await _read_events(response, came, wanted=len(expected))
            else:
                problem = f"with an id it answers {status}, and no stream"
            await response.aclose()
        except EventSourceError as exc:
            problem = str(exc)
        self._seen.resumed = Resumed(
            asked=asked,
            expected=expected,
            status=status,
            problem=problem,
            ids=tuple(event.id for event in came if event.id),
            unnumbered=any(not event.id for event in came),
            reset=bool(came) and came[0].event == "reset",
            waited=trio.current_time() - began,
        )


async def _read_events(response: httpx2.Response, came: list[SSEEvent], *, wanted: int) -> None:
    """Add the first events of a stream, until so many have an id or there is a hub's reset."""
    parser = SSEParser(max_event_size=MAX_EVENT_BYTES)
    patience, with_id = RESUME_WAIT if wanted else RESUME_LOOK, 0
    with trio.move_on_after(patience) as scope, contextlib.suppress(LostError):

        async def take(piece: bytes) -> None:
            nonlocal with_id
            events = parser.feed(piece)
            came.extend(events)
            with_id += sum(bool(event.id) for event in events)
            is_enough = with_id >= max(wanted, 1) or len(came) >= MAX_RESUMED
            if came and (came[0].event == "reset" or is_enough):
                scope.cancel(reason="these are enough to judge")

        await read_body(response, take, read_timeout=float("inf"))


def _head(response: httpx2.Response, seconds: float) -> Head:
    return Head(
        url=without_secret(str(response.request.url)),
        status=response.status_code,
        version=response.http_version,
        fields=tuple((name.lower(), value) for name, value in response.headers.multi_items()),
        seconds=seconds,
    )


async def chosen_protocol(host: str, port: int, context: Trust) -> str:
    """Return what a server chooses of the protocols that browsers offer, `""` for nothing.

    Raises:
        OSError: it can't be reached.
        trio.BrokenResourceError: there is no TLS with it.
    """
    context.set_alpn_protocols(["h2", "http/1.1"])
    stream = await trio.open_ssl_over_tcp_stream(
        host, port, https_compatible=True, ssl_context=cast("ssl.SSLContext", context)
    )
    async with stream:
        await stream.do_handshake()
        return stream.selected_alpn_protocol() or ""
