"""The hub server's limits are checked when they are made."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from h3trio.hubserver import Limits


def made(name: str, value: float) -> Limits:
    """Make limits of which one isn't the default."""
    changed: dict[str, Any] = {name: value}
    return Limits(**changed)


def test_limits_are_positive(subtests: pytest.Subtests) -> None:
    """One is the least count, and no time is zero, negative or no number."""
    for name in [f.name for f in fields(Limits) if f.name != "publish_rate"]:
        with subtests.test(name=name):
            for good in (1, 7):
                assert getattr(made(name, good), name) == good
            for wrong in (0, -1):
                with pytest.raises(ValueError, match=name):
                    made(name, wrong)
            if name.startswith("recheck"):
                with pytest.raises(ValueError, match=name):
                    made(name, float("nan"))


def test_the_hub_has_the_same_limits() -> None:
    """The hub allows what its server does."""
    limits = Limits(max_topics_per_subscription=3, max_topic_length=4)
    settings = limits.hub_settings(max_event_bytes=5, flush_interval=6)
    assert (settings.max_topics, settings.max_topic_length) == (3, 4)
    assert (settings.max_event_bytes, settings.flush_interval) == (5, 6)
