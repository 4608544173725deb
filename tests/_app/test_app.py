"""`App` behind a real connection in memory: routes, middleware, and what becomes of results."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import h11
import pytest
import trio
from helpers import STREAM_TYPE, connection_of
from tables import table
from trio.testing import memory_stream_pair

from h3trio import App, H3Event, HTTPError, Response, Settings, SSEWriter
from h3trio._server.sockets.transport import StreamTransport
from h3trio._server.state import ServerState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from h3trio._app.app import Next

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool
    """Whether its end was framed, and not cut off."""


async def fetch(app: App, method: str = "GET", target: str = "/", body: bytes = b"") -> Reply:
    """Send one request to an app; return the answer."""
    ours, theirs = memory_stream_pair()
    state = ServerState(Settings(linger_timeout=0))
    http = h11.Connection(h11.CLIENT)
    head = h11.Request(
        method=method,
        target=target,
        headers=[("Host", "test"), ("Connection", "close"), ("Content-Length", str(len(body)))],
    )
    request = [http.send(head), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())]
    async with trio.open_nursery() as nursery:
        connection = connection_of(StreamTransport(theirs), app, state)
        nursery.start_soon(connection.run)
        await ours.send_all(b"".join(filter(None, request)))
        http.receive_data(b"".join([bytes(piece) async for piece in ours]))
        http.receive_data(b"")
        await ours.aclose()
    return parse(http)


def parse(http: h11.Connection) -> Reply:
    """Read a whole answer out of h11."""
    head = http.next_event()
    assert isinstance(head, h11.Response)
    body, is_whole = b"", False
    try:
        while isinstance(event := http.next_event(), h11.Data):
            body += event.data
        is_whole = isinstance(event, h11.EndOfMessage)
    except h11.RemoteProtocolError:
        pass
    headers = {name.decode(): value.decode() for name, value in head.headers}
    return Reply(head.status_code, headers, body, is_whole)


# -- routes


async def test_every_verb_has_its_method() -> None:
    """`get`, `post` and so on route their method, and no other."""
    app = App()
    for verb in ("get", "post", "put", "patch", "delete", "head", "options"):

        async def handler(event: H3Event, verb: str = verb) -> Response:
            return Response(headers={"X-Verb": verb, "X-Method": event.method})

        getattr(app, verb)("/")(handler)
    for method in METHODS:
        reply = await fetch(app, method)
        assert (reply.status, reply.headers["x-verb"]) == (200, method.lower())
        assert reply.headers["x-method"] == method


async def test_registering_returns_the_handler() -> None:
    """A decorated handler is still itself, so it can have several routes."""

    async def handler(_event: H3Event) -> str:
        return "hi"

    app = App()
    assert app.get("/a")(app.get("/b")(handler)) is handler
    assert (await fetch(app, "GET", "/a")).body == (await fetch(app, "GET", "/b")).body == b"hi"


async def test_all_takes_what_has_no_route_of_its_own() -> None:
    """`all` gets every method but those that have a route."""
    app = App()

    @app.all("/")
    async def anything(event: H3Event) -> str:
        return event.method

    @app.get("/")
    async def get(_event: H3Event) -> str:
        return "own"

    for method in ("POST", "PUT", "OPTIONS", "PURGE"):
        assert (await fetch(app, method)).body == method.encode()
    assert (await fetch(app)).body == b"own"


async def test_params_and_wildcard() -> None:
    """A route's names and `*` are handed over, percent-decoded."""
    app = App()

    @app.get("/:room/files/*")
    async def handler(event: H3Event) -> dict[str, str]:
        return event.params

    reply = await fetch(app, "GET", "/caf%C3%A9/files/a%2Fb/c?q=1")
    assert json.loads(reply.body) == {"room": "café", "*": "a/b/c"}
    assert (await fetch(app, "GET", "//files/a")).status == 404


async def test_404() -> None:
    """A path without a route is not found, whatever the method."""
    app = App()

    @app.get("/a")
    async def handler(_event: H3Event) -> None: ...

    for method in METHODS:
        reply = await fetch(app, method, "/b")
        assert reply.status == 404
        assert reply.body == (b"" if method == "HEAD" else b"Not Found\n")


