"""The wall clock may jump, forward and back: it dates things, and nothing waits by it."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from h3trio import SSEEvent
from h3trio.hub import Hub, MemoryHistory, Selection, SQLiteHistory, Update

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from h3trio.hub import History

YEAR: Final = 365 * 86400.0
MAX_AGE: Final = 60.0
WAITING: Final = frozenset(
    {"sleep", "sleep_until", "move_on_after", "move_on_at", "fail_after", "fail_at", "deadline"}
)


class WallClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[WallClock], History]:
    """Make a history of either kind with an age limit."""

    def memory(clock: WallClock) -> History:
        return MemoryHistory(max_age=MAX_AGE, clock=clock)

    def sqlite(clock: WallClock) -> History:
        return SQLiteHistory(tmp_path / "hub.db", durability="fast", max_age=MAX_AGE, clock=clock)

    return memory if request.param == "memory" else sqlite


async def put(history: History, count: int) -> None:
    """Publish so many events, as a hub does."""
    updates = [Update(event=SSEEvent(str(n)), topics=("a",)) for n in range(count)]
    for _id, record, *_rest in await history.append(updates):
        if record is not None:
            history.log.append(record)


async def positions(history: History) -> list[int]:
    """Read what is kept."""
    page = await history.read(0, selection=Selection(["*"]), max_records=1000, max_bytes=10**6)
    return [record.position for record in page.records]


async def test_a_jump_back_removes_nothing(make: Callable[[WallClock], History]) -> None:
    """What was published by a later clock is as young as can be, until the clock is there again."""
    clock = WallClock()
    async with make(clock) as history:
        await put(history, 10)
        clock.now -= YEAR
        await put(history, 10)
        assert await history.trim() == 0
        assert await positions(history) == list(range(1, 21))
        # Oldest first: what is behind something younger waits for it.
        clock.now += MAX_AGE + 1
        assert await history.trim() == 0
        clock.now += YEAR
        assert await history.trim() == 20


async def test_a_jump_forward_removes_by_the_rule(make: Callable[[WallClock], History]) -> None:
    """What is too old by the clock goes, once; what is published then stays when it jumps back."""
    clock = WallClock()
    async with make(clock) as history:
        await put(history, 10)
        clock.now += YEAR
        await put(history, 10)
        assert await history.trim() == 10
        assert await history.trim() == 0
        clock.now -= YEAR
        assert await history.trim() == 0
        await put(history, 10)
        assert await positions(history) == list(range(11, 31))


async def test_jumps_wake_nobody(autojump_clock: MockClock) -> None:
    """A hub looks for old events as often as ever, however its wall clock jumps."""
    clock = WallClock()
    looks: list[float] = []

    def jumping() -> float:
        looks.append(trio.current_time())
        clock.now += YEAR if len(looks) % 2 else -YEAR
        return clock.now

    async with Hub(MemoryHistory(max_age=MAX_AGE, clock=jumping)):
        await trio.sleep(10 * MAX_AGE)
    assert autojump_clock.current_time() == 10 * MAX_AGE
    assert len(looks) == pytest.approx(200, abs=2), "a twentieth of the age each time"


def test_nothing_waits_by_the_wall_clock() -> None:
    """A module of the server or the hub that reads the wall clock sets no deadline."""
    spec = importlib.util.find_spec("h3trio")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (root,) = map(Path, spec.submodule_search_locations)
    readers = {}
    for path in [*root.glob("_server/**/*.py"), *root.glob("hub/**/*.py")]:
        source = path.read_text()
        if "time.time" in source:
            nodes = ast.walk(ast.parse(source))
            names = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
            if "time.time" in names:
                readers[path.stem] = {name.rpartition(".")[2] for name in names} & WAITING
    assert "state" in readers, "it dates answers"
    assert not any(readers.values()), readers
