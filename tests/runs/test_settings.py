"""The arguments and settings of runs are checked where they are given."""

from __future__ import annotations

from typing import Any

import pytest
from tables import table

from h3trio.hub import Hub, MemoryHistory
from h3trio.runs import Runs, RunsSettings


@table(
    "options",
    [
        {"retain": 0},
        {"retain": float("nan")},
        {"cancel_unwatched_after": -1},
        {"prefix": "\n"},
    ],
)
def test_settings_are_checked(options: dict[str, Any]) -> None:
    """What can't be a limit is refused where it is given."""
    with pytest.raises(ValueError, match=r"must be|may not"):
        Runs(Hub(MemoryHistory()), **options)


@table("name", sorted(RunsSettings.__dataclass_fields__))
def test_limits_are_checked(name: str) -> None:
    """Each setting is a positive number."""
    with pytest.raises(ValueError, match=name):
        RunsSettings(**{name: 0})
    with pytest.raises(TypeError, match=name):
        RunsSettings(**{name: True})
