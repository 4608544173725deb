"""`run_again`: a task of a hub or a server that an error doesn't end."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final, final

import pytest
import trio
from helpers import kept_cancelled, nothing_cancelled
from tables import table

from h3trio._tasks import FIRST_PAUSE, MAX_PAUSE, own_error, run_again

logger: Final = logging.getLogger("h3trio.test")


@final
class Task:
    """A task that raises one error after the other, and then returns."""

    def __init__(self, *errors: BaseException, lasts: float = 0.0) -> None:
        self.errors = list(errors)
        self.lasts = lasts
        self.began: list[float] = []
        self.put_right = 0
        self.failures: Counter[str] = Counter()

    async def run(self) -> None:
        """Raise the next error."""
        self.began.append(trio.current_time())
        await trio.sleep(self.lasts)
        if self.errors:
            raise self.errors.pop(0)

    def after_error(self) -> None:
        """Count the call."""
        self.put_right += 1

    async def run_again(self, **options: type[BaseException]) -> None:
        """Run until it returns."""
        await run_again(
            self.run,
            name="work",
            logger=logger,
            failures=self.failures,
            after_error=self.after_error,
            **options,
        )

    @property
    def pauses(self) -> list[float]:
        """The seconds from each begin to the next."""
        return [round(b - a, 6) for a, b in zip(self.began, self.began[1:], strict=False)]


@table(
    "error",
    [
        ValueError("x"),
        SystemExit(1),
        GeneratorExit(),
        ExceptionGroup("two", [OSError(), KeyError()]),
        BaseExceptionGroup("of a nursery", [SystemExit()]),
    ],
)
async def test_whatever_it_raises_it_runs_again(
    autojump_clock: trio.testing.MockClock, error: BaseException
) -> None:
    """It is counted, and what it left is put right, before the next attempt."""
    del autojump_clock
    task = Task(error)
    await task.run_again()
    assert (len(task.began), task.failures["work"], task.put_right) == (2, 1, 1)


async def test_pauses_double_up_to_a_bound(autojump_clock: trio.testing.MockClock) -> None:
    """A store that is gone for an hour is asked every half minute."""
    del autojump_clock
    task = Task(*(ValueError() for _ in range(12)))
    await task.run_again()
    assert task.pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert task.pauses[-1] == task.pauses[-2] == MAX_PAUSE


async def test_a_task_that_ran_for_long_begins_with_the_first_pause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """An error a day is no reason to wait for long."""
    del autojump_clock
    task = Task(*(ValueError() for _ in range(5)), lasts=MAX_PAUSE + 1)
    await task.run_again()
    assert task.pauses == [MAX_PAUSE + 1 + FIRST_PAUSE] * 5


async def test_each_error_is_logged_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its repetitions are counted; only an error that isn't expected has a traceback."""
    del autojump_clock
    task = Task(OSError("a"), OSError("a"), OSError("a"), KeyError("b"), OSError("a"))
    await task.run_again(expected=OSError)
    assert [(r.message, bool(r.exc_info)) for r in caplog.records] == [
        ("work failed, and is tried again: a", False),
        ("work failed, and is tried again: 'b'", True),
        ("work failed, and is tried again: a", False),
    ]
    assert task.failures["work"] == 5


async def test_cancelling_it_ends_it() -> None:
    """In a pause and in the task."""
    for errors in ((), (ValueError(),)):
        with trio.CancelScope() as scope:
            scope.cancel()
            await Task(*errors, lasts=1.0).run_again()
        assert scope.cancelled_caught


async def test_control_c_ends_it() -> None:
    """Python raises it wherever the program is: it is nobody's error."""
    with pytest.raises(KeyboardInterrupt):
        await Task(KeyboardInterrupt()).run_again()


async def test_what_passes_leaves_a_group_of_errors() -> None:
    """The rest of a group that holds it is dropped: the task is cancelled."""
    with pytest.RaisesGroup(KeyboardInterrupt):
        own_error(BaseExceptionGroup("both", [KeyboardInterrupt(), ValueError()]))


def test_a_coroutine_that_is_closed_ends() -> None:
    """Outside of Trio `GeneratorExit` is Python's: to go on would be an error of ours."""
    with pytest.raises(GeneratorExit):
        own_error(GeneratorExit())


@table("grouped", [False, True])
async def test_a_cancelled_of_another_task_is_an_error_like_any_other(
    autojump_clock: trio.testing.MockClock, *, grouped: bool
) -> None:
    """The task runs again; where it is cancelled itself, it ends."""
    del autojump_clock
    kept = await kept_cancelled()
    task = Task(BaseExceptionGroup("of a nursery", [kept]) if grouped else kept)
    with nothing_cancelled():
        await task.run_again()
    assert task.failures == {"work": 1}
    with trio.CancelScope() as scope:
        scope.cancel()
        await task.run_again()
    assert scope.cancelled_caught
