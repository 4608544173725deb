"""`RedisNodes`: one hub's place among those that share a store in Redis.

All nodes stand in one key, each for a time on the server's clock, so one script takes a summary in
and gives out those of all. A question is published for all nodes, by the script that says which are
there; an answer for the one that asked. All this goes by a connection of its own, so a hub that has
much to follow still answers. A server that takes no writes any more is found out by the summaries.
"""

from __future__ import annotations

import logging
import random
import re
from itertools import count
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._redis.connect import open_redis
from h3trio._redis.values import RedisError, RedisReplyError
from h3trio._tasks import own_error
from h3trio.hub._history.errors import HistoryError
from h3trio.hub._history.nodes import (
    MAX_NODES,
    MAX_QUESTION_BYTES,
    MAX_QUESTIONS,
    NodeAnswers,
    NodeNote,
    Nodes,
)

from . import scripts
from .link import new_word, refusal_of, translated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from h3trio._redis.address import RedisAddress
    from h3trio._redis.connection import RedisConnection
    from h3trio._redis.values import Argument, RedisLimits, Reply, Script

    _Question = tuple[str, str, bytes]

logger = logging.getLogger("h3trio.hub")

FIRST_PAUSE: Final = 0.05
MAX_PAUSE: Final = 2.0
"""Seconds from a lost connection to the next attempt, as of the follower."""

# A node, the number of the question, and the question; the number, a node, its name, the answer.
_QUESTION: Final = re.compile(rb"([0-9a-f]{16}) ([0-9]{1,15})\n(.*)", re.DOTALL)
_ANSWER: Final = re.compile(
    rb"([0-9]{1,15}) ([0-9a-f]{16}) ([A-Za-z0-9._-]{1,64})\n(.*)", re.DOTALL
)


