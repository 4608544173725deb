"""What may be registered: all that can be called and awaited, and nothing that surely can't."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

import pytest
import trio
from tables import table

from h3trio import App, H3Event, SSEWriter, serve
from h3trio._server.callables import HANDLER, require_async
from h3trio.testing import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

# Functions without annotations, as people write them who use no type checker.
SOURCES = """
async def plain(event): return "x"
async def optional(event, limit=3, *, debug=False): return "x"
async def anything(*args, **kwargs): return "x"
async def extra(limit, event): return "x"
def sync(event): return "x"
def sync_typed(event) -> "str": return "x"
def generator(event): yield "x"
async def async_generator(event): yield "x"
async def nothing(): return "x"
async def two(event, writer): return "x"
async def by_name(*, event): return "x"
async def by_name_too(event, *, user): return "x"
def promise(event) -> "Awaitable[str]": return plain(event)
def unsaid(event): return plain(event)
same = lambda event: plain(event)
pair = lambda event, writer: plain(event)

class Methods:
    async def handle(self, event): return "x"
    async def no_event(self): return "x"
    def sync(self, event): return "x"
    async def yields(self, event): yield "x"
    @classmethod
    async def of_class(cls, event): return "x"
    @staticmethod
    async def static(event): return "x"

class Callable:
    async def __call__(self, event): return "x"

class Sync:
    def __call__(self, event): return "x"

class Promise:
    def __call__(self, event) -> "Awaitable[str]": return plain(event)

class Yields:
    async def __call__(self, event): yield "x"

class NoEvent:
    async def __call__(self): return "x"
"""
NAMES: dict[str, Any] = {}
exec(SOURCES, NAMES)  # noqa: S102 - the text above
METHODS = NAMES["Methods"]()


def log(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function in a `def`, as decorators do."""

    @functools.wraps(function)
    def wrapper(*args: object) -> Any:  # noqa: ANN401 - as decorators of others are
        return function(*args)

    return wrapper


def give_user(function: Callable[..., Awaitable[object]]) -> Callable[..., Any]:
    """Wrap a function of two arguments in one of one."""

    @functools.wraps(function)
    async def wrapper(event: H3Event) -> object:
        return await function(event, "user")

    return wrapper


@types.coroutine
def old_style(_event: object) -> Any:  # noqa: ANN401 - a generator that is awaited
    """Wait in the way of before `async def`."""
    yield from trio.lowlevel.checkpoint().__await__()  # noqa: ASYNC105 - as `await` does


GOOD: dict[str, Any] = {
    **{name: NAMES[name] for name in ("plain", "optional", "anything", "promise", "same")},
    "partial": functools.partial(NAMES["extra"], 3),
    "partial by name": functools.partial(NAMES["by_name_too"], user="me"),
    "partial of a partial": functools.partial(functools.partial(NAMES["two"]), writer=3),
    "method": METHODS.handle,
    "class method": METHODS.of_class,
    "static method": METHODS.static,
    "partial of a method": functools.partial(METHODS.handle),
    "callable": NAMES["Callable"](),
    "callable that promises": NAMES["Promise"](),
    "decorated": log(NAMES["plain"]),
    "decorated twice": log(log(NAMES["plain"])),
    "decorated, with other arguments": give_user(NAMES["two"]),
    "app": App(),
    "old style": old_style,
    "C function": [].append,
}
BAD: dict[str, Any] = {
    **{name: NAMES[name] for name in ("sync", "sync_typed", "generator", "async_generator")},
    **{name: NAMES[name] for name in ("nothing", "two", "by_name", "by_name_too", "unsaid")},
    "partial of a def": functools.partial(NAMES["sync"]),
    "partial with too much": functools.partial(NAMES["plain"], 3),
    "method without an event": METHODS.no_event,
    "sync method": METHODS.sync,
    "method that yields": METHODS.yields,
    "callable that is sync": NAMES["Sync"](),
    "callable that yields": NAMES["Yields"](),
    "callable without an event": NAMES["NoEvent"](),
    "decorated def": log(NAMES["sync"]),
    "decorated generator": log(NAMES["async_generator"]),
    "class": NAMES["Callable"],
    "lambda": NAMES["pair"],
    "number": 3,
    "nothing at all": None,
}


@table("name", GOOD)
def test_what_can_be_awaited(name: str) -> None:
    """Functions, partials, methods, objects and wrappers of these are handlers."""
    require_async(GOOD[name], HANDLER)
    assert App().get("/")(GOOD[name]) is GOOD[name]


@table("name", BAD)
def test_what_cannot_be_awaited(name: str) -> None:
    """What fails whenever it is called is refused, with its name in the text."""
    app = App()
    with pytest.raises(TypeError) as caught:
        app.get("/")(BAD[name])
    assert (name if name in NAMES else "") in str(caught.value)


