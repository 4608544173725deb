"""`table`: the rows of a table as one test, each row that fails as a subtest of its own.

A test costs pytest a thousand times what it takes to compare two values, and a subtest about half
of that where the tests run on several cores, for its report. So a row that holds isn't reported.
Use `pytest.mark.parametrize` where a row is worth a name: for implementations, not for values.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    Test: TypeAlias = Callable[..., Any]


def table(names: str, rows: Iterable[Any]) -> Callable[[Test], Test]:
    """Run a test for each row, with the row's values as arguments.

    The rows share one test: its fixtures (each row has a `nursery` of its own), its event loop, its
    time. Those behind a row that fails run all the same. Tables in front of a test are multiplied.

    Args:
        names: of the arguments: `"given, wanted"`.
        rows: a tuple of their values each; the bare value where there is one name.
    """
    keys = names.replace(",", " ").split()
    own = [dict(zip(keys, row if len(keys) > 1 else (row,), strict=True)) for row in rows]
    assert own, "a test without rows can't fail"

    def decorate(decorated: Test) -> Test:
        test = inspect.unwrap(decorated)
        others: list[dict[str, Any]] = getattr(decorated, "cases", [{}])
        cases = [{**one, **other} for one in own for other in others]

        async def run_in_trio(subtests: pytest.Subtests, **fixtures: object) -> None:
            for case in cases:
                with failing(subtests, case):
                    await run_alone(functools.partial(test, **case), fixtures)

        def run(subtests: pytest.Subtests, **fixtures: object) -> None:
            for case in cases:
                with failing(subtests, case):
                    test(**case, **fixtures)

        made: Test = run_in_trio if inspect.iscoroutinefunction(test) else run
        parameters = [inspect.signature(run).parameters["subtests"]]
        asked = inspect.signature(test).parameters.values()
        parameters += [parameter for parameter in asked if parameter.name not in cases[0]]
        functools.update_wrapper(made, test)
        vars(made).update(cases=cases, __signature__=inspect.Signature(parameters))
        return made

    return decorate


async def run_alone(test: Test, fixtures: Mapping[str, object]) -> None:
    """Run a row; where it asks for the fixture `nursery`, it has one of its own.

    A row that cancels its nursery would cancel the rows behind it, which would then pass.
    """
    if "nursery" not in fixtures:
        await test(**fixtures)
        return
    async with trio.open_nursery() as nursery:
        await test(**{**fixtures, "nursery": nursery})
        nursery.cancel_scope.cancel()


@contextlib.contextmanager
def failing(subtests: pytest.Subtests, case: Mapping[str, Any]) -> Generator[None]:
    """Make a subtest of a row if it fails."""
    __tracebackhide__ = True
    try:
        yield
    except (Exception, pytest.fail.Exception):  # a test may fail by anything
        with subtests.test(**case):
            raise
