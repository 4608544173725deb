"""`Rate` and `Bucket`: how many at once, how many on average, and how many buckets."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest
import trio
from auth_helpers import local_request
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from h3trio import HTTPError
from h3trio.hubserver import AccessControl, Grant, Limits, Rate
from h3trio.hubserver._access.rate_limit import Bucket

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


def take(bucket: Bucket) -> bool:
    """Take an event; return whether it was there."""
    with suppress(HTTPError):
        bucket.check()
        return True
    return False


async def test_a_burst_and_one_above(mock_clock: MockClock) -> None:
    """A burst is there at once; what is above it comes at the rate."""
    counts: Counter[str] = Counter()
    bucket = Bucket(Rate(per_second=10, burst=3), counts)
    assert [take(bucket) for _ in range(4)] == [True, True, True, False]
    mock_clock.jump(0.05)
    assert not take(bucket)
    mock_clock.jump(0.05)
    assert [take(bucket), take(bucket)] == [True, False]
    mock_clock.jump(100)
    assert [take(bucket) for _ in range(4)] == [True, True, True, False]
    assert counts == {"rate_limited": 4}


@pytest.mark.parametrize(("per_second", "least", "most"), [(10, 1, 2), (0.1, 10, 20)])
async def test_when_to_come_back(per_second: float, least: int, most: int) -> None:
    """`Retry-After` is the time until the next event, at least a second, or up to twice that."""
    bucket = Bucket(Rate(per_second=per_second, burst=1), Counter())
    bucket.check()
    with pytest.raises(HTTPError) as caught:
        bucket.check()
    assert caught.value.status == 429
    assert least <= int(caught.value.headers["Retry-After"]) <= most
    await trio.lowlevel.checkpoint()


async def test_taking_what_is_not_there(autojump_clock: MockClock) -> None:
    """Some may be taken ahead of time, and are waited for."""
    counts: Counter[str] = Counter()
    bucket = Bucket(Rate(per_second=10, burst=3), counts)
    begin = autojump_clock.current_time()
    for count, at in ((3, 0.0), (2, 0.2), (1, 0.3)):
        await bucket.wait(count)
        assert autojump_clock.current_time() - begin == pytest.approx(at)
    assert not take(bucket)
    assert counts == {"slowed": 2, "rate_limited": 1}


async def test_buckets_at_the_limit_and_above() -> None:
    """One publisher above the limit drops the bucket of the one that hasn't asked for longest."""
    limits = Limits(publish_rate=Rate(per_second=1, burst=1), max_rate_buckets=2)
    access = AccessControl(limits=limits)

    def may_publish(subject: str) -> bool:
        bucket = access.pace(local_request(), Grant(subject=subject))
        assert bucket is not None
        return take(bucket)

    assert [may_publish(subject) for subject in "aba"] == [True, True, False]
    assert may_publish("c")
    assert access.statistics().rate_buckets == 2
    assert [may_publish(subject) for subject in "ab"] == [False, True]
    await trio.lowlevel.checkpoint()


@given(
    st.floats(0.5, 50),
    st.integers(1, 5),
    st.lists(st.floats(0, 1), min_size=1, max_size=60),
)
def test_never_more_than_rate_and_burst(per_second: float, burst: int, pauses: list[float]) -> None:
    """In any stretch of time no more is taken than the burst and the rate allow."""
    clock, taken = MockClock(), list[float]()

    async def publish() -> None:
        bucket = Bucket(Rate(per_second=per_second, burst=burst), Counter())
        for pause in pauses:
            clock.jump(pause)
            if take(bucket):
                taken.append(clock.current_time())
        await trio.lowlevel.checkpoint()

    trio.run(publish, clock=clock)
    for first, start in enumerate(taken):
        count = len(taken) - first
        assert count <= burst + (taken[-1] - start) * per_second + 1e-3
    assert taken
