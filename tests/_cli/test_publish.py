"""`publish` up to the socket: arguments, addresses, how input is cut, and what answers mean.

The command as a process, with a hub: tests/e2e/test_cli_publish_tail.py.
"""

# ruff: noqa: ARG001 - tests ask for the clock so that time jumps, not to look at it

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import aclosing
from itertools import pairwise
from typing import TYPE_CHECKING, Any, final
from urllib.parse import urlsplit

import httpx2
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from scripted import URL, Script, answer, failing
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import SSEEvent, SSEParser
from h3trio._cli.common import CommandError
from h3trio._cli.http import events_url
from h3trio._cli.options import Options
from h3trio._cli.publish import (
    MAX_LINE_BYTES,
    RETRY,
    Publisher,
    WholeLines,
    add_arguments,
    last_id,
    read_some,
    request_from,
    split_lines,
    stream_body,
)
from h3trio._http.request import parse_query
from h3trio.client import LostError, StatusError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from scripted import Step
    from trio.testing import MockClock

IRI = "https://example.com/a?b#c"


# -- arguments

WRONG = [
    ((), "the following arguments are required: TOPIC"),
    (("",), "argument TOPIC: a topic is not empty"),
    (("t", "x", "--lines"), "--lines and --sse read standard input: give no DATA"),
    (("t", "x", "--sse"), "--lines and --sse read standard input: give no DATA"),
    (("t", "--lines", "--sse"), "argument --sse: not allowed with argument --lines"),
    (("t", "--id", "1"), "--id and --key are for one event: give its DATA"),
    (("t", "-", "--key", "k"), "--id and --key are for one event: give its DATA"),
    (("t", "--sse", "--event", "e"), "--sse takes --event and --reconnection-time from the str"),
    (("t", "--sse", "--reconnection-time", "1"), "--sse takes --event and --reconnection-time"),
    (("t", "--lines", "--last"), "--last is for one event or a stream: give DATA or --sse"),
    (("t", "--sse", "--retry", "1"), "--retry posts a line or DATA again: what --sse has sent"),
    (("t", "x", "--event", "a\nb"), "--event must not contain LF: index 1"),
    (("t", "x", "--id", "a\0"), "--id must not contain NUL: index 1"),
    (("t", "x", "--retry", "-1"), "argument --retry: '-1' is not a time"),
    (("t", "x", "--reconnection-time", "-1"), "--reconnection-time: '-1' is not a whole number"),
    (("t", "x", "--reconnection-time", "9" * 19), "--reconnection-time must not be above 90071"),
    (("t", "x", "--reconnection-time", "-1s"), "--reconnection-time: '-1s' is not a time"),
    (("t", "x", "--key", ""), "argument --key: '' is not visible ASCII"),
    (("t", "x", "--topic", ""), "argument --topic/-t: a topic is not empty"),
    (("t", "x", "--heartbeat", "1"), "--heartbeat needs --sse: it is for the silence of a stream"),
    (("t", "x", "--timeout", "0"), "argument --timeout: '0' is not a time"),
    (
        ("t", "x", "--url", "http://a.-\u00fc-.b"),
        "?topic=t' is no URL: Invalid IDNA hostname",
    ),
]


def test_wrong_arguments(refused: Callable[..., str], subtests: pytest.Subtests) -> None:
    """Arguments that are wrong or don't fit together are one line, and status 2."""
    for argv, message in WRONG:
        with subtests.test(argv=argv):
            assert message in refused("publish", *argv)


def test_url_has_a_twin(refused: Callable[..., str]) -> None:
    """The hub's address may come from the environment, and is checked there too."""
    line = refused("publish", "t", "x", H3TRIO_URL="nowhere")
    assert line == "H3TRIO_URL: 'nowhere' is not of the form http://HOST:PORT"


# -- addresses


URLS = [
    ("http://h:1", ["news"], "http://h:1/events?topic=news"),
    ("http://h:1/hub", ["a/b", "c"], "http://h:1/hub/events?topic=a%2Fb&topic=c"),
    ("http://h", [IRI], "http://h/events?topic=https%3A%2F%2Fexample.com%2Fa%3Fb%23c"),
    ("http://h", ["%2F +~"], "http://h/events?topic=%252F%20%2B~"),
    ("http://h", ["é", ".."], "http://h/events?topic=%C3%A9&topic=.."),
]


