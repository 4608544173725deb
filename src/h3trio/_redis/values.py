"""Values of the client: replies, errors, limits, statistics, scripts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeAlias, final

from h3trio._limits import check_limit

Argument: TypeAlias = bytes | str | int
"""A part of a command; text is sent as UTF-8."""

Reply: TypeAlias = (
    "int | float | bool | bytes | RedisReplyError | list[Reply] | dict[Reply, Reply] | None"
)
"""A value of RESP3. An error inside a list is one command's of several."""


class RedisError(Exception):
    """A call didn't do its work, or the connection ended."""


@final
class RedisReplyError(RedisError):
    """The server answered with an error."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code: str = message.partition(" ")[0]
        """Its first word, such as `NOSCRIPT`, `OOM`, `READONLY` or `NOPERM`."""


@final
class NotSentError(RedisError):
    """The call wasn't executed: there is no connection, or no room for the call."""


@final
class NoAnswerError(RedisError):
    """The call was sent, and its answer is missing: it may have been executed or not."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RedisLimits:
    """Bounds of one connection.

    Raises:
        TypeError: one is no number.
        ValueError: one isn't positive.
    """

    timeout: float = 5.0
    """Seconds to connect, and to answer a call that names no other time: a script takes
    milliseconds, and a server that is frozen for longer is as good as away."""
    max_calls: int = 1024
    """Calls without an answer: as many tasks may wait."""
    max_bytes: int = 16 * 1024 * 1024
    """Bytes of calls without an answer. While there are fewer one more is sent, of whatever size:
    no call is refused for ever."""
    max_reply_bytes: int = 64 * 1024 * 1024
    """Bytes of one reply, which is kept until it is whole: more than a page of the largest
    events."""
    max_pushes: int = 8192
    """Pushes that nobody has taken: a second of the messages that one task can handle."""
    max_push_bytes: int = 16 * 1024 * 1024
    """Their bytes."""

    def __post_init__(self) -> None:
        check_limit("timeout", self.timeout, whole=False)
        for name in ("max_calls", "max_bytes", "max_reply_bytes", "max_pushes", "max_push_bytes"):
            check_limit(name, getattr(self, name))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RedisStatistics:
    """Numbers of one connection."""

    calls_waiting: int
    """Calls without an answer; those that were cancelled when they were sent already count."""
    bytes_waiting: int
    """Their bytes."""
    pushes_waiting: int
    """Pushes that nobody has taken."""
    push_bytes_waiting: int
    """Their bytes."""
    calls_refused: int
    """Calls that met `max_calls` or `max_bytes`."""


@final
class Script:
    """A Lua script, which is sent once and then called by its hash.

    Args:
        source: the script.
    """

    def __init__(self, source: bytes) -> None:
        self.source: bytes = source
        # By this hash Redis knows it: nothing is secured.
        self.sha1: str = hashlib.sha1(source, usedforsecurity=False).hexdigest()
