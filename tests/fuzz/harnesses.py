"""One harness for each parser of strangers' bytes: a function of bytes that never fails.

A harness takes any bytes and checks what must hold for all of them; an AssertionError, or any error
that isn't part of the contract of the parser, is a finding. They are driven by Hypothesis
(test_harnesses.py) and, for as long as one likes, by a coverage-guided fuzzer (drive.py).

The first bytes of an input choose how the rest is cut into reads and which settings hold, so that a
fuzzer which knows nothing but bytes can find those too.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
from typing import TYPE_CHECKING, Final

import h11
import trio
from helpers import connection_of
from trio.testing import MockClock, memory_stream_pair

from h3trio import App, EventTooLargeError, H3Event, HTTPError, Response, Settings, SSEParser
from h3trio._app.routing import Match, Router, Unrouted
from h3trio._http.cookies import parse_cookies
from h3trio._http.headers import Headers
from h3trio._http.request import last_event_id, parse_form, parse_json, parse_query, split_target
from h3trio._server.logs.redaction import printable
from h3trio._server.peers.proxy_protocol import ProxyProtocolError
from h3trio._server.peers.proxy_protocol import parse as parse_proxy_header
from h3trio._server.peers.trusted_proxies import TrustedProxies
from h3trio._server.sockets.transport import StreamTransport
from h3trio._server.state import ServerState
from h3trio.hub import Hub, MemoryHistory
from h3trio.hubserver import AnonymousAccess, create_app

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from h3trio._server.event import Handler

    Harness = Callable[[bytes], None]

# Virtual seconds after the client's EOF by which the server's side must be over: a plain answer has
# `write_timeout`, and what is then unread is lingered over.
PATIENCE: Final = 100.0

# Small, so that short inputs meet them.
SMALL: Final = Settings(
    max_head_bytes=300,
    max_body_bytes=40,
    max_event_bytes=40,
    body_buffer_bytes=16,
    max_discard_bytes=64,
    max_requests_per_connection=4,
    queue_events=2,
    queue_bytes=64,
    lease=50,
)
EITHER: Final = (Settings(), SMALL)
PROXIES: Final = TrustedProxies(["10.0.0.0/8"])


# -- the connection

app = App()


@app.get("/")
async def hello(_event: H3Event) -> str:
    """Answer at once."""
    return "hello"


@app.post("/echo")
async def echo(event: H3Event) -> bytes:
    """Read all, and answer with it."""
    return await event.body()


@app.all("/pieces")
async def pieces(event: H3Event) -> None:
    """Stream and read at once."""
    body = event.stream()  # before the stream begins: what is unread then may be thrown away
    async with event.start_sse() as writer:
        async for piece in body:
            await writer.send(piece.decode("latin-1").replace("\0", ""))


@app.all("/stream")
async def stream(event: H3Event) -> None:
    """Stream more than the queue holds, with the body unread, and stay."""
    async with event.start_sse() as writer:
        for number in range(5):
            await writer.send("x" * 30, id=str(number))
        await trio.sleep(20)


@app.all("/errors/:status")
async def errors(event: H3Event) -> None:
    """Fail in the way that is asked for."""
    status = event.params["status"]
    if not (status.isascii() and status.isdigit() and 400 <= int(status[:4]) <= 599):
        raise RuntimeError(f"no status: {status!r}")
    raise HTTPError(int(status), str(event.last_event_id))


@app.all("/late/*")
async def late(event: H3Event) -> None:
    """Fail in the middle of a stream."""
    async with event.start_sse() as writer:
        await writer.send("x")
        raise RuntimeError(event.params["*"])


@app.all("/json")
async def as_json(event: H3Event) -> Response:
    """Read JSON, and answer with it."""
    return Response.json(await event.json())


@app.all("/form")
async def form(event: H3Event) -> dict[str, object]:
    """Read a form, the query and the headers."""
    fields = await event.form()
    return {"form": dict(fields), "query": dict(event.query), "headers": dict(event.headers)}


def cut(data: bytes) -> Iterator[bytes]:
    """Cut an input into reads, by a number that its first byte chooses."""
    if not data:
        return
    size = (1, 2, 3, 7, 16, 64, 1024, 65536)[data[0] % 8]
    for place in range(1, len(data), size):
        yield data[place : place + size]


def connection(data: bytes, *, handler: Handler = app) -> bytes:
    """Let a client send bytes and leave; what it gets is whole responses, and a cut one at most.

    It ends in bounded time, no task is left, and no error but those of handlers is logged.
    """
    settings = EITHER[data[0] // 8 % 2] if data else SMALL
    problems = Problems()
    log = logging.getLogger("h3trio")
    log.addHandler(problems)
    try:
        answer = trio.run(
            _converse, list(cut(data)), handler, settings, clock=MockClock(autojump_threshold=0)
        )
    finally:
        log.removeHandler(problems)
    assert not problems.found, problems.found
    check_responses(answer, methods(data[1:]))
    return answer


class Problems(logging.Handler):
    """Notes what is logged as an internal error, which a handler's own failure is not."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a note, unless a handler of this file failed on purpose."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, RuntimeError):
            self.found.append(self.format(record))


