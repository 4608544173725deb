"""Many tasks on one connection: each has its own answer, or is told what became of its call."""

from __future__ import annotations

import contextlib
import itertools
import sys
from typing import TYPE_CHECKING, Any

import hiredis
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tables import table
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from h3trio._redis.connection import RedisConnection, require_hiredis
from h3trio._redis.values import (
    NoAnswerError,
    NotSentError,
    RedisError,
    RedisLimits,
    RedisReplyError,
    RedisStatistics,
    Script,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from trio.testing import MockClock

    from h3trio._redis.values import Reply

GONE = RedisStatistics(
    calls_waiting=0, bytes_waiting=0, pushes_waiting=0, push_bytes_waiting=0, calls_refused=0
)


@contextlib.asynccontextmanager
async def connected(
    stream: trio.abc.Stream | None = None, **limits: float
) -> AsyncGenerator[tuple[RedisConnection, Any]]:
    """Make a connection; the other end of its stream is the test's."""
    client: trio.abc.Stream | None = stream
    server = None
    if client is None:
        client, server = memory_stream_pair()
    connection = RedisConnection(client, "test", RedisLimits(**limits))  # type: ignore[arg-type]  # each is a number
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        yield connection, server
        nursery.cancel_scope.cancel()


class Outcomes:
    """Calls of tasks of their own, and what came of each."""

    def __init__(self, nursery: trio.Nursery, connection: RedisConnection) -> None:
        self._nursery = nursery
        self._connection = connection
        self.of: dict[str, object] = {}

    async def _call(
        self, name: str, rest: Sequence[Any], seconds: float | None, scope: trio.CancelScope
    ) -> None:
        with scope:
            try:
                self.of[name] = await self._connection.call(name, *rest, timeout=seconds)
            except RedisError as exc:
                self.of[name] = type(exc)

    def call(self, name: str, *rest: object, seconds: float | None = None) -> trio.CancelScope:
        """Start a call; cancel what is returned to cancel it."""
        scope = trio.CancelScope()
        self._nursery.start_soon(self._call, name, rest, seconds, scope)
        return scope

    async def call_next(
        self, name: str, *rest: object, seconds: float | None = None
    ) -> trio.CancelScope:
        """Start a call behind those that were started before: Trio shuffles tasks."""
        scope = self.call(name, *rest, seconds=seconds)
        await wait_all_tasks_blocked()
        return scope


async def test_calls_of_many_tasks_are_sent_together(nursery: trio.Nursery) -> None:
    """What is called in one turn goes out in one write, and each task has the answer of its own."""
    async with connected() as (connection, server):
        outcomes = Outcomes(nursery, connection)
        for number in range(10):
            outcomes.call(f"ECHO{number}", number, b"\0", "é")
        await wait_all_tasks_blocked()
        sent = await server.receive_some()
        reader = hiredis.Reader()
        reader.feed(sent)
        commands = [reader.gets() for _ in range(10)]
        assert reader.gets() is False
        for command in commands:
            assert command[2:] == [b"\0", "é".encode()]
            await server.send_all(b"$%d\r\n%b\r\n" % (len(command[0]), command[0]))
        await wait_all_tasks_blocked()
        assert outcomes.of == {f"ECHO{n}": f"ECHO{n}".encode() for n in range(10)}
        assert connection.statistics() == GONE


REPLIES: list[tuple[bytes, object]] = [
    (b"+OK\r\n", b"OK"),
    (b":-3\r\n", -3),
    (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
    (b"$0\r\n\r\n", b""),
    (b"_\r\n", None),
    (b"#f\r\n", False),
    (b",1.5\r\n", 1.5),
    (b"=5\r\ntxt:a\r\n", b"a"),
    (b"*2\r\n*0\r\n$1\r\nx\r\n", [[], b"x"]),
    (b"%1\r\n+a\r\n*1\r\n:1\r\n", {b"a": [1]}),
    (b"~1\r\n+a\r\n", [b"a"]),
    (b"-ERR no\r\n", RedisReplyError),
]
PUSH = b">3\r\n+message\r\n+ch\r\n$5\r\n+OK\r\n\r\n"


@given(
    chosen=st.lists(st.sampled_from([None, *range(len(REPLIES))]), min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 300), max_size=10),
)
async def test_replies_are_the_same_however_they_are_cut(
    chosen: list[int | None], cuts: list[int]
) -> None:
    """Replies and pushes are what they are wherever the stream is split."""
    wire = b"".join(PUSH if n is None else REPLIES[n][0] for n in chosen)
    wanted = [REPLIES[n][1] for n in chosen if n is not None]
    async with connected() as (connection, server), trio.open_nursery() as nursery:
        outcomes = Outcomes(nursery, connection)
        for number in range(len(wanted)):
            await outcomes.call_next(str(number))
        edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
        for begin, end in itertools.pairwise(edges):
            await server.send_all(wire[begin:end])
            await wait_all_tasks_blocked()
        assert [outcomes.of[str(number)] for number in range(len(wanted))] == wanted
        for _ in range(chosen.count(None)):
            assert await connection.pushes.receive() == [b"message", b"ch", b"+OK\r\n"]
        assert connection.statistics() == GONE


@given(
    data=st.binary(max_size=60) | st.text("*%$>~|+-:,#_!=(0123\r\n", max_size=60).map(str.encode)
)
async def test_whatever_comes_each_call_ends(data: bytes) -> None:
    """Any bytes, and then the end, leave no call without an outcome, and raise nothing else."""
    async with connected() as (connection, server), trio.open_nursery() as nursery:
        outcomes = Outcomes(nursery, connection)
        for number in range(3):
            outcomes.call(str(number))
        await wait_all_tasks_blocked()
        await server.send_all(data)
        await wait_all_tasks_blocked()
        with contextlib.suppress(trio.BrokenResourceError):
            await server.send_eof()
        await connection.wait_broken()
        await wait_all_tasks_blocked()
        assert len(outcomes.of) == 3


async def test_a_cancelled_call_takes_nobodys_answer(nursery: trio.Nursery) -> None:
    """The answer of one that was sent is dropped, and the others have theirs."""
    async with connected() as (connection, server):
        outcomes = Outcomes(nursery, connection)
        scopes = [await outcomes.call_next(name) for name in "abc"]
        scopes[1].cancel()
        await wait_all_tasks_blocked()
        assert connection.statistics().calls_waiting == 3
        await server.send_all(b"+1\r\n+2\r\n+3\r\n")
        await wait_all_tasks_blocked()
        assert outcomes.of == {"a": b"1", "c": b"3"}
        assert connection.statistics() == GONE


async def test_a_call_that_is_cancelled_before_it_is_sent_is_not_executed(
    nursery: trio.Nursery,
) -> None:
    """It leaves the queue, and nothing of it goes out."""
    async with connected() as (connection, server):
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.call("LATE")
        assert connection.statistics() == GONE
        Outcomes(nursery, connection).call("NEXT")
        await wait_all_tasks_blocked()
        assert await server.receive_some() == b"*1\r\n$4\r\nNEXT\r\n"


async def test_a_hundred_cancelled_calls_leave_nothing_behind(nursery: trio.Nursery) -> None:
    """When their answers came, nothing of them is left."""
    async with connected() as (connection, server):
        outcomes = Outcomes(nursery, connection)
        for number in range(100):
            scope = outcomes.call(str(number))
            if number % 2:
                await wait_all_tasks_blocked()
            scope.cancel()
        await wait_all_tasks_blocked()
        sent = connection.statistics().calls_waiting
        assert 0 < sent < 100
        await server.send_all(b"+OK\r\n" * sent)
        await wait_all_tasks_blocked()
        assert connection.statistics() == GONE
        assert not outcomes.of


async def test_a_missing_answer_throws_the_connection_away(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """At the first deadline each call ends: the sent ones with `NoAnswerError`."""
    async with connected(timeout=5) as (connection, server):
        outcomes = Outcomes(nursery, connection)
        outcomes.call("a")
        await trio.sleep(1)
        outcomes.call("b")
        assert await connection.wait_broken() == "test: no answer in time"
        assert autojump_clock.current_time() == 5
        await wait_all_tasks_blocked()
        assert outcomes.of == {"a": NoAnswerError, "b": NoAnswerError}
        with pytest.raises(NotSentError, match="test: no answer in time"):
            await connection.call("c")
        assert await server.receive_some() != b""
        assert await server.receive_some() == b"", "the stream is closed"


async def test_a_call_may_have_a_time_of_its_own(autojump_clock: MockClock) -> None:
    """It may be shorter or longer than the others', and the pipelines' and scripts' too."""
    for timeout in (2, 20):
        async with connected(timeout=5) as (connection, _):
            with pytest.raises(NoAnswerError):
                await connection.call("a", timeout=timeout)
        async with connected(timeout=5) as (connection, _):
            with pytest.raises(NoAnswerError):
                await connection.pipeline([("a",)], timeout=timeout)
        async with connected(timeout=5) as (connection, _):
            with pytest.raises(NoAnswerError):
                await connection.eval_script(Script(b""), timeout=timeout)
    assert autojump_clock.current_time() == 3 * (2 + 20)


async def test_a_silent_server_is_noticed_without_anybody_who_waits(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Callers that were cancelled before their time leave a deadline behind."""
    async with connected(timeout=5) as (connection, _):
        outcomes = Outcomes(nursery, connection)
        scopes = [outcomes.call(name) for name in "ab"]
        await wait_all_tasks_blocked()
        for scope in scopes:
            scope.cancel()
        assert await connection.wait_broken() == "test: no answer in time"
        assert autojump_clock.current_time() == 5


async def test_answers_move_the_deadline(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A connection without open calls waits for ever, and each call has its whole time."""
    async with connected(timeout=5) as (connection, server):
        outcomes = Outcomes(nursery, connection)
        for name in "ab":
            outcomes.call(name)
            await trio.sleep(4)
            await server.send_all(b"+OK\r\n")
            await trio.sleep(100)
        assert outcomes.of == {"a": b"OK", "b": b"OK"}
        assert autojump_clock.current_time() == 208


async def test_calls_behind_one_that_does_not_go_out_are_not_sent(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Where the stream takes nothing, only those that were being written may have been executed."""
    client, _server = lockstep_stream_pair()
    async with connected(client, timeout=5) as (connection, _):
        outcomes = Outcomes(nursery, connection)
        await outcomes.call_next("first")
        await outcomes.call_next("second", seconds=60)
        with trio.move_on_after(1):
            await connection.call("cancelled")
        assert connection.statistics().calls_waiting == 2
        with pytest.raises(NotSentError, match="took nothing in time"):
            await connection.call("impatient", timeout=1)
        assert connection.statistics().calls_waiting == 2
        await connection.wait_broken()
        assert autojump_clock.current_time() == 5
        await wait_all_tasks_blocked()
        assert outcomes.of == {"first": NoAnswerError, "second": NotSentError}


@table(
    "said, reason",
    [
        (b"", "the server closed the connection"),
        (b"+OK\r\n+OK\r\n", "an answer that nobody asked for"),
        (b"+OK\r\n-ERR max number of clients reached\r\n", "asked for: ERR max number of clients"),
        (b"what\r\n", "not Redis' protocol: "),
        (b"%1\r\n*0\r\n+a\r\n", "not Redis' protocol: unhashable"),
        (b"$900\r\n" + b"x" * 600, "a reply of more than 500 bytes"),
        (b"*3\r\n$300\r\n" + b"x" * 300 + b"\r\n$300\r\n" + b"x" * 300, "more than 500 bytes"),
        (b">1\r\n+a\r\n" * 4, "more pushes than there is room for"),
        (b">1\r\n$41\r\n" + b"x" * 41 + b"\r\n", "more pushes than there is room for"),
    ],
)
async def test_what_is_wrong_throws_the_connection_away(
    nursery: trio.Nursery, said: bytes, reason: str
) -> None:
    """Every call ends, and the reason is told."""
    bounds = connected(max_reply_bytes=500, max_pushes=3, max_push_bytes=40)
    async with bounds as (connection, server):
        outcomes = Outcomes(nursery, connection)
        outcomes.call("a")
        await wait_all_tasks_blocked()
        await (server.send_all(said) if said else server.send_eof())
        assert reason in await connection.wait_broken()
        await wait_all_tasks_blocked()
        assert outcomes.of == {"a": b"OK" if said.startswith(b"+OK") else NoAnswerError}
        with pytest.raises(NotSentError):
            await connection.call("b")
        assert connection.statistics().calls_waiting == connection.statistics().bytes_waiting == 0


async def test_many_replies_are_no_large_one(nursery: trio.Nursery) -> None:
    """The bound is on one reply, however many come."""
    async with connected(max_reply_bytes=500) as (connection, server):
        outcomes = Outcomes(nursery, connection)
        for number in range(60):
            outcomes.call(str(number))
        await wait_all_tasks_blocked()
        for _ in range(60):
            await server.send_all(b"$14\r\n12345678901234\r\n")
            await wait_all_tasks_blocked()
        assert list(outcomes.of.values()) == [b"12345678901234"] * 60


async def test_pushes_that_came_are_there_before_the_error() -> None:
    """Who takes them too slowly has those for which there was room, and then the error."""
    async with connected(max_pushes=2) as (connection, server):
        await server.send_all(b">1\r\n:1\r\n>1\r\n:2\r\n>1\r\n:3\r\n")
        await connection.wait_broken()
        assert await connection.pushes.receive() == [1]
        assert await connection.pushes.receive() == [2]
        for _ in range(2):
            with pytest.raises(RedisError, match="more pushes"):
                await connection.pushes.receive()


async def test_room_for_pushes_is_made_by_taking_them() -> None:
    """Bounds are on what nobody has taken."""
    async with connected(max_pushes=1, max_push_bytes=10) as (connection, server):
        for _ in range(5):
            await server.send_all(b">1\r\n+123456789\r\n")
            assert await connection.pushes.receive() == [b"123456789"]
        assert connection.statistics() == GONE


async def test_calls_beyond_the_bounds_are_refused(nursery: trio.Nursery) -> None:
    """They aren't sent, are counted, and harm nobody; a large one is sent behind small ones."""
    async with connected(max_calls=3, max_bytes=100) as (connection, server):
        outcomes = Outcomes(nursery, connection)
        outcomes.call("small")
        await wait_all_tasks_blocked()
        outcomes.call("large", "x" * 200)
        await wait_all_tasks_blocked()
        outcomes.call("more")
        await wait_all_tasks_blocked()
        assert outcomes.of == {"more": NotSentError}
        await server.send_all(b"+OK\r\n" * 2)
        await wait_all_tasks_blocked()
        for name in "abcd":
            await outcomes.call_next(name)
        assert outcomes.of.pop("small") == b"OK"
        assert outcomes.of == {"more": NotSentError, "large": b"OK", "d": NotSentError}
        assert connection.statistics().calls_refused == 2
        await server.send_all(b"+OK\r\n" * 3)
        await wait_all_tasks_blocked()
        assert outcomes.of["c"] == b"OK"


async def test_a_pipeline_has_errors_in_the_place_of_replies(nursery: trio.Nursery) -> None:
    """An error is one command's, and the others have their replies."""
    got: list[Reply] = []

    async def ask(connection: RedisConnection) -> None:
        got.extend(await connection.pipeline([("A",), ("B", 1), ("C",)]))

    async with connected() as (connection, server):
        nursery.start_soon(ask, connection)
        await wait_all_tasks_blocked()
        assert (await server.receive_some()).count(b"\r\n*") == 2
        await server.send_all(b"+a\r\n-OOM none\r\n")
        await wait_all_tasks_blocked()
        assert not got
        await server.send_all(b"+c\r\n")
        await wait_all_tasks_blocked()
        assert (got[0], got[2]) == (b"a", b"c")
        assert isinstance(got[1], RedisReplyError)
        assert got[1].code == "OOM"


async def test_a_subscription_is_answered_by_its_push(nursery: trio.Nursery) -> None:
    """Messages in between answer nothing, and a refusal is an error as any other."""
    async with connected() as (connection, server):
        outcomes = Outcomes(nursery, connection)
        for name in ("SUBSCRIBE", "unsubscribe", "PSUBSCRIBE", "GET"):
            await outcomes.call_next(name, "ch")
        confirmed = b">3\r\n+subscribe\r\n+ch\r\n:1\r\n"
        await server.send_all(PUSH + confirmed + PUSH)
        await wait_all_tasks_blocked()
        assert outcomes.of == {"SUBSCRIBE": [b"subscribe", b"ch", 1]}
        await server.send_all(b">3\r\n+unsubscribe\r\n_\r\n:0\r\n-NOPERM no\r\n+got\r\n")
        await wait_all_tasks_blocked()
        assert outcomes.of["unsubscribe"] == [b"unsubscribe", None, 0]
        assert outcomes.of["PSUBSCRIBE"] is RedisReplyError
        assert outcomes.of["GET"] == b"got"
        kinds = [(await connection.pushes.receive())[0] for _ in range(4)]
        assert kinds == [b"message", b"subscribe", b"message", b"unsubscribe"]


async def test_calls_that_could_not_be_answered_are_refused() -> None:
    """Several channels in one subscription, a subscription in a pipeline, and nothing."""
    async with connected() as (connection, _):
        with pytest.raises(ValueError, match="one channel"):
            await connection.call("SUBSCRIBE", "a", "b")
        with pytest.raises(ValueError, match="one channel"):
            await connection.call(b"unsubscribe")
        for calls in ([("PING",), ("SUBSCRIBE", "a")], [()], []):
            with pytest.raises(ValueError, match="each call"):
                await connection.pipeline(calls)
        with pytest.raises(TypeError):
            await connection.call("SET", None)  # type: ignore[arg-type]  # it is what is tested
        assert connection.statistics() == GONE


@table(
    "first, second, outcome",
    [
        (b"+OK\r\n", None, b"OK"),
        (b"-NOSCRIPT none\r\n", b"+OK\r\n", b"OK"),
        (b"-NOSCRIPT none\r\n", b"-NOSCRIPT none\r\n", "NOSCRIPT"),
        (b"-READONLY no\r\n", None, "READONLY"),
    ],
)
async def test_a_script_is_sent_whole_where_it_is_not_known(
    nursery: trio.Nursery, first: bytes, second: bytes | None, outcome: bytes | str
) -> None:
    """Only `NOSCRIPT`, which says that nothing was executed, lets a script be called again."""
    script, got = Script(b"return 1"), list[object]()

    async def ask(connection: RedisConnection) -> None:
        try:
            got.append(await connection.eval_script(script, ["k"], ["a", 1]))
        except RedisReplyError as exc:
            got.append(exc.code)

    async with connected() as (connection, server):
        nursery.start_soon(ask, connection)
        await wait_all_tasks_blocked()
        rest = b"$1\r\n1\r\n$1\r\nk\r\n$1\r\na\r\n$1\r\n1\r\n"
        sha = b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
        assert await server.receive_some() == b"*6\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % sha + rest
        await server.send_all(first)
        await wait_all_tasks_blocked()
        if second is not None:
            sent = await server.receive_some()
            assert sent == b"*6\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n" + rest
            await server.send_all(second)
            await wait_all_tasks_blocked()
        assert got == [outcome]
        assert connection.statistics() == GONE


async def test_leaving_ends_everything(nursery: trio.Nursery) -> None:
    """When its task is cancelled, calls of other tasks end, and the stream is closed."""
    async with connected() as (connection, server):
        outcomes = Outcomes(nursery, connection)
        outcomes.call("a")
        await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    assert outcomes.of == {"a": NoAnswerError}
    assert await server.receive_some() != b""
    assert await server.receive_some() == b""
    with pytest.raises(NotSentError, match="test: closed"):
        await connection.call("b")
    with pytest.raises(RedisError, match="test: closed"):
        await connection.pushes.receive()


async def test_an_answer_at_the_last_moment_is_one(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """A process that stood still finds the answer and the end of its time in the same turn."""
    ours, server = memory_stream_pair()
    async with connected(ours) as (connection, _):
        outcomes = Outcomes(nursery, connection)
        (await outcomes.call_next("a", seconds=5)).cancel()
        await wait_all_tasks_blocked()
        mock_clock.jump(5)
        ours.receive_stream.put_data(b"+OK\r\n")
        await outcomes.call_next("b", seconds=5)
        await server.send_all(b"+OK\r\n")
        await wait_all_tasks_blocked()
        assert outcomes.of == {"b": b"OK"}
        await outcomes.call_next("c", seconds=5)
        mock_clock.jump(5)
        await wait_all_tasks_blocked()
        assert outcomes.of["c"] is NoAnswerError


@table(
    "name", ["timeout", "max_calls", "max_bytes", "max_reply_bytes", "max_pushes", "max_push_bytes"]
)
def test_limits_are_positive_numbers(name: str) -> None:
    """Nothing else is taken."""
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises((ValueError, TypeError), match=name):
            RedisLimits(**{name: wrong})  # type: ignore[arg-type]  # it is what is tested
    with pytest.raises(TypeError, match=name):
        RedisLimits(**{name: "1"})  # type: ignore[arg-type]  # it is what is tested


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what is missing, and the command that brings it."""
    monkeypatch.setitem(sys.modules, "hiredis", None)
    with pytest.raises(ImportError, match=r"^Redis needs hiredis: pip install '.*\[redis\]'$"):
        require_hiredis()
