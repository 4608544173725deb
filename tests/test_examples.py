"""Each example starts, answers and stops: in memory for what it says, by curl for how it is run.

In memory the whole server runs, lifespan and drain included, and the clock jumps, so what takes an
example ten seconds is checked to the byte at once. The tests marked `e2e` run the command of the
example's docstring as a process and read its stream with curl.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import h11
import httpx
import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from h3trio import App, CloseReason, H3Event, Server, SSEEvent, SSEParser, serve
from tools import require_tool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from h3trio._context import Handler

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
PAGES = sorted(path.stem for path in EXAMPLES.glob("*.html"))

FIRST = ":\n"  # the comment that opens every stream, so that `onopen` fires
jumping_clock = pytest.mark.usefixtures("autojump_clock")


def load(name: str) -> Any:
    """Import an example afresh, as `serve` does."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- a server and its clients in memory


@final
class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts the streams that `connect` made the other ends of."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](0)

    async def connect(self) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        await self._send.send(theirs)
        return ours

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        await self._receive.aclose()


@final
class Client:
    """One request on a connection of its own, and its answer as it comes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self._parser = SSEParser()
        self._events: deque[SSEEvent] = deque()

    async def ask(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None, body: str = ""
    ) -> h11.Response:
        """Send the request; return the head of the answer."""
        fields = {"Host": "test", "Content-Length": str(len(body.encode())), **(headers or {})}
        data = self._http.send(
            h11.Request(method=method, target=target, headers=list(fields.items()))
        )
        data = (data or b"") + (self._http.send(h11.Data(data=body.encode())) or b"")
        await self._stream.send_all(data + (self._http.send(h11.EndOfMessage()) or b""))
        head = await self._next()
        assert isinstance(head, h11.Response)
        return head

    async def _next(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._stream.receive_some())
        assert not isinstance(event, type), f"the server sent {event} too early"
        return event

    async def piece(self) -> bytes:
        """Return the next piece of the body, `b""` at its end."""
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def text(self) -> str:
        """Return the rest of the body."""
        pieces = []
        while piece := await self.piece():
            pieces.append(piece)
        return b"".join(pieces).decode()

    async def event(self) -> SSEEvent:
        """Return the next event of a stream."""
        while not self._events:
            piece = await self.piece()
            assert piece, "the stream ended"
            self._events += self._parser.feed(piece)
        return self._events.popleft()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Running(NamedTuple):
    """A server that serves an app in memory."""

    server: Server
    listener: MemoryListener

    async def connect(self) -> Client:
        """Make a new connection."""
        return Client(await self.listener.connect())

    async def ask(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None, body: str = ""
    ) -> tuple[int, str]:
        """Ask on a new connection; return status and body."""
        client = await self.connect()
        head = await client.ask(method, target, headers=headers, body=body)
        answer = head.status_code, await client.text()
        await client.aclose()
        return answer


@contextlib.asynccontextmanager
async def running(handler: Handler) -> AsyncIterator[Running]:
    """Serve a handler in memory; at the end drain, and see that nothing is left."""
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, handler, listeners=[listener]))
        yield Running(server, listener)
        await server.drain()
        assert server.statistics().connections == 0


# -- what they have in common


def test_every_example_is_tested() -> None:
    """No example is without its tests here, and none of the tests is without its example."""
    assert set(CURL) == set(NAMES)
    tested = {name for name, value in globals().items() if name.startswith("test_sse_") and value}
    for name in NAMES:
        assert any(test.startswith(f"test_{name}_") for test in tested), name


@pytest.mark.parametrize("name", NAMES)
def test_docstring_says_how_to_try_it(name: str) -> None:
    """An example opens with the command that serves it and a curl that reads its stream."""
    doc = load(name).__doc__
    assert f"\n    python -m h3trio serve examples/{name}.py:app\n" in doc
    assert "\n    curl -N localhost:3000/events" in doc
    assert ("http://localhost:3000/ " in doc) == (name in PAGES)


@pytest.mark.parametrize("name", PAGES)
@jumping_clock
async def test_page_is_served_at_the_root(name: str) -> None:
    """An example with a page sends it, as HTML, at `/`."""
    async with running(load(name).app) as app:
        client = await app.connect()
        head = await client.ask("GET", "/")
        assert (head.status_code, dict(head.headers)[b"content-type"]) == (
            200,
            b"text/html; charset=utf-8",
        )
        assert await client.text() == (EXAMPLES / f"{name}.html").read_text(encoding="utf-8")
        await client.aclose()


@pytest.mark.parametrize("name", PAGES)
def test_page_needs_nothing_from_elsewhere(name: str) -> None:
    """A page makes no request but for its stream, and suits narrow and dark screens."""
    page = (EXAMPLES / f"{name}.html").read_text(encoding="utf-8")
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'>)]*)""", page) == ["data:,"]
    assert re.findall(r"""(?:EventSource|fetch)\("([^"]*)""", page) == ["events"]
    assert not re.search(r"https?:|@import", page)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "color-scheme: light dark" in page


