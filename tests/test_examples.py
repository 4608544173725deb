"""Each example starts, answers and stops: in memory for what it says, by curl for how it is run.

In memory the clock jumps, so what takes an example ten seconds is checked to the byte at once. The
tests marked `e2e` run the command of the example's docstring as a process, read its stream with
curl, and end it with SIGTERM.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, final

import httpx2
import pytest
import trio
from helpers import Client, connect, post, request
from tables import table
from tools import require_tool
from trio.testing import wait_all_tasks_blocked

from h3trio import CloseReason, H3Event, SSEEvent, SSEParser
from h3trio.testing import connect as connect_app

if TYPE_CHECKING:
    import types
    from collections.abc import AsyncIterator, Generator, Sequence

    from trio.testing import MockClock

    from h3trio._server.event import Handler

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("sse_*.py"))
PAGES = sorted(path.stem for path in EXAMPLES.glob("sse_*.html"))

FIRST = ":\n"  # the comment that opens every stream, so that `onopen` fires


def load(name: str) -> types.ModuleType:
    """Import an example afresh, as `serve` does."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def ask(nursery: trio.Nursery, handler: Handler, asked: bytes) -> tuple[int, str]:
    """Ask on a connection of its own; return the answer's status and body."""
    client = connect(nursery, handler)
    await client.send(asked)
    head, body = await client.response()
    await leave(client)
    return head.status, body.decode()


async def listen(nursery: trio.Nursery, handler: Handler, asked: bytes) -> Client:
    """Ask for a stream; return the client once the stream is open."""
    client = connect(nursery, handler)
    await client.send(asked)
    assert (await client.head()).status == 200
    return client


async def leave(client: Client) -> None:
    """Close the client's end, and wait until nothing of the server's is left."""
    await client.stream.aclose()
    await client.finished.wait()


def closings(client: Client) -> dict[CloseReason, int]:
    """Tell how the exchanges of a connection ended."""
    return dict(client.state.counts.closings)


EVENTS = request("/events")


def path_of(name: str) -> str:
    """Return where an example has its stream."""
    return {
        "sse_llm_messages": "/v1/messages",
        "sse_llm_openai": "/v1/chat/completions",
    }.get(name, "/events")


# -- what they have in common


