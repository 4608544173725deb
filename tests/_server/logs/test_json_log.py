"""Records as lines of JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import trio
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio._server.logs.json_log import JSONFormatter


def formatted(message: str, *args: object, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - what a record may have
    """Format a record; check that it is a line of ASCII, and read it."""
    record = logging.LogRecord("h3trio.server", logging.WARNING, "x.py", 1, message, args, None)
    record.__dict__.update(fields)
    line = JSONFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_record_is_an_object() -> None:
    """It has time, level, logger and message, and no field for what it hasn't."""
    found = formatted("%d of %s", 7, "them", created=0.5)
    assert found == {
        "time": "1970-01-01T00:00:00.500Z",
        "level": "WARNING",
        "logger": "h3trio.server",
        "message": "7 of them",
    }
    assert datetime.fromisoformat(found["time"]) == datetime.fromtimestamp(0.5, UTC)


def test_extra_fields_stand_beside() -> None:
    """What JSON has no form for is text or left out, and so is asyncio's task."""
    found = formatted("x", status=200, path=UTC, taskName=None, odd={(1, 2): 3})
    assert (found["status"], found["path"], found["odd"]) == (200, "UTC", {})
    assert "taskName" not in found


def test_extra_fields_take_no_place_of_ours() -> None:
    """A field with a name of ours is left out, and stands where the record has none of it."""
    names = ("time", "logger", "level")
    found = formatted("x", created=0.5, exception="E", **dict.fromkeys(names, "forged"))
    assert found == {
        "time": "1970-01-01T00:00:00.500Z",
        "level": "WARNING",
        "logger": "h3trio.server",
        "message": "x",
        "exception": "E",
    }


async def test_extra_fields_forge_no_task() -> None:
    """Where a task logs, its own name stands."""
    await trio.lowlevel.checkpoint()
    assert "test_extra_fields_forge_no_task" in formatted("x", task="forged")["task"]


class Silent:
    """What can't even be shown."""

    def __repr__(self) -> str:
        """Fail."""
        raise RuntimeError


@table(
    "value",
    [float("nan"), [float("-inf")], 10**5000, Silent()],
)
def test_what_json_cannot_say_breaks_no_line(value: object) -> None:
    """It is its `repr`, or its type's name where that fails too, and what is beside it is whole."""
    try:
        expected = repr(value)
    except (RuntimeError, ValueError):
        expected = f"<{type(value).__name__}>"
    found = formatted("x", value=value, other=[1, {"a": None}])
    assert (found["value"], found["other"]) == (expected, [1, {"a": None}])


def test_endless_values_break_no_line() -> None:
    """One that holds itself is shown as Python does, one too deep by its type."""
    round_and_round: dict[str, object] = {}
    round_and_round["d"] = round_and_round
    deep: list[object] = []
    for _ in range(50_000):
        deep = [deep]
    found = formatted("x", value=round_and_round, deep=deep)
    assert (found["value"], found["deep"]) == ("{'d': {...}}", "<list>")
    assert found["message"] == "x"


def test_an_error_has_its_traceback() -> None:
    """In one line too."""
    try:
        raise ValueError("a\nb")  # noqa: TRY301 - a traceback is what is needed
    except ValueError:
        found = formatted("x", exc_info=sys.exc_info(), stack_info="Stack:\n  here")
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith("ValueError: a\nb")
    assert found["stack"] == "Stack:\n  here"


async def test_the_task_is_named() -> None:
    """Where it is logged in a task of Trio's."""
    await trio.lowlevel.checkpoint()
    assert "test_the_task_is_named" in formatted("x")["task"]


@given(st.text(), st.text())
def test_nothing_breaks_a_line(message: str, value: str) -> None:
    """Whatever is logged, lone surrogates too, is one line that reads back as it was."""
    found = formatted("%s", message, value=value)
    assert (found["message"], found["value"]) == (message, value)