async def test_405() -> None:
    """A path that is there, but not for this method, says for which."""
    app = App()

    @app.get("/")
    @app.put("/")
    async def handler(_event: H3Event) -> None: ...

    reply = await fetch(app, "POST", body=b"some")
    assert (reply.status, reply.body) == (405, b"Method Not Allowed\n")
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS, PUT"


async def test_head_is_get_without_the_body() -> None:
    """HEAD goes to GET's handler; the answer has its headers, length too, and no body."""
    app = App()

    @app.get("/")
    async def handler(event: H3Event) -> str:
        assert event.method == "HEAD"
        return "hello"

    reply = await fetch(app, "HEAD")
    assert (reply.status, reply.body, reply.is_whole) == (200, b"", True)
    assert reply.headers["content-length"] == "5"


async def test_options_is_answered() -> None:
    """OPTIONS says what a path takes; of the server as a whole it says that it is there."""
    app = App()

    @app.post("/")
    async def handler(_event: H3Event) -> None: ...

    reply = await fetch(app, "OPTIONS")
    assert (reply.status, reply.headers["allow"], reply.body) == (204, "OPTIONS, POST", b"")
    assert (await fetch(app, "OPTIONS", "*")).status == 204
    assert (await fetch(app, "GET", "*")).status == 400


# -- results


@table(
    "result, status, content_type, body",
    [
        ("é", 200, "text/plain; charset=utf-8", "é".encode()),
        (b"\xff", 200, "application/octet-stream", b"\xff"),
        ({"a": 1}, 200, "application/json", b'{"a":1}'),
        ([1, 2], 200, "application/json", b"[1,2]"),
        (None, 204, None, b""),
        (Response("x", status=201, content_type="text/x"), 201, "text/x", b"x"),
    ],
)
async def test_results(result: object, status: int, content_type: str | None, body: bytes) -> None:
    """What a handler returns is what the client gets."""
    app = App()

    @app.get("/")
    async def handler(_event: H3Event) -> object:
        return result

    reply = await fetch(app)
    assert (reply.status, reply.body, reply.is_whole) == (status, body, True)
    assert reply.headers.get("content-type") == content_type


async def test_status_and_headers_of_the_event() -> None:
    """A status and headers set on the event go out with what is returned."""
    app = App()

    @app.get("/")
    async def handler(event: H3Event) -> dict[str, int]:
        event.status = 202
        event.response_headers["X-Job"] = "7"
        return {"job": 7}

    reply = await fetch(app)
    assert (reply.status, reply.headers["x-job"], reply.body) == (202, "7", b'{"job":7}')


@pytest.mark.parametrize("result", [3, 1.5, object(), {"x": object()}, {1, 2}])
async def test_a_result_that_is_no_answer(result: object, caplog: pytest.LogCaptureFixture) -> None:
    """What can't be sent is a 500 that tells the client nothing, and the log what it was."""
    app = App()

    @app.get("/")
    async def handler(_event: H3Event) -> object:
        return result

    reply = await fetch(app)
    assert (reply.status, reply.body) == (500, b"Internal Server Error\n")
    assert "TypeError" in caplog.text


async def test_an_error_with_a_status() -> None:
    """`HTTPError` gives its status, detail and headers."""
    app = App()

    @app.get("/")
    async def handler(_event: H3Event) -> None:
        raise HTTPError(403, "not you", headers={"X-Why": "because"})

    reply = await fetch(app)
    assert (reply.status, reply.headers["x-why"], reply.body) == (403, "because", b"not you\n")


async def test_any_other_error(caplog: pytest.LogCaptureFixture) -> None:
    """Another error is a 500 without its text, and a traceback in the log."""
    app = App()

    @app.get("/")
    async def handler(_event: H3Event) -> None:
        raise ValueError("secret")

    reply = await fetch(app)
    assert (reply.status, reply.body) == (500, b"Internal Server Error\n")
    assert "ValueError: secret" in caplog.text


# -- streams