async def _converse(reads: list[bytes], handler: Handler, settings: Settings) -> bytes:
    before = trio.lowlevel.current_statistics().tasks_living
    ours, theirs = memory_stream_pair()
    state = ServerState(settings)
    served = connection_of(StreamTransport(ours), handler, state)
    answer = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(state.heartbeat.run)
        nursery.start_soon(_collect, theirs, answer)
        nursery.start_soon(_send, theirs, reads)
        with trio.fail_after(PATIENCE + len(reads)):
            await served.run()
        nursery.cancel_scope.cancel()
    assert trio.lowlevel.current_statistics().tasks_living == before, "a task is left"
    assert len(state.heartbeat) == 0, "a stream is left"
    return bytes(answer)


async def _send(theirs: trio.abc.HalfCloseableStream, reads: list[bytes]) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        for read in reads:
            await theirs.send_all(read)
            # Each byte a read of its own, as nothing else runs until all are asleep.
            await trio.testing.wait_all_tasks_blocked()
        await theirs.send_eof()


async def _collect(theirs: trio.abc.ReceiveStream, answer: bytearray) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async for piece in theirs:
            answer += piece


def methods(sent: bytes) -> list[bytes]:
    """Return the methods of the requests in what a client sent, as h11 reads it."""
    found = list[bytes]()
    with contextlib.suppress(h11.ProtocolError):
        while sent:
            server = h11.Connection(h11.SERVER)
            # A server "SHOULD ignore at least one empty line" in front (RFC 9112 section 2.2): h11
            # doesn't. And it takes b"" for EOF.
            server.receive_data(sent.removeprefix(b"\r\n") + b"\0")
            while not isinstance(event := server.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Request):
                    found.append(event.method)
                elif not isinstance(event, h11.Data):
                    return found
            sent = server.trailing_data[0].removesuffix(b"\0")
    return found


def check_responses(answer: bytes, asked: list[bytes]) -> None:
    """Read what a server sent as a client does: responses in order, then nothing.

    The last one may be cut off, as that of a client which left.
    """
    rest = answer
    for number in range(len(answer)):
        if not rest:
            return
        assert rest[:9] == b"HTTP/1.1 "[: len(rest)], rest
        method = asked[number] if number < len(asked) else b"GET"
        rest = _read_response(rest, method)
    assert not rest, "more bytes than responses"


def _read_response(data: bytes, method: bytes) -> bytes:
    """Read one response; return what is behind it."""
    client = h11.Connection(h11.CLIENT)
    request = h11.Request(method=method, target="/", headers=[("Host", "test")])
    client.send(request)
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    while True:
        event = client.next_event()
        if isinstance(event, h11.Response):
            assert any(name == b"date" for name, _ in event.headers), "no date"
        elif isinstance(event, h11.EndOfMessage):
            return client.trailing_data[0]
        elif event is h11.NEED_DATA:
            return b""
        else:
            assert isinstance(event, h11.InformationalResponse | h11.Data), event


# -- publishing