def test_where_to_post(subtests: pytest.Subtests) -> None:
    """Topics are in the query, whatever they hold."""
    for base, topics, expected in URLS:
        with subtests.test(base=base, topics=topics):
            assert events_url(base, topics) == expected


def test_the_fields_that_are_given() -> None:
    """Fields go into the query, encoded, and only those that are given."""
    fields: dict[str, object] = {"event": "a&b", "id": "", "retry": 0, "private": None}
    where = "http://h/events?topic=t&event=a%26b&id=&retry=0"
    assert events_url("http://h", ["t"], fields) == where


@given(st.lists(st.text(min_size=1), min_size=1))
def test_any_topic_comes_through(topics: list[str]) -> None:
    """A server decodes the topics, and httpx2 sends the query as it was made."""
    url = events_url("http://h", topics)
    assert parse_query(urlsplit(url).query.encode()).get_list("topic") == topics
    assert httpx2.URL(url).raw_path.decode() == url.removeprefix("http://h")


# -- input


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Cut bytes at some places."""
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    for start, end in pairwise(ends):
        yield data[start:end]


def split(chunks: Iterable[bytes]) -> list[bytes]:
    """Cut chunks into lines; the last may have no end."""
    found, rest = [], b""
    for chunk in chunks:
        lines, rest = split_lines(rest + chunk)
        found += lines
    return [*found, rest.removesuffix(b"\r")] if rest else found


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\r\nb", [b"a", b"b"]),
        (b"\n\n", [b"", b""]),
        (b"a\rb\n", [b"a\rb"]),
        (b"\xff\0\n", [b"\xff\0"]),
    ],
)
def test_lines(data: bytes, lines: list[bytes]) -> None:
    """A line ends at LF or CRLF, the last one also at the end, whole and byte by byte."""
    assert split([data]) == lines
    assert split(cut(data, range(len(data)))) == lines
    assert split([data, b"\njunk"]) == split([data + b"\njunk"])


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n"])), st.lists(st.integers(0)))
def test_lines_do_not_depend_on_chunks(parts: list[bytes], places: list[int]) -> None:
    """However bytes are cut into chunks, the lines are those of the whole."""
    data = b"".join(parts)
    expected = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    if data.endswith(b"\n") or not data:
        expected.pop()
    assert split(cut(data, places)) == expected


@pytest.mark.parametrize("take", [split_lines, WholeLines().feed])
def test_a_line_has_a_limit(take: Callable[[bytes], object]) -> None:
    """A line above the limit is an error, at the limit it is not."""
    take(b"\n" + b"x" * MAX_LINE_BYTES)
    with pytest.raises(CommandError, match="longer than 16777216 bytes"):
        take(b"x" * (MAX_LINE_BYTES + 1))


def whole_lines(chunks: Iterable[tuple[bytes, bool]]) -> bytes:
    """Pass chunks on, with a comment behind those that are to have one."""
    lines, passed = WholeLines(), b""
    for chunk, commented in chunks:
        passed += lines.feed(chunk)
        if commented:
            passed += lines.comment()
    return passed + lines.rest()


def parsed(stream: bytes) -> tuple[list[SSEEvent], str]:
    """Read an event stream."""
    parser = SSEParser()
    return parser.feed(stream), parser.last_event_id


PIECES = st.sampled_from([b"data", b":", b"id: 1", b"\r", b"\n", b"\r\n", b"\n\n", b"data: x\r"])


@given(st.lists(st.tuples(PIECES, st.booleans())))
@example([(b"data: a\r", True), (b"\ndata: b\n\n", False)])
@example([(b"data: a\r", True), (b"\n", True), (b"\n", False)])
@example([(b"data: a\r", False), (b"\n", True), (b"\n", False)])
@example([(b"\r", False), (b"data", True), (b"\n", False), (b"\r", False)])
def test_comments_change_no_event(chunks: list[tuple[bytes, bool]]) -> None:
    """Wherever comments go out, the events are those of the stream as it came in."""
    assert parsed(whole_lines(chunks)) == parsed(b"".join(chunk for chunk, _ in chunks))


@given(st.binary(), st.lists(st.integers(0)))
def test_streams_pass_unchanged(data: bytes, places: list[int]) -> None:
    """Without a comment, all bytes are passed on as they came."""
    assert whole_lines((chunk, False) for chunk in cut(data, places)) == data


def test_whole_lines_only() -> None:
    """A line without an end is held."""
    lines = WholeLines()
    chunks = (b"a\nb", b"c", b"\r", b"\nde")
    assert [lines.feed(chunk) for chunk in chunks] == [b"a\n", b"", b"bc\r", b"\n"]
    assert lines.rest() == b"de"


def test_private_and_last_are_fields(subtests: pytest.Subtests) -> None:
    """`--private` and `--last` go into the query, of streams too."""
    for argv, query in (
        (("t", "x", "--private"), "&private=on"),
        (("t", "--private", "--sse"), "&private=on"),
        (("t", "--private", "--event", "e"), "&event=e&private=on"),
        (("t", "x", "--last"), "&last=on"),
        (("t", "--sse", "--private", "--last"), "&private=on&last=on"),
        (("t",), ""),
    ):
        parser = Options()
        add_arguments(parser)
        arguments = parser.parse_args(argv)
        parser.complete(arguments, {"H3TRIO_URL": "http://h"})
        with subtests.test(argv=argv):
            assert request_from(arguments)[0] == f"http://h/events?topic=t{query}"


# -- posting until it is stored


@final
class Published:
    """A publisher in front of a script, and what it said and printed."""

    def __init__(self, *steps: Step, **arguments: Any) -> None:  # noqa: ANN401 - whatever it takes
        self.script = Script(*steps)
        arguments = {"quiet": False, **arguments}
        self.publisher = Publisher(self.script.client, f"{URL}/t", **arguments)

    async def lines(self, text: bytes) -> None:
        """Publish lines, as from standard input."""
        reader, writer = os.pipe()
        os.write(writer, text)
        os.close(writer)
        try:
            await self.publisher.publish_lines(reader)
        finally:
            os.close(reader)

    @property
    def posts(self) -> list[bytes]:
        """The bodies that were posted."""
        return [request.content for request in self.script.requests]


def stored(event_id: str) -> Step:
    """Answer that an event is stored."""
    return answer(200, b'{"id": "%s"}' % event_id.encode())


REFUSED = failing(httpx2.ConnectError("refused"))
LOST = failing(httpx2.ReadError("reset"))
BUSY = [answer(status, b"busy") for status in (429, 500, 502, 503, 504)]


async def test_lines_outlive_a_restart(
    autojump_clock: MockClock, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A line is posted until it is stored, under one key; the next line has another."""
    published = Published(
        stored("1"), REFUSED, LOST, *BUSY, stored("2"), LOST, REFUSED, stored("3"), retry=60
    )
    await published.lines(b"a\nb\nc\n")
    assert published.posts == [b"a", *[b"b"] * 8, *[b"c"] * 3]
    keys = [request.headers["idempotency-key"] for request in published.script.requests]
    assert len(set(keys)) == len({*zip(keys, published.posts, strict=True)}) == 3
    out, err = capsysbinary.readouterr()
    assert out == b"1\n2\n3\n"
    said = err.decode().splitlines()
    assert len(said) == 9
    assert re.fullmatch(f"h3trio: line 2: can't reach {URL}/t: refused; again in .* s", said[0])
    assert published.script.open_bodies == 0