async def tick(event: H3Event) -> None:
    """Stream one event."""
    async with event.start_sse() as writer:
        await writer.send("tick")


async def test_a_stream() -> None:
    """A handler may stream instead of returning."""
    app = App()
    app.get("/")(tick)
    reply = await fetch(app)
    assert (reply.status, reply.headers["content-type"]) == (200, STREAM_TYPE)
    assert (reply.body, reply.is_whole) == (b":\ndata: tick\n\n", True)


async def test_a_stream_by_callback() -> None:
    """A handler may leave a callback, which streams once the handler has returned."""
    app = App()
    steps: list[str] = []

    @app.get("/")
    async def handler(event: H3Event) -> None:
        async def callback(writer: SSEWriter) -> None:
            steps.append("callback")
            await writer.send("Hello!", event="message", id="1")

        event.start_sse()
        event.set_stream_callback(callback)
        steps.append("return")

    reply = await fetch(app)
    assert reply.body == b":\nevent: message\nid: 1\ndata: Hello!\n\n"
    assert (reply.is_whole, steps) == (True, ["return", "callback"])


async def test_a_stream_and_a_result(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that streams and returns something too has a fault, which isn't passed over."""
    app = App()

    @app.get("/")
    async def handler(event: H3Event) -> str:
        await tick(event)
        return "lost"

    @app.get("/callback")
    async def callback(event: H3Event) -> str:
        event.start_sse()
        event.set_stream_callback(lambda writer: writer.send("never"))
        return "lost"

    await fetch(app)
    assert "what starts a stream returns None, and this returned str" in caplog.text
    assert (await fetch(app, "GET", "/callback")).status == 500


async def started_only(event: H3Event) -> None:
    """Start a stream, and refuse before it is entered."""
    event.start_sse()
    raise HTTPError(403, "no")


async def with_callback(event: H3Event) -> None:
    """Leave a callback, and refuse."""
    event.start_sse()
    event.set_stream_callback(lambda writer: writer.send("never"))
    raise HTTPError(403, "no")


async def of_another_type(event: H3Event) -> None:
    """Begin to answer with something else, and refuse."""
    event.start_stream("text/plain")
    raise HTTPError(403, "no")


async def refused_by_a_hook(event: H3Event) -> None:
    """Enter a stream whose head is refused."""

    def refuse(_headers: object) -> None:
        raise HTTPError(403, "no")

    event.on_head(refuse)
    await tick(event)


async def of_the_wrong_type(event: H3Event) -> None:
    """Enter a stream whose header says that it is none."""
    event.response_headers.set("Content-Type", "text/html")
    await tick(event)


async def leaves_it(event: H3Event) -> None:
    """Enter such a stream, and see to the error."""
    try:
        await of_the_wrong_type(event)
    except ValueError as exc:
        raise HTTPError(403, "no") from exc


REFUSING = [started_only, with_callback, of_another_type, refused_by_a_hook]


@table("handler", [*REFUSING, of_the_wrong_type, leaves_it])
async def test_middleware_answers_for_a_stream_that_was_not_entered(
    handler: Callable[[H3Event], Awaitable[None]],
) -> None:
    """An error between the start of a stream and its head may be answered as any other."""
    app = App()

    @app.use
    async def errors_as_json(_event: H3Event, following: Next) -> Response | None:
        try:
            return await following()
        except (HTTPError, ValueError) as exc:
            return Response.json({"error": type(exc).__name__}, status=418)

    app.get("/")(handler)
    reply = await fetch(app)
    assert reply.status == 418
    assert b"Error" in reply.body


@table("handler", REFUSING)
async def test_a_handler_answers_for_a_stream_that_was_not_entered(
    handler: Callable[[H3Event], Awaitable[None]],
) -> None:
    """So it is without middleware."""
    app = App()
    app.get("/")(handler)
    assert (await fetch(app)).status == 403


async def test_a_handler_gives_up_a_stream_that_it_could_not_enter() -> None:
    """A handler whose stream is refused may return something else."""
    app = App()

    @app.get("/")
    async def handler(event: H3Event) -> dict[str, str]:
        try:
            await refused_by_a_hook(event)
        except HTTPError:
            event.status = 409
        return {"stream": "none"}

    reply = await fetch(app)
    assert (reply.status, reply.body) == (409, b'{"stream":"none"}')


# -- middleware


async def test_middleware_order() -> None:
    """The first added is the outermost; all run around every request."""
    app = App()
    steps: list[str] = []

    async def around(name: str, _event: H3Event, following: Next) -> object:
        steps.append(f"{name} in")
        response = await following()
        steps.append(f"{name} out")
        return response

    for name in "abc":
        app.use(partial(around, name))

    @app.get("/")
    async def handler(_event: H3Event) -> str:
        steps.append("handler")
        return "hi"

    assert (await fetch(app)).body == b"hi"
    assert steps == ["a in", "b in", "c in", "handler", "c out", "b out", "a out"]


async def test_middleware_sees_and_changes_the_response() -> None:
    """Whatever the handler returned, middleware gets a `Response`, and may change its headers."""
    app = App()

    @app.use
    async def stamp(event: H3Event, following: Next) -> Response | None:
        response = await following()
        assert isinstance(response, Response)
        response.headers["X-Path"] = event.path
        return response

    @app.get("/")
    async def handler(_event: H3Event) -> dict[str, int]:
        return {"a": 1}

    reply = await fetch(app)
    assert (reply.headers["x-path"], reply.body) == ("/", b'{"a":1}')


async def test_middleware_that_returns_nothing_changes_nothing() -> None:
    """Middleware that awaits `next` and forgets to return keeps the answer as it is."""
    app = App()

    @app.use
    async def forgetful(_event: H3Event, following: Next) -> None:
        await following()

    @app.get("/")
    async def handler(_event: H3Event) -> str:
        return "hi"

    assert (await fetch(app)).body == b"hi"


async def test_middleware_that_answers_itself() -> None:
    """Middleware may return an answer of its own, in any form, and nothing behind it runs."""
    app = App()

    @app.use
    async def guard(_event: H3Event, _following: Next) -> dict[str, str]:
        return {"stop": "here"}

    @app.get("/")
    async def handler(_event: H3Event) -> None:
        raise AssertionError("not reached")

    assert (await fetch(app)).body == b'{"stop":"here"}'
    assert (await fetch(app, "GET", "/nowhere")).body == b'{"stop":"here"}'


async def test_middleware_without_an_answer() -> None:
    """Middleware that neither asks for an answer nor gives one answers 204."""
    app = App()

    @app.use
    async def silent(_event: H3Event, _following: Next) -> None: ...

    assert (await fetch(app)).status == 204


async def test_middleware_replaces_the_response() -> None:
    """What middleware returns counts, not what `next` gave it."""
    app = App()

    @app.use
    async def shout(_event: H3Event, following: Next) -> str:
        response = await following()
        assert response is not None
        return response.body.decode().upper()

    @app.get("/")
    async def handler(_event: H3Event) -> str:
        return "hi"

    assert (await fetch(app)).body == b"HI"


async def test_errors_pass_through_middleware() -> None:
    """Middleware sees errors, 404 and 405 too, and may turn them into answers."""
    app = App()
    seen: list[str] = []

    @app.use
    async def catch(_event: H3Event, following: Next) -> object:
        try:
            return await following()
        except HTTPError as error:
            seen.append(str(error.status))
            raise
        except ValueError as error:
            return f"caught {error}"

    @app.post("/")
    async def handler(_event: H3Event) -> None:
        raise ValueError("it")

    assert (await fetch(app, "POST")).body == b"caught it"
    assert (await fetch(app, "GET")).status == 405
    assert (await fetch(app, "GET", "/nowhere")).status == 404
    assert seen == ["405", "404"]


async def check(name: str) -> None:
    """Refuse, or fail where there is no name."""
    raise ValueError if name == "!" else HTTPError(403, name)


async def check_all(names: str) -> None:
    """Refuse each name in a task of its own."""
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(check, name)


@table(
    "names, status, body",
    [("a", 403, b"a"), ("ab", 403, b"b"), ("ba", 403, b"b"), ("ab!", 500, None)],
)
@table("where", ["handler", "middleware"])
async def test_errors_of_a_nursery_pass_through_middleware(
    names: str, status: int, body: bytes | None, where: str
) -> None:
    """Middleware sees HTTPErrors of a nursery as one, the same in any order; others as a group."""
    app = App()
    seen: list[type[BaseException]] = []

    @app.use
    async def catch(_event: H3Event, following: Next) -> object:
        try:
            return await following()
        except HTTPError as error:
            return Response(error.detail, status=error.status)
        except BaseException as error:
            seen.append(type(error))
            raise

    @app.use
    async def inner(_event: H3Event, following: Next) -> object:
        if where == "middleware":
            await check_all(names)
        return await following()

    @app.get("/")
    async def handler(_event: H3Event) -> None:
        await check_all(names)

    reply = await fetch(app)
    assert reply.status == status
    if body is None:
        assert seen == [ExceptionGroup]
    else:
        assert (reply.body, seen) == (body, [])


async def test_middleware_that_raises() -> None:
    """An error in middleware is as one in the handler."""
    app = App()

    @app.use
    async def guard(_event: H3Event, _following: Next) -> None:
        raise HTTPError(401)

    assert (await fetch(app)).status == 401


async def test_middleware_around_a_stream() -> None:
    """Around a stream `next` returns `None` when the stream has ended, headers set before count."""
    app = App()
    seen: list[object] = []

    @app.use
    async def around(event: H3Event, following: Next) -> Response | None:
        event.response_headers["X-Before"] = "1"
        response = await following()
        seen.append(response)
        return response

    app.get("/")(tick)
    reply = await fetch(app)
    assert (reply.headers["x-before"], reply.body) == ("1", b":\ndata: tick\n\n")
    assert (seen, reply.is_whole) == ([None], True)


async def test_middleware_that_fails_after_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    """An error after a stream is over changes nothing for the client, and is logged."""
    app = App()

    @app.use
    async def late(_event: H3Event, following: Next) -> None:
        await following()
        raise ValueError("late")

    app.get("/")(tick)
    assert (await fetch(app)).body == b":\ndata: tick\n\n"
    assert "ValueError: late" in caplog.text


async def test_middleware_that_streams() -> None:
    """Middleware may stream itself."""
    app = App()

    @app.use
    async def streaming(event: H3Event, _following: Next) -> None:
        await tick(event)

    assert (await fetch(app)).body == b":\ndata: tick\n\n"


# -- lifespan


async def test_lifespan() -> None:
    """An app hands out the lifespan it was given, or one that does nothing."""
    steps: list[str] = []

    class Lifespan:
        """Notes when it is entered and left."""

        async def __aenter__(self) -> None:
            steps.append("enter")

        async def __aexit__(self, *_: object) -> None:
            steps.append("leave")

    async with App(lifespan=Lifespan).lifespan():
        assert steps == ["enter"]
    assert steps == ["enter", "leave"]
    async with App().lifespan():
        pass


def test_a_lifespan_that_gives_no_context_is_named() -> None:
    """What a lifespan returns is looked at where it is entered, and the error names it."""

    def three() -> Any:  # noqa: ANN401 - what is wrong
        return 3

    with pytest.raises(TypeError, match="the lifespan three returned 3, which is no async context"):
        App(lifespan=three).lifespan()


async def test_middleware_finds_the_handler() -> None:
    """A method and a path lead to the handler that the request would go to, or to none."""
    app = App()
    assert list(app.handlers) == []

    @app.get("/a/:b")
    async def one(_event: H3Event) -> str:
        await trio.lowlevel.checkpoint()
        return "one"

    @app.all("/all")
    async def other(_event: H3Event) -> str:
        await trio.lowlevel.checkpoint()
        return "other"

    assert list(app.handlers) == [one, other]
    assert app.find_handler("GET", b"/a/%2F") is app.find_handler("HEAD", b"/a/x") is one
    assert app.find_handler("PURGE", b"/all") is other
    assert app.find_handler("POST", b"/a/x") is app.find_handler("GET", b"/b") is None
