"""`delays`: steps so fine that a figure is near the truth, in one process or several."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h3trio._cli.bench.histogram import BOUNDS, delays, merge, milliseconds

if TYPE_CHECKING:
    from h3trio.hub._fanout.latency import Histogram

seconds = st.lists(st.floats(1e-5, 1e4), min_size=1, max_size=50)


def histogram(values: list[float]) -> Histogram:
    """Count some delays."""
    made = delays()
    for value in values:
        made.add(value)
    return made


def test_steps_are_fine() -> None:
    """Each is a microsecond, or at most a 32nd of what lies below it, up to some hours."""
    assert (BOUNDS[0], BOUNDS[-1] > 10_000) == (1e-6, True)
    assert all(0 < high - low <= max(1.01e-6, low / 31.99) for low, high in pairwise(BOUNDS))


@given(seconds, st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_are_within_a_step(values: list[float], share: float) -> None:
    """A quantile is off by one step of 3.2 % at most, either way."""
    found = histogram(values).statistics().quantile(share)
    exact = next(v for n, v in enumerate(sorted(values), 1) if n >= share * len(values))
    assert exact / 1.033 - 2e-6 <= found <= exact * 1.033 + 2e-6


@given(seconds, seconds)
def test_sums_are_those_of_all(one: list[float], other: list[float]) -> None:
    """Two histograms added, one of them from another process, are as if one had taken all."""
    total, every = histogram(one), histogram(one + other)
    merge(total, pickle.loads(pickle.dumps(histogram(other))))  # noqa: S301 - made here
    assert (total.counts, total.max) == (every.counts, every.max)
    assert total.sum == pytest.approx(every.sum)
    assert milliseconds(total) == milliseconds(every)


def test_milliseconds_are_those_of_most() -> None:
    """A delay that came 99 times outweighs one that came once."""
    made = delays()
    made.add(0.001, 99)
    made.add(1.0)
    found = milliseconds(made)
    assert found is not None
    assert found["p50"] == pytest.approx(1, rel=0.04)
    assert found["p99"] == pytest.approx(1, rel=0.04)
    assert found["max"] == 1000


def test_nothing_has_no_figures() -> None:
    """Without samples there are none; a delay below zero counts as none."""
    assert milliseconds(delays()) is None
    found = milliseconds(histogram([-1.0]))
    assert found is not None
    assert set(found.values()) == {0}
