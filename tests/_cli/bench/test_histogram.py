"""Delays counted in steps: what is read off stays within a step of the truth."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h3trio._cli.bench.histogram import Histogram

delays = st.lists(st.floats(1e-5, 1e4), min_size=1, max_size=50)


def histogram(values: list[float]) -> Histogram:
    """Record some delays."""
    made = Histogram()
    for value in values:
        made.record(value)
    return made


@given(delays, st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_are_within_a_step(values: list[float], share: float) -> None:
    """A quantile is not below the true one, and above it by one step of 3.2 % at most."""
    made = histogram(values)
    exact = next(v for n, v in enumerate(sorted(values), 1) if n >= share * len(values))
    assert exact * 0.9999 <= made.quantile(share) <= exact * 1.033 + 2e-6


@given(delays, delays)
def test_sums_are_those_of_all(one: list[float], other: list[float]) -> None:
    """Two histograms added, one of them over JSON, are as if one had taken all."""
    total = histogram(one)
    total.add(Histogram.from_json(json.loads(json.dumps(histogram(other).as_json()))))
    assert total.milliseconds() == histogram(one + other).milliseconds()
    assert total.total == len(one) + len(other)


def test_weights_count() -> None:
    """A delay of weight 99 outweighs one of weight 1."""
    made = Histogram()
    made.record(0.001, 99)
    made.record(1.0)
    found = made.milliseconds()
    assert found is not None
    assert found["p99"] == pytest.approx(1, rel=0.04)
    assert found["max"] == 1000


def test_nothing_has_no_quantiles() -> None:
    """Without samples there are no figures; below zero counts as zero."""
    assert Histogram().milliseconds() is None
    assert Histogram().quantile(0.5) == 0
    assert histogram([-1.0]).quantile(0.5) == 0
