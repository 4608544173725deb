"""`Router`: finds the handler of a method and a path.

Strategy: a trie of segments, behind a dict for paths without parameters. A path is split at its
`/` *before* it is percent-decoded, so `%2F` never splits a segment, and nothing is normalised: a
trailing slash, `//` and `..` all count as they stand. The most specific route that has the method
wins, segment by segment from the left: exact, then `:param`, then `*`. A less specific branch is
still tried when a more specific one leads nowhere. As a node has one parent, a look-up visits it
at most once: the routes bound the cost, and not the path that a client sends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar, final

from h3trio._http.headers import is_token, unescape_text
from h3trio._server.callables import name_of

H = TypeVar("H")

ANY_METHOD: Final = "all"
"""The method of a route that takes every method."""

_PARAM: Final = re.compile(r":[A-Za-z_][A-Za-z0-9_]*")
_STAR: Final = "*"


@final
class Match(NamedTuple, Generic[H]):
    """The route that a request goes to."""

    handler: H
    params: dict[str, str]
    """The percent-decoded value of each `:name`, and of a final `*` under `"*"`."""
    pattern: str
    """The route as registered: a label with few values for logs and metrics."""


@final
@dataclass(frozen=True, slots=True)
class Unrouted:
    """The answer that no route has this path and method."""

    allow: tuple[str, ...] = ()
    """The methods that routes of this path have, for the `Allow` header of a 405; none for 404."""


@final
@dataclass(frozen=True, slots=True)
class _Route(Generic[H]):
    handler: H
    pattern: str
    names: tuple[tuple[int, str], ...]
    """Index of the segment, name of the parameter: routes that share a node may differ in names."""

    def match(self, segments: list[str]) -> Match[H]:
        params: dict[str, str] = {}
        for index, name in self.names:
            if name == _STAR:
                # The rest of the raw path is decoded whole and as it was: with `/`, `//`, `%2F`.
                params[name] = _decode("/".join(segments[index:]))
            else:
                params[name] = _decode(segments[index])
        return Match(self.handler, params, self.pattern)


_Routes: TypeAlias = "dict[str, _Route[H]]"  # by method


@final
class _Node(Generic[H]):
    def __init__(self) -> None:
        self.static: dict[str, _Node[H]] = {}
        self.param: _Node[H] | None = None
        self.star: _Node[H] | None = None
        self.routes: _Routes[H] = {}

    def child(self, segment: str) -> _Node[H]:
        """Return the node for one segment of a pattern, made if need be."""
        if segment == _STAR:
            self.star = self.star or _Node()
            return self.star
        if segment.startswith(":"):
            self.param = self.param or _Node()
            return self.param
        return self.static.setdefault(segment, _Node())


@final
class Router(Generic[H]):
    """Routes, each a method, a pattern and a handler of any type.

    A pattern starts with `/`. A segment is literal text, decoded (`/café`, not `/caf%C3%A9`) and
    without `{}<>`, or `:name`, which takes one segment that isn't empty. The last may be `*`, which
    takes the rest of the path, slashes included: `/files/*` has `/files/`, but not `/files`.
    """

    def __init__(self) -> None:
        self._root: _Node[H] = _Node()
        self._exact: dict[str, _Routes[H]] = {}
        self._depth = 0

    def add(self, method: str, pattern: str, handler: H) -> None:
        """Register a route for one method (upper case), or `"all"` for every method.

        Raises:
            ValueError: a method that is not an upper-case token, a pattern that can't be read, or a
                second route with the same method and shape (`/:a` and `/:b` are the same).
        """
        _check_method(method)
        segments = _split_pattern(pattern)
        node = self._root
        for segment in segments:
            node = node.child(segment)
        if method in node.routes:
            there = node.routes[method]
            by = f"{there.pattern!r} of {name_of(there.handler)}"
            raise ValueError(f"{method} {pattern!r} is taken by {by}")
        names = tuple((i, s.removeprefix(":")) for i, s in enumerate(segments) if _is_param(s))
        node.routes[method] = _Route(handler, pattern, names)
        self._depth = max(self._depth, len(segments))
        if not names:
            self._exact[pattern] = node.routes

    def match(self, method: str, raw_path: bytes | str) -> Match[H] | Unrouted:
        """Return the route of a request.

        `raw_path` is the path as sent, percent-encoded and without the query. `HEAD` goes to the
        route for `GET` where there is none of its own. `OPTIONS` is in every `allow`, for the
        caller to answer. Bytes that are not UTF-8 become U+FFFD. Raises nothing.
        """
        path = raw_path if isinstance(raw_path, str) else raw_path.decode("utf-8", "replace")
        # Exact is the most specific. No pattern holds a "%", so nor does a path found here.
        exact = self._exact.get(path)
        if exact is not None and (route := _pick(exact, method)):
            return Match(route.handler, {}, route.pattern)
        if not path.startswith("/"):
            return Unrouted()
        # At most one segment more than any pattern has; the last one keeps its slashes.
        segments = path[1:].split("/", self._depth)
        # Patterns are written decoded.
        decoded = [*map(_decode, segments)] if "%" in path else segments
        allow: set[str] = set()
        end = len(segments)
        # Depth first: the most specific is pushed last, and tried first.
        stack: list[tuple[_Node[H], int]] = [(self._root, 0)]
        while stack:
            node, index = stack.pop()
            if index == end:
                if route := _pick(node.routes, method):
                    return route.match(segments)
                allow.update(node.routes)
                continue
            if node.star is not None:
                stack.append((node.star, end))
            if node.param is not None and segments[index]:
                stack.append((node.param, index + 1))
            if (static := node.static.get(decoded[index])) is not None:
                stack.append((static, index + 1))
        if allow:
            allow.update(("HEAD", "OPTIONS") if "GET" in allow else ("OPTIONS",))
        return Unrouted(tuple(sorted(allow)))


def _pick(routes: _Routes[H], method: str) -> _Route[H] | None:
    route = routes.get(method)
    if route is None and method == "HEAD":
        route = routes.get("GET")
    return route or routes.get(ANY_METHOD)


def _is_param(segment: str) -> bool:
    return segment == _STAR or segment.startswith(":")


def _decode(segment: str) -> str:
    return unescape_text(segment.encode("utf-8", "replace")) if "%" in segment else segment


def _check_method(method: str) -> None:
    # RFC 9110 §9.1: a method is a case-sensitive token, by convention in upper case. A lower-case
    # one is a slip.
    is_method = is_token(method) and method == method.upper() != ANY_METHOD.upper()
    if method != ANY_METHOD and not is_method:
        raise ValueError(
            f'method {method!r}: write upper case, as in "GET", or "{ANY_METHOD}" for every one'
        )


def _split_pattern(pattern: str) -> list[str]:
    if not pattern.startswith("/"):
        raise ValueError(f'pattern {pattern!r} does not start with "/"')
    if bad := next((char for char in "%?#" if char in pattern), None):
        raise ValueError(f"pattern {pattern!r} holds {bad!r}: write the path alone, decoded")
    if any(char in pattern for char in "{}<>"):
        # No path holds them but percent-encoded, and other frameworks write parameters so.
        raise ValueError(f'pattern {pattern!r}: write a parameter as ":name", as in "/news/:topic"')
    segments = pattern[1:].split("/")
    params = [segment for segment in segments if segment.startswith(":")]
    if bad := next((param for param in params if not _PARAM.fullmatch(param)), None):
        raise ValueError(f"pattern {pattern!r}: {bad!r} is not a colon and an ASCII identifier")
    if len(set(params)) != len(params):
        raise ValueError(f"pattern {pattern!r} uses a parameter name twice")
    if _STAR in "/".join(segments[:-1]) or (_STAR in segments[-1] and segments[-1] != _STAR):
        raise ValueError(f'pattern {pattern!r}: "*" is a whole segment, and the last')
    return segments
