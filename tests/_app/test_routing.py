"""Routing: what a pattern takes, which route wins, and what a path that fits none is told.

The reference matcher at the end tries every route on its own and sorts what fits; the trie has to
agree with it on any set of routes and any path.
"""

from __future__ import annotations

import re
from typing import TypeAlias
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio._app.routing import Match, Router, Unrouted

Outcome: TypeAlias = Match[str] | Unrouted


def router(*routes: str) -> Router[str]:
    """Make a router of routes such as "GET /a/:b"; each is its own handler."""
    made: Router[str] = Router()
    for route in routes:
        method, _, pattern = route.partition(" ")
        made.add(method, pattern, route)
    return made


def found(made: Router[str], method: str, path: str) -> tuple[str, dict[str, str]]:
    """Return the route and parameters of a request that has a route."""
    match = made.match(method, path)
    assert isinstance(match, Match), match
    return match.handler, match.params


# -- what a pattern takes


@table(
    "pattern, path, params",
    [
        ("/", "/", {}),
        ("/a/b", "/a/b", {}),
        ("/a/", "/a/", {}),
        ("/a//b", "/a//b", {}),
        ("/café", "/caf%C3%A9", {}),
        ("/a b", "/a%20b", {}),
        ("/a", "/%61", {}),
        ("/:x", "/a", {"x": "a"}),
        ("/:x", "/caf%C3%A9", {"x": "café"}),
        ("/:x", "/a%2Fb", {"x": "a/b"}),
        ("/:x", "/100%25", {"x": "100%"}),
        ("/:x", "/%252F", {"x": "%2F"}),
        ("/:x", "/a+b", {"x": "a+b"}),
        ("/:x", "/*", {"x": "*"}),
        ("/:x", "/:x", {"x": ":x"}),
        ("/:x/b/:y_2", "/1/b/2", {"x": "1", "y_2": "2"}),
        ("/:x/", "/1/", {"x": "1"}),
        ("/a:b", "/a:b", {}),
        ("/*", "/", {"*": ""}),
        ("/*", "/a/b/", {"*": "a/b/"}),
        ("/events/*", "/events/", {"*": ""}),
        ("/events/*", "/events/news", {"*": "news"}),
        ("/events/*", "/events/a%2Fb/c", {"*": "a/b/c"}),
        ("/events/*", "/events//a//b//", {"*": "/a//b//"}),
        (
            "/events/*",
            "/events/https%3A%2F%2Fexample.com%2Fa%3Fb",
            {"*": "https://example.com/a?b"},
        ),
        ("/events/*", "/events/https://example.com/a%3Fb", {"*": "https://example.com/a?b"}),
        ("/:x/*", "/1/2/3", {"x": "1", "*": "2/3"}),
        ("/:x", "/%ff", {"x": "\ufffd"}),
        ("/:x", "/100%", {"x": "100%"}),
    ],
)
def test_pattern_takes_path(pattern: str, path: str, params: dict[str, str]) -> None:
    """A path that fits has its route, and parameters percent-decoded once."""
    made = router(f"GET {pattern}")
    expected = Match(f"GET {pattern}", params, pattern)
    assert made.match("GET", path) == expected
    assert made.match("GET", path.encode()) == expected


@table(
    "pattern, path",
    [
        ("/", ""),
        ("/", "//"),
        ("/", "*"),
        ("/a", "/a/"),
        ("/a/", "/a"),
        ("/a", "/A"),
        ("/a", "a"),
        ("/a", "//a"),
        ("/a/b", "/a%2Fb"),
        ("/a/b", "/a"),
        ("/a/b", "/a/b/c"),
        ("/a/b", "/a/./b"),
        ("/a/b", "/a/c/../b"),
        ("/:x", "/"),
        ("/:x", "/a/b"),
        ("/:x", "/a/"),
        ("/:x/b", "//b"),
        ("/a/:x", "/a/"),
        ("/events/*", "/events"),
        ("/events/*", "/eventsx/"),
        ("/events/*", "/"),
        ("/:x/*", "//a"),
        ("/*", "*"),
    ],
)
def test_pattern_leaves_path(pattern: str, path: str) -> None:
    """A path that doesn't fit is not found: nothing is normalised, and parameters aren't empty."""
    made = router(f"GET {pattern}")
    assert made.match("GET", path) == Unrouted()
    assert made.match("GET", path.encode()) == Unrouted()


def test_a_router_without_routes_finds_nothing() -> None:
    """An empty router answers every path."""
    assert [Router[str]().match("GET", path) for path in ("", "/", "/a/b")] == [Unrouted()] * 3