async def test_patience_has_an_end(autojump_clock: MockClock) -> None:
    """A line that isn't stored for so many seconds is an error, and is posted no more."""
    for retry, most in ((None, RETRY), (3.0, 3.0)):
        published = Published(stored("1"), *[REFUSED] * 99, retry=retry)
        began = trio.current_time()
        with pytest.raises(CommandError, match=r"^line 2: can't reach http://test/events/t: ref"):
            await published.lines(b"a\nb\nc\n")
        assert most / 4 < trio.current_time() - began <= most
        assert b"c" not in published.posts
    published = Published(answer(503, b"busy", Retry_After="99"), retry=30)
    with pytest.raises(CommandError, match="line 1: the server answered 503: busy"):
        await published.lines(b"a\n")
    assert len(published.posts) == 1, "it would be asked too early, or too late"


@table("status", [400, 401, 403, 404, 413, 422, 302])
async def test_refusals_are_final(status: int, autojump_clock: MockClock) -> None:
    """What another attempt doesn't change is an error at once."""
    published = Published(stored("1"), answer(status, b"no"))
    with pytest.raises(CommandError, match=f"line 2: the server answered {status}: no"):
        await published.lines(b"a\nb\n")
    assert len(published.posts) == 2


async def test_a_server_that_was_never_there(autojump_clock: MockClock) -> None:
    """What can't be reached at first is most likely a wrong address; unless told to wait for it."""
    for retry in (None, 0):
        published = Published(REFUSED, stored("1"), retry=retry)
        with pytest.raises(CommandError, match="line 1: can't reach"):
            await published.lines(b"a\n")
    published = Published(REFUSED, stored("1"), retry=9)
    await published.lines(b"a\n")
    assert published.posts == [b"a", b"a"]