# -- one by one


@jumping_clock
async def test_sse_minimal_says_hello() -> None:
    """The minimal example sends one event and ends."""
    async with running(load("sse_minimal").app) as app:
        assert await app.ask("GET", "/events") == (200, f"{FIRST}data: Hello!\n\n")


@jumping_clock
async def test_sse_basic_sends_ten_events_in_ten_seconds() -> None:
    """The basic example sends ten numbered events of type `counter`, one a second."""
    start = trio.current_time()
    async with running(load("sse_basic").app) as app:
        expected = "".join(f"event: counter\nid: {n}\ndata: {n}\n\n" for n in range(10))
        assert await app.ask("GET", "/events") == (200, FIRST + expected)
        assert trio.current_time() - start == pytest.approx(10)


@jumping_clock
async def test_sse_callback_sends_what_its_callback_says() -> None:
    """The callback example sends exactly `event: message`, `id: 1`, `data: Hello!`."""
    async with running(load("sse_callback").app) as app:
        answer = await app.ask("GET", "/events")
        assert answer == (200, f"{FIRST}event: message\nid: 1\ndata: Hello!\n\n")


@jumping_clock
async def test_sse_text_streams_its_words() -> None:
    """The text comes a word an event, and after the last word the event `done`."""
    module = load("sse_text")
    async with running(module.app) as app:
        client = await app.connect()
        await client.ask("GET", "/events")
        words, start = [], trio.current_time()
        while (event := await client.event()).event == "message":
            words.append(event.data or "")
        assert "".join(words).rstrip() == module.TEXT
        assert trio.current_time() - start == pytest.approx(0.1 * len(words))
        assert (event.event, event.data, await client.text()) == ("done", "", "")
        await client.aclose()


@jumping_clock
async def test_sse_counter_counts_seconds() -> None:
    """The counter sends one event a second, with type and id, from 1 on."""
    async with running(load("sse_counter").app) as app:
        client = await app.connect()
        await client.ask("GET", "/events")
        start = trio.current_time()
        for n in range(1, 100):
            assert await client.event() == SSEEvent(str(n), event="count", id=str(n))
            assert trio.current_time() - start == pytest.approx(n - 1)
        await client.aclose()


@pytest.mark.parametrize(
    ("last", "following"),
    [("41", "42"), ("0", "1"), ("none", "1"), ("1.5", "1"), ("9" * 5000, "1")],
)
@jumping_clock
async def test_sse_counter_goes_on_after_the_last_event_id(last: str, following: str) -> None:
    """A client that comes back gets the next number; one with a strange id begins at 1."""
    async with running(load("sse_counter").app) as app:
        client = await app.connect()
        await client.ask("GET", "/events", headers={"Last-Event-ID": last})
        assert (await client.event()).id == following
        await client.aclose()


@jumping_clock
async def test_sse_counter_ends_with_its_client() -> None:
    """When the client leaves, the endless stream is over, and says why."""
    async with running(load("sse_counter").app) as app:
        client = await app.connect()
        await client.ask("GET", "/events")
        await client.event()
        await client.aclose()
        await wait_all_tasks_blocked()
        statistics = app.server.statistics()
        assert (statistics.streams, statistics.closings) == (0, {CloseReason.CLIENT_CLOSED: 1})


def prompt(text: str) -> str:
    """Return the body of a request to the chat."""
    return json.dumps({"prompt": text})


@jumping_clock
async def test_sse_chat_answers_and_says_that_it_is_done() -> None:
    """A prompt is answered token by token, and the last event is `done`."""
    expected = 'data: {"token":"You "}\n\ndata: {"token":"said: "}\n\ndata: {"token":"¿Qué? "}\n\n'
    expected += 'event: done\ndata: {"reason":"stop"}\n\n'
    async with running(load("sse_chat").app) as app:
        answer = await app.ask("POST", "/events", body=prompt("¿Qué?"))
        assert answer == (200, FIRST + expected)


@jumping_clock
async def test_sse_chat_tells_when_the_model_fails() -> None:
    """A model that fails midway makes an `error` event, after the tokens that came before it."""
    expected = 'data: {"token":"You "}\n\ndata: {"token":"said: "}\n\ndata: {"token":"do "}\n\n'
    expected += 'event: error\ndata: {"message":"the model lost its thread"}\n\n'
    async with running(load("sse_chat").app) as app:
        answer = await app.ask("POST", "/events", body=prompt("do fail now"))
        assert answer == (200, FIRST + expected)


