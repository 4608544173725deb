"""`AccessControl` over HTTP, in memory: rights, limits, and the end of a stream."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from auth_helpers import NOW, OTHER_USER, claims, key_set, sign
from auth_helpers import local_request as request_from
from helpers import Client, Head, connect, post, request
from hub_helpers import WrappedHistory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tables import table
from test_examples import load
from trio.testing import wait_all_tasks_blocked

from h3trio import CloseReason, H3Event, HTTPError
from h3trio.hub import HistoryError, Hub
from h3trio.hubserver import (
    AccessControl,
    AnonymousAccess,
    Grant,
    Limits,
    Rate,
    TokenAuthenticator,
    TokenSources,
    create_app,
    selection_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from trio.testing import MockClock

    from h3trio import App
    from h3trio.hub import Appended, History, Update
    from h3trio.hubserver import Authenticator


REMOTE = "Via: 1.1 proxy"


class HubServer:
    """A running hub server, and what one asks it."""

    def __init__(self, nursery: trio.Nursery, app: App, hub: Hub, access: AccessControl) -> None:
        self._nursery = nursery
        self._app = app
        self.hub = hub
        self.access = access

    async def ask(
        self, raw: bytes, *, name: str = "memory", user: int | None = None
    ) -> tuple[Head, Any]:
        """Make one request on a connection of its own."""
        client = connect(self._nursery, self._app, name=name, user=user)
        await client.send(raw)
        head, body = await client.response()
        is_json = "json" in head.headers.get("content-type", "")
        return head, json.loads(body) if is_json else body.decode()

    async def status(self, raw: bytes) -> int:
        """Make a request; return the status, whether it is a stream or not."""
        client = connect(self._nursery, self._app)
        await client.send(raw)
        return (await client.head()).status

    async def open(self, path: str, *lines: str) -> Client:
        """Open a stream; read its head away."""
        client = connect(self._nursery, self._app)
        await client.send(request(path, *lines))
        assert (await client.head()).status == 200
        return client

    async def stream(self, path: str, *lines: str) -> Client:
        """Open a stream of the hub; read its opening away."""
        client = await self.open(path, "Accept: text/event-stream", *lines)
        assert await client.chunk() == b":\n"
        assert (await client.chunk()).startswith(b"retry: ")
        await wait_all_tasks_blocked()
        return client


class FullDisk(WrappedHistory):
    """A history that takes nothing."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:  # noqa: ARG002 - it fails
        """Fail."""
        raise HistoryError("the disk is full")


def bearer(**changes: object) -> str:
    """Write the header of a token that is good from the start of the test."""
    return f"Authorization: Bearer {sign(claims(**{'exp': NOW + 10_000, **changes}))}"


def rights(publish: list[str] | None = None, subscribe: list[str] | None = None) -> str:
    """Write the header of a token with these rights."""
    made = {"publish": publish, "subscribe": subscribe}
    return bearer(mercure={name: topics for name, topics in made.items() if topics is not None})


@asynccontextmanager
async def run_hub_server(
    nursery: trio.Nursery,
    history: History | None = None,
    *,
    authenticator: Authenticator | None = None,
    limits: Limits | None = None,
    allow: AnonymousAccess | None = None,
    anonymous: bool = False,
) -> AsyncGenerator[HubServer]:
    """Run a hub server; with tokens, unless anonymous or with another authenticator.

    It begins at `NOW`, on a clock that goes with Trio's.
    """
    start = trio.current_time()

    def unix() -> float:
        return NOW + trio.current_time() - start

    tokens = TokenAuthenticator(key_set(), token_sources=TokenSources(allow_query=True), clock=unix)
    access = AccessControl(
        anonymous=allow,
        authenticator=None if anonymous else (authenticator or tokens),
        limits=limits,
        clock=unix,
    )
    hub = Hub(history, settings=access.limits.hub_settings())
    app = create_app(hub, access=access)
    async with app.lifespan():
        yield HubServer(nursery, app, hub, access)
        nursery.cancel_scope.cancel()


PUBLISH = post(b"x", "/events/news")
READ = request("/events/news")
PURGE = request("/events/news", method="DELETE")


def with_header(raw: bytes, header: str | None) -> bytes:
    """Add a header to a request."""
    return raw if header is None else raw.replace(b"\r\n", f"\r\n{header}\r\n".encode(), 1)