async def test_one_event_is_posted_again_if_told_so(autojump_clock: MockClock) -> None:
    """One event is posted once, or for `retry` seconds with the key given, or one of its own."""
    for step in (REFUSED, LOST, *BUSY):
        published = Published(step, stored("1"))
        with pytest.raises((CommandError, StatusError, LostError)):
            await published.publisher.publish(b"x")
        assert len(published.posts) == 1
        assert "idempotency-key" not in published.script.requests[0].headers
        for key in (None, "own"):
            published = Published(step, stored("1"), retry=9)
            assert await published.publisher.publish(b"x", key=key) == "1"
            first, second = published.script.asked("idempotency-key")
            assert first == second == (key or first)
            assert first


async def test_an_answer_that_was_lost_leaves_it_open(autojump_clock: MockClock) -> None:
    """After a lost answer an error says that the event may be stored, whatever came later."""
    for steps in ([LOST, REFUSED], [LOST, *BUSY[:1]], [REFUSED, LOST]):
        published = Published(*steps * 9, retry=3)
        with pytest.raises(CommandError, match="; what was sent may be stored or not"):
            await published.publisher.publish(b"x")


# -- the body of a request


def never() -> bool:
    """Be a server that says nothing yet."""
    return False


async def test_body_passes_on_whole_lines(autojump_clock: MockClock) -> None:
    """Lines go out as they come, without waiting; what is left goes out at the end."""
    send, receive = trio.open_memory_channel[bytes](10)
    body = stream_body(receive, heartbeat=10, is_answered=never)
    async with send:
        for piece in (b"data: 1\nda", b"ta", b": 2\n", b"rest"):
            send.send_nowait(piece)
    assert [piece async for piece in body] == [b"data: 1\n", b"data: 2\n", b"rest"]
    assert autojump_clock.current_time() == 0


async def test_body_fills_silence_with_comments(autojump_clock: MockClock) -> None:
    """Each silence of the given length is filled with a comment, inside a line of input too."""
    send, receive = trio.open_memory_channel[bytes](10)
    async with aclosing(stream_body(receive, heartbeat=10, is_answered=never)) as body:
        assert await anext(body) == b":\n"
        send.send_nowait(b"dat")
        assert await anext(body) == b":\n"
        assert autojump_clock.current_time() == pytest.approx(20)
        send.send_nowait(b"a: 1\n\n")
        assert await anext(body) == b"data: 1\n\n"
        assert autojump_clock.current_time() == pytest.approx(20)


