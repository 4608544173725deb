"""The head of an answer; the streams themselves are tested with sockets, in e2e/test_bench.py."""

from __future__ import annotations

import pytest

from h3trio._cli.bench.subscribe import RefusedError, parse_head


def test_streams_are_told_by_their_head() -> None:
    """A stream may be chunked or not, and its type may have parameters."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8"
    assert not parse_head(head)
    assert parse_head(head + b"\r\ntransfer-encoding: chunked")


REFUSED = [
    (b"HTTP/1.1 503 Busy\r\nContent-Type: text/event-stream", "status 503"),
    (b"HTTP/1.1 204", "status 204"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: text/html", "no text/event-stream"),
    (b"HTTP/1.1 200 OK", "no text/event-stream"),
    (b"SSH-2.0-x", "the answer is not HTTP/1"),
    (b"", "the answer is not HTTP/1"),
]


def test_what_is_no_stream_has_a_reason(subtests: pytest.Subtests) -> None:
    """Each other answer is refused, by a reason short enough to be counted under."""
    for head, reason in REFUSED:
        with subtests.test(head=head), pytest.raises(RefusedError, match=f"^{reason}$"):
            parse_head(head)
