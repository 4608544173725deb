"""Token buckets: how many at once, how many on average, and how many buckets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h3trio.hubserver import Rate
from h3trio.hubserver._access.rate_limit import Buckets

RATES = [
    ("100/s", Rate(per_second=100, burst=100)),
    ("100/s,500", Rate(per_second=100, burst=500)),
    ("0.5/s", Rate(per_second=0.5, burst=1)),
    ("2.5/s", Rate(per_second=2.5, burst=3)),
]


def test_rates_are_read(subtests: pytest.Subtests) -> None:
    """A burst is one second's worth unless given."""
    for text, rate in RATES:
        with subtests.test(text=text, rate=rate):
            assert Rate.parse(text) == rate


NO_RATES = [
    "",
    "100",
    "0/s",
    "1/s,0",
    "-1/s",
    "1e3/s",
    "1/m",
    "1/s,",
    "1/s,1.5",
    "9" * 20 + "/s",
]


def test_what_is_no_rate(subtests: pytest.Subtests) -> None:
    """Anything else is refused."""
    for text in NO_RATES:
        with subtests.test(text=text), pytest.raises(ValueError, match=r"rate|form"):
            Rate.parse(text)


def test_a_burst_and_one_above() -> None:
    """A burst is there at once; what is above it comes at the rate."""
    buckets = Buckets(Rate(per_second=10, burst=3))
    assert [buckets.try_take("a", 100.0) for _ in range(3)] == [0, 0, 0]
    assert buckets.try_take("a", 100.0) == pytest.approx(0.1)
    assert buckets.try_take("b", 100.0) == 0
    assert buckets.try_take("a", 100.05) == pytest.approx(0.05)
    assert buckets.try_take("a", 100.1) == 0
    assert buckets.try_take("a", 100.1) > 0
    assert [buckets.try_take("a", 200.0) for _ in range(4)][:3] == [0, 0, 0]


def test_taking_what_is_not_there() -> None:
    """Some may be taken ahead of time, and whoever takes them is told how long to wait."""
    buckets = Buckets(Rate(per_second=10, burst=3))
    assert buckets.take("a", 3, 0.0) == 0
    assert buckets.take("a", 2, 0.0) == pytest.approx(0.2)
    assert buckets.take("a", 1, 0.2) == pytest.approx(0.1)
    assert buckets.try_take("a", 0.2) == pytest.approx(0.2)


def test_buckets_at_the_limit_and_above() -> None:
    """One above the limit drops the bucket unused for longest."""
    buckets = Buckets(Rate(per_second=1, burst=1), max_buckets=2)
    for key in "aba":
        buckets.try_take(key, 0.0)
    assert len(buckets) == 2
    buckets.take("a", 1, 0.0)
    buckets.try_take("c", 0.0)
    assert len(buckets) == 2
    assert buckets.try_take("a", 0.0) > 0
    assert buckets.try_take("b", 0.0) == 0


@given(
    st.floats(0.5, 50),
    st.integers(1, 5),
    st.lists(st.floats(0, 1), min_size=1, max_size=60),
)
def test_never_more_than_rate_and_burst(per_second: float, burst: int, pauses: list[float]) -> None:
    """In any stretch of time no more is taken than the burst and the rate allow."""
    buckets = Buckets(Rate(per_second=per_second, burst=burst))
    now, taken = 1000.0, list[float]()
    for pause in pauses:
        now += pause
        if not buckets.try_take("a", now):
            taken.append(now)
    for first, start in enumerate(taken):
        count = len(taken) - first
        assert count <= burst + (now - start) * per_second + 1e-3
    assert taken