@pytest.mark.parametrize("body", ["", "hi", "[]", "{}", '{"prompt": 1}', '{"prompt": null}'])
@jumping_clock
async def test_sse_chat_refuses_other_bodies(body: str) -> None:
    """What holds no prompt is answered 400, in words."""
    async with running(load("sse_chat").app) as app:
        status, detail = await app.ask("POST", "/events", body=body)
        assert status == 400
        assert "prompt" in detail or "not JSON" in detail


@jumping_clock
async def test_sse_chat_cancels_the_model_of_a_client_that_left() -> None:
    """The model of a client that left stops at once, not at the end of its answer."""
    async with running(load("sse_chat").app) as app:
        client = await app.connect()
        await client.ask("POST", "/events", body=prompt("a very long story " * 100))
        await client.event()
        before = trio.current_time()
        await client.aclose()
        await wait_all_tasks_blocked()
        assert app.server.statistics().closings == {CloseReason.CLIENT_CLOSED: 1}
        assert trio.current_time() == before


# -- the proxy, in front of another server in memory


@final
class MemoryTransport(httpx.AsyncBaseTransport):
    """Takes httpx's requests to a server in memory, and Trio's and h11's errors to httpx's."""

    def __init__(self, listener: MemoryListener) -> None:
        self._listener = listener

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            client = Client(await self._listener.connect())
        except trio.BrokenResourceError as exc:
            raise httpx.ConnectError("nobody listens") from exc
        target = request.url.raw_path.decode()
        head = await client.ask(request.method, target, headers=dict(request.headers))
        return httpx.Response(
            head.status_code, headers=list(head.headers), stream=MemoryBody(client)
        )


