"""`RunsSettings`: every limit of a hub's runs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, final

from h3trio._limits import check_limit

if TYPE_CHECKING:
    from collections.abc import Mapping


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunsSettings:
    """Limits of runs. A time is in seconds.

    Raises:
        ValueError, TypeError: a limit isn't a positive number.
    """

    max_runs: int = 1000
    """Runs under way on this node; one more is refused by 503. Each holds a task and two pinned
    topics, and most likely a connection to a model."""

    max_owner_runs: int = 20
    """Runs under way on this node that have the same owner; one more is refused by 429. A page
    with some tabs stays below it. Runs with an empty owner aren't counted here."""

    max_run_events: int = 10_000
    """Events of one run without its terminal one: the tokens of a long answer. One more fails the
    run. It is pinned, so a history's `max_pinned_events` is the bound for all of them."""

    max_run_bytes: int = 2 * 1024 * 1024
    """Bytes of these events, as encoded without ids. One more fails the run. Half of what
    `h3trio.hub.read_recent` gives at once, from which a snapshot is made."""

    max_run_seconds: float = 3600.0
    """Seconds that one run may take; then it fails. Longer than an answer, and short enough that
    one which hangs doesn't hold its place for ever."""

    max_ended_runs: int = 100_000
    """Runs that have ended and are kept for `retain`, each 400 bytes beside what the history has of
    it. With one more the oldest is removed early. 28 a second, for an hour."""

    lease: float = 15.0
    """Seconds after which the runs of a node that is silent are interrupted by the others. For
    hubs that share a history, where all nodes need the same. As long as two heartbeats of a stream
    that are missing in a row, long enough for a garbage collection or a slow store."""

    pin_after_end: float = 30.0
    """Seconds for which a run stays pinned behind its end, if runs that go on don't need the room.
    Clients that have lost their connection are back by then."""

    close_timeout: float = 2.0
    """Seconds for which the end waits for the store to take the last events of what still runs.
    Those that it doesn't take are found at the next start. It is less than what the command `serve`
    gives a lifespan at its end."""

    def __post_init__(self) -> None:
        for field in fields(self):
            is_whole = _KINDS[field.name].startswith("int")
            check_limit(field.name, getattr(self, field.name), whole=is_whole)


_KINDS: Final[Mapping[str, str]] = {field.name: str(field.type) for field in fields(RunsSettings)}
