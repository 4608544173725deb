"""Two hubs on one Redis: whatever happens, a subscriber sees the log, or is told of a gap.

The machine of `properties/test_shared_histories.py`, on a real server and in real time. Each hub
connects by a relay of its own, which lets its messages wait, and cuts its connections. That the
server starts again, or a replica takes over, is played inside of it: what a hub sees of that is
lost connections, another run id, and keys as they were at an earlier time.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hiredis
import trio
from e2e.redis_relay import Relay
from e2e.redis_server import redis_server
from hypothesis import Phase, given, settings
from properties.test_shared_histories import TAIL, Play, actions

from h3trio.hub import HistoryError, KeyReusedError, RedisHistory, TopicClosedError
from h3trio.hub._redis.codec import epochs_of, record_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from h3trio.hub import Record

EXAMPLES = 20
STEP = 0.01
END = 10
# In real time a failure isn't made smaller.
PHASES = (Phase.explicit, Phase.generate)
PREFIX = "{test}:"


class Log(NamedTuple):
    """The records of a store at one moment."""

    records: list[Record]
    head: int

    def __iter__(self) -> Iterator[Any]:
        return iter(self.records)


class Memory(NamedTuple):
    """Everything in a store at one moment."""

    epochs: list[tuple[str, int]]
    log: Log


class RedisStore:
    """Looks into a server, and makes trouble: in one step each, without a checkpoint."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._reader = hiredis.Reader()
        self.replica: dict[bytes, bytes] | None = None

    def close(self) -> None:
        """Close its own connection."""
        self._socket.close()

    def together(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Run commands as one step."""
        commands = (("MULTI",), *commands, ("EXEC",))
        self._socket.sendall(b"".join(map(hiredis.pack_command, commands)))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._socket.recv(65536))
            else:
                replies.append(reply)
        assert isinstance(replies[-1], list), replies
        return replies[-1]

    _LOOK = (
        ("LRANGE", PREFIX + "epochs", 0, -1),
        ("XRANGE", PREFIX + "log", "-", "+"),
        ("HGET", PREFIX + "state", "last"),
    )

    @property
    def memory(self) -> Memory:
        """Everything there is."""
        return self._memory(self.together(*self._LOOK))

    def _memory(self, replies: Sequence[Any]) -> Memory:
        epochs, entries, last = replies[:3]
        return Memory(epochs_of(epochs), Log(list(map(record_of, entries)), int(last or 0)))

    def restart(self) -> None:
        """Cut all; whoever comes next finds another run."""
        self.together(("HSET", PREFIX + "state", "run", "another"))
        self._kill()

    def _kill(self) -> None:
        self.together(*(("CLIENT", "KILL", "TYPE", kind) for kind in ("normal", "pubsub")))

    def replicate(self) -> None:
        """Remember all keys."""
        (keys,) = self.together(("KEYS", "*"))
        values = self.together(*(("DUMP", key) for key in keys))
        self.replica = {key: value for key, value in zip(keys, values, strict=True) if value}

    def fail_over(self) -> Memory:
        """Put all keys back as they were; return what there was until then."""
        assert self.replica is not None
        restored = [("RESTORE", key, 0, value) for key, value in self.replica.items()]
        # Another past than any that a hub may still believe in.
        changed = ("HSET", PREFIX + "state", "run", "another", "epoch", "none")
        replies = self.together(*self._LOOK, ("FLUSHALL",), *restored, changed)
        self._kill()
        return self._memory(replies)


class RedisPlay(Play):
    """Plays the actions against a server."""

    def __init__(
        self,
        nursery: trio.Nursery,
        store: RedisStore,
        relays: Sequence[Relay],
        **limits: Any,  # noqa: ANN401 - those of the history
    ) -> None:
        super().__init__(nursery)
        self.store = store
        self.is_bounded = bool(limits)
        self.acknowledged: set[str] = set()
        self._limits = limits
        self._relays = relays

    def history(self, number: int) -> RedisHistory:
        """A connection of a new node."""
        return RedisHistory(
            f"{self._relays[number].url}?prefix=test", tail_events=TAIL, **self._limits
        )

    async def rest(self, seconds: float) -> None:
        """Wait until both hubs are where the store is, for as long as that may take."""
        if seconds < 1:
            await trio.sleep(seconds / 10)
            return
        is_end = seconds >= END
        for _ in range(int(seconds / STEP)):
            if self.is_calm() and not (is_end and any(one.is_busy for one in self.sessions)):
                break
            await trio.sleep(STEP)
        await trio.sleep(0.03)

    def is_calm(self) -> bool:
        """Whether nothing is on its way."""
        self.look()
        head = self.store.memory.log.head
        return all(
            self.hubs[number] is None
            or self._relays[number].is_held
            or (one.is_connected and one.log.head == head)
            for number, one in enumerate(self.histories)
        )

    async def publish(self, number: int, names: list[str], **options: Any) -> None:  # noqa: ANN401 - as of `Play`
        """Publish; what is acknowledged has to be there, or to be told as lost."""
        self.published += 1
        closed = self.closed().intersection(names)
        try:
            id = await self.hub(number).publish(str(self.published), topics=names, **options)
        except TopicClosedError:
            assert self.closed().intersection(names) or closed, "an open topic is refused"
            return
        except (HistoryError, KeyReusedError):
            return
        assert not closed or "dedup" in options, "a closed topic isn't refused"
        self.acknowledged.add(id)

    async def do_hold(self, number: int, _: None) -> None:
        """A node's messages wait."""
        self._relays[number].hold()

    async def do_release(self, number: int, _: None) -> None:
        """They come."""
        self._relays[number].release()

    async def do_cut(self, number: int, _: None) -> None:
        """A node's connections are lost."""
        self._relays[number].cut()

    async def do_close(self, number: int, names: list[str]) -> None:
        """Close topics, if the server can be asked."""
        with contextlib.suppress(HistoryError):
            await super().do_close(number, names)

    async def do_purge(self, number: int, topic: str) -> None:
        """Remove a topic, if the server can be asked."""
        self.has_removed = True
        with contextlib.suppress(HistoryError):
            await self.hub(number).purge(topic)

    async def do_fail_over(self, _a: None, _b: None) -> None:
        """A replica takes over, with what it has."""
        if self.store.replica is None:
            return
        self.has_removed = True
        self.look(self.store.fail_over())
        self.begin_life()


async def play(folder: Path, script: list[tuple[str, Any, Any]], **limits: Any) -> None:  # noqa: ANN401 - as above
    """Play a script on a server of its own."""
    async with redis_server(folder) as server, trio.open_nursery() as nursery:
        relays = [Relay(nursery, server.port) for _ in range(2)]
        for relay in relays:
            await relay.start()
        with contextlib.closing(RedisStore(server.port)) as store:
            one = RedisPlay(nursery, store, relays, **limits)
            await one.run(script)
            if not limits:
                assert one.acknowledged <= one.given, "acknowledged, and never stored"
            nursery.cancel_scope.cancel()


@settings(max_examples=EXAMPLES, phases=PHASES)
@given(actions)
def test_two_hubs_on_one_server_tell_every_gap(script: list[tuple[str, Any, Any]]) -> None:
    """Nothing is trimmed: each stream is its topics' log, but for what was purged or lost."""
    with tempfile.TemporaryDirectory() as folder:
        trio.run(partial(play, Path(folder), script))


@settings(max_examples=EXAMPLES, phases=PHASES)
@given(actions)
def test_two_hubs_on_a_small_server_do_the_same(script: list[tuple[str, Any, Any]]) -> None:
    """With room for six events in all and four a topic."""
    with tempfile.TemporaryDirectory() as folder:
        trio.run(partial(play, Path(folder), script, max_events=6, max_topic_events=4))
