"""`CORS`: what each answer says to a page of another origin, over a connection in memory."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers import STREAM_TYPE, connect, request
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio import CORS, App, H3Event, HTTPError, Response
from h3trio._app.cors import check_origin

if TYPE_CHECKING:
    import trio
    from helpers import Head

    from h3trio._app.app import Next

GOOD = "https://a.example"
OTHER = "https://b.example"
PREFLIGHT = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x")


def make_app(cors: CORS, *, behind: bool = False) -> App:
    """Make an app with every kind of answer."""
    app = App()
    if behind:
        app.use(passing)
    app.use(cors)

    @app.get("/plain")
    async def plain(_event: H3Event) -> str:
        return "hi"

    @app.get("/own")
    async def own(event: H3Event) -> Response:
        event.response_headers["X-Event"] = "1"
        return Response("hi", headers={"Vary": "Accept"})

    @app.get("/error")
    async def error(_event: H3Event) -> None:
        raise HTTPError(418, headers={"Vary": "Accept"})

    @app.get("/bug")
    async def bug(_event: H3Event) -> None:
        raise ZeroDivisionError

    @app.get("/stream")
    async def stream(event: H3Event) -> None:
        event.response_headers["Vary"] = "Accept"
        async with event.start_sse() as writer:
            await writer.send("hi")

    @app.get("/callback")
    async def callback(event: H3Event) -> None:
        event.start_sse()
        event.set_stream_callback(lambda writer: writer.send("hi"))

    return app


async def ask(
    nursery: trio.Nursery, cors: CORS, path: str, *lines: str, method: str = "GET"
) -> Head:
    """Return the head of the answer to one request."""
    client = connect(nursery, make_app(cors))
    await client.send(request(path, *lines, method=method))
    head = await client.head()
    nursery.cancel_scope.cancel()
    return head


ANSWERS = (
    *(("/plain", 200), ("/own", 200), ("/error", 418), ("/bug", 500)),
    *(("/stream", 200), ("/callback", 200), ("/nowhere", 404)),
)


@table("path, status", ANSWERS)
async def test_every_answer_allows_a_listed_origin(
    nursery: trio.Nursery, path: str, status: int
) -> None:
    """A response, a stream's head, a handler's error, a bug and a 404 name the origin."""
    cors = CORS([GOOD, OTHER], expose_headers=["X-Id"])
    head = await ask(nursery, cors, path, f"Origin: {GOOD}")
    assert head.status == status
    assert head.headers["access-control-allow-origin"] == GOOD
    assert head.headers["access-control-expose-headers"] == "x-id"
    assert "access-control-allow-credentials" not in head.headers
    assert "origin" in head.headers["vary"]


async def test_scripts_may_read_where_a_stream_begins(nursery: trio.Nursery) -> None:
    """The headers of a hub's stream are exposed, unless other names are given."""
    head = await ask(nursery, CORS([GOOD]), "/stream", f"Origin: {GOOD}")
    assert head.headers["access-control-expose-headers"] == "last-event-id, history-truncated"
    head = await ask(nursery, CORS([GOOD], expose_headers=()), "/stream", f"Origin: {GOOD}")
    assert "access-control-expose-headers" not in head.headers


