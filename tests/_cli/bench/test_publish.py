"""The data of the posts; the rest is tested with sockets, in e2e."""

from __future__ import annotations

from h3trio._cli.bench.count import analyse
from h3trio._cli.bench.publish import event_data


def test_events_bear_their_time_in_the_format_that_is_read() -> None:
    """Subscribers understand the data that a publisher writes; it is as long as asked for."""
    data = event_data(1700000000.125, 7, 100)
    assert len(data) == 100
    assert analyse(b"data: " + data + b"\n\n").first == 1700000000.125
    assert event_data(1.7e9, 7, 1) == b"1700000000.000000 n=7 "