@table(
    "header, publish, subscribe",
    [
        (None, 401, 401),
        (rights(), 403, 403),
        (rights(publish=["*"]), 200, 403),
        (rights(publish=["news"]), 200, 403),
        (rights(publish=["n{x}"]), 200, 403),
        (rights(publish=["other", "new"]), 403, 403),
        (rights(publish=[]), 403, 403),
        (rights(subscribe=[]), 403, 200),
        (rights(subscribe=["other"]), 403, 200),
        (rights(publish=["news"], subscribe=["news"]), 200, 200),
        (bearer(exp=NOW), 401, 401),
        (bearer(aud="other"), 401, 401),
        ("Authorization: Bearer nonsense", 401, 401),
        ("Authorization: Bearer", 400, 400),
        ("Authorization: Basic dTpw", 401, 401),
    ],
)
async def test_rights(
    nursery: trio.Nursery, header: str | None, publish: int, subscribe: int
) -> None:
    """Each token may do what it says and no more; being on this machine gives nothing."""
    async with run_hub_server(nursery) as server:
        assert await server.status(with_header(PUBLISH, header)) == publish
        assert await server.status(with_header(PURGE, header)) == publish
        assert await server.status(with_header(READ, header)) == subscribe
        local = with_header(PUBLISH, header).replace(b"Host: test", b"Host: localhost")
        assert await server.status(local) == publish
        statistics = server.access.statistics()
        assert statistics.unauthorized == [publish, publish, subscribe, publish].count(401)
        assert statistics.forbidden == [publish, publish, subscribe, publish].count(403)


@table(
    "header, status",
    [
        (None, 401),
        (rights(publish=["a"]), 403),
        (rights(publish=["b", "c"]), 403),
        (rights(publish=["a", "b"]), 200),
        (rights(publish=["{x}"]), 200),
        (rights(publish=["a{x}", "b"]), 403),
        (rights(publish=["*"]), 200),
    ],
)
async def test_each_topic_needs_the_right(
    nursery: trio.Nursery, header: str | None, status: int
) -> None:
    """Who names several topics must be allowed all of them, to publish and to purge."""
    async with run_hub_server(nursery) as server:
        path = "/events?topic=a&topic=b"
        assert await server.status(with_header(post(b"x", path), header)) == status
        stream = post(b"data: x\n\n", path, "Content-Type: text/event-stream")
        assert await server.status(with_header(stream, header)) == status
        purge = request(path, method="DELETE")
        assert await server.status(with_header(purge, header)) == status
        assert server.hub.statistics().published == (2 if status == 200 else 0)


@pytest.mark.parametrize("name", ["publish", "subscribe"])
async def test_anonymous_beside_tokens(nursery: trio.Nursery, name: str) -> None:
    """With the flag anyone may, with a token or without; but no bad token passes as none."""
    allowed: dict[str, Any] = {f"allow_anonymous_{name}": True}
    raw = PUBLISH if name == "publish" else READ
    async with run_hub_server(nursery, allow=AnonymousAccess(**allowed)) as server:
        assert await server.status(raw) == 200
        assert await server.status(with_header(raw, rights())) == 200
        assert await server.status(with_header(raw, "Authorization: Bearer bad")) == 401
        assert await server.status(READ if name == "publish" else PUBLISH) == 401


async def test_a_stream_without_a_token_lasts(
    nursery: trio.Nursery,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
) -> None:
    """A stream that anyone may have isn't asked about again, and is nobody's of the subjects."""
    allow = AnonymousAccess(allow_anonymous_subscribe=True)
    limits = Limits(recheck_interval=10)
    async with run_hub_server(nursery, allow=allow, limits=limits) as server:
        await server.stream("/events/news")
        await trio.sleep(100)
        assert server.hub.statistics().subscribers == 1
        assert server.access.statistics().subjects == 0


async def test_answers_say_what_is_wrong(nursery: trio.Nursery) -> None:
    """RFC 6750 section 3: the challenge, with an error where there was a token."""
    async with run_hub_server(nursery) as server:
        head, _ = await server.ask(PUBLISH)
        assert head.headers["www-authenticate"] == 'bearer realm="h3trio"'
        head, text = await server.ask(with_header(PUBLISH, bearer(exp=NOW)))
        assert 'error="invalid_token"' in head.headers["www-authenticate"]
        assert text == "the token has expired\n"
        head, _ = await server.ask(with_header(PUBLISH, rights(publish=[])))
        assert 'error="insufficient_scope"' in head.headers["www-authenticate"]