def test_bytes_that_are_not_utf_8_are_no_error() -> None:
    """Whatever the bytes of a path, there is an answer."""
    match = router("GET /:x").match("GET", b"/\xff")
    assert isinstance(match, Match)
    assert match.params == {"x": "\ufffd"}


# -- which route wins


def test_exact_wins_over_param_over_star() -> None:
    """The most specific route has the path, whatever the order of registration."""
    made = router("GET /*", "GET /:x", "GET /a")
    assert found(made, "GET", "/a") == ("GET /a", {})
    assert found(made, "GET", "/%61") == ("GET /a", {})
    assert found(made, "GET", "/b") == ("GET /:x", {"x": "b"})
    assert found(made, "GET", "/") == ("GET /*", {"*": ""})
    assert found(made, "GET", "/a/b") == ("GET /*", {"*": "a/b"})


def test_the_leftmost_segment_decides() -> None:
    """An exact segment further left outweighs any number further right."""
    made = router("GET /:x/b/c", "GET /a/:y/:z", "GET /a/*")
    assert found(made, "GET", "/a/b/c") == ("GET /a/:y/:z", {"y": "b", "z": "c"})
    assert found(made, "GET", "/a/b") == ("GET /a/*", {"*": "b"})
    assert found(made, "GET", "/z/b/c") == ("GET /:x/b/c", {"x": "z"})


def test_a_less_specific_branch_is_still_found() -> None:
    """A more specific branch that leads nowhere doesn't hide another."""
    made = router("GET /a/b/c", "GET /a/:x/d", "GET /:y/b/e", "GET /*")
    assert found(made, "GET", "/a/b/d") == ("GET /a/:x/d", {"x": "b"})
    assert found(made, "GET", "/a/b/e") == ("GET /:y/b/e", {"y": "a"})
    assert found(made, "GET", "/a/b/f") == ("GET /*", {"*": "a/b/f"})


def test_a_less_specific_route_is_found_by_its_method() -> None:
    """The most specific route that has the method wins, an exact one without it does not."""
    made = router("GET /a", "POST /:x", "DELETE /*")
    assert found(made, "POST", "/a") == ("POST /:x", {"x": "a"})
    assert found(made, "DELETE", "/a") == ("DELETE /*", {"*": "a"})


def test_routes_that_share_a_shape_keep_their_names() -> None:
    """Parameter names belong to the route, not to the position."""
    made = router("GET /:id", "POST /:name", "GET /:user/x")
    assert found(made, "GET", "/1") == ("GET /:id", {"id": "1"})
    assert found(made, "POST", "/1") == ("POST /:name", {"name": "1"})
    assert found(made, "GET", "/1/x") == ("GET /:user/x", {"user": "1"})


def test_the_match_says_which_pattern() -> None:
    """The pattern comes back as registered, for logs and metrics."""
    match = router("GET /news/:topic").match("GET", "/news/a")
    assert isinstance(match, Match)
    assert match.pattern == "/news/:topic"


# -- methods


@table("method", ["GET", "HEAD", "POST", "OPTIONS", "QUERY", "all", "x"])
def test_all_takes_every_method(method: str) -> None:
    """A route for "all" has any method a client can send."""
    assert found(router("all /a"), method, "/a") == ("all /a", {})


def test_a_method_of_its_own_wins_over_all() -> None:
    """On the same pattern, a route for the method goes before one for every method."""
    made = router("all /a", "GET /a", "all /:x", "POST /:x")
    assert found(made, "GET", "/a") == ("GET /a", {})
    assert found(made, "POST", "/a") == ("all /a", {})
    assert found(made, "POST", "/b") == ("POST /:x", {"x": "b"})


@pytest.mark.parametrize("pattern", ["/a", "/:x", "/*"])
def test_head_falls_back_to_get(pattern: str) -> None:
    """HEAD goes to its own route, else to that for GET, else to that for every method."""
    made = router(f"all {pattern}")
    assert found(made, "HEAD", "/a")[0] == f"all {pattern}"
    made.add("GET", pattern, "get")
    assert found(made, "HEAD", "/a")[0] == "get"
    made.add("HEAD", pattern, "head")
    assert found(made, "HEAD", "/a")[0] == "head"
    assert found(made, "GET", "/a")[0] == "get"


def test_methods_are_case_sensitive() -> None:
    """`get` is another method than `GET`, as HTTP says."""
    assert router("GET /a").match("get", "/a") == Unrouted(("GET", "HEAD", "OPTIONS"))


