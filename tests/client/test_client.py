"""`EventSource`: against servers in memory that do what they should, and all that they shouldn't.

With real sockets: tests/e2e/test_client.py. The parts: tests/test_client_parts.py.
"""

# ruff: noqa: ARG001 - tests ask for the clock so that time jumps, not to look at it

from __future__ import annotations

import gzip
import json
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import trio
from scripted import URL, Script, answer, failing, silent, stream
from tables import table
from tools import require_corpus
from trio.testing import wait_all_tasks_blocked

import h3trio.client
from h3trio import EventTooLargeError
from h3trio.client import (
    ContentEncodingError,
    ContentTypeError,
    EventLimitError,
    EventSource,
    EventSourceError,
    LostError,
    RedirectError,
    RequestError,
    SilentError,
    State,
    StateChange,
    StatusError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripted import Piece
    from trio.testing import MockClock


PUBLIC = {
    "ContentEncodingError",
    "ContentTypeError",
    "EventLimitError",
    "EventSource",
    "EventSourceError",
    "EventSourceStatistics",
    "Limits",
    "LostError",
    "RedirectError",
    "RequestError",
    "SilentError",
    "State",
    "StateChange",
    "StatusError",
    "StreamEndedError",
}


def source_of(script: Script, url: str = URL, **arguments: Any) -> EventSource:  # noqa: ANN401 - whatever it takes
    """Make an event source in front of a script."""
    return EventSource(url, http_client=script.client, **arguments)


async def collect(
    script: Script,
    **arguments: Any,  # noqa: ANN401 - whatever it takes
) -> list[tuple[str | None, str | None]]:
    """Read to the end; return id and data of each event, and see that nothing is left open."""
    async with source_of(script, **arguments) as source:
        events = [(event.id, event.data) async for event in source]
    assert script.open_bodies == 0
    return events


async def read(source: EventSource, into: list[str | None]) -> None:
    """Read to the end; what came before it fails is kept."""
    async with source:
        async for event in source:
            into.append(event.data)  # noqa: PERF401 - kept as they come, until it fails


def test_public_names() -> None:
    """Exactly the frozen list of names is public; each says where it lives, and what it is."""
    names = {name for name in vars(h3trio.client) if not name.startswith(("_", "@"))}
    assert names == PUBLIC
    for name in PUBLIC:
        value = getattr(h3trio.client, name)
        assert (value.__module__, value.__qualname__) == ("h3trio.client", name)
        assert not (value.__doc__ or f"{name}(").startswith(f"{name}(")


@table(
    "url, arguments, message",
    [
        ("ftp://h/", {}, "'ftp://h/' is not of the form http://HOST:PORT"),
        ("http://", {}, "is not of the form"),
        ("/events", {}, "is not of the form"),
        ("http://u:secret@h:x/", {}, r"'http://h:x/' is no URL"),
        (URL, {"last_event_id": "a\nb"}, "last_event_id must not contain LF"),
        (URL, {"read_timeout": 0}, "must be positive"),
        (URL, {"max_event_bytes": 0}, "max_event_bytes must be at least 1"),
        (URL, {"reconnect_delay": float("nan")}, "reconnect_delay must be at least 0"),
    ],
)
def test_wrong_arguments(url: str, arguments: dict[str, Any], message: str) -> None:
    """A wrong argument is an error where it is given."""
    with pytest.raises(ValueError, match=message):
        EventSource(url, **arguments)
    wrongs: list[dict[str, Any]] = [{"read_timeout": "1"}, {"buffer_events": 1.5}, {"no_such": 1}]
    for wrong in wrongs:
        with pytest.raises(TypeError):
            EventSource(URL, **wrong)


# -- the standard


async def test_events_come_over_many_connections(autojump_clock: MockClock) -> None:
    """A stream that ends is asked for again behind the last whole event, until there is no more."""
    script = Script(
        stream("\ufeffid: ü1\ndata: one\n\n".encode(), b"data: tw", b"o\n\nid: 2\ndata: cut"),
        stream(b"retry: 10\n\nid: 3\nevent: e\ndata: three\n\n"),
    )
    events = await collect(script, last_event_id="0")
    assert events == [("ü1", "one"), ("ü1", "two"), ("3", "three")]
    ids = [request.headers.get("last-event-id") for request in script.requests]
    assert ids == ["0", "ü1", "3"]
    assert dict(script.requests[1].headers.raw)[b"Last-Event-ID"] == "ü1".encode()
    assert script.asked("accept") == ["text/event-stream"] * 3
    assert script.asked("cache-control") == ["no-store"] * 3
    assert 3 <= script.times[1] - script.times[0] <= 6
    assert 0.1 <= script.times[2] - script.times[1] <= 0.2


async def test_no_id_no_header(autojump_clock: MockClock) -> None:
    """Without an id there is no such header, and an empty one takes it back."""
    script = Script(stream(b"id: 1\ndata: 1\n\n"), stream(b"id\n\n"))
    assert await collect(script) == [("1", "1")]
    assert script.asked("last-event-id") == [None, "1", None]


async def test_a_stream_that_drops_before_its_first_event(autojump_clock: MockClock) -> None:
    """The head of a hub's stream has an id, which counts for a client that has none."""
    script = Script(
        stream(Last_Event_ID="e-4"),
        stream(b"id: e-5\ndata: 1\n\n", Last_Event_ID="e-4"),
        stream(Last_Event_ID="other"),
    )
    assert await collect(script) == [("e-5", "1")]
    assert script.asked("last-event-id") == [None, "e-4", "e-5", "e-5"]


@pytest.mark.parametrize("event_id", ["é", "à", "☃ 7", "urn:isbn:0451450523", "x" * 512])
async def test_ids_of_any_script_go_back_in_utf_8(event_id: str, autojump_clock: MockClock) -> None:
    """What a publisher chose comes back as it was, in the header, byte for byte."""
    script = Script(stream(f"id: {event_id}\ndata: 1\n\n".encode()), stream(b"data: 2\n\n"))
    assert await collect(script) == [(event_id, "1"), (event_id, "2")]
    headers = [dict(request.headers.raw) for request in script.requests]
    assert headers[1][b"Last-Event-ID"] == event_id.encode()


@pytest.mark.parametrize("last_event_id", [" 7", "7 ", "a\tb"])
async def test_ids_that_no_header_holds(last_event_id: str, autojump_clock: MockClock) -> None:
    """An id that no header can hold goes into the query."""
    script = Script(answer(204))
    await collect(script, url=f"{URL}?x=1", last_event_id=last_event_id)
    (request,) = script.requests
    assert "last-event-id" not in request.headers
    assert request.url.params["last_event_id"] == last_event_id
    assert request.url.query.startswith(b"x=1&last_event_id=")


async def test_request_is_as_asked_for(autojump_clock: MockClock) -> None:
    """Method, headers, query and body go out with every attempt; what is given wins."""
    script = Script(stream(b"data: 1\n\n"))
    await collect(
        script,
        url=f"{URL}?a=1",
        method="POST",
        headers={"Authorization": "Bearer x", "accept": "text/*"},
        params={"q": "é"},
        content='{"prompt": "hi"}',
    )
    for request in script.requests:
        assert (request.method, request.content) == ("POST", b'{"prompt": "hi"}')
        assert str(request.url) == f"{URL}?a=1&q=%C3%A9"
        assert request.headers["authorization"] == "Bearer x"
        assert request.headers.get_list("accept") == ["text/*"]


async def test_user_of_the_url_is_authorised_and_not_shown(autojump_clock: MockClock) -> None:
    """A name and password in the URL become basic auth, and stand in no text."""
    script = Script(stream(b"data: 1\n\n"))
    changes: list[StateChange] = []
    await collect(script, url="http://u:secret@test/", on_state_change=changes.append)
    assert script.asked("authorization") == ["Basic dTpzZWNyZXQ="] * 2
    assert "secret" not in repr(changes)
    assert "secret" not in repr(EventSource("http://u:secret@test/"))


async def test_no_content_is_the_end(autojump_clock: MockClock) -> None:
    """204 is the end at once, and no error."""
    script = Script(answer(204))
    assert await collect(script) == []
    assert len(script.requests) == 1


@table("status", [201, 206, 304, 301, 400, 401, 403, 404, 410, 418, 500, 502])
async def test_other_statuses_are_final(status: int, autojump_clock: MockClock) -> None:
    """Any other status is an error that says what the server said, and there is one attempt."""
    script = Script(answer(status, b"no\n", b"way", X_Reason="so"))
    with pytest.raises(StatusError, match=f"the server answered {status}: no\nway") as caught:
        await collect(script)
    assert (caught.value.status, caught.value.text) == (status, "no\nway")
    assert caught.value.headers["x-reason"] == "so"
    assert (len(script.requests), script.open_bodies) == (1, 0)


@table("kind", ["text/html", "", "text/event-streams", "application/json"])
async def test_wrong_type_is_final(kind: str, autojump_clock: MockClock) -> None:
    """200 with another type is an error."""
    script = Script(answer(200, b"data: 1\n\n", Content_Type=kind))
    with pytest.raises(ContentTypeError) as caught:
        await collect(script)
    assert caught.value.content_type == kind
    assert (len(script.requests), script.open_bodies) == (1, 0)


@pytest.mark.parametrize("kind", ["text/event-stream;charset=latin-1", "Text/Event-Stream ; x"])
async def test_parameters_of_the_type_do_not_count(kind: str, autojump_clock: MockClock) -> None:
    """The type's parameters and case don't matter: a stream is UTF-8."""
    script = Script(answer(200, "data: é\n\n".encode(), Content_Type=kind))
    assert await collect(script) == [("", "é")]


# -- the corpus


def corpus() -> list[dict[str, Any]]:
    """Return the cases of the corpus."""
    cases: list[dict[str, Any]] = json.loads(
        require_corpus("sse_corpus.json").read_text(encoding="utf-8")
    )["cases"]
    assert len(cases) == 147
    return cases


def bytes_of(case: dict[str, Any]) -> bytes:
    """Return the bytes of a case."""
    return str(case["text"]).encode() if "text" in case else bytes.fromhex(case["hex"])


@pytest.mark.parametrize("cut", [pytest.param(1, marks=pytest.mark.slow), 10**6])
async def test_corpus(cut: int, autojump_clock: MockClock) -> None:
    """Each stream of the corpus gives its events, however its bytes come; then its id goes back."""
    for case in corpus():
        body = bytes_of(case)
        size = max(cut, len(body) // 50)
        script = Script(stream(*(body[at : at + size] for at in range(0, len(body), size))))
        async with source_of(script) as source:
            events = [(e.event, e.data, e.id) async for e in source]
        expected = [(e["type"], e["data"], e["lastEventId"]) for e in case["events"]]
        assert events == expected, case["id"]
        last_id = case.get("last_event_id", source.last_event_id)
        assert source.last_event_id == last_id, case["id"]
        if "retry" in case:
            delay = script.times[1] - script.times[0]
            assert delay >= min(case["retry"] / 1000, 3600) - 0.001, case["id"]


# -- redirects


@table(
    "status, methods",
    [
        (301, ["POST", "GET"] * 2),
        (302, ["POST", "GET"] * 2),
        (303, ["POST", "GET"] * 2),
        (307, ["POST", "POST"] * 2),
        (308, ["POST", "POST", "POST"]),
    ],
)
async def test_redirects_of_a_post(
    status: int, methods: list[str], autojump_clock: MockClock
) -> None:
    """Redirects change the method as in browsers; only one that keeps it is kept."""
    moved = answer(status, Location="/there")
    event = stream(b"data: 1\n\n")
    again = (event, answer(204)) if status == 308 else (event, moved, answer(204))
    script = Script(moved, *again)
    assert await collect(script, method="POST", content=b"x") == [("", "1")]
    assert [request.method for request in script.requests] == methods
    assert [request.content for request in script.requests] == [
        b"x" if method == "POST" else b"" for method in methods
    ]


@table(
    "statuses, kept",
    [
        ((301,), "/1"),
        ((308,), "/1"),
        ((302,), "/"),
        ((303,), "/"),
        ((307,), "/"),
        ((301, 308), "/2"),
        ((301, 302), "/1"),
        ((302, 301), "/"),
    ],
)
async def test_permanent_redirects_are_kept(
    statuses: tuple[int, ...], kept: str, autojump_clock: MockClock
) -> None:
    """The next attempt begins where the permanent redirects before any other one led."""
    hops = [answer(s, ..., Location=f"/{n}") for n, s in enumerate(statuses, 1)]
    script = Script(*hops, stream(b"id: 5\ndata: 1\n\n"))
    async with source_of(script, "http://test/") as source:
        assert [event.data async for event in source] == ["1"]
    assert source.statistics().redirects == len(statuses)
    assert script.requests[-1].url.path == kept
    assert script.requests[-1].headers["last-event-id"] == "5"
    assert script.open_bodies == 0


@pytest.mark.parametrize("status", [301, 307])
async def test_secrets_stay_with_their_origin(status: int, autojump_clock: MockClock) -> None:
    """No redirect carries credentials to another origin, at once or when it was kept."""
    script = Script(
        answer(status, Location="http://other/"),
        stream(b"data: 1\n\n"),
        *([] if status == 301 else [answer(307, Location="http://other/")]),
    )
    script.client.auth = ("of", "client")
    await collect(script, headers={"Authorization": "Bearer x", "Cookie": "c=1"})
    for request in script.requests:
        is_own = request.url.host == "test"
        assert ("authorization" in request.headers) == is_own
        assert ("cookie" in request.headers) == is_own
    assert script.requests[-1].url.host == "other"


OWN: dict[str, Any] = {
    "headers": {"X-Api-Key": "k", "Content-Type": "x/y", "Referer": "http://secret/"},
    "last_event_id": "7",
}
PUBLIC_FIELDS = {"accept", "accept-encoding", "cache-control", "last-event-id", "user-agent"}


@table("status", [301, 302, 303, 307, 308])
@table("there", ["http://other/", "http://test:81/", "https://test/", "http://u:p@other/"])
async def test_own_fields_stay_with_their_origin(
    status: int, there: str, autojump_clock: MockClock
) -> None:
    """To another origin go no header field, parameter, cookie or user that was given for the first.

    The last event id does: the stream there goes on behind it. A name and password in the redirect
    are the server's and not ours, so they aren't shown to anyone.
    """
    moved = answer(status, Location=there, Set_Cookie="session=s")
    back = answer(307, Location="http://test/back")
    hops = [] if status in {301, 308} else [moved]
    script = Script(moved, stream(b"data: 1\n\n"), *hops, back, answer(204))
    client = script.client
    client.headers["X-Client-Key"] = "k"
    client.params = client.params.merge({"key": "k"})
    client.cookies.set("own", "k")
    client.auth = ("of", "client")
    await collect(script, **OWN)
    home = script.requests[0]
    assert home.headers.keys() >= {"x-api-key", "x-client-key", "authorization"}
    assert home.url.params["key"] == "k"
    for request in [r for r in script.requests if str(r.url.copy_with(query=None)) != URL]:
        assert request.headers.keys() - {"host", "connection", "cookie"} <= PUBLIC_FIELDS
        assert request.headers["last-event-id"] == "7"
        assert request.headers["host"] == request.url.netloc.decode()
        assert (request.url.userinfo, request.url.query) == (b"", b"")
        # A cookie has no port and no scheme (RFC 6265 section 8.5).
        assert request.headers.get("cookie", "session=s") == "session=s"
    assert script.asked("x-api-key")[-1] is None, "the way back was chosen by the other origin"
    assert script.open_bodies == 0


@table("status", [301, 302, 303, 307, 308])
@table("there", ["http://other/", "http://test:81/", "https://test/"])
async def test_a_body_stays_with_its_origin(
    status: int, there: str, autojump_clock: MockClock
) -> None:
    """A redirect that keeps the method of a POST with a body is followed within the origin only."""
    script = Script(answer(status, b"x", Location=there), answer(204))
    arguments: dict[str, Any] = {"method": "POST", "content": b"secret"}
    if status in {301, 302, 303}:
        assert await collect(script, **arguments) == []
        assert (script.requests[-1].method, script.requests[-1].content) == ("GET", b"")
        assert "content-type" not in script.requests[-1].headers
    else:
        with pytest.raises(RedirectError, match=f"another origin, {there}, can't have the body"):
            await collect(script, **arguments)
        assert len(script.requests) == 1
    assert script.open_bodies == 0
    script = Script(answer(status, Location=there), answer(204))
    assert await collect(script, method="POST") == []


IMPOSSIBLE = [
    *("http://a..b/", "http://.a/", f"http://{'a' * 64}/", f"http://{'a' * 64}.b/"),
    *("http://.xn--a/", "http://xn--a.-xn--b/", "http://\u2100/", "http://\u200b/"),
    *("http://test:65536/", "http://test:0/", "http://test:-1/", "http://test:x/"),
    *("ftp://test/", "javascript:1", "unix:/socket", "https:x", "data:,x"),
    *("http://[::1/", "http://[::g]/", "http://256.1.1.1/", "http://a\x7fb/"),
]


@table("there", IMPOSSIBLE)
async def test_redirects_to_what_cannot_be_asked(there: str, autojump_clock: MockClock) -> None:
    """A redirect to a name, port or protocol that no server can have is an error of the stream."""
    script = Script(answer(307, Location=there), stream(b"data: 1\n\n"))
    with pytest.raises((RedirectError, RequestError, StatusError)):
        await collect(script)
    assert (len(script.requests), script.open_bodies) == (1, 0)


@table("url", [url for url in IMPOSSIBLE if "//" in url])
async def test_urls_that_cannot_be_asked(url: str) -> None:
    """The same as the URL of a stream is an error where it is given."""
    with pytest.raises(ValueError, match=r"is no URL|not of the form|IPv|characters"):
        EventSource(url)


async def test_a_loss_behind_a_redirect_names_its_target(autojump_clock: MockClock) -> None:
    """What can't be reached is the address that a redirect led to, and not the first."""
    script = Script(answer(307, Location="/there"), failing(httpx2.ConnectError("refused")))
    with pytest.raises(LostError, match="can't reach http://test/there: refused"):
        await collect(script, reconnect=False)


async def test_redirects_in_a_circle(autojump_clock: MockClock) -> None:
    """Redirects that go on for ever end with an error, at the limit."""
    for limit in (0, 20):
        script = Script(*[answer(302, Location="/")] * 30)
        with pytest.raises(RedirectError, match=f"more than {limit} redirects"):
            await collect(script, max_redirects=limit)
        assert len(script.requests) == limit + 1
    script = Script(*[answer(302, Location="/")] * 20, stream(b"data: 1\n\n"))
    assert await collect(script) == [("", "1")]


async def test_redirect_to_nowhere(autojump_clock: MockClock) -> None:
    """A redirect without a target is a status like any other; to another protocol, an error."""
    with pytest.raises(StatusError, match="302"):
        await collect(Script(answer(302)))
    script = Script(failing(httpx2.UnsupportedProtocol("no ftp")))
    with pytest.raises(RequestError, match="can't ask http://test/events: no ftp"):
        await collect(script)


# -- coming back


@table("status", [429, 503])
@table("after, seconds", [("7", 7), ("99999", 3600), ("soon", 3)])
async def test_server_that_is_busy(
    status: int, after: str, seconds: float, autojump_clock: MockClock
) -> None:
    """429 and 503 are waited out, as long as they say, within reason; unless that is off."""
    script = Script(answer(status, b"busy", Retry_After=after), stream(b"data: 1\n\n"))
    assert await collect(script) == [("", "1")]
    assert seconds <= script.times[1] - script.times[0] <= seconds + 30
    script = Script(answer(status, b"busy", Retry_After=after))
    with pytest.raises(StatusError) as caught:
        await collect(script, retry_statuses=())
    assert caught.value.retry_after == (None if after == "soon" else seconds)


@table("status", [500, 502, 504, 599])
async def test_server_that_was_well_before(status: int, autojump_clock: MockClock) -> None:
    """Once a stream was open 5xx are waited out, longer each time; unless that is off."""
    failing_now = answer(status, b"restarting")
    script = Script(stream(b"id: 1\ndata: 1\n\n"), *[failing_now] * 3, stream(b"data: 2\n\n"))
    assert await collect(script) == [("1", "1"), ("1", "2")]
    assert script.asked("last-event-id") == [None, *["1"] * 5]
    for arguments in ({"outage_statuses": ()}, {"reconnect": lambda change: change.attempts < 2}):
        script = Script(stream(b"data: 1\n\n"), failing_now)
        with pytest.raises(StatusError, match=f"answered {status}: restarting"):
            await collect(script, **arguments)
        assert len(script.requests) == 2
    script = Script(stream(b""), answer(404))
    with pytest.raises(StatusError, match="answered 404"):
        await collect(script)


async def test_failures_are_spread_further_and_further(autojump_clock: MockClock) -> None:
    """Repeated failures are waited out longer, within a bound; an event brings that back."""
    refused = failing(httpx2.ConnectError("refused"))
    script = Script(*[refused] * 12, stream(b"data: 1\n\n"), refused)
    changes: list[StateChange] = []
    await collect(script, reconnect_delay=1, on_state_change=changes.append)
    delays = [change.delay for change in changes if change.delay is not None]
    assert [change.failures for change in changes if change.delay is not None] == [
        *range(1, 13),
        0,
        1,
    ]
    for delay, bound in zip(delays, [2, 4, 8, 16, *[30] * 8, 1, 2], strict=True):
        assert 1 <= delay <= 1 + bound
    assert max(delays) > 4
    assert autojump_clock.current_time() == pytest.approx(sum(delays))


async def test_storm_of_empty_streams(autojump_clock: MockClock) -> None:
    """A server that ends each stream at once, and says to come at once, is asked less and less."""
    script = Script(*[stream(b"retry: 0\n\n: hi\n\n")] * 50)
    await collect(script)
    assert script.times[-1] > 50 * 0.1 + 20
    assert all(b - a >= 0.1 for a, b in zip(script.times, script.times[1:], strict=False))


async def test_retry_without_sense(autojump_clock: MockClock) -> None:
    """A server that asks for years is asked again after an hour."""
    script = Script(stream(b"retry: 9007199254740991\ndata: 1\n\n"))
    assert await collect(script) == [("", "1")]
    assert 3600 <= script.times[1] <= 3630


async def test_silence_is_a_loss(autojump_clock: MockClock) -> None:
    """A stream that is silent for too long is asked for again; comments are sound."""
    beats: list[Piece] = [44.9, b":\n"] * 5
    script = Script(
        stream(b"id: 1\ndata: 1\n\n", *beats, ...),
        silent,
    )
    async with source_of(script) as source:
        assert [event.data async for event in source] == ["1"]
    assert script.times[1] >= 5 * 44.9 + 45 + 3
    assert script.times[2] >= script.times[1] + 55
    assert source.statistics().silences == 2
    assert isinstance(source.last_error, SilentError)
    assert str(source.last_error) == "the server was silent for 45 s"
    assert script.open_bodies == 0


async def test_reconnect_off(autojump_clock: MockClock) -> None:
    """Without reconnecting the end of the stream is the end, and a loss is an error."""
    assert await collect(Script(stream(b"data: 1\n\n")), reconnect=False) == [("", "1")]
    for error in (httpx2.ReadError("reset"), httpx2.RemoteProtocolError("cut")):
        script = Script(stream(b"data: 1\n\n", error))
        got: list[str | None] = []
        with pytest.raises(LostError, match=f"the connection was lost: {error}"):
            await read(source_of(script, reconnect=False), got)
        assert got == ["1"]
        assert script.open_bodies == 0


async def test_reconnect_is_asked(autojump_clock: MockClock) -> None:
    """A function decides, with all there is to know, whether to come back."""
    seen: list[StateChange] = []

    def twice(change: StateChange) -> bool:
        seen.append(change)
        return change.attempts < 3

    script = Script(*[failing(httpx2.ConnectTimeout("late"))] * 9)
    with pytest.raises(LostError, match="can't reach http://test/events: late") as caught:
        await collect(script, reconnect=twice)
    assert not caught.value.connected
    assert [(change.attempts, change.failures) for change in seen] == [(1, 1), (2, 2), (3, 3)]
    assert seen[-1].error is caught.value


# -- servers that misbehave


ENDLESS = [b"data: " + b"x" * 1000, *[b"x" * 1000] * 2000]


async def test_endless_line(autojump_clock: MockClock) -> None:
    """A line without end is an error at the limit, after the events before it."""
    got: list[str | None] = []
    script = Script(stream(b"data: 1\n\n", *ENDLESS, ...))
    source = source_of(script)
    with pytest.raises(EventLimitError, match="above max_event_size, 1048576 bytes"):
        await read(source, got)
    assert got == ["1"]
    assert source.statistics().events_over_limit == 1
    assert 1048 <= script.bodies[0].taken <= 1051
    assert (len(script.requests), script.open_bodies) == (1, 0)


@pytest.mark.parametrize("size", [10, 11])
async def test_event_at_the_limit(size: int, autojump_clock: MockClock) -> None:
    """An event at the limit is taken, one byte more is an error."""
    script = Script(stream(b"data:" + b"x" * (size - 5) + b"\n\n"))
    if size == 10:
        assert await collect(script, max_event_bytes=10) == [("", "xxxxx")]
    else:
        with pytest.raises(EventLimitError):
            await collect(script, max_event_bytes=10)


async def test_slow_drip(autojump_clock: MockClock) -> None:
    """A stream that comes byte by byte, each just in time, is a stream."""
    body = b"id: 1\ndata: slow\n\n"
    pieces: list[Piece] = [piece for byte in body for piece in (44.0, bytes([byte]))]
    script = Script(stream(*pieces))
    assert await collect(script) == [("1", "slow")]


@table(
    "error",
    [
        httpx2.ReadError("Connection reset by peer"),
        httpx2.RemoteProtocolError("illegal chunk header: b'zz'"),
        httpx2.RemoteProtocolError("peer closed connection without sending complete message body"),
        httpx2.ReadTimeout(""),
    ],
)
async def test_streams_that_break(error: Exception, autojump_clock: MockClock) -> None:
    """A stream that breaks inside an event is asked for again behind the one before."""
    script = Script(
        stream(b"id: 1\ndata: 1\n\nid: 2\nda", error), failing(error), stream(b"id: 2\ndata: 2\n\n")
    )
    assert await collect(script) == [("1", "1"), ("2", "2")]
    assert script.asked("last-event-id") == [None, "1", "1", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
async def test_compressed_stream(
    compress: Callable[[bytes], bytes], autojump_clock: MockClock
) -> None:
    """A stream that is compressed all the same is read; one that can't be is an error."""
    body = b"".join(b"data: %d\n\n" % n for n in range(1000))
    packed = compress(body)
    kind = "gzip" if packed.startswith(b"\x1f\x8b") else "deflate"
    for size in (1, 7, len(packed)):
        pieces = [packed[at : at + size] for at in range(0, len(packed), size)]
        events = await collect(Script(stream(*pieces, Content_Encoding=kind)))
        assert [data for _, data in events] == [str(n) for n in range(1000)]
    script = Script(stream(packed, Content_Encoding="br"))
    with pytest.raises(ContentEncodingError, match="'br'"):
        await collect(script)
    assert script.asked("accept-encoding") == ["identity"]
    assert script.open_bodies == 0


async def test_damaged_compression(autojump_clock: MockClock) -> None:
    """A stream whose compression breaks is a stream that breaks."""
    good = gzip.compress(b"data: 1\n\n")
    script = Script(
        stream(b"nonsense", Content_Encoding="gzip"), stream(good, Content_Encoding="gzip")
    )
    assert await collect(script) == [("", "1")]


async def test_compressed_bomb(autojump_clock: MockClock) -> None:
    """A line of megabytes in some KiB of gzip is an error at the limit; it is never unpacked."""
    bomb = gzip.compress(b"data: " + bytes(8_000_000), compresslevel=1)
    script = Script(stream(bomb, Content_Encoding="gzip"))
    async with source_of(script) as source:
        with pytest.raises(EventLimitError) as caught:
            await source.receive()
    assert isinstance(caught.value.__cause__, EventTooLargeError)
    assert source.statistics().bytes_received < 4_000_000


async def test_endless_answer_of_an_error(autojump_clock: MockClock) -> None:
    """Of an answer that is an error no more is read than a person wants, and not for long."""
    script = Script(answer(404, *[b"x" * 1000] * 1000))
    with pytest.raises(StatusError) as caught:
        await collect(script)
    assert len(caught.value.text) == 65536
    script = Script(answer(404, b"said", ...))
    with pytest.raises(StatusError, match="said"):
        await collect(script)
    assert trio.current_time() == pytest.approx(5)


# -- handing over


async def test_slow_consumer_makes_the_server_wait(autojump_clock: MockClock) -> None:
    """The buffer is bounded: then nothing is read, however long that lasts, and nothing is lost."""
    script = Script(stream(*[b"id: %d\ndata: x\n\n" % n for n in range(100)]))
    got: list[str | None] = []
    try:
        async with source_of(script, buffer_events=5) as source:
            await wait_all_tasks_blocked()
            assert script.bodies[0].taken == 6
            assert source.statistics().events_received == 6
            await trio.sleep(1000)
            assert script.bodies[0].taken == 6
            assert source.statistics().silences == 0
            assert source.last_event_id == ""
            got += [event.id async for event in source]
    finally:
        # Here, as pytest-trio takes a stray `Cancelled` for the end of a test.
        assert got == [str(n) for n in range(100)]


async def test_unbuffered(autojump_clock: MockClock) -> None:
    """Without a buffer each event is handed from hand to hand."""
    script = Script(stream(b"data: 1\n\ndata: 2\n\n"))
    assert await collect(script, buffer_events=0) == [("", "1"), ("", "2")]


async def test_id_moves_when_an_event_is_handed_over(autojump_clock: MockClock) -> None:
    """The id to save is that of what was taken; a reconnect asks with that of what came."""
    script = Script(
        stream(b"id: 1\ndata: 1\n\nid: 2\ndata: 2\n\nid: 3\n\n"), stream(b"id: 4\n\n", ...)
    )
    async with source_of(script, last_event_id="0") as source:
        await trio.sleep(10)
        assert script.asked("last-event-id") == ["0", "3"]
        assert source.last_event_id == "0"
        for expected in ("1", "2"):
            assert (await source.receive()).data == expected
            assert source.last_event_id == expected
        with trio.move_on_after(1):
            await source.receive()
        assert source.last_event_id == "4"


async def test_receive_nowait(autojump_clock: MockClock) -> None:
    """Without waiting there is an event, or none, or the end."""
    script = Script(stream(b"id: 1\n\nid: 2\ndata: 1\n\n"), answer(404))
    async with source_of(script) as source:
        with pytest.raises(trio.WouldBlock):
            source.receive_nowait()
        await trio.sleep(1)
        assert source.receive_nowait().id == "2"
        with pytest.raises(trio.WouldBlock):
            source.receive_nowait()
        await trio.sleep(10)
        for _ in range(2):
            with pytest.raises(StatusError):
                source.receive_nowait()
        with pytest.raises(StatusError):
            await source.receive()
    with pytest.raises(trio.ClosedResourceError):
        source.receive_nowait()
    async with source_of(Script()) as source:
        await trio.sleep(1)
        with pytest.raises(trio.EndOfChannel):
            source.receive_nowait()


# -- state


async def test_states(autojump_clock: MockClock) -> None:
    """Each change of state is told, in order, with its reason; and can be waited for."""
    script = Script(
        failing(httpx2.ConnectError("no")), answer(302, Location="/a"), stream(b"data: 1\n\n", 5)
    )
    changes: list[StateChange] = []
    async with source_of(script, on_state_change=changes.append) as source:
        assert (source.state, source.attempts, source.last_error) == (State.CONNECTING, 0, None)
        await source.wait_open()
        assert source.state is State.OPEN
        assert source.url == "http://test/a"
        await source.wait_open()
        assert isinstance(source.last_error, LostError)
        assert [event.data async for event in source] == ["1"]
        with pytest.raises(trio.EndOfChannel):
            await source.wait_open()
    seen = [(c.state, c.attempts, c.failures, str(c.error), c.delay is None) for c in changes]
    assert seen == [
        (State.CONNECTING, 1, 1, f"can't reach {URL}: no", False),
        (State.OPEN, 2, 1, "None", True),
        (State.CONNECTING, 2, 0, "the server ended the stream", False),
        (State.CLOSED, 3, 0, "None", True),
    ]
    statistics = source.statistics()
    assert (statistics.attempts, statistics.streams, statistics.redirects) == (3, 1, 1)
    assert (statistics.events_received, statistics.events_delivered) == (1, 1)
    assert (statistics.bytes_received, statistics.state) == (9, State.CLOSED)


async def test_waiting_for_a_stream_that_was_short(autojump_clock: MockClock) -> None:
    """A stream that was open for a moment was open, as long as its events wait."""
    async with source_of(Script(stream(b"data: 1\n\n")), reconnect=False) as source:
        await trio.sleep(1)
        assert source.state is State.CLOSED
        await source.wait_open()
        await source.receive()
        with pytest.raises(trio.EndOfChannel):
            await source.wait_open()


async def test_answers_that_were_read_before(autojump_clock: MockClock) -> None:
    """Transports that give a whole answer, such as httpx2's mock, work as well."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        if "last-event-id" in request.headers:
            return httpx2.Response(404, text="gone")
        headers = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
        return httpx2.Response(200, headers=headers, content=gzip.compress(b"id: 1\ndata: 1\n\n"))

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(handle))
    async with EventSource(URL, http_client=client) as source:
        assert (await source.receive()).data == "1"
        with pytest.raises(StatusError, match="404: gone"):
            await source.receive()


async def test_waiting_for_a_stream_that_never_opens(autojump_clock: MockClock) -> None:
    """A wait for a stream ends with the error that is final, or tells that it was closed."""
    async with source_of(Script(answer(404))) as source:
        with pytest.raises(StatusError):
            await source.wait_open()
    source = source_of(Script(silent))
    with pytest.raises(RuntimeError, match="enter the event source first"):
        await source.receive()
    async with source:
        await source.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await source.wait_open()


async def test_entered_once(autojump_clock: MockClock) -> None:
    """An event source is for one block; one that was closed before is for none."""
    source = source_of(Script())
    async with source:
        pass
    with pytest.raises(RuntimeError, match="entered once"):
        await source.__aenter__()
    source = source_of(Script())
    await source.aclose()
    assert source.state is State.CLOSED
    with pytest.raises(trio.ClosedResourceError):
        await source.receive()
    with pytest.raises(RuntimeError, match="entered once"):
        await source.__aenter__()


# -- its end


async def test_closing_ends_all_of_it(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Closing closes the connection, and wakes who waits for an event."""
    script = Script(stream(b"data: 1\n\n", ...))
    async with source_of(script) as source:
        assert (await source.receive()).data == "1"
        woken = trio.Event()

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await source.receive()
            woken.set()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await source.aclose()
        assert script.open_bodies == 0
        await woken.wait()


async def use_and_fail(source: EventSource, error: Exception) -> None:
    """Take an event, then raise."""
    async with source:
        await source.receive()
        raise error


async def test_exceptions_of_the_block_come_out_bare(autojump_clock: MockClock) -> None:
    """The exception of the block comes out as it is, and nothing is left of the source."""
    for mine in (ValueError("mine"), KeyError("mine"), ExceptionGroup("mine", [OSError()])):
        script = Script(stream(b"data: 1\n\n", ...))
        with pytest.raises(type(mine), match="mine") as caught:
            await use_and_fail(source_of(script), mine)
        assert caught.value is mine
        assert script.open_bodies == 0


async def test_errors_of_a_hook_come_out_bare(autojump_clock: MockClock) -> None:
    """A hook that fails ends the block with its exception, wherever the block is."""

    def hook(change: StateChange) -> None:
        raise ZeroDivisionError(change.state)

    script = Script(stream(b": hi\n", ...))
    source = source_of(script, on_state_change=hook)
    with pytest.raises(ZeroDivisionError):
        await use_and_fail(source, ValueError("not reached"))
    assert script.open_bodies == 0

    def late(change: StateChange) -> None:
        if change.state is State.CLOSED:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read(source_of(Script(), on_state_change=late), [])


async def test_client_that_is_closed(autojump_clock: MockClock) -> None:
    """A client that somebody closed is a fault of the program, and comes out as such."""
    script = Script()
    await script.client.aclose()
    with pytest.raises(RuntimeError, match="client has been closed"):
        await collect(script)


@pytest.mark.slow
@table("passes", range(40))
async def test_cancelled_at_every_step(passes: int, autojump_clock: MockClock) -> None:
    """Wherever it is cancelled, it is gone at once, and nothing is left open."""
    script = Script(
        answer(307, b"x", Location="/a"),
        stream(b"retry: 1\nid: 1\ndata: 1\n\n", b"id: 2\ndata: 2\n\n" * 5, b": x"),
        answer(503, b"later", Retry_After="0"),
        stream(b"data: 3\n\n", ...),
    )
    source = source_of(script, buffer_events=2)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                for _ in range(passes):
                    await wait_all_tasks_blocked()
                    await trio.sleep(0.02)
                scope.cancel()

            nursery.start_soon(cancel)
            async with source:
                async for _ in source:
                    await trio.sleep(0.05)
    assert scope.cancelled_caught
    assert script.open_bodies == 0
    assert source.state is State.CLOSED


async def test_cancelled_while_it_waits_for_a_slow_consumer(autojump_clock: MockClock) -> None:
    """Cancelled with a full buffer, the reading ends in order all the same."""
    script = Script(stream(b"data: 1\n\n" * 10, ...))
    with trio.move_on_after(1) as scope:
        async with source_of(script, buffer_events=1):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert script.open_bodies == 0


async def test_nursery_around_it_sees_its_own_exceptions(autojump_clock: MockClock) -> None:
    """In a nursery a task's failure is one level deep: the source adds none."""
    script = Script(answer(500, b"x"))
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(collect, script))
    (inner,) = caught.value.exceptions
    assert isinstance(inner, EventSourceError)
