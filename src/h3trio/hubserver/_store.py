"""`make_history`: the history that the command line's `--store` names.

    memory              nothing is left at exit
    sqlite:PATH         a file, durable unless told otherwise

`Retention` has one set of names for all stores; a bound that isn't set is the store's own default.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, final

from h3trio.hub import History, MemoryHistory, SQLiteHistory

if TYPE_CHECKING:
    from collections.abc import Mapping

_HINT = {
    "memory": "events are lost at exit",
    "fast": "survives a crash of the process",
    "durable": "survives a power cut",
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
    durability: Literal["durable", "fast"] = "durable",
    retention: Retention | None = None,
) -> History:
    """Make the history that a `--store` names; nothing is opened yet.

    Raises:
        ValueError: there is no such store, or a bound isn't positive.
    """
    bounds: dict[str, float] = dict((retention or Retention()).given())
    kind, _, path = store.partition(":")
    if store == "memory":
        return MemoryHistory(**bounds)  # type: ignore[arg-type]  # checked where they came in
    if kind == "sqlite" and path:
        return SQLiteHistory(path, durability=durability, **bounds)  # type: ignore[arg-type]  # as above
    raise ValueError(f"--store is memory or sqlite:PATH, not {store!r}")


def describe(store: str, history: History) -> str:
    """Say what an acknowledged publish survives, for the ready line."""
    level = "" if store == history.durability else f", {history.durability}"
    return f"store: {store}{level}: {_HINT[history.durability]}"