async def test_a_token_may_come_in_a_cookie_or_the_query(nursery: trio.Nursery) -> None:
    """As an `EventSource` sends it; a post by cookie needs the page to be ours."""
    token = bearer().rpartition(" ")[2]
    cookie = f"Cookie: mercureAuthorization={token}"
    async with run_hub_server(nursery) as server:
        assert await server.status(with_header(READ, cookie)) == 200
        assert await server.status(request(f"/events/news?authorization={token}")) == 200
        assert await server.status(with_header(PUBLISH, cookie)) == 403
        assert await server.status(post(b"x", "/events/news", cookie, "Origin: http://test")) == 200
        assert await server.status(post(b"x", "/events/news", cookie, "Origin: http://evil")) == 403
        assert await server.status(post(b"x", "/events/news", cookie, bearer())) == 400


async def test_private_events_live_and_replayed(nursery: trio.Nursery) -> None:
    """Those may see them whose token names the topic, live and when they come back."""
    names = {"all": ["*"], "news": ["n{x}"], "other": ["other"], "none": []}
    headers = {name: rights(["*"], topics) for name, topics in names.items()}
    async with run_hub_server(nursery) as server:
        streams = {n: await server.stream("/events", header) for n, header in headers.items()}
        for data, path in (
            (b"a", "/events/news?private=on"),
            (b"b", "/events/other?private"),
            (b"c", "/events/news"),
        ):
            assert (await server.ask(post(data, path, headers["all"])))[0].status == 200
        expected = {"all": "abc", "news": "ac", "other": "bc", "none": "c"}
        for name, wanted in expected.items():
            assert [(await streams[name].event()).data for _ in wanted] == [*wanted], name
        for name, wanted in expected.items():
            replayed = await server.stream("/events?first=oldest", headers[name])
            assert [(await replayed.event()).data for _ in wanted] == [*wanted], name


async def test_private_events_of_a_stream(nursery: trio.Nursery) -> None:
    """A body of events is private as a whole."""
    async with run_hub_server(nursery) as server:
        client = await server.stream("/events", rights(subscribe=[]))
        kind = "Content-Type: text/event-stream"
        body = b"data: 1\n\ndata: 2\n\n"
        sent = post(body, "/events/news?private=1", kind, rights(["*"]))
        assert (await server.ask(sent))[1]["published"] == 2
        await server.ask(with_header(PUBLISH, rights(["*"])))
        assert (await client.event()).data == "x"


async def test_private_is_on_or_absent(nursery: trio.Nursery) -> None:
    """A value of `private` that may mean either is refused, not guessed."""
    async with run_hub_server(nursery) as server:
        for value in ("off", "0", "false", "ON"):
            raw = post(b"x", f"/events/news?private={value}", rights(["*"]))
            assert (await server.ask(raw))[0].status == 400
        assert server.hub.statistics().published == 0


# -- the end of a stream