def test_every_example_is_tested() -> None:
    """No example is without its tests: those named sse_ here, others wherever they belong."""
    assert set(CURL) == set(NAMES)
    for name in NAMES:
        assert any(test.startswith(f"test_{name}_") for test in globals()), name
    tests = [path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py")]
    for path in EXAMPLES.glob("*.py"):
        assert any(path.stem in text for text in tests), path.stem


@pytest.mark.parametrize("name", NAMES)
def test_docstring_says_how_to_try_it(name: str) -> None:
    """An example opens with the command that serves it and a curl that reads its stream."""
    doc = load(name).__doc__ or ""
    assert f"\n    python -m h3trio serve examples/{name}.py:app\n" in doc
    assert f"\n    curl -N localhost:3000{path_of(name)}" in doc
    assert ("http://localhost:3000/ " in doc) == (name in PAGES)


@pytest.mark.parametrize("name", ["readme/test_stream", "test_your_app", "test_your_runs"])
def test_command_of_a_test_runs_it(name: str) -> None:
    """The command that an example's docstring gives for its tests runs them, in a clone's root."""
    code = ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    text = ast.get_docstring(code, clean=False) or ""
    (command,) = re.findall(r"^    (.*pytest -o .+)$", text, re.MULTILINE)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ran = subprocess.run(  # noqa: S602 - the command is ours
        command,
        shell=True,
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("name", PAGES)
async def test_page_is_served_at_the_root(name: str, nursery: trio.Nursery) -> None:
    """An example with a page sends it, as HTML, at `/`."""
    client = connect(nursery, load(name).app)
    await client.send(request("/"))
    head, body = await client.response()
    assert (head.status, head.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert body == (EXAMPLES / f"{name}.html").read_bytes()
    await leave(client)


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


async def test_sse_minimal_says_hello(nursery: trio.Nursery) -> None:
    """The minimal example sends one event and ends."""
    answer = await ask(nursery, load("sse_minimal").app, EVENTS)
    assert answer == (200, f"{FIRST}data: Hello!\n\n")


async def test_sse_basic_sends_ten_events_in_ten_seconds(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The basic example sends ten numbered events of type `counter`, one a second."""
    expected = "".join(f"event: counter\nid: {n}\ndata: {n}\n\n" for n in range(10))
    assert await ask(nursery, load("sse_basic").app, EVENTS) == (200, FIRST + expected)
    assert autojump_clock.current_time() == pytest.approx(10)


async def test_sse_callback_sends_what_its_callback_says(nursery: trio.Nursery) -> None:
    """The callback example sends exactly `event: message`, `id: 1`, `data: Hello!`."""
    answer = await ask(nursery, load("sse_callback").app, EVENTS)
    assert answer == (200, f"{FIRST}event: message\nid: 1\ndata: Hello!\n\n")


async def test_sse_text_streams_its_words(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """The text comes a word an event, and after the last word the event `done`."""
    module = load("sse_text")
    words = module.TEXT.split()
    expected = "".join(f"data: {word} \n\n" for word in words) + "event: done\ndata: \n\n"
    assert await ask(nursery, module.app, EVENTS) == (200, FIRST + expected)
    assert autojump_clock.current_time() == pytest.approx(0.1 * len(words))


async def test_sse_counter_counts_seconds(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """The counter sends one event a second, with type and id, from 1 on."""
    client = await listen(nursery, load("sse_counter").app, EVENTS)
    for n in range(1, 100):
        assert await client.event() == SSEEvent(str(n), event="count", id=str(n))
        assert autojump_clock.current_time() == pytest.approx(n - 1)
    await leave(client)


@pytest.mark.parametrize(
    ("last", "following"),
    [("41", "42"), ("0", "1"), ("none", "1"), ("1.5", "1"), ("9" * 5000, "1")],
    ids=["41", "0", "none", "fraction", "huge"],
)
async def test_sse_counter_goes_on_after_the_last_event_id(
    last: str, following: str, nursery: trio.Nursery
) -> None:
    """A client that comes back gets the next number; one with a strange id begins at 1."""
    asked = request("/events", f"Last-Event-ID: {last}")
    client = await listen(nursery, load("sse_counter").app, asked)
    first = await client.event()
    assert first is not None
    assert first.id == following
    await leave(client)


async def test_sse_counter_ends_with_its_client(nursery: trio.Nursery) -> None:
    """When the client leaves, the endless stream is over, and says why."""
    client = await listen(nursery, load("sse_counter").app, EVENTS)
    await client.event()
    await leave(client)
    assert closings(client) == {CloseReason.CLIENT_CLOSED: 1}


def prompt(text: str) -> str:
    """Return the body of a request to the chat."""
    return json.dumps({"prompt": text})


def tokens(*texts: str) -> str:
    """Return what the chat streams for these tokens."""
    return "".join(f'data: {{"token":"{text} "}}\n\n' for text in texts)


DONE = 'event: done\ndata: {"reason":"stop"}\n\n'
FAILED = 'event: error\ndata: {"message":"the model lost its thread"}\n\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("¿Qué tal?", tokens("You", "said:", "¿Qué", "tal?") + DONE),
        ("", tokens("You", "said:") + DONE),
        ("do fail now", tokens("You", "said:", "do") + FAILED),
    ],
    ids=["done", "empty", "error"],
)
async def test_sse_chat_streams_tokens_and_says_how_it_ended(
    text: str, expected: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A prompt is answered token by token; then comes `done`, or `error` if the model failed."""
    answer = await ask(nursery, load("sse_chat").app, post(prompt(text).encode(), "/events"))
    assert answer == (200, FIRST + expected)
    waits = expected.count("token") + ("error" in expected)
    assert autojump_clock.current_time() == pytest.approx(0.05 * waits)


@pytest.mark.parametrize("body", ["", "hi", "[]", "{}", '{"prompt": 1}', '{"prompt": null}'])
async def test_sse_chat_refuses_other_bodies(body: str, nursery: trio.Nursery) -> None:
    """A request without a prompt is answered 400, in words."""
    app = load("sse_chat").app
    status, detail = await ask(nursery, app, post(body.encode(), "/events"))
    assert status == 400
    assert "prompt" in detail or "not JSON" in detail


async def test_sse_chat_cancels_the_model_of_a_client_that_left(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The model of a client that left stops at once, not at the end of its answer."""
    asked = post(prompt("a long story " * 100).encode(), "/events")
    client = await listen(nursery, load("sse_chat").app, asked)
    await client.event()
    await leave(client)
    assert closings(client) == {CloseReason.CLIENT_CLOSED: 1}
    assert autojump_clock.current_time() == pytest.approx(0.05)


async def test_app_routes_answers_as_its_page_says(nursery: trio.Nursery) -> None:
    """Parameters and query come back as JSON, and only the blue team gets below `/admin/`."""
    app = load("app_routes").app
    asked = request("/rooms/7/seats?free=yes")
    assert await ask(nursery, app, asked) == (200, '{"room":"7","free":true}')
    assert await ask(nursery, app, request("/files/a/b")) == (200, "a/b")
    room = b'{"name": "attic"}'
    status, detail = await ask(nursery, app, post(room, "/admin/rooms"))
    assert (status, detail) == (403, "this is for the blue team\n")
    for body, status in ((room, 204), (b"[]", 400)):
        answer = await ask(nursery, app, post(body, "/admin/rooms", "X-Team: blue"))
        assert answer[0] == status


async def test_hub_durable_refuses_what_is_wrong(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `first` that is none, and an event that is no text, are 400, and the log stays empty."""
    monkeypatch.setenv("HUB_DB", str(tmp_path / "hub.db"))
    module = load("hub_durable")
    async with module.hub:
        for asked in (request("/news/sport?first=x"), post(b"caf\xe9", "/news/sport")):
            status, _detail = await ask(nursery, module.app, asked)
            assert status == 400
        assert module.hub.statistics().published == 0


@table("name, path", [("hub_datastar", "/datastar.js"), ("hub_htmx", "/scripts/htmx.min.js")])
async def test_a_script_that_is_missing_is_named(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, name: str, path: str
) -> None:
    """A page whose script isn't there gets 404 for it, which says which file it is."""
    monkeypatch.chdir(ROOT / "tests")  # without scripts of others
    status, detail = await ask(nursery, load(name).app, request(path))
    assert status == 404
    assert "there is no " in detail
    assert path.rpartition("/")[2] in detail


async def test_runs_minimal_has_a_first_viewer_or_says_where_it_is(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A POST is answered by the stream, or by where it is; a prompt that is no text by 400."""
    app = load("runs_minimal").app
    async with app.lifespan():
        wants_events = post(b"a story", "/answers", "Accept: text/event-stream")
        status, told = await ask(nursery, app, wants_events)
        assert (status, read(told)) == (200, STORY)
        status, told = await ask(nursery, app, post(b"a story", "/answers"))
        path = f"/answers/{json.loads(told)['id']}"
        assert (status, json.loads(told)["status"]) == (202, "running")
        status, told = await ask(nursery, app, request(path))
        assert (status, read(told)) == (200, STORY)
        status, told = await ask(nursery, app, post(b"caf\xe9", "/answers"))
        assert (status, "not UTF-8" in told) == (400, True)
        assert (await ask(nursery, app, request("/answers/nothing")))[0] == 404
    assert autojump_clock.current_time() == pytest.approx(0.8)


STORY = [("message", f"{word} ") for word in ("You", "said:", "a", "story")] + [("done", "{}")]


def read(body: str) -> list[tuple[str, str]]:
    """Return the types and data of a stream's events."""
    return [
        (event.event or "message", event.data or "") for event in SSEParser().feed(body.encode())
    ]


@pytest.mark.usefixtures("autojump_clock")
async def test_runs_owners_shows_users_what_is_theirs(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is sent again joins its answer, which its user alone finds and stops."""
    monkeypatch.setenv("HUB_DB", str(tmp_path / "answers.db"))
    app = load("runs_owners").app
    red, blue = "X-Session: red", "X-Session: blue"
    async with app.lifespan():
        keyed = post(b"a story " * 50, "/answers", red, "Idempotency-Key: 1")
        (_, first), (_, second) = [await ask(nursery, app, keyed) for _ in range(2)]
        assert first == second
        other = post(b"another", "/answers", red, "Idempotency-Key: 1")
        assert (await ask(nursery, app, other))[0] == 422
        path = f"/answers/{json.loads(first)['id']}"
        _, mine = await ask(nursery, app, request("/answers", red))
        assert [run["id"] for run in json.loads(mine)] == [json.loads(first)["id"]]
        assert await ask(nursery, app, request("/answers", blue)) == (200, "[]")
        assert (await ask(nursery, app, request(path, blue)))[0] == 404
        assert (await ask(nursery, app, request(path, blue, method="DELETE")))[0] == 404
        assert (await ask(nursery, app, request("/answers")))[0] == 401
        await trio.sleep(1)
        assert (await ask(nursery, app, request(path, red, method="DELETE")))[0] == 204
        _, told = await ask(nursery, app, request(f"{path}?from=snapshot", red))
        (kind, text), end = read(told)
        assert (kind, text[:14]) == ("snapshot", "You said: a st")
        assert end == ("stopped", '{"reason": "you stopped it"}')


@table("prompt, last", [("hi", "[DONE]"), ("fail", "the model lost its thread")])
@pytest.mark.usefixtures("autojump_clock")
async def test_runs_ai_sdk_says_done_behind_a_true_end_alone(prompt: str, last: str) -> None:
    """`[DONE]` stands behind a whole answer, and behind no other; no part of it has a type."""
    asked = {"id": "c", "messages": [{"parts": [{"type": "text", "text": prompt}]}]}
    app, told = load("runs_ai_sdk").app, json.dumps(asked)
    async with connect_app(app, "/api/chat", method="POST", content=told) as client:
        assert client.headers["x-vercel-ai-ui-message-stream"] == "v1"
        data: list[str] = []
        with contextlib.suppress(trio.EndOfChannel):
            while True:
                event = await client.next_event()
                assert event.event == "message"
                data.append(event.data or "")
    assert last in data[-1]
    assert ("[DONE]" in data) == (last == "[DONE]")


def request_of(text: str, **options: object) -> str:
    """Return the body of a request in the manner of OpenAI and Anthropic."""
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "echo", "stream": True, "messages": messages, **options})


async def events_of(nursery: trio.Nursery, name: str, text: str) -> list[SSEEvent]:
    """Ask an example for a stream; return its events."""
    asked = post(request_of(text).encode(), path_of(name))
    client = await listen(nursery, load(name).app, asked)
    events = await client.events()
    await leave(client)
    return events


async def test_sse_llm_openai_streams_chunks(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Each token is a chunk of the same answer; the last says why it ended, then comes [DONE]."""
    events = await events_of(nursery, "sse_llm_openai", "hi")
    assert {event.event for event in events} == {"message"}
    assert events[-1].data == "[DONE]"
    chunks = [json.loads(event.data or "") for event in events[:-1]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [delta.get("content") for delta in deltas[1:]] == ["You ", "said: ", "hi ", None]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["stop"]
    assert autojump_clock.current_time() == pytest.approx(0.15)


async def test_sse_llm_openai_fails_with_an_event(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A model that breaks amid the answer ends it by an error, without [DONE]."""
    events = await events_of(nursery, "sse_llm_openai", "now fail")
    error = {"error": {"type": "server_error", "message": "the model lost its thread"}}
    assert json.loads(events[-1].data or "") == error
    assert len(events) == 5
    assert autojump_clock.current_time() > 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (request_of("refuse"), 503, "server_error"),
        ("{}", 400, "invalid_request_error"),
        ('{"model": "echo", "messages": []}', 400, "invalid_request_error"),
    ],
)
async def test_sse_llm_openai_refuses_with_a_status(
    *, body: str, status: int, kind: str, stream: bool, nursery: trio.Nursery
) -> None:
    """An error before the first byte has a status, and says so as these clients expect."""
    asked = json.dumps({**json.loads(body), "stream": stream}).encode()
    answer = await ask(nursery, load("sse_llm_openai").app, post(asked, "/v1/chat/completions"))
    assert answer[0] == status
    assert json.loads(answer[1])["error"]["type"] == kind


async def test_sse_llm_openai_answers_whole(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Without `stream` the answer is one object."""
    asked = post(request_of("hi", stream=False).encode(), "/v1/chat/completions")
    status, body = await ask(nursery, load("sse_llm_openai").app, asked)
    answer = json.loads(body)
    assert (status, answer["object"]) == (200, "chat.completion")
    message = {"role": "assistant", "content": "You said: hi "}
    assert answer["choices"] == [{"index": 0, "message": message, "finish_reason": "stop"}]
    assert autojump_clock.current_time() == pytest.approx(0.15)


async def test_sse_llm_openai_is_kept_alive_while_the_model_thinks(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A model that says nothing for a minute has its client get heartbeats."""
    asked = post(request_of("think").encode(), "/v1/chat/completions")
    client = await listen(nursery, load("sse_llm_openai").app, asked)
    sent = b""
    while b"think" not in sent:
        sent += await client.chunk()
    assert sent.count(b":\n") > 3
    assert autojump_clock.current_time() > 60
    await leave(client)


@pytest.mark.parametrize("name", ["sse_llm_openai", "sse_llm_messages"])
async def test_sse_llm_examples_cancel_the_model_of_a_client_that_left(
    name: str,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nobody pays for tokens that nobody reads: the call ends with its client, at once."""
    asked = post(request_of("a long story " * 100).encode(), path_of(name))
    client = await listen(nursery, load(name).app, asked)
    await client.event()
    await leave(client)
    assert closings(client) == {CloseReason.CLIENT_CLOSED: 1}
    assert capsys.readouterr().out == "the call of the model is cancelled\n"
    assert autojump_clock.current_time() < 0.1


async def test_sse_llm_messages_streams_named_events(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The events come in the order of the Messages API, each with its type in its data."""
    events = await events_of(nursery, "sse_llm_messages", "hi")
    found = [json.loads(event.data or "") for event in events]
    assert [event.event for event in events] == [data["type"] for data in found]
    assert [data["type"] for data in found] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert found[0]["message"]["content"] == []
    texts = [data["delta"] for data in found if data["type"] == "content_block_delta"]
    assert texts[0] == {"type": "text_delta", "text": "You "}
    assert found[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert found[-2]["usage"] == {"output_tokens": 3}
    assert autojump_clock.current_time() == pytest.approx(0.15)


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


async def test_llm_ndjson_streams_lines(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Each token is an object on a line of its own, and the last line says that it is whole."""
    asked = post(request_of("hi").encode(), "/api/chat")
    client = await listen(nursery, load("llm_ndjson").app, asked)
    body = b""
    while piece := await client.chunk():
        body += piece
    await leave(client)
    *lines, last = [json.loads(line) for line in body.decode().splitlines()]
    assert [line["message"]["content"] for line in lines] == ["You ", "said: ", "hi "]
    assert not any(line["done"] for line in lines)
    assert last == {"model": "echo", "done": True, "done_reason": "stop"}
    assert autojump_clock.current_time() == pytest.approx(0.15)


async def test_llm_ndjson_fails_with_a_line_and_refuses_with_a_status(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """An error amid the answer is its last line; what is no request has a status."""
    app = load("llm_ndjson").app
    client = await listen(nursery, app, post(request_of("now fail").encode(), "/api/chat"))
    body = b""
    while piece := await client.chunk():
        body += piece
    await leave(client)
    assert json.loads(body.splitlines()[-1]) == {"error": "the model lost its thread"}
    assert (await ask(nursery, app, post(b"{}", "/api/chat")))[0] == 400
    assert autojump_clock.current_time() < 1


async def test_sse_llm_messages_fails_with_an_event_and_refuses_with_a_status(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """An error is the same object, as an event in the stream, as a body before it."""
    events = await events_of(nursery, "sse_llm_messages", "now fail")
    assert (events[-1].event, json.loads(events[-1].data or "")) == ("error", OVERLOADED)
    app = load("sse_llm_messages").app
    status, body = await ask(nursery, app, post(request_of("refuse").encode(), "/v1/messages"))
    assert (status, json.loads(body)) == (529, OVERLOADED)
    asked = post(request_of("hi", stream=False).encode(), "/v1/messages")
    assert (await ask(nursery, app, asked))[0] == 400
    assert autojump_clock.current_time() > 0


# -- the proxy, in front of another handler in memory


@final
class Upstream(httpx2.AsyncBaseTransport):
    """Takes httpx2's requests to a handler in memory; without a handler nobody listens."""

    def __init__(self, nursery: trio.Nursery, handler: Handler | None) -> None:
        self._nursery = nursery
        self._handler = handler
        self.clients: list[Client] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request; return the answer once its head is there."""
        if self._handler is None:
            raise httpx2.ConnectError("nobody listens")
        client = connect(self._nursery, self._handler)
        self.clients.append(client)
        lines = [b": ".join(field) for field in request.headers.raw]
        head = b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)
        await client.send(b"\r\n".join([head, *lines, b"", b""]))
        status, headers = await client.head()
        stream = UpstreamBody(client) if status == httpx2.codes.OK else None
        return httpx2.Response(status, headers=headers, stream=stream)


@final
class UpstreamBody(httpx2.AsyncByteStream):
    """A stream from memory; closing it closes the connection."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._client.chunk():
                yield chunk
        except EOFError as exc:
            raise httpx2.RemoteProtocolError("the upstream was cut off") from exc

    async def aclose(self) -> None:
        """Hang up."""
        await self._client.stream.aclose()


def proxy_of(upstream: Upstream, path: str = "/events") -> Handler:
    """Make the example's app, in front of an upstream."""
    client = httpx2.AsyncClient(transport=upstream)
    app: Handler = load("sse_proxy").create_app(client, f"http://test{path}")
    return app


async def test_sse_proxy_passes_events_on_in_upper_case(nursery: trio.Nursery) -> None:
    """Each event comes through with type and id as they were, and its data in upper case."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("one\ntwo", event="note", id="Id-1")
            await writer.send("straße")

    expected = "event: note\nid: Id-1\ndata: ONE\ndata: TWO\n\n"
    expected += "event: message\nid: Id-1\ndata: STRASSE\n\n"
    answer = await ask(nursery, proxy_of(Upstream(nursery, handler)), EVENTS)
    assert answer == (200, FIRST + expected)


async def test_sse_proxy_resumes_through_the_upstream(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The id that a client comes back with goes up, so it gets what follows, at the same pace."""
    upstream = Upstream(nursery, load("sse_counter").app)
    asked = request("/events", "Last-Event-ID: 41")
    client = await listen(nursery, proxy_of(upstream), asked)
    for n in (42, 43, 44):
        assert await client.event() == SSEEvent(str(n), event="count", id=str(n))
        assert autojump_clock.current_time() == pytest.approx(n - 42)
    await leave(client)


async def test_sse_proxy_sends_ids_up_as_utf8_and_none_if_there_is_none(
    nursery: trio.Nursery,
) -> None:
    """An id goes up as the UTF-8 that it is, and without one there is no such header."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send(event.last_event_id or f"{'last-event-id' in event.headers}")

    proxy = proxy_of(Upstream(nursery, handler))
    answer = await ask(nursery, proxy, request("/events?last_event_id=%C3%BC"))
    assert answer == (200, f"{FIRST}event: message\nid: ü\ndata: Ü\n\n")
    answer = await ask(nursery, proxy, EVENTS)
    assert answer == (200, f"{FIRST}event: message\nid: \ndata: FALSE\n\n")


async def test_sse_proxy_hangs_up_when_its_client_leaves(nursery: trio.Nursery) -> None:
    """The stream from the upstream ends with the client that it was for."""
    upstream = Upstream(nursery, load("sse_counter").app)
    client = await listen(nursery, proxy_of(upstream), EVENTS)
    await client.event()
    (behind,) = upstream.clients
    assert not behind.finished.is_set()
    await leave(client)
    await wait_all_tasks_blocked()
    assert behind.finished.is_set()
    assert closings(client) == closings(behind) == {CloseReason.CLIENT_CLOSED: 1}


async def test_sse_proxy_says_502_for_an_upstream_that_refuses(nursery: trio.Nursery) -> None:
    """Whatever but a stream the upstream answers, the client gets a 502 that tells."""
    proxy = proxy_of(Upstream(nursery, load("sse_basic").app), "/nothing")
    assert await ask(nursery, proxy, EVENTS) == (502, "the upstream answered 404\n")


async def test_sse_proxy_says_502_when_the_upstream_is_away(nursery: trio.Nursery) -> None:
    """An upstream that nobody can reach is a 502."""
    status, detail = await ask(nursery, proxy_of(Upstream(nursery, None)), EVENTS)
    assert (status, "can't be reached" in detail) == (502, True)


async def test_sse_proxy_cuts_off_a_stream_that_was_cut_off(nursery: trio.Nursery) -> None:
    """If the upstream's stream breaks, so does the client's: no final chunk says it was whole."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("one")
            raise RuntimeError("the upstream breaks")

    client = await listen(nursery, proxy_of(Upstream(nursery, handler)), EVENTS)
    assert await client.event() == SSEEvent("ONE", event="message", id="")
    with pytest.raises(EOFError):
        await client.event()
    await leave(client)
    assert closings(client) == {CloseReason.HANDLER_ERROR: 1}


async def test_sse_proxy_closes_its_client_with_the_app() -> None:
    """The things that all requests share are open while the app is served, and closed after."""
    client = httpx2.AsyncClient()
    async with load("sse_proxy").create_app(client, "http://test/events").lifespan():
        assert not client.is_closed
    assert client.is_closed


# -- as processes, with curl

COUNT = "event: counter\nid: 0\ndata: 0\n\nevent: counter\nid: 1\ndata: 1\n\n"
RESUMED = "event: count\nid: 42\ndata: 42\n\nevent: count\nid: 43\ndata: 43\n\n"

MESSAGE_START = 'data: {"type":"message_start","message":{"id":"msg_'

# What curl is told beside the address, and what its output begins with.
CURL: dict[str, tuple[Sequence[str], str]] = {
    "sse_basic": ((), COUNT),
    "sse_callback": ((), "event: message\nid: 1\ndata: Hello!\n\n"),
    "sse_chat": (("-d", prompt("hi")), tokens("You", "said:", "hi") + DONE),
    "sse_counter": (("-H", "Last-Event-ID: 41"), RESUMED),
    "sse_llm_messages": (("-d", request_of("hi")), f"event: message_start\n{MESSAGE_START}"),
    "sse_llm_openai": (("-d", request_of("hi")), 'data: {"id":"chatcmpl-'),
    "sse_minimal": ((), "data: Hello!\n\n"),
    "sse_proxy": ((), COUNT),
    "sse_text": ((), "data: A \n\ndata: stream \n\ndata: of \n\n"),
}


@contextlib.contextmanager
def process(name: str, **environ: str) -> Generator[str]:
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
        curl(f"{address}{path_of(name)}", *arguments, expected=FIRST + expected)
        if name in PAGES:
            curl(f"{address}/", expected="<!doctype html>\n")
