"""Reasons and what is told about an ending."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from h3trio import CloseReason, Closing
from h3trio._http.closing import ENDED_BY_SERVER, lost


def test_reasons_are_strings() -> None:
    """A reason is its own label in logs and metrics, in lower case."""
    assert f"{CloseReason.CLIENT_CLOSED}" == "client_closed"
    assert all(reason.value == reason.name.lower() for reason in CloseReason)


def test_farewells() -> None:
    """The endings that we choose are those with a farewell."""
    assert {"lease", "draining", "kicked", "auth_expired"} == ENDED_BY_SERVER


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (TimeoutError(), CloseReason.SLOW),
        (ConnectionResetError(), CloseReason.CONNECTION_LOST),
        (None, CloseReason.CONNECTION_LOST),
    ],
)
def test_lost(cause: Exception | None, reason: CloseReason) -> None:
    """A connection that the kernel's timeout ended was slow; any other was lost."""
    error = trio.BrokenResourceError()
    error.__cause__ = cause
    assert lost(error) is reason


def test_closing() -> None:
    """A closing is a frozen value."""
    closing = Closing(reason=CloseReason.LEASE, status=200, duration=1.5, events=2, bytes_sent=100)
    assert closing == dataclasses.replace(closing)
    with pytest.raises(dataclasses.FrozenInstanceError):
        closing.events = 3  # type: ignore[misc]  # because the error is the point