def test_allow_has_the_methods_of_every_route_for_the_path() -> None:
    """Less specific routes count, HEAD comes with GET, and OPTIONS always."""
    made = router("POST /a/b", "PUT /a/:x", "DELETE /:y/b", "PATCH /*", "QUERY /z")
    assert made.match("GET", "/a/b") == Unrouted(("DELETE", "OPTIONS", "PATCH", "POST", "PUT"))
    assert made.match("GET", "/a/c") == Unrouted(("OPTIONS", "PATCH", "PUT"))
    made.add("GET", "/a/b", "get")
    assert made.match("TRACE", "/a/b") == Unrouted(
        ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
    )


# -- registration


@table(
    "first, second",
    [
        ("GET /a", "GET /a"),
        ("GET /", "GET /"),
        ("GET /:a", "GET /:b"),
        ("GET /*", "GET /*"),
        ("all /a/:x/*", "all /a/:y/*"),
    ],
)
def test_a_second_route_of_the_same_shape_is_refused(first: str, second: str) -> None:
    """Two routes for the same requests are an error, which names both; the first stays."""
    made = router(first)
    method, second_pattern = second.split()
    first_pattern = first.removeprefix(f"{method} ")
    message = re.escape(f"{second_pattern!r} is taken by {first_pattern!r} of {first!r}")
    with pytest.raises(ValueError, match=message):
        made.add(method, second_pattern, "second")
    assert found(made, "GET", first_pattern)[0] == first


@table(
    "pattern, message",
    [
        ("", 'does not start with "/"'),
        ("a", 'does not start with "/"'),
        ("*", 'does not start with "/"'),
        ("/:", "is not a colon and an ASCII identifier"),
        ("/:/a", "is not a colon and an ASCII identifier"),
        ("/:a.json", "':a.json' is not a colon and an ASCII identifier"),
        ("/:1", "is not a colon and an ASCII identifier"),
        ("/:a*", "is not a colon and an ASCII identifier"),
        ("/:é", "is not a colon and an ASCII identifier"),
        ("/:a\n", "is not a colon and an ASCII identifier"),
        ("/:a/:a", "uses a parameter name twice"),
        ("/*/a", '"*" is a whole segment, and the last'),
        ("/*/", '"*" is a whole segment, and the last'),
        ("/*/*", '"*" is a whole segment, and the last'),
        ("/**", '"*" is a whole segment, and the last'),
        ("/*name", '"*" is a whole segment, and the last'),
        ("/a*", '"*" is a whole segment, and the last'),
        ("/a*/b", '"*" is a whole segment, and the last'),
        ("/caf%C3%A9", "holds '%': write the path alone, decoded"),
        ("/a?b=1", "holds '?': write the path alone, decoded"),
        ("/a#b", "holds '#': write the path alone, decoded"),
        ("/items/{id}", 'write a parameter as ":name", as in "/news/:topic"'),
        ("/items/{id:int}/x", 'write a parameter as ":name"'),
        ("/items/<id>", 'write a parameter as ":name"'),
        ("/items/<int:id>", 'write a parameter as ":name"'),
        ("/items/x{id}", 'write a parameter as ":name"'),
    ],
)
def test_a_pattern_that_cannot_be_read_is_refused(pattern: str, message: str) -> None:
    """A mistake in a pattern is an error when it is registered, and names the pattern."""
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        Router[str]().add("GET", pattern, "x")
    assert repr(pattern) in str(caught.value)


@table("method", ["get", "Get", "", "GET ", "G T", "GÉT", "ALL", "All", "GET\n"])
def test_a_method_that_no_client_sends_is_refused(method: str) -> None:
    """A method is an upper-case token, or "all"."""
    with pytest.raises(ValueError, match=re.escape(f"method {method!r}")):
        Router[str]().add(method, "/", "x")


# -- cost


class CountingMethod(str):
    """A method that counts in how many tables of routes it was looked for."""

    __slots__ = ("looked_up",)

    def __init__(self, _: str) -> None:
        self.looked_up = 0

    def __hash__(self) -> int:
        self.looked_up += 1
        return super().__hash__()