def publish(data: bytes) -> None:
    """Post to a hub: headers, query and body as they come; each answer is one of the contract's."""
    head, _, body = data[1:].partition(b"\n\n")
    query, _, fields = head.partition(b"\n")
    lines = [line for line in fields.split(b"\n") if line]
    request = b"\r\n".join(
        [
            b"POST /events/t?" + query.replace(b" ", b"+") + b" HTTP/1.1",
            b"Host: localhost",
            b"Content-Length: %d" % len(body),
            *lines,
            b"",
            body,
        ]
    )
    hub = Hub(MemoryHistory(max_events=8))
    served = create_app(hub, anonymous=AnonymousAccess(allow_anonymous_publish=True))

    async def handler(event: H3Event) -> object:
        async with served.lifespan():
            return await served(event)

    answer = connection(data[:1] + request, handler=handler)
    if answer.startswith(b"HTTP/1.1 200 "):
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert told.keys() in ({"id"}, {"published", "id"})
    elif answer:
        status = int(answer.split()[1])
        assert status in {100, 400, 403, 404, 405, 408, 413, 431, 501, 503, 505}, answer


# -- values


def sse(data: bytes) -> None:
    """Parse an event stream whole and in pieces: the same events, or the same error."""
    whole, pieces = (_parse([data[1:]]), _parse(list(cut(data))))
    assert whole == pieces


def _parse(reads: list[bytes]) -> tuple[list[object], str, int | None, bool]:
    parser, events = SSEParser(max_event_size=64), list[object]()
    try:
        for read in reads:
            events += parser.feed(read)
    except EventTooLargeError as error:
        return [*events, *error.events], "", None, True
    return events, parser.last_event_id, parser.retry, False


ROUTER: Final = Router[str]()
for _method, _pattern in (
    ("GET", "/"),
    ("GET", "/a/:b"),
    ("POST", "/a/:b/c"),
    ("GET", "/a/b/c"),
    ("all", "/rest/*"),
):
    ROUTER.add(_method, _pattern, _pattern)


def routing(data: bytes) -> None:
    """Split a target, match its path, read its query: values, or the client's own error."""
    with clients_fault():
        _route(data)


@contextlib.contextmanager
def clients_fault() -> Generator[None]:
    """Let what was refused pass, if it is by a 400."""
    try:
        yield
    except HTTPError as error:
        if error.status != 400:
            raise


def _route(data: bytes) -> None:
    target = split_target(data)
    query = parse_query(target.raw_query, max_num_fields=20)
    fields = {name: query.get_list(name) for name in query}
    assert sum(map(len, fields.values())) <= 20
    for text in (target.path, str(fields)):
        text.encode("utf-8")
    for method in ("GET", "POST", "OPTIONS"):
        found = ROUTER.match(method, target.raw_path)
        assert isinstance(found, Match | Unrouted)


def bodies(data: bytes) -> None:
    """Read a body as JSON and as a form: values that can be sent again, or the client's error."""
    with clients_fault():
        Response.json(parse_json(data))
    with clients_fault():
        parsed = parse_form(data, "application/x-www-form-urlencoded", max_num_fields=20)
        str(dict(parsed)).encode("utf-8")


def headers(data: bytes) -> None:
    """Read the header fields of strangers: the id to go on from, and who may do what."""
    pairs = [line.partition(b":") for line in data.split(b"\n")]
    fields = Headers([(name.strip().lower(), value.strip()) for name, _, value in pairs])
    found = last_event_id(fields, parse_query(b""))
    if found is not None:
        found.encode("utf-8")
    for name in fields:
        fields.get_list(name)


def proxies(data: bytes) -> None:
    """Read what proxies say of a client: a PROXY header, and the header fields; always a client."""
    with contextlib.suppress(ProxyProtocolError):
        found = parse_proxy_header(data)
        assert found is None or 0 < found.size <= len(data)
    text = data.decode("latin-1")
    for name in ("forwarded", "x-forwarded-for"):
        fields = Headers([(name.encode("ascii"), data), (b"x-forwarded-proto", data)])
        client, scheme = PROXIES.origin("10.0.0.1", "http", fields)
        assert client == "unknown" or ipaddress.ip_address(client).version in (4, 6)
        assert scheme in ("http", "https")
    assert "\n" not in printable(text)
    for name, value in parse_cookies([text]).items():
        assert f"{name}={value}".isprintable()


def converse(data: bytes) -> None:
    """Let a client talk to an app that answers, streams, reads and fails."""
    connection(data)


HARNESSES: Final[dict[str, Harness]] = {
    "connection": converse,
    "publish": publish,
    "sse": sse,
    "routing": routing,
    "bodies": bodies,
    "headers": headers,
    "proxies": proxies,
}
