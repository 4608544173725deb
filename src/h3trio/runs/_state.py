"""`RunState`, `RunStatus` and the like: how runs stand, and the events that end them.

The type of the terminal event is the state that the run ended in. It is never `error`, `open` or
`message`: a browser's `EventSource` has handlers of its own for these, and calls `onerror` for an
event of type `error`.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast, final

from h3trio import SSEEvent, SSEParser

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from h3trio.hub import Record


@final
class RunState(enum.StrEnum):
    """The state of a run: it goes on, or how it ended. The value is its terminal event's type."""

    RUNNING = "running"
    """It goes on. No event has this type."""
    DONE = "done"
    """Its function returned. The event's data is `{}`."""
    FAILED = "failed"
    """Its function raised, or met a limit. Data: `{"message": …}`, made for the public."""
    STOPPED = "stopped"
    """Somebody stopped it, or nobody watched it. Data: `{"reason": …}`."""
    INTERRUPTED = "interrupted"
    """Its process ended before it did. What was acknowledged is kept. Data: `{}`."""


SNAPSHOT: Final = "snapshot"
"""The type of the event that has all texts so far in one."""

ENDED: Final = frozenset(RunState) - {RunState.RUNNING}
"""The types of terminal events."""

RESERVED: Final = frozenset({*RunState, SNAPSHOT})
"""The types that no event of a run's function may have."""

MAX_DETAIL: Final = 1000
"""Characters of a message or a reason; what is longer is cut. It is a sentence for people."""

_DETAIL: Final = {RunState.FAILED: "message", RunState.STOPPED: "reason"}
"""The name of the detail in the data of a terminal event."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """A snapshot of one run."""

    id: str
    """Its id: 32 hexadecimal digits."""
    state: RunState
    """Whether it goes on, or how it ended."""
    detail: str = ""
    """The message of one that failed, the reason of one that was stopped."""
    function: str
    """The name of its function."""
    started: float
    """Unix time in seconds at which it was started."""
    ended: float | None = None
    """Unix time in seconds at which it ended, `None` while it goes on."""

    def to_json(self) -> dict[str, object]:
        """Return it as JSON for clients: `id`, `status`, `started`, and what there is besides.

        These are `ended`, and `message` or `reason`. The name of the function is left out.
        """
        told: dict[str, object] = {
            "id": self.id,
            "status": self.state.value,
            "started": self.started,
        }
        if self.ended is not None:
            told["ended"] = self.ended
        if (name := _DETAIL.get(self.state)) is not None:
            told[name] = self.detail
        return told


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """All that there is of a run that has ended."""

    status: RunStatus
    """How it ended."""
    text: str
    """Its events, joined by the `reduce` that was given."""
    whole: bool
    """Whether all of its events are still there. It says nothing of how the run ended."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunsStatistics:
    """A snapshot of the runs of one node."""

    running: int
    """Runs under way."""
    watched: int
    """Those of them that have viewers on this node."""
    unwatched: int
    """Those of them that have none here; another node may have some."""
    viewers: int
    """Viewers on this node, of whatever runs."""
    started: int
    """Runs started in total."""
    joined: int
    """Starts with the key of a run that was there."""
    ended: Mapping[str, int]
    """Runs of this node that ended, by how: `done`, `failed`, `stopped`, `interrupted`. Those of
    other and earlier processes that it found interrupted are among them."""
    limits: Mapping[str, int]
    """Times that a limit was met, by its name."""
    task_failures: Mapping[str, int]
    """Errors that the runs' own tasks went on from, by task."""


def public_detail(text: str) -> str:
    """Return a message or a reason as an event can have it, whoever wrote it.

    Lone surrogates are replaced, which no event can have, and what is too long is cut.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= MAX_DETAIL else f"{text[: MAX_DETAIL - 1]}…"


def terminal_event(state: RunState, detail: str) -> SSEEvent:
    """Make the event that ends a run."""
    name = _DETAIL.get(state)
    data = {} if name is None else {name: detail}
    return SSEEvent(json.dumps(data, ensure_ascii=False), event=state)


def read_terminal(record: Record) -> tuple[RunState, str]:
    """Return the state and the detail that a closing record tells.

    One that isn't a run's own, as somebody else closed the topic, counts as an interruption, and
    what can't be read of it as nothing.
    """
    event = event_of(record)
    if event.event not in ENDED:
        return RunState.INTERRUPTED, ""
    state, told = RunState(event.event), read_json(event)
    name = _DETAIL.get(state, "")
    fields = cast("dict[str, object]", told) if isinstance(told, dict) else {}
    return state, str(fields.get(name, ""))


def read_json(event: SSEEvent) -> object:
    """Return the data of an event as JSON; `None` if it isn't, as somebody else wrote it."""
    try:
        return json.loads(event.data or "null")
    except (ValueError, RecursionError):
        return None


def event_of(record: Record) -> SSEEvent:
    """Parse the event of a record, as its subscribers would see it."""
    found = SSEParser(max_event_size=len(record.frame) + 1).feed(record.frame)
    return found[0] if found else SSEEvent("")


def join_texts(events: Iterable[SSEEvent]) -> str:
    """Join the data of all events without a type of their own: the tokens of an answer."""
    # A list, and not a generator: it is all made in one step of the loop.
    return "".join([event.data or "" for event in events if event.event in (None, "message")])
