"""`Histogram`: counts in steps, and the quantiles that are read off them."""

from __future__ import annotations

import pytest

from h3trio.hub._fanout.latency import BOUNDS, Histogram


def test_a_duration_falls_into_the_step_that_it_fits() -> None:
    """An edge belongs to the step below it; a duration above the last edge counts too."""
    histogram = Histogram()
    for seconds in (0.0, 0.000_01, 0.000_011, 60.0):
        histogram.add(seconds)
    found = histogram.statistics()
    assert found.buckets[:2] == ((0.000_01, 2), (0.000_02, 3))
    assert found.buckets[-2:] == ((10.0, 3), (float("inf"), 4))
    assert (found.count, found.max) == (4, 60.0)
    assert found.sum == pytest.approx(60.000_021)
    assert len(found.buckets) == len(BOUNDS) + 1


def test_several_of_one_duration_are_counted_at_once() -> None:
    """They count as often in the sum."""
    histogram = Histogram()
    histogram.add(0.5, 4)
    assert (histogram.statistics().count, histogram.statistics().sum) == (4, 2.0)


def test_steps_may_be_others() -> None:
    """A histogram has the edges that it was made with."""
    histogram = Histogram((1.0, 2.0))
    histogram.add(1.5, 2)
    found = histogram.statistics()
    assert found.buckets == ((1.0, 0), (2.0, 2), (float("inf"), 2))
    assert found.quantile(0.5) == 1.25


def test_a_quantile_is_never_above_the_longest() -> None:
    """Within a step they count as evenly spread up to it; without samples it is 0."""
    histogram = Histogram()
    assert histogram.statistics().quantile(0.99) == 0
    histogram.add(0.3)
    assert histogram.statistics().quantile(1.0) == 0.3