@final
class MemoryBody(httpx.AsyncByteStream):
    """The body of an answer from memory; closing it closes the connection."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while piece := await self._client.piece():
                yield piece
        except h11.RemoteProtocolError as exc:
            raise httpx.RemoteProtocolError(str(exc)) from exc

    async def aclose(self) -> None:
        await self._client.aclose()


@contextlib.asynccontextmanager
async def proxied(
    upstream: Handler, path: str = "/events"
) -> AsyncIterator[tuple[Running, Running]]:
    """Serve an upstream and a proxy in front of it."""
    create_app = load("sse_proxy").create_app
    async with running(upstream) as behind:
        client = httpx.AsyncClient(transport=MemoryTransport(behind.listener))
        async with running(create_app(client, f"http://test{path}")) as proxy:
            yield proxy, behind
        assert client.is_closed


@jumping_clock
async def test_sse_proxy_passes_events_on_in_upper_case() -> None:
    """Each event comes through with type and id as they were, and its data in upper case."""

    async def upstream(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("one\ntwo", event="note", id="Id-1")
            await writer.send("straße")

    expected = "event: note\nid: Id-1\ndata: ONE\ndata: TWO\n\n"
    expected += "event: message\nid: Id-1\ndata: STRASSE\n\n"
    async with proxied(upstream) as (proxy, _behind):
        assert await proxy.ask("GET", "/events") == (200, FIRST + expected)


@jumping_clock
async def test_sse_proxy_resumes_through_the_upstream() -> None:
    """The id that a client comes back with goes up, so it gets what follows, at the same pace."""
    async with proxied(load("sse_counter").app) as (proxy, _behind):
        client = await proxy.connect()
        await client.ask("GET", "/events", headers={"Last-Event-ID": "41"})
        start = trio.current_time()
        assert [(await client.event()).id for _ in range(3)] == ["42", "43", "44"]
        assert trio.current_time() - start == pytest.approx(2)
        await client.aclose()


@jumping_clock
async def test_sse_proxy_sends_up_ids_that_are_not_ascii() -> None:
    """An id goes up as the UTF-8 that it is, and without one there is no such header."""
    seen = []

    async def upstream(event: H3Event) -> None:
        seen.append(event.headers.get("last-event-id"))
        async with event.start_sse() as writer:
            await writer.send(event.last_event_id or "none")

    async with proxied(upstream) as (proxy, _behind):
        _status, text = await proxy.ask("GET", "/events?last_event_id=%C3%BC")
        assert "data: Ü\n" in text
        _status, text = await proxy.ask("GET", "/events")
        assert "data: NONE\n" in text
    assert seen[1] is None


@jumping_clock
async def test_sse_proxy_hangs_up_when_its_client_leaves() -> None:
    """The stream from the upstream ends with the client that it was for."""
    async with proxied(load("sse_counter").app) as (proxy, behind):
        client = await proxy.connect()
        await client.ask("GET", "/events")
        await client.event()
        assert behind.server.statistics().streams == 1
        await client.aclose()
        await wait_all_tasks_blocked()
        assert behind.server.statistics().streams == 0
        assert proxy.server.statistics().closings == {CloseReason.CLIENT_CLOSED: 1}


@jumping_clock
async def test_sse_proxy_says_502_for_an_upstream_that_refuses() -> None:
    """Whatever but a stream the upstream answers, the client gets a 502 that tells."""
    async with proxied(load("sse_basic").app, path="/nothing") as (proxy, _behind):
        assert await proxy.ask("GET", "/events") == (502, "the upstream answered 404\n")


@jumping_clock
async def test_sse_proxy_says_502_when_the_upstream_is_away() -> None:
    """An upstream that nobody can reach is a 502."""
    async with proxied(load("sse_basic").app) as (proxy, behind):
        await behind.listener.aclose()
        status, detail = await proxy.ask("GET", "/events")
        assert (status, "can't be reached" in detail) == (502, True)


@jumping_clock
async def test_sse_proxy_cuts_off_a_stream_that_was_cut_off() -> None:
    """If the upstream's stream breaks, so does the client's: no final chunk says it was whole."""

    async def upstream(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("one")
            raise RuntimeError("the upstream breaks")

    async with proxied(upstream) as (proxy, _behind):
        client = await proxy.connect()
        await client.ask("GET", "/events")
        assert (await client.event()).data == "ONE"
        with pytest.raises(h11.RemoteProtocolError):
            await client.text()
        await client.aclose()
        await wait_all_tasks_blocked()
        assert proxy.server.statistics().closings == {CloseReason.HANDLER_ERROR: 1}


# -- as processes, with curl

COUNT = "event: counter\nid: 0\ndata: 0\n\nevent: counter\nid: 1\ndata: 1\n\n"
RESUMED = "event: count\nid: 42\ndata: 42\n\nevent: count\nid: 43\ndata: 43\n\n"
TOKENS = 'data: {"token":"You "}\n\ndata: {"token":"said: "}\n\ndata: {"token":"hi "}\n\n'

# What curl is told beside the address, and what its output begins with.
CURL: dict[str, tuple[Sequence[str], str]] = {
    "sse_basic": ((), COUNT),
    "sse_callback": ((), "event: message\nid: 1\ndata: Hello!\n\n"),
    "sse_chat": (("-d", prompt("hi")), f'{TOKENS}event: done\ndata: {{"reason":"stop"}}\n\n'),
    "sse_counter": (("-H", "Last-Event-ID: 41"), RESUMED),
    "sse_minimal": ((), "data: Hello!\n\n"),
    "sse_proxy": ((), COUNT),
    "sse_text": ((), "data: A \n\ndata: stream \n\ndata: of \n\n"),
}


@contextlib.contextmanager
def process(name: str, **environ: str) -> Iterator[str]:
    """Run an example as its docstring says, on a free port; give its address, then stop it."""
    command = [sys.executable, "-m", "h3trio", "serve", f"examples/{name}.py:app", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **environ},
        stderr=subprocess.PIPE,
        text=True,
    ) as serving:
        assert serving.stderr is not None
        try:
            ready = serving.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", ready)
            assert found, ready + serving.stderr.read()
            yield found[0]
            serving.send_signal(signal.SIGTERM)
            log = serving.stderr.read()
            assert serving.wait(30) == 0, log
            assert "Traceback" not in log
        finally:
            serving.kill()


def curl(url: str, *arguments: str, expected: str) -> None:
    """Compare what curl prints, as it prints it, with what is expected."""
    command = [require_tool("curl"), "-sN", "--noproxy", "*", "--max-time", "30", *arguments, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running_curl:
        assert running_curl.stdout is not None
        printed = running_curl.stdout.read(len(expected.encode()))
        running_curl.kill()
    assert printed.decode() == expected


@pytest.mark.e2e
@pytest.mark.parametrize("name", NAMES)
def test_example_runs_as_its_docstring_says(name: str) -> None:
    """The command of the docstring serves the example, curl reads it, SIGTERM ends it with 0."""
    arguments, expected = CURL[name]
    with contextlib.ExitStack() as stack:
        environ = {}
        if name == "sse_proxy":
            environ["UPSTREAM"] = f"{stack.enter_context(process('sse_basic'))}/events"
        address = stack.enter_context(process(name, **environ))
        curl(f"{address}/events", *arguments, expected=FIRST + expected)
        if name in PAGES:
            curl(f"{address}/", expected="<!doctype html>\n")
