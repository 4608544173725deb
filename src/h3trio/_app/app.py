"""`App`: routes and middleware in front of handlers. Itself a handler.

A request passes the middleware, outermost first, and ends at a route, or at the 404 or 405 that is
raised where there is none: middleware sees those too. It gets a `Response` back, or `None` once a
stream is open, whatever the handler returned.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, TypeVar, final, runtime_checkable

from h3trio._http.errors import HTTPError, ResponseStateError
from h3trio._http.response import Response
from h3trio._server.callables import HANDLER, MIDDLEWARE, name_of, require_async, takes, waits
from h3trio._server.event import drop_stream, response_from

from .routing import Router, Unrouted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from h3trio._server.event import H3Event

    RouteHandler = Callable[["H3Event"], Awaitable[object]]
    Lifespan = Callable[[], AbstractAsyncContextManager[object]]

_F = TypeVar("_F", bound="RouteHandler")
_M = TypeVar("_M", bound="Middleware | Before")


class Next(Protocol):
    """The rest of the chain: `response = await next()`, `None` if it streamed."""

    async def __call__(self) -> Response | None: ...


class Middleware(Protocol):
    """`async def middleware(event, next)`: runs around every request, routed or not.

    It returns an answer, as a handler does, or `None` to leave that of `next()` as it is.
    """

    def __call__(self, event: H3Event, next: Next, /) -> Awaitable[object]: ...  # noqa: A002 - the field's name for it


@runtime_checkable
class Before(Protocol):
    """Middleware that has nothing to do once the handler runs, such as `CORS`.

    So a stream holds no coroutine of it.
    """

    def before(self, event: H3Event, /) -> Response | None:
        """Answer, or let the request go on by `None`, or raise `HTTPError`."""
        ...


@final
class App:
    """Routes a request to a handler.

    A pattern is exact (`/news`), has parameters (`/news/:topic`), or ends in `*` for the rest of
    the path. Handlers return `str`, `bytes`, `dict` or `list` (JSON), `Response`, or `None` (204),
    or they stream; they raise `HTTPError`.

    Args:
        lifespan: an async context manager function, entered around the serving: the place for
            objects that handlers share, such as a hub or a client.

    Raises:
        TypeError: the lifespan is a function that can't be entered.
    """

    def __init__(self, *, lifespan: Lifespan | None = None) -> None:
        _check_lifespan(lifespan)
        self._router: Router[RouteHandler] = Router()
        self._handlers: list[RouteHandler] = []
        # One of the two each; told apart here, as that is slow.
        self._steps: list[tuple[Before | None, Middleware | None]] = []
        self._lifespan = lifespan

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """Return the context that `serve` enters around the serving.

        Raises:
            TypeError: what the lifespan returned is none.
        """
        if self._lifespan is None:
            return contextlib.nullcontext()
        made: object = self._lifespan()
        if not isinstance(made, contextlib.AbstractAsyncContextManager):
            raise TypeError(
                f"the lifespan {name_of(self._lifespan)} returned {made!r}, which is no async "
                "context manager"
            )
        return made

    def __call__(self, event: H3Event) -> Awaitable[Response | None]:
        """Handle one request: `await app(event)`.

        Raises, when awaited:
            HTTPError: 404, 405, or as the handler does.
        """
        # Not `async`: its frame would last as long as the stream.
        return self._chain(event, 0)

    def _chain(self, event: H3Event, index: int) -> Awaitable[Response | None]:
        """Go on with the middleware of this index, or behind the last to the route."""
        for at in range(index, len(self._steps)):
            before, around = self._steps[at]
            if around is not None:
                return self._around(around, event, at + 1)
            if before is not None and (response := before.before(event)) is not None:
                return _ready(response)
        return self._dispatch(event)

    async def _around(self, middleware: Middleware, event: H3Event, index: int) -> Response | None:
        passed: Response | None = None

        async def following() -> Response | None:
            nonlocal passed
            try:
                passed = await self._chain(event, index)
            except BaseException as raised:
                drop_stream(event)  # middleware may answer instead
                error = None if isinstance(raised, HTTPError) else HTTPError.of(raised)
                if error is None:
                    raise
            else:
                return passed
            try:
                raise error
            finally:
                del error  # its traceback leads here

        result = await middleware(event, following)
        return passed if result is None and passed is not None else _answer(event, result)

    async def _dispatch(self, event: H3Event) -> Response | None:
        if event.is_closing:
            # Raised here, so that the middleware marks it: without the headers of CORS a page of
            # another site couldn't read when to come back.
            event.count_limit("drain_soft")
            raise HTTPError(503, "the server is going away")
        found = self._router.match(event.method, event.raw_path)
        if isinstance(found, Unrouted):
            allow = {"Allow": ", ".join(found.allow)} if found.allow else None
            # RFC 9110 section 9.3.7: for `*` it asks about the server as a whole, "a 'ping'".
            if event.method == "OPTIONS" and (allow or event.raw_path == b"*"):
                return Response(status=204, headers=allow)
            raise HTTPError(405 if allow else 404, headers=allow)
        event.params = found.params  # made for this request: a copy would be held as well
        return _answer(event, await found.handler(event))

    # -- for middleware that is for some routes

    @property
    def handlers(self) -> Sequence[RouteHandler]:
        """The handlers of all routes in the order of their registration; it grows with them."""
        return self._handlers

    def find_handler(self, method: str, raw_path: bytes) -> RouteHandler | None:
        """Return the handler that a request goes to; `None` without a route, which is 404 or 405.

        Args:
            method: in upper case.
            raw_path: as `H3Event.raw_path` has it.
        """
        found = self._router.match(method, raw_path)
        return None if isinstance(found, Unrouted) else found.handler

    # -- registration

    def use(self, middleware: _M) -> _M:
        """Add middleware; the first added is the outermost. Usable as a decorator.

        Raises:
            TypeError: it can't be called as middleware is, or isn't async.
        """
        if isinstance(middleware, Before) and not isinstance(middleware, type):
            _check_before(middleware)
            self._steps.append((middleware, None))
        else:
            require_async(middleware, MIDDLEWARE)
            self._steps.append((None, middleware))
        return middleware

    def get(self, pattern: str) -> Callable[[_F], _F]:
        """Route GET, and HEAD with it, to the decorated handler.

        Raises:
            TypeError: there is no pattern, or what is decorated can't be called with an event, or
                isn't async. So do the other methods.
            ValueError: the pattern can't be read, or is taken.
        """
        return self._route("GET", pattern)

    def post(self, pattern: str) -> Callable[[_F], _F]:
        """Route POST to the decorated handler."""
        return self._route("POST", pattern)

    def put(self, pattern: str) -> Callable[[_F], _F]:
        """Route PUT to the decorated handler."""
        return self._route("PUT", pattern)

    def patch(self, pattern: str) -> Callable[[_F], _F]:
        """Route PATCH to the decorated handler."""
        return self._route("PATCH", pattern)

    def delete(self, pattern: str) -> Callable[[_F], _F]:
        """Route DELETE to the decorated handler."""
        return self._route("DELETE", pattern)

    def head(self, pattern: str) -> Callable[[_F], _F]:
        """Route HEAD to the decorated handler, instead of GET's."""
        return self._route("HEAD", pattern)

    def options(self, pattern: str) -> Callable[[_F], _F]:
        """Route OPTIONS to the decorated handler, instead of the automatic answer."""
        return self._route("OPTIONS", pattern)

    def all(self, pattern: str) -> Callable[[_F], _F]:
        """Route every method to the decorated handler, where none has its own."""
        return self._route("all", pattern)

    def _route(self, method: str, pattern: str) -> Callable[[_F], _F]:
        if not isinstance(pattern, str):
            verb = f"@app.{method.lower()}"
            raise TypeError(f'{verb} needs a pattern, as in {verb}("/news"), not {pattern!r}')

        def register(handler: _F) -> _F:
            require_async(handler, HANDLER)
            self._router.add(method, pattern, handler)
            self._handlers.append(handler)
            return handler

        return register


def _check_lifespan(lifespan: object) -> None:
    if waits(lifespan):
        raise TypeError(
            f"{name_of(lifespan)} gives no async context manager: put "
            "`@contextlib.asynccontextmanager` on an `async def` with one `yield`"
        )
    if lifespan is not None and not (callable(lifespan) and takes(lifespan, 0)):
        raise TypeError(f"a lifespan is called without arguments, and {lifespan!r} can't be")


def _check_before(middleware: Before) -> None:
    before: object = middleware.before
    if waits(before) or not (callable(before) and takes(before, 1)):
        raise TypeError(
            f"{name_of(before)} is a `def` with (event), as nobody waits for it: middleware that "
            "waits is `async def` with (event, next)"
        )


async def _ready(response: Response) -> Response:
    return response


def _answer(event: H3Event, result: object) -> Response | None:
    """Make a response of what a handler or middleware returned; `None` after a stream."""
    response = response_from(event, result)
    if response is None and result is not None:
        raise ResponseStateError(
            f"what starts a stream returns None, and this returned {type(result).__name__}"
        )
    return response