@table("lines", [[], ["Origin: https://evil.example"], ["Origin: null"]])
@table("path, status", ANSWERS)
async def test_no_answer_allows_another(
    nursery: trio.Nursery, path: str, status: int, lines: list[str]
) -> None:
    """To an origin that isn't listed, and to none, only `Vary` is said."""
    head = await ask(nursery, CORS([GOOD]), path, *lines)
    assert head.status == status
    assert "origin" in head.headers["vary"]
    assert not [name for name in head.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/own", "/error", "/stream"])
async def test_vary_is_merged(nursery: trio.Nursery, path: str) -> None:
    """What a handler says an answer varies by stays, on a stream too."""
    head = await ask(nursery, CORS([GOOD]), path, f"Origin: {GOOD}")
    assert sorted(head.headers["vary"].split(", ")) == ["accept", "origin"]


async def test_405_is_marked(nursery: trio.Nursery) -> None:
    """A method that isn't there is marked as everything is."""
    head = await ask(nursery, CORS([GOOD]), "/plain", f"Origin: {GOOD}", method="DELETE")
    assert (head.status, head.headers["access-control-allow-origin"]) == (405, GOOD)


async def test_credentials(nursery: trio.Nursery) -> None:
    """Credentials are allowed where they are asked for, and named so."""
    head = await ask(nursery, CORS([GOOD], allow_credentials=True), "/stream", f"Origin: {GOOD}")
    assert head.headers["access-control-allow-credentials"] == "true"
    assert head.headers["access-control-allow-origin"] == GOOD


@pytest.mark.parametrize("lines", [[], ["Origin: https://evil.example"], ["Origin: null"]])
async def test_any_origin(nursery: trio.Nursery, lines: list[str]) -> None:
    """`*` is said as it is, to everyone alike, so nothing varies by it."""
    head = await ask(nursery, CORS(["*"]), "/plain", *lines)
    assert head.headers["access-control-allow-origin"] == "*"
    assert "vary" not in head.headers


async def test_null_only_if_listed(nursery: trio.Nursery) -> None:
    """`null` is an origin like others once it is listed."""
    head = await ask(nursery, CORS(["null"]), "/plain", "Origin: null")
    assert head.headers["access-control-allow-origin"] == "null"


@pytest.mark.parametrize("path", ["/plain", "/nowhere"])
async def test_preflight(nursery: trio.Nursery, path: str) -> None:
    """A preflight is answered before any route, with the whole lists."""
    cors = CORS([GOOD], allow_methods=["PUT"], max_age=5, allow_credentials=True)
    head = await ask(nursery, cors, path, f"Origin: {GOOD}", *PREFLIGHT, method="OPTIONS")
    assert head.status == 204
    found = {name[15:]: value for name, value in head.headers.items() if "control" in name}
    assert found == {
        "allow-origin": GOOD,
        "allow-credentials": "true",
        "allow-methods": "put",
        "allow-headers": "last-event-id, cache-control, content-type",
        "max-age": "5",
    }
    assert head.headers["vary"] == "origin"


async def test_preflight_of_another_origin(nursery: trio.Nursery) -> None:
    """It is refused, with nothing that a browser or a cache could take for a yes."""
    head = await ask(
        nursery, CORS([GOOD]), "/plain", f"Origin: {OTHER}", *PREFLIGHT, method="OPTIONS"
    )
    assert (head.status, head.headers["vary"]) == (403, "origin")
    assert not [name for name in head.headers if name.startswith("access-control-")]


async def test_other_options_are_the_apps(nursery: trio.Nursery) -> None:
    """OPTIONS that is no preflight is answered as ever, and marked."""
    head = await ask(nursery, CORS([GOOD]), "/plain", f"Origin: {GOOD}", method="OPTIONS")
    assert (head.status, head.headers["allow"]) == (204, "get, head, options")
    assert head.headers["access-control-allow-origin"] == GOOD


async def test_two_origins_are_none(nursery: trio.Nursery) -> None:
    """A request that names two origins, both listed, is allowed neither."""
    lines = (f"Origin: {GOOD}", f"Origin: {OTHER}")
    head = await ask(nursery, CORS([GOOD, OTHER]), "/plain", *lines)
    assert "access-control-allow-origin" not in head.headers


@table(
    "origin",
    [
        *("", "a.example", "https://", "https://a.example/", "https://a.example/x", "https://a b"),
        *("https://*.a.example", "https://A.example", "HTTPS://a.example", "https://u@a.example"),
        *("https://a.example:443", "http://a.example:80", "https://a.example:0", "https://a:99999"),
        *("https://é.example", "https://a.example?x", "https://a.example#x", "NULL", "https://a:"),
        *(
            "https://a.example\r\nX: y",
            "https://a.example, https://b.example",
            "https://a.example\n",
        ),
    ],
)
def test_what_is_no_origin(origin: str) -> None:
    """What no browser sends is refused when the list is made, not ignored for ever."""
    with pytest.raises(ValueError, match=r"origin|port"):
        CORS([origin])


@table(
    "origin",
    ["http://localhost:5173", "http://[::1]:3000", "http://a:443", "https://a:80", "app://x-y_z"],
)
def test_what_is_an_origin(origin: str) -> None:
    """Names, addresses, other ports and other schemes are fine."""
    assert CORS([origin]).allows(origin)


@table(
    "origins, options",
    [
        (["*", GOOD], {}),
        (["*"], {"allow_credentials": True}),
        (GOOD, {}),
        ([GOOD], {"max_age": -1}),
        ([GOOD], {"max_age": True}),
        ([GOOD], {"allow_headers": ["a b"]}),
        ([GOOD], {"allow_methods": ["a,b"]}),
        ([GOOD], {"expose_headers": ["a\r\nb"]}),
        ([GOOD], {"allow_credentials": True, "allow_headers": ["*"]}),
    ],
)
def test_what_makes_no_sense_is_refused(origins: list[str], options: dict[str, object]) -> None:
    """Lists that can't work, or open more than they seem to, are errors at once."""
    with pytest.raises(ValueError, match=r".{10}"):
        CORS(origins, **options)  # type: ignore[arg-type]  # what isn't right is the point


@given(origin=st.text(max_size=30) | st.sampled_from(["https://a.example.", "https://a.examplE"]))
def test_only_what_is_listed_is_allowed(origin: str) -> None:
    """Whatever comes as origin, it is allowed only if it is the listed one to the letter."""
    cors = CORS([GOOD])
    assert cors.allows(origin) is (origin == GOOD)
    assert cors.lists(origin) is (origin == GOOD)


@given(text=st.text(max_size=40) | st.from_regex(r"https://[a-z.:/\r\n]*", fullmatch=True))
def test_what_is_accepted_can_be_sent(text: str) -> None:
    """An origin that was accepted holds nothing that could break a header."""
    try:
        accepted = check_origin(text)
    except ValueError:
        return
    assert accepted.isascii()
    assert accepted.isprintable()
    assert " " not in accepted


# -- in front, and behind other middleware


async def passing(_event: H3Event, next: Next) -> Response | None:  # noqa: A002 - the field's name for it
    """Do nothing."""
    return await next()


@pytest.mark.parametrize("behind", [False, True])
async def test_behind_other_middleware(nursery: trio.Nursery, *, behind: bool) -> None:
    """Wherever it stands, it marks answers, and answers or refuses preflights."""
    client = connect(nursery, make_app(CORS([GOOD]), behind=behind))
    for path, lines, method, status in (
        ("/plain", (), "GET", 200),
        ("/nowhere", (), "GET", 404),
        ("/plain", PREFLIGHT, "OPTIONS", 204),
    ):
        await client.send(request(path, f"Origin: {GOOD}", *lines, method=method))
        head, _ = await client.response()
        assert (head.status, head.headers["access-control-allow-origin"]) == (status, GOOD)
    await client.send(request("/plain", f"Origin: {OTHER}", *PREFLIGHT, method="OPTIONS"))
    assert (await client.response())[0].status == 403
    nursery.cancel_scope.cancel()


# -- the example

EXAMPLE = Path(__file__).parents[2] / "examples" / "cross_origin.py"


async def test_the_example(nursery: trio.Nursery) -> None:
    """`examples/cross_origin.py`: a page logs in, streams with its cookie, and logs out."""
    module = runpy.run_path(str(EXAMPLE))
    page = "Origin: http://localhost:5173"
    client = connect(nursery, module["app"])

    async def ask(path: str, *lines: str, method: str = "GET") -> Head:
        await client.send(request(path, *lines, method=method))
        return (await client.response())[0]

    assert (await ask("/login", method="POST")).status == 403
    assert (await ask("/events", page)).status == 401
    head = await ask("/login", page, method="POST")
    assert (head.status, head.headers["x-sessions"]) == (200, "1")
    assert head.headers["access-control-allow-credentials"] == "true"
    assert head.headers["access-control-expose-headers"] == "x-sessions"
    attributes = set(head.headers["set-cookie"].split("; ")[1:])
    assert attributes == {"max-age=3600", "path=/", "secure", "httponly", "samesite=lax"}
    (session,) = module["sessions"]
    cookie = f"Cookie: __Host-session={session}"
    head = await ask("/events", page, cookie)
    assert (head.status, head.headers["content-type"]) == (200, STREAM_TYPE)
    assert head.headers["content-security-policy"].startswith("default-src 'none'")
    assert head.headers["set-cookie"].startswith("last_seen=1;")
    assert "max-age=0" in (await ask("/logout", page, cookie, method="POST")).headers["set-cookie"]
    assert (await ask("/events", page, cookie)).status == 401
    nursery.cancel_scope.cancel()


async def test_who_comes_too_late_can_read_when_to_return(nursery: trio.Nursery) -> None:
    """What a server that goes away answers for the app is marked as the app's answers are."""
    client = connect(nursery, make_app(CORS([GOOD])))
    client.state.draining.set()
    client.state.is_closing = True
    await client.send(request("/stream", f"Origin: {GOOD}", "Accept: text/event-stream"))
    head = await client.head()
    assert head.status == 200
    assert head.headers["access-control-allow-origin"] == GOOD
    assert client.state.counts.limits == {"drain_soft": 1}
    nursery.cancel_scope.cancel()
