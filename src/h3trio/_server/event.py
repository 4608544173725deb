"""`H3Event`: one request and the place where its answer begins.

A handler gets an event, reads the request from it, and either returns a value
or starts a stream. Until the stream is entered, status and headers can change
and any error still has a true status; entering it sends the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, final

from h3trio._http.closing import CloseReason
from h3trio._http.content import Decoder, content_coding, require_utf8
from h3trio._http.cookies import SetsCookies, parse_cookies
from h3trio._http.errors import HTTPError, ResponseStateError
from h3trio._http.headers import MutableHeaders, is_token
from h3trio._http.request import (
    has_more_values,
    last_event_id,
    parse_form,
    parse_json,
    parse_query,
    parse_text,
)
from h3trio._http.response import Response, to_response

from .body import BodyBuffer
from .body_stream import BodyStream
from .callables import STREAM_CALLBACK, refuse_async, require_async
from .farewell import EVENT_STREAM
from .logs.redaction import printable, redact_path
from .responder import OtherStream, ResponseState, SSEStream, media_type

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import trio

    from h3trio._http.headers import Headers, QueryParams
    from h3trio._http.request import Target
    from h3trio._http.settings import Settings
    from h3trio._http.statistics import ServerStatistics

    from .responder import CloseHook, Draft, HeadHook, Responder, StreamCallback
    from .state import ServerState

    Handler = Callable[["H3Event"], Awaitable[object]]

# Methods whose streams a drain ends, as their clients can ask again: see `H3Event.start_sse`.
_ASKED_AGAIN: Final = ("GET", "HEAD")


@final
class H3Event(SetsCookies):
    """A request, and the status, headers and stream of its response.

    The server makes it, and hands it to the handler.

    Attributes:
        method: as sent: methods are case-sensitive.
        headers: names are found in any case.
        http_version: `"1.1"` or `"1.0"`.
        client: the peer: an IP address, `"unix"`, `"memory"` or `"unknown"`.
        scheme: how the client came: `"http"` or `"https"`, as far as that is known.
        subject: the user who sent it, for the access log and as the owner of runs: whatever the
            application sets; empty before.
        params: what the route's `:names` and `*` matched, percent-decoded.
    """

    __slots__ = (
        "_body",
        "_content",
        "_cookies",
        "_decoded",
        "_draft",
        "_query",
        "_responder",
        "_server",
        "_target",
        "client",
        "headers",
        "http_version",
        "method",
        "params",
        "scheme",
        "subject",
    )

    def __init__(
        self,
        *,
        method: str,
        target: Target,
        headers: Headers,
        http_version: str,
        client: str,
        scheme: str = "http",
        body: BodyBuffer,
        draft: Draft,
        responder: Responder | None,
        server: ServerState,
    ) -> None:
        self.method: str = method
        self._target = target
        self.headers: Headers = headers
        self.http_version: str = http_version
        self.client: str = client
        self.scheme: str = scheme
        self.subject: str = ""
        self.params: dict[str, str] = {}
        self._body = body
        self._draft = draft
        self._responder = responder  # `None` once the answer is over
        self._server = server
        self._content: bytes | None = None
        self._decoded: bytes | None = None
        self._cookies: Mapping[str, str] | None = None
        self._query: QueryParams | None = None

    def __repr__(self) -> str:
        path, client = printable(redact_path(self.path)), printable(self.client)
        return (
            f"<H3Event: {printable(self.method)} '{path}' from {client}, {self._draft.state.value}>"
        )

    # -- the request

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return self._target.path

    @property
    def raw_path(self) -> bytes:
        """The path as sent; only here do `%2F` and `/` differ."""
        return self._target.raw_path

    @property
    def raw_query(self) -> bytes:
        """The query as sent, without its `?`."""
        return self._target.raw_query

    @property
    def authority(self) -> str:
        """Host and port the client asked for: from an absolute target, else `Host`."""
        if self._target.authority is not None:
            return self._target.authority.decode("latin-1")
        return self.headers.get("host", "")

    @property
    def peer_user(self) -> int | None:
        """The user id (`os.geteuid`) of the program at the other end of the connection.

        The kernel tells it on Linux, where that program is on this machine: by a unix socket or
        over loopback (unix(7), sock_diag(7)). It is asked once for each connection. Behind a proxy
        it is the proxy's. `None` where it isn't sure: the peer is on another machine or gone
        already, the system is another one, or the user is nobody (65534).
        """
        return None if self._responder is None else self._responder.peer.user

    @property
    def query(self) -> QueryParams:
        """The query's fields.

        Raises:
            HTTPError: 400 when it has too many.
        """
        if self._query is None:
            self._query = parse_query(self._target.raw_query)
        return self._query

    @property
    def cookies(self) -> Mapping[str, str]:
        """The request's cookies; what is malformed or beyond 180 of them is left out."""
        if self._cookies is None:
            self._cookies = parse_cookies(self.headers.get_list("cookie"))
        return self._cookies

    @property
    def last_event_id(self) -> str | None:
        """The id that a returning client goes on behind: `Last-Event-ID`, or a query parameter."""
        return last_event_id(self.headers, self.query)

    @property
    def draining(self) -> trio.Event:
        """Set when the server begins to go away; wait for it to end in your own way."""
        return self._server.draining

    @property
    def is_closing(self) -> bool:
        """Whether the first phase of the server's drain is over: `App` answers 503 from then on."""
        return self._server.is_closing

    async def body(self, *, max_bytes: int | None = None, decode: bool = False) -> bytes:
        """Return the whole body; a second call returns it again.

        Args:
            max_bytes: the longest that is taken; `Settings.max_body_bytes` if not given. With
                `decode` it bounds what comes out.
            decode: undo the body's `Content-Encoding`, gzip or deflate (RFC 9110 section 8.4).
                Without it the bytes are those that were sent, as a proxy passes them on.

        Raises:
            HTTPError: 413 if it is longer, 400 or 408 if it doesn't arrive. With `decode` also 415
                for another coding or several, and 400 for data that isn't in its coding.
        """
        limit = self._server.settings.max_body_bytes if max_bytes is None else max_bytes
        coding = content_coding(self.headers) if decode else None
        if self._content is None:
            # What can't be compressed gets longer by five bytes a block, and a header and trailer.
            self._content = await self._collect(limit + limit // 1000 + 64 if coding else limit)
        if coding is None:
            return self._content
        if self._decoded is None:
            body = BodyBuffer(limit)
            body.feed(self._content)
            body.feed_eof()
            decoded = await BodyStream(body, None, Decoder(coding)).read(limit)
            self._decoded = self._within(limit, decoded)
        return self._decoded

    async def _collect(self, limit: int) -> bytes:
        content = None
        if int(self.headers.get("content-length", "0")) <= limit:
            content = await BodyStream(self._body, self._responder).read(limit)
        return self._within(limit, content)

    def _within(self, limit: int, content: bytes | None) -> bytes:
        """Return what isn't `None`, which stands for more than the limit."""
        if content is None:
            self.count_limit("max_body_bytes")
            raise HTTPError(413, f"the body may have {limit} bytes")
        return content

    def require_utf8(self) -> None:
        """See that the body's `Content-Type` names no charset but UTF-8, or a part of it.

        For handlers that read text by `body` or `stream`; `text`, `json` and `form` do it.

        Raises:
            HTTPError: 415.
        """
        require_utf8(self.headers)

    async def text(self) -> str:
        """Return the body as text, which is UTF-8; its `Content-Encoding` is undone.

        Raises:
            HTTPError: 400 if it isn't UTF-8, 415 if `Content-Type` names another charset; else as
                `body(decode=True)`.
        """
        self.require_utf8()
        return parse_text(await self.body(decode=True))

    async def json(self) -> object:
        """Return the body parsed as JSON; its `Content-Encoding` is undone.

        Raises:
            HTTPError: 400 if it isn't JSON; 413 if it has more values than
                `Settings.max_json_values`; else as `text`.
        """
        self.require_utf8()
        body, limit = await self.body(decode=True), self._server.settings.max_json_values
        if has_more_values(body, limit):
            self.count_limit("max_json_values")
            raise HTTPError(413, f"the JSON may have {limit} values")
        return parse_json(body)

    async def form(self) -> QueryParams:
        """Return the body parsed as `application/x-www-form-urlencoded`.

        Its `Content-Encoding` is undone.

        Raises:
            HTTPError: 400 if it is malformed, 415 for another type; else as `text`.
        """
        self.require_utf8()
        return parse_form(await self.body(decode=True), self.headers.get("content-type"))

    def stream(self, *, decode: bool = False) -> BodyStream:
        """Return the body as a stream of pieces, without an end to its length.

        Nor does `min_body_rate` hold for it. A handler that answers with a stream as well
        calls this before `body_buffer_bytes` have come: what is unread by then is thrown away.
        Pieces are as they arrived, joined or cut: they tell nothing of the client's chunks.

        Args:
            decode: undo the body's `Content-Encoding`, as in `body`. A short body may unpack to a
                thousand times its length: whoever collects the pieces counts them.

        Raises:
            HTTPError: 415 with `decode` for another coding than gzip or deflate, or several.
        """
        coding = content_coding(self.headers) if decode else None
        self._body.is_wanted = self._body.is_streamed = True
        decoder = None if coding is None else Decoder(coding)
        return BodyStream(self._body, self._responder, decoder)

    @property
    def settings(self) -> Settings:
        """The limits and times of the server that the request came to."""
        return self._server.settings

    def server_statistics(self) -> ServerStatistics:
        """A snapshot of the server that the request came to, as of `Server.statistics`."""
        return self._server.statistics()

    # -- limits

    @property
    def max_event_bytes(self) -> int:
        """How large one event may be that a client publishes (`Settings.max_event_bytes`)."""
        return self._server.settings.max_event_bytes

    def count_limit(self, name: str) -> None:
        """Count in `ServerStatistics.limits` that a limit was met, the application's own too.

        `name` is that of its setting: from a fixed set, as each is held for good.
        """
        self._server.count_limit(name)

    def retry_after(self) -> int:
        """Draw whole seconds for a `Retry-After` of your own, at least 1.

        From half to one and a half `Settings.reconnect_delay`, so that clients don't come
        back in step. A 429 or 503 without one is given one when it is sent.
        """
        return self._server.retry_after()

    # -- the response

    @property
    def status(self) -> int:
        """The status of the response, 200 unless set; a returned `Response` has its own."""
        return self._draft.status

    @status.setter
    def status(self, value: int) -> None:
        self._require_unsent("the status")
        if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:  # noqa: PLR2004 - the range of final statuses, RFC 9110 section 15
            raise ValueError(f"status must be from 200 to 599, not {value!r}")
        self._draft.status = value

    @property
    def response_headers(self) -> MutableHeaders:
        """Headers to add to the response, until its head is sent."""
        return self._draft.headers

    def _cookie_headers(self) -> MutableHeaders:
        return self._draft.headers

    def on_head(self, hook: HeadHook) -> None:
        """Call `hook(headers)` with `response_headers` once, just before the head is sent.

        Raises:
            TypeError: the hook is async, and nobody would wait for it.
        """
        refuse_async(hook, "an on_head hook")
        self._require_unsent("the headers")
        self._draft.head_hooks += (hook,)

    @property
    def head_sent(self) -> bool:
        """Whether status and headers are out."""
        return self._draft.head_sent

    def start_sse(self, *, drain: Literal["end", "finish"] | None = None) -> SSEStream:
        """Answer with an event stream: `async with event.start_sse() as writer`.

        Entering the block sends the head. To stream after the handler has
        returned instead, call this and then `set_stream_callback`.

        Args:
            drain: what a drain of the server does to it. `"end"`: it is ended in the first phase.
                `"finish"`: it goes on for up to `Settings.drain_finish` seconds. `None` is
                `"finish"` for methods other than GET: their answers can't be asked for again.

        While the server drains, entering it raises `HTTPError` 503 unless the client comes back by
        itself: that one gets a stream that is over at once.

        Raises:
            ResponseStateError: a stream was started before, or a response sent.
            ValueError: `drain` is something else. Entering the stream raises it where
                `response_headers` name another type: `start_stream` is for those.
        """
        self._start(drain)
        return SSEStream(self._responder, self.client)

    def start_stream(
        self, content_type: str, *, drain: Literal["end", "finish"] | None = None
    ) -> OtherStream:
        """Answer with a stream of any type: `async with event.start_stream(…) as writer`.

        The writer sends bytes and text as they are. The bounds, deadlines and statistics are those
        of `start_sse`, but nothing goes out by itself: no first comment, no heartbeats, no `retry:`
        at an end by the server, which cuts the stream off. While the server drains, entering it
        raises `HTTPError` 503.

        Args:
            content_type: `"application/x-ndjson"`, for instance, with its parameters.
            drain: as for `start_sse`.

        Raises:
            ResponseStateError: as `start_sse`.
            ValueError: the type is none, or `text/event-stream`; `drain` is something else.
        """
        kind, _, subtype = media_type(content_type).partition("/")
        if not (is_token(kind) and is_token(subtype)):
            raise ValueError(f"{content_type!r} is no content type, such as application/x-ndjson")
        if f"{kind}/{subtype}" == EVENT_STREAM:
            raise ValueError("an event stream is framed and kept alive: use start_sse")
        checked = MutableHeaders({"Content-Type": content_type})["Content-Type"]
        self._start(drain)
        self._draft.content_type = checked
        return OtherStream(self._responder, self.client)

    def _start(self, drain: Literal["end", "finish"] | None) -> None:
        draft = self._draft
        if draft.state is not ResponseState.NEW:
            raise ResponseStateError(f"can't start a stream: {draft.state.value} already")
        if drain not in (None, "end", "finish"):
            raise ValueError(f'drain must be "end", "finish" or None, not {drain!r}')
        draft.state = ResponseState.STREAM_STARTED
        draft.finishes = self.method not in _ASKED_AGAIN if drain is None else drain == "finish"

    def set_stream_callback(self, callback: StreamCallback) -> None:
        """Run `await callback(writer)` once the handler has returned.

        Raises:
            ResponseStateError: `start_sse` wasn't called, or the stream was entered;
                entering it afterwards raises it too.
            TypeError: the callback can't be called so, or isn't async.
        """
        require_async(callback, STREAM_CALLBACK)
        draft = self._draft
        if draft.state is not ResponseState.STREAM_STARTED or draft.content_type is not None:
            raise ResponseStateError(
                "call start_sse() first, and set the callback before the stream is entered"
            )
        draft.stream_callback = callback

    def end(self, reason: CloseReason = CloseReason.KICKED) -> None:
        """Cancel the handler and end its stream.

        A client that comes back by itself, as EventSource does, gets a `retry:` and the final
        chunk. For any other the answer is cut off, so that half of it doesn't look whole. Where no
        stream was entered yet, the answer is 503.
        """
        if self._responder is not None:
            self._responder.end(reason)

    def on_close(self, hook: CloseHook) -> None:
        """Call `hook(closing)` once, after the handler has finished unwinding.

        What it raises is logged.

        Raises:
            TypeError: the hook is async, and nobody would wait for it: the exchange is over.
        """
        refuse_async(hook, "an on_close hook")
        self._draft.close_hooks += (hook,)

    def _require_unsent(self, what: str) -> None:
        if self.head_sent:
            raise ResponseStateError(f"{what} can't change: the head was sent")

    def _let_go(self) -> None:
        """Forget the connection: the exchange is over."""
        self._responder = None


def response_from(event: H3Event, result: object) -> Response | None:
    """Return the response that a handler's result stands for, `None` once a stream was started.

    Raises:
        TypeError: the result is of no type a handler may return.
    """
    draft = event._draft  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - a handler has no use for it
    if draft.state is not ResponseState.NEW:
        return None
    response = to_response(result)
    if response is not result and draft.status != 200:  # noqa: PLR2004 - OK, the default
        return Response(response.body, status=draft.status, headers=response.headers)
    return response


def drop_stream(event: H3Event) -> None:
    """Let another answer take the place of a stream that its handler hasn't entered."""
    event._draft.drop_stream()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - a handler has no use for it


def let_go(event: H3Event) -> None:
    """Let an event forget its connection, once the exchange is over."""
    event._let_go()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - a handler has no use for it
