"""Every setting has a sound default, and a bad one fails when it is made."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from tables import table

from h3trio import Settings

FIELDS = [field.name for field in dataclasses.fields(Settings)]
WHOLE = {field.name for field in dataclasses.fields(Settings) if "int" in str(field.type)}
MAY_BE_NONE = {
    "blocked_loop_warning",
    "cancel_warning",
    "lease",
    "max_requests_per_connection",
    "min_body_rate",
}


def made(name: str, value: object) -> Settings:
    """Make settings with one other value."""
    values: dict[str, Any] = {name: value}
    return Settings(**values)


def test_defaults() -> None:
    """The defaults are the documented ones that others rely on."""
    settings = Settings()
    assert (settings.queue_events, settings.queue_bytes) == (256, 64 * 1024)
    assert (settings.max_body_bytes, settings.notsent_lowat) == (1024**2, 128 * 1024)
    assert (settings.heartbeat_interval, settings.write_timeout) == (15, 30)
    assert settings.lease is None


def test_frozen() -> None:
    """Settings don't change once made."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().backlog = 1  # type: ignore[misc]  # because the error is the point


@table("name", FIELDS)
@table("value", [-1, math.nan])
def test_not_a_size_or_a_time(name: str, value: float) -> None:
    """A negative number or NaN is refused by name."""
    # NaN is a float, and a field for whole numbers says so first.
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be (positive|a whole number)"):
        made(name, value)


@table("name", FIELDS)
def test_a_part_of_a_thing(name: str) -> None:
    """What is counted is a whole number; what is measured need not be."""
    if name in WHOLE:
        with pytest.raises(TypeError, match=f"^{name} must be a whole number"):
            made(name, 2.5)
    else:
        made(name, 0.5)


@table("name", FIELDS)
@table("value", ["1", True, b"1"])
def test_not_a_number(name: str, value: object) -> None:
    """What is no number is refused by name, bools included."""
    with pytest.raises(TypeError, match=f"^{name} must be a (whole )?number"):
        made(name, value)


@table("name", FIELDS)
def test_zero(name: str) -> None:
    """Zero is refused but where it means "none of that"."""
    if name in {"drain_soft", "drain_hard", "drain_finish", "lease_jitter", "linger_timeout"}:
        assert getattr(made(name, 0), name) == 0
    else:
        with pytest.raises(ValueError, match=f"^{name} must be positive"):
            made(name, 0)


@table("name", FIELDS)
def test_none(name: str) -> None:
    """None turns off what may be off, and nothing else."""
    if name in MAY_BE_NONE:
        assert getattr(made(name, None), name) is None
    else:
        with pytest.raises(TypeError, match=f"^{name} must be a (whole )?number"):
            made(name, None)


@table("name", sorted(set(FIELDS) - WHOLE))
def test_no_infinities(name: str) -> None:
    """No time is infinite: what may be off is off by None, and the error says so."""
    with pytest.raises(ValueError, match=f"^{name} must be finite, not inf") as caught:
        made(name, math.inf)
    assert str(caught.value).endswith("None is off") == (name in MAY_BE_NONE)


@pytest.mark.parametrize("name", ["backlog", "notsent_lowat"])
def test_what_the_kernel_counts(name: str) -> None:
    """What goes to the kernel fits in a C int."""
    made(name, 2**31 - 1)
    with pytest.raises(ValueError, match=f"^{name} must be at most 2147483647"):
        made(name, 2**31)


def test_a_share() -> None:
    """The jitter of a lease is a share of it, below all of it."""
    assert Settings(lease_jitter=0.99).lease_jitter == 0.99
    with pytest.raises(ValueError, match=r"^lease_jitter must be a share below 1, not 1"):
        Settings(lease_jitter=1)


def test_the_tighter_bound_holds() -> None:
    """Settings aren't held against each other: a drain may be shorter than a farewell."""
    Settings(farewell_timeout=3, drain_soft=0.1, drain_hard=0)
