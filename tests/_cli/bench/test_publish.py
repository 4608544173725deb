"""The posts, and when an answer is whole; the rest is tested with sockets, in e2e."""

from __future__ import annotations

import pytest

from h3trio._cli.bench.count import analyse
from h3trio._cli.bench.publish import event_data, is_whole


def test_events_bear_their_time_in_the_format_that_is_read() -> None:
    """Subscribers understand the data that a publisher writes; it is as long as asked for."""
    data = event_data(1700000000.125, 7, 100)
    assert len(data) == 100
    assert analyse(b"data: " + data + b"\n\n").first == 1700000000.125
    assert event_data(1.7e9, 7, 1) == b"1700000000.000000 n=7 "


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_answers_are_whole_at_their_last_byte(answer: bytes) -> None:
    """An answer is whole with its last byte, and not before."""
    assert [is_whole(answer[:end]) for end in range(len(answer))] == [False] * len(answer)
    assert is_whole(answer)