def test_a_look_up_visits_each_node_once() -> None:
    """With every branch open at each of nine segments, every route that fits is met once."""
    depth = 9
    made: Router[int] = Router()
    for number in range(2**depth):
        bits = f"{number:0{depth}b}"
        pattern = "".join(f"/:p{i}" if bit == "1" else "/a" for i, bit in enumerate(bits))
        made.add(f"M{number}", pattern, number)
    method = CountingMethod("GET")
    outcome = made.match(method, "/a" * depth)
    assert isinstance(outcome, Unrouted)
    assert len(outcome.allow) == 2**depth + 1
    assert method.looked_up == 1 + 2**depth  # the dict in front, then the trie
    assert made.match(method, "/a" * (depth + 1)) == Unrouted()
    assert method.looked_up == 1 + 2**depth


def test_a_long_path_costs_no_more_than_the_routes_are_deep() -> None:
    """A path of many segments is neither recursed into nor lost."""
    rest = "a/" * 10_000
    made = router("GET /x/*", "GET /:a/:b/:c")
    assert found(made, "GET", "/x/" + rest) == ("GET /x/*", {"*": rest})
    assert made.match("GET", "/y/" + rest) == Unrouted()


# -- against a reference

LITERALS = ["a", "b", "a/b", "", "é"]
segments_of_routes = st.lists(st.sampled_from(["a", "b", "", "é", ":"]), min_size=1, max_size=4)
methods = st.sampled_from(["GET", "HEAD", "POST", "all"])
paths = st.lists(st.sampled_from(LITERALS), min_size=1, max_size=5).map(
    lambda parts: "".join("/" + quote(part, safe="") for part in parts)
)


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """Draw a pattern; its parameters are named by their position, or by another name."""
    prefix = draw(st.sampled_from("pq"))
    segments = draw(segments_of_routes)
    named = [f":{prefix}{i}" if s == ":" else s for i, s in enumerate(segments)]
    return "/" + "/".join(named + draw(st.sampled_from([[], ["*"]])))


def naive_params(pattern: str, path: str) -> dict[str, str] | None:
    """Return what the pattern takes from the path, None if it doesn't fit."""
    wanted, given_ = pattern.split("/"), path.split("/")
    params = {}
    if wanted[-1] == "*":
        if len(given_) < len(wanted):
            return None
        params["*"] = unquote("/".join(given_[len(wanted) - 1 :]))
        wanted.pop()
        given_ = given_[: len(wanted)]
    if len(wanted) != len(given_):
        return None
    for want, got in zip(wanted, map(unquote, given_), strict=True):
        if want.startswith(":") and got:
            params[want[1:]] = got
        elif want != got:
            return None
    return params


def specificity(pattern: str) -> list[int]:
    """Sort key: exact before parameter before star, decided from the left."""
    return [2 if s == "*" else 1 if s.startswith(":") else 0 for s in pattern.split("/")]


def naive_match(routes: list[tuple[str, str]], method: str, path: str) -> Outcome:
    """Try every route on its own, then take the most specific."""
    fitting = [(m, p, params) for m, p in routes if (params := naive_params(p, path)) is not None]
    accepted = [method, "GET", "all"] if method == "HEAD" else [method, "all"]
    best = sorted(
        (specificity(p), accepted.index(m), m, p, params)
        for m, p, params in fitting
        if m in accepted
    )
    if best:
        _, _, m, p, params = best[0]
        return Match(f"{m} {p}", params, p)
    if not fitting:
        return Unrouted()
    allow = {m for m, _, _ in fitting} | {"OPTIONS"}
    return Unrouted(tuple(sorted(allow | ({"HEAD"} if "GET" in allow else set()))))


@given(st.lists(st.tuples(methods, patterns()), max_size=9), methods, st.sets(paths, max_size=4))
def test_router_agrees_with_the_reference(
    drawn: list[tuple[str, str]], method: str, requests: set[str]
) -> None:
    """On any set of routes, the trie and a matcher that tries them one by one agree."""
    made: Router[str] = Router()
    routes: list[tuple[str, str]] = []
    shapes: set[tuple[str, str]] = set()
    for route_method, pattern in drawn:
        shape = route_method, re.sub(":[pq]", ":", pattern)
        if shape in shapes:
            with pytest.raises(ValueError, match="is taken by"):
                made.add(route_method, pattern, "second")
            continue
        made.add(route_method, pattern, f"{route_method} {pattern}")
        shapes.add(shape)
        routes.append((route_method, pattern))
    for path in requests:
        assert made.match(method, path) == naive_match(routes, method, path)


@given(st.binary(max_size=30), st.text(max_size=5))
def test_any_path_and_method_has_an_answer(path: bytes, method: str) -> None:
    """No bytes of a path and no method are an error."""
    made = router("GET /", "GET /:x/a", "POST /*")
    assert isinstance(made.match(method, path), Match | Unrouted)
