"""Strangers' bytes, by Hypothesis: seeds whole and bent, and words of HTTP in any order."""

from __future__ import annotations

import pytest
from fuzz import tokens
from fuzz.harnesses import HARNESSES, check_responses, connection
from fuzz.tokens import seeds
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.lists(st.sampled_from(tokens.ALL) | st.binary(max_size=4), max_size=14).map(b"".join)
REQUESTS = st.lists(st.sampled_from(tokens.REQUESTS) | WORDS, max_size=4).map(b"".join)


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """A seed with a piece of it replaced by something else."""
    seed = draw(st.sampled_from(seeds()))
    start = draw(st.integers(0, len(seed)))
    end = draw(st.integers(start, min(len(seed), start + 20)))
    return seed[:start] + draw(st.sampled_from(tokens.ALL) | st.binary(max_size=6)) + seed[end:]


INPUTS = st.tuples(st.integers(0, 15).map(lambda n: bytes([n])), bent() | REQUESTS | WORDS).map(
    b"".join
)


@pytest.mark.slow
@pytest.mark.parametrize("name", HARNESSES)
@given(data=INPUTS)
def test_any_bytes(name: str, data: bytes) -> None:
    """No input breaks what a harness states."""
    HARNESSES[name](data)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0, 15])
@pytest.mark.parametrize("name", HARNESSES)
def test_seeds(name: str, mode: int) -> None:
    """Each seed passes, whole and byte by byte, whichever settings hold."""
    for seed in seeds():
        HARNESSES[name](bytes([mode]) + seed[:400])


def test_a_good_conversation_has_its_answers() -> None:
    """The harness isn't blind: requests that are right are answered in order."""
    answer = connection(b"\7" + tokens.REQUESTS[0] + tokens.REQUESTS[1] + tokens.REQUESTS[2])
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert answer.endswith(b"hello")


def test_a_request_behind_an_empty_line_is_seen() -> None:
    """An empty line between requests, which the server skips, doesn't make a HEAD a GET."""
    head = b"HEAD /stream HTTP/1.1\r\nHost: test\r\n\r\n"
    connection(b"\7" + tokens.REQUESTS[0] + b"\r\n" + head + tokens.REQUESTS[0])


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 1\r\n\r\nxy",
        b"HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_bad_answers_would_be_noticed(answer: bytes) -> None:
    """Bytes that aren't a sequence of responses are a finding."""
    with pytest.raises(Exception, match=r"."):
        check_responses(answer, [])
