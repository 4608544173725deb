"""`require_async`, `refuse_async`: is what an application registers as it will be called?

A handler that can't be one is found where it is registered, and not by a 500 for each request. What
is looked at is the function that a call runs: behind `functools.partial`, of a bound method, or the
`__call__` of an object.

A `def` may return an awaitable, as a decorator's wrapper does, and nothing but its own word tells:
an annotation with `Awaitable` or `Coroutine` in it, or what `functools.wraps` copied from an
`async def`. Without that it is refused, as nearly always `async` was forgotten. A lambda has no
place for an annotation, and is believed.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import Final, NamedTuple, cast

_AWAITABLES: Final = ("Awaitable", "Coroutine")


class Shape(NamedTuple):
    """The way in which the server calls what it is given."""

    kind: str
    """The word for it: "a handler"."""
    parameters: tuple[str, ...]
    advice: str = ""
    """What to write instead where its arguments are others."""
    sender: str = "writer"
    """The name of what sends events, for who writes `yield`."""


HANDLER: Final = Shape(
    "a handler",
    ("event",),
    "the writer comes from `async with event.start_sse() as writer`, "
    'what the pattern `/x/:id` matched from `event.params["id"]`',
)
MIDDLEWARE: Final = Shape(
    "middleware", ("event", "next"), "`await next()` calls the rest and gives its response"
)
STREAM_CALLBACK: Final = Shape("a stream callback", ("writer",))


def require_async(given: object, shape: Shape) -> None:
    """See that something can be called as its shape says, and awaited.

    Raises:
        TypeError: it can't; the text says what to write instead.
    """
    count = len(shape.parameters)
    if isinstance(given, types.FunctionType):
        code = given.__code__
        # Nearly all are such, and a stream callback is looked at in each request.
        has_count = code.co_argcount == count and not code.co_kwonlyargcount
        if has_count and code.co_flags & inspect.CO_COROUTINE:
            return
    name = name_of(given)
    wanted = f"async def {name.rpartition('.')[2]}({', '.join(shape.parameters)})"
    if not callable(given):
        raise TypeError(f"{shape.kind} is a function, and {given!r} can't be called")
    if isinstance(given, type) and not hasattr(given, "__await__"):
        raise TypeError(f"{name} is a class: as {shape.kind} give an object of it")
    function = _function_of(given)
    if _yields(function):
        raise TypeError(
            f"{name} has a `yield`, and is a generator: as {shape.kind} write `{wanted}`. "
            f"To stream, send each event by `await {shape.sender}.send(...)` instead of `yield`"
        )
    if not _may_be_awaited(given, function):
        raise TypeError(
            f"{name} is a `def`, and the server awaits what {shape.kind} returns: write "
            f"`{wanted}`; what blocks goes to `await trio.to_thread.run_sync(...)`. (A `def` that "
            "returns an awaitable says so by its annotation: `-> Awaitable[object]`.)"
        )
    if not takes(given, count):
        advice = f"; {shape.advice}" if shape.advice else ""
        called = f"{shape.kind} is called with ({', '.join(shape.parameters)})"
        raise TypeError(f"{name} can't be called so: {called}{advice}")


def refuse_async(given: object, kind: str) -> None:
    """See that a function can be called where nobody awaits what it returns.

    `kind` is the word for it: "an on_close hook".

    Raises:
        TypeError: it can't be called, or its code runs only when it is awaited or iterated.
    """
    if not callable(given):
        raise TypeError(f"{kind} is a function, and {given!r} can't be called")
    if waits(given):
        name = name_of(given)
        raise TypeError(f"{name} is async or has a `yield`: {kind} is a `def`, nobody waits for it")


def waits(given: object) -> bool:
    """Whether the code of a function runs only when what it returns is awaited or iterated."""
    if not callable(given):
        return False
    function = given if isinstance(given, types.FunctionType) else _function_of(given)
    return inspect.iscoroutinefunction(function) or _yields(function)


def takes(given: object, count: int) -> bool:
    """Whether something can be called with so many positional arguments, as far as one can see."""
    try:
        # Not what a decorator wrapped: the wrapper is called.
        signature = inspect.signature(cast("types.FunctionType", given), follow_wrapped=False)
    except (TypeError, ValueError, NameError):  # such as functions written in C
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def name_of(given: object) -> str:
    """Name a function as its source does, also behind a partial; else as Python shows it."""
    while isinstance(given, functools.partial):
        given = cast("functools.partial[object]", given).func
    name: object = getattr(given, "__qualname__", None)
    return name.rpartition("<locals>.")[2] if isinstance(name, str) else repr(given)


def _function_of(given: object) -> object:
    """Return the function that a call runs; a function of C, or a class, as it is."""
    while not (inspect.isroutine(given) and not inspect.ismethod(given)):
        if isinstance(given, functools.partial):
            given = cast("functools.partial[object]", given).func
        elif isinstance(given, types.MethodType):
            given = given.__func__
        elif isinstance(given, type):
            break
        else:
            given = type(given).__call__
    return given


def _yields(function: object) -> bool:
    # `types.coroutine` makes a generator awaitable.
    is_old_coroutine = isinstance(function, types.FunctionType) and bool(
        function.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE
    )
    is_generator = inspect.isgeneratorfunction(function) and not is_old_coroutine
    return inspect.isasyncgenfunction(function) or is_generator


def _may_be_awaited(given: object, function: object) -> bool:
    if inspect.iscoroutinefunction(given) or not isinstance(function, types.FunctionType):
        return True
    if inspect.iscoroutinefunction(inspect.unwrap(function)) or function.__name__ == "<lambda>":
        return True
    if inspect.isgeneratorfunction(function):
        return True
    try:
        returned: object = function.__annotations__.get("return")
    except NameError:  # it is evaluated only now, and needs what only a type checker imports
        return True
    return any(word in str(returned) for word in _AWAITABLES)
