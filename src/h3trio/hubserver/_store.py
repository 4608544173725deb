"""`make_history`: the history that the command line's `--store` names.

    memory              nothing is left at exit
    sqlite:PATH         a file, durable unless told otherwise
    redis://HOST/DB     a server that several hubs share; what survives is up to its settings
    rediss://, unix://, redis+sentinel:// and rediss+sentinel:// too

`Retention` has one set of names for all stores; a bound that isn't set is the store's own default.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, final

from h3trio.hub import History, MemoryHistory, RedisHistory, SQLiteHistory

if TYPE_CHECKING:
    from collections.abc import Mapping

_HINT: Final = {
    "memory": "events are lost at exit",
    "fast": "survives a crash of the process",
    "durable": "survives a power cut",
}
_SERVER_HINT: Final = {
    "memory": "events are lost when the server ends",
    "fast": "survives a crash of the server, but for its last seconds where its disk is slow",
    "durable": "survives a power cut of the server",
}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Bounds on what a store keeps; `None` for the store's default."""

    max_events: int | None = None
    """Events kept."""
    max_bytes: int | None = None
    """Bytes of their frames, as they are sent."""
    max_age: float | None = None
    """Seconds for which an event is kept."""
    max_topic_events: int | None = None
    """Events kept of one topic."""

    def given(self) -> Mapping[str, float]:
        """Return the bounds that are set, as keyword arguments of a history."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def make_history(
    store: str,
    *,
    durability: Literal["durable", "fast"] | None = None,
    retention: Retention | None = None,
    password: str | None = None,
    timeout: float | None = None,
    open_wait: float = 0.0,
) -> History:
    """Make the history that a `--store` names; nothing is opened yet.

    Args:
        store: `memory`, `sqlite:PATH`, or the URL of a server as of `RedisHistory`.
        durability: of SQLite, where the default is durable; of a server, the least that will do.
        retention: bounds on what it keeps.
        password: that of a server, if it isn't in the URL.
        timeout: seconds for which a server's answer is waited for.
        open_wait: seconds for which opening it tries again while a server can't be reached.

    Raises:
        ValueError: there is no such store, or a bound isn't positive. It never quotes a password.
        ImportError: a server needs the extra `redis`, which isn't installed.
    """
    bounds: dict[str, Any] = dict((retention or Retention()).given())
    kind, _, rest = store.partition(":")
    if rest.startswith("//"):
        if timeout is not None:
            bounds["timeout"] = timeout
        return RedisHistory(
            store, password=password, durability=durability, open_wait=open_wait, **bounds
        )
    if store == "memory":
        return MemoryHistory(**bounds)
    if kind == "sqlite" and rest:
        return SQLiteHistory(rest, durability=durability or "durable", **bounds)
    # What somebody has mistyped may have a password in it.
    said = "" if "@" in store else f", not {store!r}"
    raise ValueError(f"--store is memory, sqlite:PATH or redis://HOST{said}")


def describe(store: str, history: History) -> str:
    """Say what an acknowledged publish survives, for the ready line.

    What a server keeps is known once the history is open.
    """
    level = history.durability
    if isinstance(history, RedisHistory):
        return f"store: {history.address}, {level}: {_SERVER_HINT[level]}; {history.server}"
    shown = "" if store == level else f", {level}"
    return f"store: {store}{shown}: {_HINT[level]}"