async def test_body_is_never_silent_for_long(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Input that trickles without completing a line is silence as well."""
    send, receive = trio.open_memory_channel[bytes](0)

    async def trickle() -> None:
        while True:
            await trio.sleep(1)
            await send.send(b"x")

    nursery.start_soon(trickle)
    async with aclosing(stream_body(receive, heartbeat=10, is_answered=never)) as body:
        assert await anext(body) == b":\n"
    assert autojump_clock.current_time() == pytest.approx(10)


async def test_body_ends_when_the_server_has_answered() -> None:
    """An answer ends the body with the next piece, which nobody wants any more."""
    send, receive = trio.open_memory_channel[bytes](10)
    answers = [False, True]
    send.send_nowait(b"one\n")
    send.send_nowait(b"two\n")
    body = stream_body(receive, heartbeat=10, is_answered=lambda: answers.pop(0))
    assert [piece async for piece in body] == [b"one\n"]


# -- reading


async def test_input_reads_a_pipe_to_its_end() -> None:
    """Reading a pipe gives the bytes that are there, then the end."""
    reader, writer = os.pipe()
    os.write(writer, b"hello")
    assert await read_some(reader) == b"hello"
    os.close(writer)
    assert await read_some(reader) == b""
    os.close(reader)


async def test_input_reads_a_file(tmp_path: Path) -> None:
    """Reading a file works as well, which no event loop can wait for."""
    (tmp_path / "input").write_bytes(b"x" * 100_000)
    fd, read = os.open(tmp_path / "input", os.O_RDONLY), b""
    while piece := await read_some(fd):
        read += piece
    os.close(fd)
    assert len(read) == 100_000


@pytest.mark.parametrize("blocking", [True, False])
async def test_input_leaves_the_flags_alone(
    nursery: trio.Nursery,
    blocking: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Blocking or not, a descriptor is read, and stays as it was: others share its flags."""
    reader, writer = os.pipe()
    os.set_blocking(reader, blocking)
    flags, read, done = fcntl.fcntl(reader, fcntl.F_GETFL), [], trio.Event()

    async def receive() -> None:
        read.append(await read_some(reader))
        done.set()

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    assert fcntl.fcntl(reader, fcntl.F_GETFL) == flags
    os.write(writer, b"late")
    await done.wait()
    assert (read, fcntl.fcntl(reader, fcntl.F_GETFL)) == ([b"late"], flags)
    os.close(writer)
    os.close(reader)


async def test_input_can_be_cancelled(nursery: trio.Nursery) -> None:
    """A read that waits doesn't keep the program."""
    reader, writer = os.pipe()
    scope, over = trio.CancelScope(), trio.Event()

    async def receive() -> None:
        with scope:
            await read_some(reader)
        over.set()

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    assert over.is_set()
    os.close(writer)
    os.close(reader)


async def test_input_that_cannot_be_read(tmp_path: Path) -> None:
    """Input that can't be read is an error in words."""
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(CommandError, match="can't read standard input: Is a directory"):
        await read_some(fd)
    os.close(fd)


# -- answers


@pytest.mark.parametrize(
    ("fields", "event_id"),
    [
        ({"id": "a-1"}, "a-1"),
        ({"published": 2, "id": "a-2"}, "a-2"),
        ({"published": 0, "id": ""}, ""),
    ],
)
def test_id_of_what_was_published(fields: dict[str, object], event_id: str) -> None:
    """A hub's answer has the only or the last id, empty if there was no event."""
    assert last_id(200, json.dumps(fields)) == event_id


REFUSALS: list[tuple[tuple[Any, ...], str]] = [
    ((403, "no\nway\n"), "the server answered 403: no\nway"),
    ((502, ""), "the server answered 502"),
    ((308, "", "http://h/"), "the server answered 308: it points to http://h/"),
    ((200, "ok"), "the server answered 200, but no id, so it is no hub: ok"),
    ((200, "[]"), "the server answered 200, but no id, so it is no hub: []"),
    (
        (413, '{"published": 2, "id": "a-2", "error": "too large"}'),
        "the server answered 413: too large (2 published, the last as a-2)",
    ),
    ((400, '{"published": 0, "id": "", "error": "bad"}'), "the server answered 400: bad"),
    (
        (200, '{"published": 1, "id": "a-1", "error": "bad"}'),
        "the server answered 200: bad (1 published, the last as a-1)",
    ),
]


def test_refusals(subtests: pytest.Subtests) -> None:
    """Any other answer is an error with its status and the server's words."""
    for refusal, message in REFUSALS:
        with subtests.test(refusal=refusal, message=message):
            with pytest.raises((CommandError, StatusError)) as caught:
                last_id(*refusal)
            assert str(caught.value) == message