@final
class _Asked:
    """The answers to one question, by node, and who is to answer."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[str, bytes]] = {}
        self.expected: dict[str, str] | None = None
        self.done = trio.Event()

    def take(self, node: str, name: str, answer: bytes) -> None:
        if len(self.answers) <= MAX_NODES:
            self.answers[node] = name, answer
            self.look()

    def look(self) -> None:
        """See whether all have answered."""
        if self.expected is not None and self.expected.keys() <= self.answers.keys():
            self.done.set()


@final
class RedisNodes(Nodes):
    """One hub among those of a store.

    Args:
        address: the store.
        limits: bounds of the connection.
        name: of the hub.
    """

    def __init__(self, address: RedisAddress, limits: RedisLimits, name: str) -> None:
        self._address = address
        self._limits = limits
        self._name = name
        self._node = new_word()
        self._since = ""
        self._key = scripts.state_key(address.prefix)
        self._log = scripts.channel_of(address.prefix, address.db)
        self._questions = scripts.questions_of(address.prefix, address.db)
        self._random = random.Random()  # noqa: S311 - it spreads load, it guards nothing
        self._connection: RedisConnection | None = None
        self._connected = trio.Event()
        self._asked: dict[int, _Asked] = {}
        self._numbers = count(1)

    async def listen(
        self,
        answer: Callable[[bytes], Awaitable[bytes]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer what others ask, and connect again whenever that ends; see `Nodes.listen`."""
        pause, said, is_started = FIRST_PAUSE, "", False
        while True:
            try:
                with translated():
                    async with open_redis(self._address, limits=self._limits) as connection:
                        await connection.call("SUBSCRIBE", self._questions)
                        await connection.call("SUBSCRIBE", self._answers_of(self._node))
                        self._connection, pause = connection, FIRST_PAUSE
                        self._connected.set()
                        if not is_started:
                            task_status.started()
                            is_started = True
                        await self._serve(connection, answer)
            except HistoryError as exc:
                if str(exc) != said:
                    logger.error("the connection for nodes is lost, and is made again: %s", exc)  # noqa: TRY400 - it says all there is
                said = str(exc)
            finally:
                if self._connection is not None:
                    self._connection, self._connected = None, trio.Event()
                for asked in self._asked.values():
                    asked.done.set()
            await trio.sleep(pause * self._random.uniform(0.5, 1.5))
            pause = min(2 * pause, MAX_PAUSE)

    async def _serve(
        self, connection: RedisConnection, answer: Callable[[bytes], Awaitable[bytes]]
    ) -> None:
        """Hear and answer by one connection, until it is lost."""
        questions, waiting = trio.open_memory_channel["_Question"](MAX_QUESTIONS)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear, connection, questions)
                nursery.start_soon(self._answer, connection, waiting, answer)
        except BaseExceptionGroup as group:
            raise own_error(group) from None

    async def _hear(
        self, connection: RedisConnection, questions: trio.MemorySendChannel[_Question]
    ) -> None:
        """Take what is published, until the connection is lost, which is an error."""
        while True:
            match await connection.pushes.receive():
                case [b"message", bytes(channel), bytes(data)]:
                    if channel.decode(errors="replace") == self._questions:
                        self._take_question(data, questions)
                    else:
                        self._take_answer(data)
                case _:
                    pass

    def _take_question(self, data: bytes, questions: trio.MemorySendChannel[_Question]) -> None:
        found = _QUESTION.fullmatch(data)
        if found is None or len(found[3]) > MAX_QUESTION_BYTES:
            return
        asker = found[1].decode()
        if asker != self._node:
            try:
                questions.send_nowait((asker, found[2].decode(), found[3]))
            except trio.WouldBlock:
                logger.warning("so many hubs ask that this one can't answer all")

    def _take_answer(self, data: bytes) -> None:
        found = _ANSWER.fullmatch(data)
        if found is None or len(found[4]) > MAX_QUESTION_BYTES:
            return
        if (asked := self._asked.get(int(found[1]))) is not None:
            asked.take(found[2].decode(), found[3].decode(), found[4])

    async def _answer(
        self,
        connection: RedisConnection,
        waiting: trio.MemoryReceiveChannel[_Question],
        answer: Callable[[bytes], Awaitable[bytes]],
    ) -> None:
        """Answer one question after the other."""
        async for asker, number, question in waiting:
            head = f"{number} {self._node} {self._name}\n".encode()
            told = head + await answer(question)
            try:
                await connection.call("PUBLISH", self._answers_of(asker), told)
            except RedisError as exc:
                # Of a connection that is lost it is heard elsewhere.
                logger.warning("another hub can't be answered: %s", exc)

    def _answers_of(self, node: str) -> str:
        return f"{self._questions}:{node}"

    # -- calls

    async def meet(self, summary: bytes, *, lease: float) -> Sequence[NodeNote]:
        """Leave a summary; return those of all; see `Nodes.meet`."""
        reply = await self._call(*self._met(summary, lease))
        match reply:
            case [b"ok", bytes(since), list(told)]:
                self._since = since.decode()
                return _notes(told)
            case [b"taken"]:
                raise HistoryError(f"another hub took the name {self._name!r} of this node")
            case [b"full"]:
                raise HistoryError(f"there are {MAX_NODES} nodes, there is no room for another")
            case _:
                raise HistoryError(f"the store answers {reply!r:.80}")

    def _met(self, summary: bytes, lease: float) -> tuple[Script, list[Argument]]:
        told: list[Argument] = [self._name, self._node, self._since, repr(lease), summary]
        return scripts.MEET, [*told, MAX_NODES]

    async def ask(self, question: bytes, *, wait: float, only: str | None = None) -> NodeAnswers:
        """Ask the others; see `Nodes.ask`."""
        # A hub that was just started has yet to connect.
        deadline = trio.current_time() + wait
        with trio.move_on_at(deadline):
            await self._connected.wait()
        number, asked = next(self._numbers), _Asked()
        message = f"{self._node} {number}\n".encode() + question
        self._asked[number] = asked
        try:
            reply = await self._call(
                scripts.ASK, [self._questions, self._node, only or "", message]
            )
            asked.expected = _expected(reply)
            asked.look()
            # If the connection is lost it is over, too.
            with trio.move_on_at(deadline):
                await asked.done.wait()
        finally:
            del self._asked[number]
        expected = asked.expected
        silent = [name for node, name in expected.items() if node not in asked.answers]
        if only is not None and not expected:
            silent = [only]
        return NodeAnswers(tuple(asked.answers.values()), tuple(silent))

    async def _call(self, script: Script, arguments: Sequence[Argument]) -> Reply:
        connection = self._connection
        if connection is None:
            await trio.lowlevel.checkpoint()
            raise HistoryError(f"the connection for nodes to {self._address} is lost")
        with translated():
            try:
                return await connection.eval_script(script, [self._key], [self._log, *arguments])
            except RedisReplyError as exc:
                if refusal_of(exc) == "READONLY":
                    connection.throw_away(f"it is a replica now: {exc}")
                raise

    @property
    def is_known(self) -> bool:
        """Whether the store has heard of this node."""
        return bool(self._since)

    async def leave(self, connection: RedisConnection) -> None:
        """Be no node any more."""
        script, arguments = self._met(b"", 0)
        await connection.eval_script(script, [self._key], [self._log, *arguments])


def _notes(told: Sequence[Reply]) -> list[NodeNote]:
    notes: list[NodeNote] = []
    for name, age, summary in zip(told[::3], told[1::3], told[2::3], strict=True):
        if isinstance(name, bytes) and isinstance(age, bytes) and isinstance(summary, bytes):
            notes.append(NodeNote(name.decode(errors="replace"), summary, float(age)))
    return notes


def _expected(reply: Reply) -> dict[str, str]:
    """Read which nodes are asked: their names by who they are."""
    if not isinstance(reply, list) or not all(isinstance(part, bytes) for part in reply):
        raise HistoryError(f"the store answers {reply!r:.80}")
    parts = [part.decode(errors="replace") for part in reply if isinstance(part, bytes)]
    return dict(zip(parts[::2], parts[1::2], strict=True))
