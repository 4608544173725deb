"""What a history, a sink or a matcher raises ends no task of the hub, and no stream of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from hub_helpers import FakeSink, WrappedHistory
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio.hub import HistoryError, Hub, MemoryHistory

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

    from h3trio._wire.batch import Batch


class AgedHistory(WrappedHistory):
    """A history with an age limit, whose trimming raises what a test gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.max_age = 1.0
        self.errors: list[BaseException] = []
        self.trims = 0

    async def trim(self) -> int:
        """Raise the next error, if there is one."""
        await trio.lowlevel.checkpoint()
        self.trims += 1
        if self.errors:
            raise self.errors.pop()
        return 0


class BadSink(FakeSink):
    """A sink with a bug: it takes no event with the word `bad`."""

    error: BaseException = ZeroDivisionError()

    def send_batch_nowait(self, batch: Batch) -> bool:
        """Take a batch, unless it is bad."""
        if b"bad" in batch.payload:
            raise self.error
        return super().send_batch_nowait(batch)


class BadMatcher:
    """A matcher with a bug: it can't tell of the topic `bad`."""

    error: BaseException = ZeroDivisionError()

    def matches(self, topic: str, /) -> bool:
        """Match every other topic."""
        if topic == "bad":
            raise self.error
        return True


class Subscription:
    """A subscription in a task of its own, and the error that ended it."""

    def __init__(
        self,
        nursery: trio.Nursery,
        hub: Hub,
        topics: Iterable[str | BadMatcher],
        *,
        sink: FakeSink | None = None,
        allow: Iterable[str | BadMatcher] = (),
    ) -> None:
        self.sink = FakeSink() if sink is None else sink
        self.error: BaseException | None = None
        nursery.start_soon(self._run, hub, topics, allow)

    async def _run(
        self, hub: Hub, topics: Iterable[str | BadMatcher], allow: Iterable[str | BadMatcher]
    ) -> None:
        try:
            await hub.subscribe(self.sink, topics, allow=allow)
        except (ZeroDivisionError, SystemExit) as exc:
            self.error = exc

    @property
    def data(self) -> list[str | None]:
        """The data that it received."""
        return self.sink.data


@table(
    "error",
    [
        HistoryError("database is locked"),
        ZeroDivisionError(),
        SystemExit(1),
        ExceptionGroup("of a nursery", [OSError(), OSError()]),
    ],
)
async def test_trimming_that_fails_is_tried_again(
    autojump_clock: trio.testing.MockClock, error: BaseException
) -> None:
    """The hub goes on, and counts it."""
    del autojump_clock
    history = AgedHistory()
    history.errors = [error, error]
    async with Hub(history) as hub:
        await trio.sleep(5)
        assert history.trims > 3
        assert hub.statistics().task_failures == {"trim": 2}
        assert hub.statistics().failure is None
        await hub.publish("x", topics=["news"])


@table("error", [ZeroDivisionError(), SystemExit(1)])
async def test_a_sink_that_raises_ends_its_own_subscription(error: BaseException) -> None:
    """The error comes to who subscribed, and the others miss nothing."""
    async with Hub() as hub, trio.open_nursery() as nursery:
        sink = BadSink()
        sink.error = error
        before, bad, after = (
            Subscription(nursery, hub, ["*"]),
            Subscription(nursery, hub, ["*"], sink=sink),
            Subscription(nursery, hub, ["*"]),
        )
        await wait_all_tasks_blocked()
        for data in ("1", "bad", "2"):
            hub.publish_nowait(data, topics=["news"])
            await wait_all_tasks_blocked()
        assert bad.error is error
        assert before.data == after.data == ["1", "bad", "2"]
        nursery.cancel_scope.cancel()


@table("private, error", [(False, ZeroDivisionError()), (True, SystemExit(1))])
async def test_a_matcher_that_raises_ends_its_own_subscription(
    private: bool,  # noqa: FBT001 - a row's value
    error: BaseException,
) -> None:
    """The event is published, the error comes to who gave the matcher, and the others get it."""
    async with Hub(MemoryHistory()) as hub, trio.open_nursery() as nursery:
        good = Subscription(nursery, hub, ["*"], allow=["*"])
        matcher = BadMatcher()
        matcher.error = error
        topics, allow = (["*"], [matcher]) if private else ([matcher], ["*"])
        bad = Subscription(nursery, hub, topics, allow=allow)
        other = Subscription(nursery, hub, ["*"], allow=["*"])
        await wait_all_tasks_blocked()
        for topic in ("a", "bad", "b"):
            hub.publish_nowait(topic, topics=[topic], private=private)
            await wait_all_tasks_blocked()
        assert bad.error is error
        assert bad.data == ["a"]
        assert good.data == other.data == ["a", "bad", "b"]
        nursery.cancel_scope.cancel()


async def test_a_hub_closes_while_its_history_fails(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A task in its pause ends with the hub, and each error was logged once."""
    del autojump_clock
    history = AgedHistory()
    history.errors = [HistoryError("no disk") for _ in range(1000)]
    async with Hub(history):
        await trio.sleep(600)
    assert [record.message for record in caplog.records] == [
        "trim failed, and is tried again: no disk"
    ]
