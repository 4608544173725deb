"""The code in the pages for those who come from other libraries does what the pages say."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from h3trio import App, SSEEvent
from h3trio.hubserver import AccessControl, Grant, Limits, Rate, selection_of
from h3trio.testing import connect

if TYPE_CHECKING:
    import types

    from trio.testing import MockClock

    from h3trio import H3Event
    from h3trio.testing import Client

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> types.ModuleType:
    """Import a file under examples/ afresh, as `serve` does."""
    path = EXAMPLES / f"{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def app_of(name: str) -> App:
    """Return the app of an example."""
    app = load(name).app
    assert isinstance(app, App)
    return app


async def data_of(client: Client, count: int) -> list[str | None]:
    """Return the data of the next events."""
    return [(await client.next_event()).data for _ in range(count)]


async def test_readme_counts_to_ten(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app of the README passes the test of the README."""
    monkeypatch.setitem(sys.modules, "app", load("readme/app"))
    await load("readme/test_stream").test_counts_to_ten(autojump_clock)


# -- sse-starlette


async def test_sse_starlette_cleans_up_behind_a_client(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that leaves ends the endless loop, and its `finally` has run."""
    caplog.set_level("INFO")
    async with connect(app_of("coming_from/sse_starlette"), "/numbers") as client:
        assert await data_of(client, 3) == ['{"n":0}', '{"n":1}', '{"n":2}']
        assert autojump_clock.current_time() == 2
        await client.leave()
    assert "memory is gone after 3 numbers" in caplog.text


async def test_sse_starlette_sends_what_a_generator_yields(autojump_clock: MockClock) -> None:
    """A generator is sent word by word, and then the stream is complete."""
    async with connect(app_of("coming_from/sse_starlette"), "/words") as client:
        assert await data_of(client, 5) == ["a", "generator", "as", "it", "was"]
        assert (await client.wait_closed()).reason == "completed"
    assert autojump_clock.current_time() == 5


async def test_sse_starlette_sends_from_several_tasks(autojump_clock: MockClock) -> None:
    """Several tasks share a stream, which ends with the last."""
    async with connect(app_of("coming_from/sse_starlette"), "/parts") as client:
        found = await data_of(client, 6)
        assert sorted(map(str, found)) == [
            f"{a} {n}" for a in ("first", "second") for n in range(3)
        ]
        assert (await client.wait_closed()).reason == "completed"
    assert autojump_clock.current_time() == 3


# -- FastAPI


@pytest.mark.parametrize(("last", "names"), [(None, 2), ("0", 1), ("1", 0), ("x", 2)])
async def test_fastapi_items_from_where_the_client_stands(last: str | None, names: int) -> None:
    """Items are JSON with type, id and retry; a client that comes back gets the rest."""
    app = app_of("coming_from/fastapi")
    async with connect(app, "/items/stream", last_event_id=last) as client:
        for n in range(2 - names, 2):
            event = await client.next_event()
            assert (event.event, event.id) == ("item", str(n))
            assert json.loads(event.data or "").keys() == {"name", "price"}
        assert (await client.wait_closed()).events == names


@pytest.mark.parametrize(
    ("token", "body", "status"),
    [
        ("x", '{"prompt": "hi"}', 401),
        ("let-me-in", "{}", 422),
        ("let-me-in", "{", 400),
        ("let-me-in", '{"prompt": "hi"}', 200),
    ],
)
async def test_fastapi_chat_answers_with_a_true_status(token: str, body: str, status: int) -> None:
    """An error before the stream begins has its status, and an answer ends with [DONE]."""
    async with connect(
        app_of("coming_from/fastapi"),
        "/chat",
        method="POST",
        headers={"Authorization": f"Bearer {token}"},
        content=body.encode(),
    ) as client:
        assert client.status == status
        if status == 200:
            words = ['{"token":"You"}', '{"token":"said"}', '{"token":"hi"}', "[DONE]"]
            assert await data_of(client, 4) == words


# -- better-sse


async def test_better_sse_broadcasts_to_whoever_listens(autojump_clock: MockClock) -> None:
    """A client is greeted, gets what is broadcast, and after a break what it missed."""
    app = app_of("coming_from/better_sse")
    async with connect(app, "/sse") as client:
        greeting = await client.next_event()
        assert greeting.data == "Hello world!"
        first = int((await client.next_event()).data or "")
        async with connect(app, "/listeners", lifespan=False) as other:
            assert json.loads(await other.body()) == {"listeners": 1}
        client.vanish()
        await client.reconnect()
        assert (await client.next_event()).data == "Hello world!"
        assert int((await client.next_event()).data or "") == first + 1
    assert autojump_clock.current_time() < 3


# -- Mercure


MERCURE = "/.well-known/mercure"


async def test_mercure_form_reaches_the_subscribers_of_its_topics() -> None:
    """A form that is posted as Mercure's clients do is an event for each of its topics' readers."""
    app = app_of("coming_from/mercure")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with connect(app, f"{MERCURE}?topic=a&topic=https%3A%2F%2Fb%2F1") as client:
        for content in (b"topic=other&data=0", b"topic=x&topic=https://b/1&data=1&type=t&id=own"):
            async with connect(
                app, MERCURE, method="POST", headers=form, content=content, lifespan=False
            ) as publisher:
                assert publisher.status == 200
                said = (await publisher.body()).decode()
        assert said == "own"
        assert await client.next_event() == SSEEvent("1", event="t", id="own")


@pytest.mark.parametrize("content", [b"data=1", b"topic=a&retry=x", b"topic=a&id=a%0Ab"])
async def test_mercure_form_that_is_wrong(content: bytes) -> None:
    """A form without a topic, or with what can't be framed, is 400."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    app = app_of("coming_from/mercure")
    async with connect(app, MERCURE, method="POST", headers=form, content=content) as client:
        assert client.status == 400


async def test_mercure_topic_that_cannot_be() -> None:
    """A topic with a control character is 400 both ways, before a stream begins."""
    app = app_of("coming_from/mercure")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with connect(app, f"{MERCURE}?topic=%01") as client:
        assert client.status == 400
    async with connect(
        app, MERCURE, method="POST", headers=form, content=b"topic=%01&data=1"
    ) as client:
        assert client.status == 400


def mercure_for(grant: Grant, monkeypatch: pytest.MonkeyPatch, limits: Limits) -> App:
    """Return the example's app with one grant for everybody, and limits."""

    async def authenticate(_event: H3Event) -> Grant:
        await trio.lowlevel.checkpoint()
        return grant

    start = trio.current_time()
    access = partial(
        AccessControl,
        authenticator=authenticate,
        limits=limits,
        clock=lambda: trio.current_time() - start,
    )
    monkeypatch.setattr("h3trio.hubserver.AccessControl", access)
    return app_of("coming_from/mercure")


async def test_mercure_streams_are_counted_and_end_with_their_token(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """A subject has so many streams and no more, and each ends when its grant does."""
    grant = Grant(subject="alice", subscribe=selection_of(["*"]), expires=100)
    app = mercure_for(grant, monkeypatch, Limits(max_subject_streams=1))
    async with app.lifespan(), connect(app, f"{MERCURE}?topic=a", lifespan=False) as client:
        async with connect(app, f"{MERCURE}?topic=a", lifespan=False) as second:
            assert second.status == 429
        with pytest.raises(trio.EndOfChannel), trio.fail_after(200):
            await client.next_event()
    assert 99 <= autojump_clock.current_time() <= 101


async def test_mercure_publishers_have_the_rate_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Above it a form is 429; a topic that is too long is 400, and costs nothing."""
    limits = Limits(publish_rate=Rate(per_second=1, burst=1), max_topic_length=10)
    app = mercure_for(Grant(subject="a", publish=selection_of(["*"])), monkeypatch, limits)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    statuses = []
    async with app.lifespan():
        for content in (b"topic=" + b"x" * 11, b"topic=a", b"topic=a"):
            async with connect(
                app, MERCURE, method="POST", headers=form, content=content, lifespan=False
            ) as client:
                statuses.append(client.status)
    assert statuses == [400, 200, 429]
    assert autojump_clock.current_time() == 0


async def test_mercure_is_closed_to_others() -> None:
    """Another host's name gets neither in nor out: the rights are the hub's own."""
    app = app_of("coming_from/mercure")
    for method, target in (("GET", f"{MERCURE}?topic=a"), ("POST", MERCURE)):
        headers = {"Host": "example.com", "Content-Type": "application/x-www-form-urlencoded"}
        async with connect(
            app, target, method=method, headers=headers, content=b"topic=a&data=1"
        ) as client:
            assert client.status == 403


# -- H3Z


@pytest.mark.parametrize("path", ["/events", "/direct"])
async def test_h3z_both_styles_count(path: str, autojump_clock: MockClock) -> None:
    """The callback and the block send the same events, one a second."""
    async with connect(app_of("coming_from/h3z"), path) as client:
        for n in range(1, 4):
            assert await client.next_event() == SSEEvent(f"Event #{n}", event="counter", id=str(n))
    assert autojump_clock.current_time() == 2