@table(
    "name, advice",
    [
        ("sync", r"write `async def sync\(event\)`"),
        ("async_generator", r"`await writer.send\(...\)` instead of `yield`"),
        ("two", r"called with \(event\); the writer comes from `async with event.start_sse\(\)"),
        ("two", r'matched from `event.params\["id"\]`'),
        ("unsaid", "-> Awaitable"),
        ("class", "give an object of it"),
        ("partial of a def", r"^sync is a `def`.* `async def sync\(event\)`"),
        ("number", "3 can't be called"),
    ],
)
def test_advice(name: str, advice: str) -> None:
    """A refusal says what to write instead."""
    with pytest.raises(TypeError, match=advice):
        require_async(BAD[name], HANDLER)


@table(
    "hook, good",
    [
        (NAMES["sync"], True),
        (METHODS.sync, True),
        (NAMES["Sync"](), True),
        ([].append, True),
        (print, True),
        (NAMES["Callable"], True),  # making an object of it runs its code
        (NAMES["plain"], False),
        (functools.partial(NAMES["extra"], 3), False),
        (METHODS.handle, False),
        (METHODS.of_class, False),
        (NAMES["Callable"](), False),
        (NAMES["generator"], False),
        (NAMES["async_generator"], False),
        (METHODS.yields, False),
        (functools.partial(NAMES["Yields"]()), False),
        (3, False),
        (None, False),
    ],
)
async def test_hooks(hook: Any, *, good: bool) -> None:  # noqa: ANN401 - of any shape
    """A hook that nobody would wait for is refused where it is given, and the handler hears it."""
    heard: list[str] = []

    async def handler(event: H3Event) -> None:
        for register in (event.on_head, event.on_close):
            try:
                register(hook)
            except TypeError as exc:
                heard.append(str(exc))

    async with connect(handler, "/"):
        pass
    assert len(heard) == (0 if good else 2)


async def test_where_handlers_come_in() -> None:
    """`serve` and the client for tests refuse what is no handler, before anything is opened."""
    sync: Any = NAMES["sync"]
    with pytest.raises(TypeError, match="async def sync"):
        await serve(sync, port=0)
    with pytest.raises(TypeError, match="async def sync"):
        connect(sync, "/")


@table(
    "callback, good",
    [
        (NAMES["plain"], True),
        (METHODS.handle, True),
        (functools.partial(NAMES["two"], 3), True),
        (lambda writer: writer.send("x"), True),
        (SSEWriter.flush, True),
        (NAMES["sync"], False),
        (NAMES["async_generator"], False),
        (NAMES["two"], False),
        (NAMES["nothing"], False),
        (3, False),
    ],
)
async def test_stream_callbacks(callback: Any, *, good: bool) -> None:  # noqa: ANN401 - of any shape
    """A stream callback is looked at where it is set, and the handler hears of it."""
    heard: list[str] = []

    async def handler(event: H3Event) -> None:
        event.start_sse()
        try:
            event.set_stream_callback(callback)
        except TypeError as exc:
            heard.append(str(exc))
            event.set_stream_callback(SSEWriter.flush)

    async with connect(handler, "/"):
        pass
    assert bool(heard) is not good


def middlewares() -> tuple[list[object], list[object]]:
    """Make middleware that can be called, and what can't."""

    async def one(_event: object) -> None: ...

    async def three(_event: object, _following: object, _more: object) -> None: ...

    def sync(_event: object, following: Callable[[], object]) -> object:
        return following()

    def promise(_event: object, following: Callable[[], Any]) -> Coroutine[Any, Any, object]:
        return following()  # type: ignore[no-any-return]  # it is of any type

    class Waits:
        async def before(self, _event: object) -> None: ...

    class Before:
        def before(self, _event: object) -> None: ...

    class Two:
        def before(self, _event: object, _following: object) -> None: ...

    class Yields:
        async def __call__(self, _event: object, _following: object) -> Any:  # noqa: ANN401 - a generator
            yield

    good: list[object] = [
        NAMES["two"],
        NAMES["anything"],
        promise,
        Before(),
        functools.partial(three, 1),
    ]
    bad: list[object] = [one, three, sync, Waits(), Before, Two(), Yields(), 3]
    return good, bad


def test_middleware() -> None:
    """Middleware of the wrong shape is refused by `use`, an object with `before` too."""
    good, bad = middlewares()
    for each in good:
        App().use(each)  # type: ignore[type-var]  # of any shape
    for each in bad:
        with pytest.raises(TypeError):
            App().use(each)  # type: ignore[type-var]  # of any shape


def test_lifespans() -> None:
    """A lifespan that isn't made by `asynccontextmanager` is refused."""

    async def generator() -> Any:  # noqa: ANN401 - a generator
        yield

    async def coroutine() -> None: ...

    for each in (generator, coroutine, NAMES["generator"], NAMES["plain"], 3):
        with pytest.raises(TypeError):
            App(lifespan=each)  # type: ignore[arg-type]  # of any shape


@table("verb", ["get", "post", "put", "patch", "delete", "head", "options", "all"])
def test_a_route_without_a_pattern(verb: str) -> None:
    """A decorator without its pattern is refused, and shows how it is written."""
    with pytest.raises(
        TypeError, match=rf'@app.{verb} needs a pattern, as in @app.{verb}\("/news"\)'
    ):
        getattr(App(), verb)(NAMES["plain"])
