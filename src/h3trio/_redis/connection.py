"""`RedisConnection`: one stream to a server, which many tasks call at the same time.

Strategy: each call is put behind the others; a writer task sends all that waits in one write, and a
reader task hands out the answers, which come in the order of the calls. So calls of many tasks are
pipelined without a lock, and a cancelled one only leaves its answer to be dropped.

Every wait has a deadline. Whatever goes wrong (a deadline, a lost stream, an answer that nobody
asked for, more pushes than there is room for) throws the whole connection away: who comes behind
a missing answer would get another's. Nothing is sent again here, as the server may have done it.
`NotSentError` says that it hasn't, `NoAnswerError` that nobody knows.

hiredis, Redis' own parser, comes with an extra and is imported where it is used.
"""

from __future__ import annotations

import importlib
from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast, final

import trio

from h3trio._extras import install

from .values import (
    NoAnswerError,
    NotSentError,
    RedisError,
    RedisLimits,
    RedisReplyError,
    RedisStatistics,
    Reply,
    Script,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .server_info import ServerInfo
    from .values import Argument

READ_BYTES: Final = 64 * 1024
"""The most that is read at once: as much as is parsed without letting other tasks run."""
MAX_BATCH_BYTES: Final = 256 * 1024
"""Frames are sent together up to here: if the sending fails, the outcome of each is unknown."""

_SUBSCRIBING: Final = frozenset(
    (b"SUBSCRIBE", b"UNSUBSCRIBE", b"PSUBSCRIBE", b"PUNSUBSCRIBE", b"SSUBSCRIBE", b"SUNSUBSCRIBE")
)
"""The commands that are answered by pushes, one for each channel."""
_NO_ANSWER: Final = "no answer in time"
_MORE: Final = object()


@final
@dataclass(eq=False, slots=True, kw_only=True)
class _Call:
    """Commands on their way, and their answers."""

    frames: bytes
    size: int
    wanted: int
    deadline: float
    by_push: bool
    replies: list[Reply] = field(default_factory=list["Reply"])
    error: RedisError | None = None
    done: trio.Event = field(default_factory=trio.Event)


@final
class Pushes:
    """The pushes of a connection, in order: `[b"message", channel, data]`, and the like.

    Behind the last one it raises the `RedisError` that the connection was thrown away with: a
    subscription never ends in silence.
    """

    def __init__(self, limits: RedisLimits) -> None:
        self._max_bytes = limits.max_push_bytes
        self._bytes = 0
        self._error = ""
        opened = trio.open_memory_channel[tuple["list[Reply]", int]](limits.max_pushes)
        self._sender, self._receiver = opened

    @property
    def waiting(self) -> tuple[int, int]:
        """How many nobody has taken, and their bytes."""
        return self._receiver.statistics().current_buffer_used, self._bytes

    def put(self, push: list[Reply]) -> bool:
        """Add one; tell whether there was room."""
        size = sum(len(part) for part in push if isinstance(part, bytes))
        if self._bytes + size > self._max_bytes:
            return False
        try:
            self._sender.send_nowait((push, size))
        except trio.WouldBlock:
            return False
        self._bytes += size
        return True

    def end(self, error: str) -> None:
        """Put an error behind the last one."""
        self._error = error
        self._sender.close()

    async def receive(self) -> list[Reply]:
        """Wait for the next push.

        Raises:
            RedisError: the connection was thrown away.
        """
        try:
            push, size = await self._receiver.receive()
        except trio.EndOfChannel:
            raise RedisError(self._error) from None
        self._bytes -= size
        return push


@final
class RedisConnection:
    """A connection; `open_redis` makes it, and ends it with its block.

    Args:
        stream: to the server.
        name: what errors call the server.
        limits: its bounds.
    """

    def __init__(self, stream: trio.abc.Stream, name: str, limits: RedisLimits) -> None:
        self._hiredis = require_hiredis()
        self._stream = stream
        self._name = name
        self.limits: RedisLimits = limits
        self.pushes: Pushes = Pushes(limits)
        """Its pushes: answers of subscriptions, and messages."""
        self.server: ServerInfo
        """The server as it was at the beginning."""
        self._unsent: dict[_Call, None] = {}
        self._unanswered: deque[_Call] = deque()
        self._bytes = self._refused = 0
        self._more = trio.Event()
        self._broken = trio.Event()
        self._error = ""
        self._scope = trio.CancelScope()
        self._silence = trio.CancelScope()

    def statistics(self) -> RedisStatistics:
        """Count what waits."""
        pushes, push_bytes = self.pushes.waiting
        return RedisStatistics(
            calls_waiting=len(self._unsent) + len(self._unanswered),
            bytes_waiting=self._bytes,
            pushes_waiting=pushes,
            push_bytes_waiting=push_bytes,
            calls_refused=self._refused,
        )

    async def wait_broken(self) -> str:
        """Wait until the connection is of no more use; return why."""
        await self._broken.wait()
        return self._error

    # -- calls

    async def call(
        self,
        command: Argument,
        *arguments: Argument,
        timeout: float | None = None,  # noqa: ASYNC109 - its end throws the connection away
    ) -> Reply:
        """Send a command and return its reply.

        A subscription names one channel, and returns the push that confirms it; `pushes` has it
        too.

        Args:
            command: its name.
            arguments: what belongs to it.
            timeout: seconds to answer; the limits' own if not given.

        Raises:
            RedisReplyError: the server's answer is an error.
            NotSentError: it wasn't executed.
            NoAnswerError: it may have been executed.
        """
        by_push = is_subscription([command])
        if by_push and len(arguments) != 1:
            raise ValueError("a subscription names one channel, as each is answered by itself")
        (reply,) = await self._exchange([(command, *arguments)], timeout, by_push=by_push)
        if isinstance(reply, RedisReplyError):
            raise reply
        return reply

    async def pipeline(
        self,
        calls: Sequence[tuple[Argument, ...]],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as `call`
    ) -> list[Reply]:
        """Send commands in one write and return their replies, an error in the place of its reply.

        Others' commands may be executed in between. Raises as `call`, but no `RedisReplyError`, and
        `ValueError` if there is none, or one is a subscription.
        """
        if not calls or not all(calls) or any(map(is_subscription, calls)):
            raise ValueError("each call has a name, and a subscription is a call by itself")
        return await self._exchange(calls, timeout)

    async def eval_script(
        self,
        script: Script,
        keys: Sequence[Argument] = (),
        args: Sequence[Argument] = (),
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as `call`
    ) -> Reply:
        """Call a script by its hash, and send it whole where the server doesn't have it.

        That it is sent again is safe: by `NOSCRIPT` the server says that it executed nothing.
        Raises as `call`.
        """
        rest = (len(keys), *keys, *args)
        try:
            return await self.call("EVALSHA", script.sha1, *rest, timeout=timeout)
        except RedisReplyError as exc:
            if exc.code != "NOSCRIPT":
                raise
        return await self.call("EVAL", script.source, *rest, timeout=timeout)

    async def _exchange(
        self,
        calls: Sequence[tuple[Argument, ...]],
        timeout: float | None,  # noqa: ASYNC109 - as `call`
        *,
        by_push: bool = False,
    ) -> list[Reply]:
        """Put commands behind the others, and wait for all of their replies."""
        frames = b"".join(self._hiredis.pack_command(arguments) for arguments in calls)
        deadline = trio.current_time() + (self.limits.timeout if timeout is None else timeout)
        call = _Call(
            frames=frames, size=len(frames), wanted=len(calls), deadline=deadline, by_push=by_push
        )
        self._admit(call)
        try:
            with trio.move_on_at(call.deadline):
                await call.done.wait()
        finally:  # cancelled or late: what is sent is answered, and what isn't doesn't go out
            if call in self._unsent:
                del self._unsent[call]
                self._bytes -= call.size
                call.error = NotSentError(f"{self._name}: took nothing in time")
        if call.error is None and not call.done.is_set():
            self.throw_away(_NO_ANSWER)
        if call.error is not None:
            raise call.error
        return call.replies

    def _admit(self, call: _Call) -> None:
        """Put a call behind the others, if there is room."""
        if self._error:
            raise NotSentError(self._error)
        waiting, limits = len(self._unsent) + len(self._unanswered), self.limits
        if waiting >= limits.max_calls or self._bytes >= limits.max_bytes:
            self._refused += 1
            said = f"no room for {call.size} bytes: {waiting} calls of {self._bytes} bytes wait"
            raise NotSentError(f"{self._name}: {said}")
        self._unsent[call] = None
        self._bytes += call.size
        self._more.set()

    # -- the stream

    async def run(self) -> None:
        """Write and read until it breaks or is cancelled; close the stream."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._guard, self._write)
                    nursery.start_soon(self._guard, self._read)
        finally:
            self.throw_away("closed")
            await trio.aclose_forcefully(self._stream)

    def throw_away(self, reason: str) -> None:
        """End everything: the calls get their errors, and the stream is closed."""
        if self._error:
            return
        self._error = f"{self._name}: {reason}"
        for call in self._unanswered:
            call.error = NoAnswerError(self._error)
            call.done.set()
        for call in self._unsent:
            call.error = NotSentError(self._error)
            call.done.set()
        self._unanswered.clear()
        self._unsent.clear()
        self._bytes = 0
        self.pushes.end(self._error)
        self._broken.set()
        self._scope.cancel(reason)

    async def _guard(self, work: Callable[[], Awaitable[str]]) -> None:
        """Do one direction's work; its end is the connection's."""
        try:
            reason = await work()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
            reason = f"connection lost: {exc.__cause__ or exc}"
        except (self._hiredis.ProtocolError, TypeError) as exc:  # such as a list for a map's key
            reason = f"not Redis' protocol: {exc}"
        self.throw_away(reason)

    async def _write(self) -> str:
        """Send the frames of all calls that wait, as long as there are any."""
        while True:
            if not self._unsent:
                self._more = trio.Event()
                await self._more.wait()
            frames: list[bytes] = []
            size = 0
            while self._unsent and size < MAX_BATCH_BYTES:
                call = next(iter(self._unsent))
                del self._unsent[call]
                frames.append(call.frames)
                size += call.size
                call.frames = b""
                self._unanswered.append(call)
            self._expect()
            await self._stream.send_all(b"".join(frames))

    def _expect(self) -> None:
        """Wait for the first answer that is missing until its time is over.

        Each caller waits by itself too, but one that was cancelled doesn't.
        """
        self._silence.deadline = self._unanswered[0].deadline if self._unanswered else inf

    async def _read(self) -> str:
        """Hand out answers and pushes; return what is wrong."""
        reader = self._hiredis.Reader(notEnoughData=_MORE, replyError=RedisReplyError)
        unparsed = 0
        while True:
            # One scope for all reads: `_expect` moves its deadline.
            with self._silence:
                while data := await self._stream.receive_some(READ_BYTES):
                    reader.feed(data)
                    unparsed += len(data)
                    while (reply := reader.gets()) is not _MORE:
                        unparsed = 0
                        if wrong := self._take(reply):
                            return wrong
                    if unparsed > self.limits.max_reply_bytes:
                        return f"a reply of more than {self.limits.max_reply_bytes} bytes"
                    self._expect()
                return "the server closed the connection"
            if (deadline := self._silence.deadline) <= trio.current_time():
                return _NO_ANSWER
            # The answer came in the same turn, such as to a process that stood still.
            self._silence = trio.CancelScope(deadline=deadline)

    def _take(self, reply: Reply) -> str:
        """Give a reply to its caller, or a push to `pushes`; return what is wrong."""
        first = self._unanswered[0] if self._unanswered else None
        if isinstance(reply, self._hiredis.PushNotification):
            push = cast("list[Reply]", reply)
            if not self.pushes.put(push):
                return "more pushes than there is room for"
            if first is None or not first.by_push or not is_subscription(push):
                return ""
        elif first is None:
            # Such as that there are too many clients, said before the stream is closed.
            said = f": {reply}" if isinstance(reply, RedisReplyError) else ""
            return f"an answer that nobody asked for{said}"
        assert first is not None
        first.replies.append(reply)
        if len(first.replies) == first.wanted:
            self._unanswered.popleft()
            self._bytes -= first.size
            first.done.set()
        return ""


def is_subscription(parts: Sequence[object]) -> bool:
    """Whether a command, or a push, is about a subscription."""
    name = parts[0] if parts else b""
    return (name if isinstance(name, bytes) else str(name).encode()).upper() in _SUBSCRIBING


def require_hiredis() -> Any:  # noqa: ANN401 - a module
    """Import hiredis.

    Raises:
        ImportError: the extra isn't installed; the error names it.
    """
    try:
        return importlib.import_module("hiredis")
    except ImportError as exc:
        raise ImportError(f"Redis needs hiredis: {install('redis')}") from exc