async def test_a_stream_ends_with_its_token(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """At `exp` it gets a farewell and its last chunk, and the log says why."""
    async with run_hub_server(nursery) as server:
        start = autojump_clock.current_time()
        client = await server.stream("/events/news", bearer(exp=NOW + 30))
        longer = await server.stream("/events/news", bearer(exp=NOW + 60))
        chunk = await client.chunk()
        while chunk == b":\n":
            chunk = await client.chunk()
        assert autojump_clock.current_time() == pytest.approx(start + 30)
        assert chunk.startswith(b"retry: ")
        assert await client.chunk() == b""
        await wait_all_tasks_blocked()
        assert client.state.counts.closings == {CloseReason.AUTH_EXPIRED: 1}
        assert server.hub.statistics().subscribers == 1
        assert await longer.events() == []
        assert autojump_clock.current_time() == pytest.approx(start + 60)
        assert server.access.statistics().expired == 2


async def test_a_kick_by_subject(nursery: trio.Nursery) -> None:
    """`Hub.kick` sees who a stream is for."""
    async with run_hub_server(nursery) as server:
        mine = await server.stream("/events/news", bearer(sub="me"))
        await server.stream("/events/news", bearer(sub="you"))
        assert server.hub.kick(lambda found: found.info["subject"] == "me") == 1
        assert await mine.events() == []
        assert [found.info["subject"] for found in server.hub.subscriptions()] == ["you"]


class Sessions:
    """An authenticator of a program's own, which takes back what it gave."""

    def __init__(self) -> None:
        self.grant: Grant | None = Grant(subscribe=selection_of(["news"]), subject="me")
        self.error: BaseException | None = None
        self.asked = 0

    async def __call__(self, event: H3Event) -> Grant | None:
        """Return the grant there is."""
        assert event.headers["x-session"] == "7"
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return self.grant


RECHECK = Limits(recheck_interval=100)


@pytest.mark.parametrize(  # each ends the nursery of its server
    "change",
    [
        {"grant": None},
        {"error": HTTPError(401)},
        {"error": HTTPError(403)},
        {"error": ExceptionGroup("in a nursery", [HTTPError(401), HTTPError(403)])},
        {"grant": Grant(subscribe=selection_of([]), subject="me")},
        {"grant": Grant(subscribe=None, subject="me")},
    ],
)
async def test_rights_that_are_gone_end_a_stream(
    nursery: trio.Nursery, autojump_clock: MockClock, change: dict[str, Any]
) -> None:
    """Rights are asked for again, and a stream whose rights are others ends."""
    sessions = Sessions()
    async with run_hub_server(nursery, authenticator=sessions, limits=RECHECK) as server:
        client = await server.stream("/events/news", "X-Session: 7")
        await trio.sleep(500)
        assert 4 <= sessions.asked - 1 <= 6
        vars(sessions).update(change)
        start = autojump_clock.current_time()
        assert await client.events() == []
        assert autojump_clock.current_time() - start <= 120
        assert server.access.statistics().revoked == 1
        await wait_all_tasks_blocked()
        assert client.state.counts.closings == {CloseReason.AUTH_EXPIRED: 1}


@pytest.mark.parametrize(
    "error",
    [
        OSError("database"),
        HTTPError(503),
        ExceptionGroup("in a nursery", [HTTPError(503), HTTPError(401)]),
        GeneratorExit(),
        SystemExit(1),
    ],
)
async def test_trouble_ends_no_stream(
    nursery: trio.Nursery,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
    error: BaseException,
) -> None:
    """An authenticator that fails is asked again the next time."""
    sessions = Sessions()
    async with run_hub_server(nursery, authenticator=sessions, limits=RECHECK) as server:
        await server.stream("/events/news", "X-Session: 7")
        sessions.error = error
        await trio.sleep(500)
        assert 4 <= server.access.statistics().recheck_failures <= 6
        assert server.hub.statistics().subscribers == 1


async def test_refusals_of_several_tasks_are_one(nursery: trio.Nursery) -> None:
    """An authenticator that refuses out of a nursery refuses, and is counted as one that does."""
    sessions = Sessions()
    sessions.error = ExceptionGroup("in a nursery", [HTTPError(401), HTTPError(401)])
    async with run_hub_server(nursery, authenticator=sessions) as server:
        assert await server.status(with_header(READ, "X-Session: 7")) == 401
        assert server.access.statistics().unauthorized == 1


async def test_a_grant_that_is_over_is_none(nursery: trio.Nursery) -> None:
    """An authenticator of one's own needn't look at the clock."""
    sessions = Sessions()
    sessions.grant = Grant(subscribe=selection_of([]), publish=selection_of(["*"]), expires=NOW)
    async with run_hub_server(nursery, authenticator=sessions) as server:
        assert await server.status(with_header(READ, "X-Session: 7")) == 401
        assert await server.status(with_header(PUBLISH, "X-Session: 7")) == 401


# -- limits


async def test_streams_of_a_subject(nursery: trio.Nursery) -> None:
    """One above the limit is 429, until one of them ends; others have their own."""
    async with run_hub_server(nursery, limits=Limits(max_subject_streams=2)) as server:
        first = await server.stream("/events/news", bearer(sub="me"))
        await server.stream("/events/news", bearer(sub="me"))
        head, _ = await server.ask(request("/events/news", bearer(sub="me")))
        assert head.status == 429
        assert int(head.headers["retry-after"]) >= 1
        assert await server.status(request("/events/news", bearer(sub="you"))) == 200
        assert await server.status(request("/events/news", bearer())) == 200
        await first.stream.aclose()
        await first.finished.wait()
        assert await server.status(request("/events/news", bearer(sub="me"))) == 200
        statistics = server.access.statistics()
        assert (statistics.too_many_streams, statistics.subjects) == (1, 2)


async def test_topics_of_a_subscription(nursery: trio.Nursery) -> None:
    """At the limit it is a stream, one above is 400, and counted."""
    limits = Limits(max_topics_per_subscription=2, max_topic_length=3)
    async with run_hub_server(nursery, limits=limits) as server:
        for query, status in (
            ("topic=a&topic=b", 200),
            ("topic=a&topic=b&topic=c", 400),
            ("topic=abc", 200),
            ("topic=abcd", 400),
        ):
            assert await server.status(request(f"/events?{query}", bearer())) == status, query
        assert await server.status(post(b"x", "/events/abc", bearer())) == 200
        assert await server.status(post(b"x", "/events/abcd", bearer())) == 400
        statistics = server.access.statistics()
        assert (statistics.too_many_topics, statistics.topics_too_long) == (1, 2)


async def test_publish_rate(nursery: trio.Nursery, autojump_clock: MockClock) -> None:  # noqa: ARG001 - time that jumps
    """A burst passes, one above is 429 with a time to wait, after which it passes."""
    limits = Limits(publish_rate=Rate(per_second=0.1, burst=3))
    async with run_hub_server(nursery, limits=limits) as server:
        mine, other = bearer(sub="me"), bearer(sub="you")
        assert [await server.status(with_header(PUBLISH, mine)) for _ in range(3)] == [200] * 3
        head, text = await server.ask(with_header(PUBLISH, mine))
        assert (head.status, text) == (429, "at most 0.1/s\n")
        assert 10 <= int(head.headers["retry-after"]) <= 20
        assert await server.status(with_header(PURGE, mine)) == 429
        assert await server.status(with_header(PUBLISH, other)) == 200
        statistics = server.access.statistics()
        assert (statistics.rate_limited, statistics.rate_buckets) == (2, 2)
        await trio.sleep(10)
        assert await server.status(with_header(PUBLISH, mine)) == 200
        assert await server.status(with_header(PUBLISH, mine)) == 429


async def test_publish_rate_of_those_without_a_name(
    nursery: trio.Nursery,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
) -> None:
    """They are told apart by their address."""
    limits = Limits(publish_rate=Rate(per_second=1, burst=1))
    allow = AnonymousAccess(allow_anonymous_publish=True)
    async with run_hub_server(nursery, limits=limits, allow=allow, anonymous=True) as server:
        assert await server.status(PUBLISH) == 200
        assert await server.status(PUBLISH) == 429


async def test_a_body_of_events_ends_with_its_token(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Events that come after a publisher's token has expired aren't published: 401."""
    async with run_hub_server(nursery) as server:
        client = connect(nursery, server._app)  # noqa: SLF001 - the test's own
        lines = ("Content-Type: text/event-stream", "Content-Length: 18", bearer(exp=NOW + 10))
        await client.send(request("/events/news", *lines, method="POST") + b"data: 1\n\n")
        await trio.sleep(11)
        await client.send(b"data: 2\n\n")
        head, body = await client.response()
        assert head.status == 401
        assert json.loads(body)["published"] == 1
        assert autojump_clock.current_time() == pytest.approx(11)


async def test_a_stream_of_events_is_slowed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A body above the rate is published in its time, and not refused."""
    limits = Limits(publish_rate=Rate(per_second=2, burst=2))
    async with run_hub_server(nursery, limits=limits) as server:
        client = await server.stream("/events/news", bearer())
        body = b"".join(b"data: %d\n\n" % n for n in range(7))
        kind = "Content-Type: text/event-stream"
        start = autojump_clock.current_time()
        _, answer = await server.ask(post(body, "/events/news", kind, bearer(sub="me")))
        assert answer["published"] == 7
        assert autojump_clock.current_time() - start == pytest.approx(2.5)
        assert [(await client.event()).data for _ in range(7)] == [*"0123456"]
        assert server.access.statistics().slowed == 3


ADDRESSES = [
    ("192.0.2.1", "192.0.2.2", False),
    ("2001:db8::1", "2001:db8::ffff:2", True),
    ("2001:db8::1", "2001:db8:0:1::1", False),
    ("fe80::1%eth0", "fe80::2", True),
    ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    ("unix", "memory", False),
]


async def test_which_addresses_are_one(subtests: pytest.Subtests) -> None:
    """Of IPv6 a host may have a whole /64, so that counts as one."""
    for one, other, same in ADDRESSES:
        with subtests.test(one=one, other=other, same=same):
            access = AccessControl(limits=Limits(publish_rate=Rate(per_second=1, burst=2)))
            for client in (one, other):
                pace = access.pace(request_from(client=client), Grant())
                assert pace is not None
                await pace.wait(1)
            assert access.statistics().rate_buckets == (1 if same else 2)


def test_no_rate_costs_nothing() -> None:
    """Without a rate nobody is held to one."""
    assert AccessControl().pace(request_from(), Grant()) is None


# -- the example


async def test_the_example_hub_access(nursery: trio.Nursery) -> None:
    """`examples/hub_access.py` lets sessions in, and ends the streams of one that is logged out."""
    example = load("hub_access")
    async with example.app.lifespan():
        server = HubServer(nursery, example.app, example.hub, example.access)
        reader = await server.stream("/events/news", "X-Session: reader")
        raw = post(b"hi", "/events/news?private=on", "X-Session: writer")
        assert (await server.ask(raw))[0].status == 200
        assert (await reader.event()).data == "hi"
        assert await server.status(with_header(READ, "X-Session: nobody")) == 401
        assert await server.status(READ) == 401
        log_out = request("/sessions/reader", method="DELETE")
        assert await server.status(log_out) == 403
        local = log_out.replace(b"Host: test", b"Host: localhost")
        assert (await server.ask(local))[1] == {"ended": 1, "silent": []}
        assert await reader.events() == []
        assert await server.status(with_header(READ, "X-Session: reader")) == 401
        nursery.cancel_scope.cancel()


# -- making one


def test_rights_are_given_once() -> None:
    """Rights beside an `AccessControl` would be ignored, so they are refused."""
    with pytest.raises(ValueError, match="beside"):
        create_app(anonymous=AnonymousAccess(), access=AccessControl())


def test_a_secret_is_not_shown() -> None:
    """The text of an access control holds no key."""
    access = AccessControl(authenticator=TokenAuthenticator(key_set()))
    assert "thirty-two" not in repr(access)
    assert access.has_authenticator
    assert not AccessControl().has_authenticator


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(st.binary(max_size=40), st.sampled_from(["Authorization: Bearer ", "Cookie: "]))
def test_random_bytes_are_never_let_in(junk: bytes, where: str) -> None:
    """Whatever stands where a token should be, the answer is no, and never an error of ours."""
    line = where.encode()
    if line.startswith(b"Cookie"):
        line += b"mercureAuthorization="
    # What no header can hold is refused before it is one.
    clean = bytes(byte for byte in junk if byte >= 0x20 and byte != 0x7F)
    statuses: list[int] = []

    async def ask() -> None:
        async with trio.open_nursery() as nursery, run_hub_server(nursery) as server:
            for raw in (PUBLISH, READ):
                sent = raw.replace(b"\r\n", b"\r\n" + line + clean + b"\r\n", 1)
                statuses.append(await server.status(sent))

    trio.run(ask)
    assert set(statuses) <= {400, 401, 403}


@pytest.mark.parametrize(("path", "without"), [("/", 403), ("/statistics", 401)])
async def test_a_token_for_operating(nursery: trio.Nursery, path: str, without: int) -> None:
    """From elsewhere a token with our own claim shows what is refused without."""
    async with run_hub_server(nursery) as server:
        assert await server.status(request(path, REMOTE)) == without
        assert await server.status(request(path, REMOTE, bearer())) == 403
        assert await server.status(request(path, REMOTE, bearer(h3trio={"operate": False}))) == 403
        assert await server.status(request(path, REMOTE, bearer(exp=NOW - 1))) == 401
        assert await server.status(request(path, REMOTE, bearer(h3trio={"operate": True}))) == 200


async def test_metrics_of_another_user(nursery: trio.Nursery) -> None:
    """On this machine another user's program needs a token for them, our own user's doesn't."""
    async with run_hub_server(nursery) as server:
        raw = request("/metrics").replace(b"Host: test", b"Host: localhost")
        assert (await server.ask(raw))[0].status == 200
        assert (await server.ask(raw, user=OTHER_USER))[0].status == 403
        token = bearer(h3trio={"operate": True}).encode()
        with_token = raw.replace(b"\r\n", b"\r\n" + token + b"\r\n", 1)
        assert (await server.ask(with_token, user=OTHER_USER))[0].status == 200


@table(
    "name, user, lines, expected",
    [
        ("memory", None, [], "history: the disk is full"),
        ("memory", OTHER_USER, [], "unready"),
        ("unix", None, [], "unready"),  # the kernel doesn't answer
        ("127.0.0.1", None, ["Host: hub.example.com", REMOTE], "unready"),
        ("127.0.0.1", None, [bearer(h3trio={"operate": True})], "history: the disk is full"),
        ("127.0.0.1", None, [bearer()], "unready"),
        ("192.0.2.1", None, [bearer(h3trio={"operate": True})], "history: the disk is full"),
        ("192.0.2.1", None, [], 403),
        ("192.0.2.1", None, [bearer()], 403),
        ("unknown", None, [], 403),
    ],
)
async def test_the_reasons_of_health(
    name: str, user: int | None, lines: list[str], expected: str | int
) -> None:
    """Any client on this machine is told a word, and the reason is for who may operate."""
    async with trio.open_nursery() as nursery, run_hub_server(nursery, FullDisk()) as server:
        with pytest.raises(HistoryError):
            await server.hub.publish("x", topics=["news"])
        raw = request("/healthz/ready", *lines)
        if not any(line.startswith("Host") for line in lines):
            raw = raw.replace(b"Host: test", b"Host: localhost")
        else:
            raw = raw.replace(b"Host: test\r\n", b"")
        head, body = await server.ask(raw, name=name, user=user)
        if isinstance(expected, int):
            assert head.status == expected
        else:
            assert (head.status, body) == (503, f"{expected}\n")


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_names_are_for_who_may_operate(nursery: trio.Nursery, accept: str) -> None:
    """With tokens, statistics need one on this machine too; what needs none has no names in it."""
    async with run_hub_server(nursery) as server:
        await server.hub.publish("x", topics=["secret/7781"], private=True)

        def here(path: str, *lines: str) -> bytes:
            raw = request(path, f"Accept: {accept}", *lines)
            return raw.replace(b"Host: test", b"Host: localhost")

        assert await server.status(here("/statistics")) == 401
        assert await server.status(here("/statistics", bearer())) == 403
        head, body = await server.ask(here("/statistics"))
        assert (head.status, head.headers["www-authenticate"].lower()) == (
            401,
            'bearer realm="h3trio"',
        )
        assert "token --operate" in str(body)
        assert "--allow-anonymous-operate" in str(body)
        head, body = await server.ask(here("/statistics", bearer()))
        assert head.status == 403
        assert "token --operate" in str(body)
        assert server.access.statistics().unauthorized == server.access.statistics().forbidden == 2
        operator = bearer(h3trio={"operate": True})
        assert await server.status(here("/statistics", operator)) == 200
        for path in ("/metrics", "/healthz/live", "/healthz/ready"):
            head, body = await server.ask(here(path))
            assert head.status == 200
            assert "secret" not in body


async def test_anyone_may_operate_where_a_flag_says_so(nursery: trio.Nursery) -> None:
    """With `allow_anonymous_operate` no token is asked for, though there are some."""
    async with run_hub_server(
        nursery, allow=AnonymousAccess(allow_anonymous_operate=True)
    ) as server:
        head, body = await server.ask(request("/statistics", REMOTE, "Accept: application/json"))
        assert (head.status, body["topics"]) == (200, [])


async def test_a_statistics_stream_ends_with_its_token(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """As any stream that has a grant."""
    async with run_hub_server(nursery) as server:
        token = bearer(h3trio={"operate": True}, exp=NOW + 100)
        client = await server.open("/statistics", REMOTE, token, "Accept: text/event-stream")
        began = autojump_clock.current_time()
        await client.events()
        assert 99 <= autojump_clock.current_time() - began <= 101
        assert server.access.statistics().expired == 1
