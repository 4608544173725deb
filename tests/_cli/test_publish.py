"""`publish` up to the socket: arguments, addresses, how input is cut, and what answers mean.

What it shares with `tail` is tested here too. The commands as processes, with a hub:
tests/e2e/test_cli_publish_tail.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import httpx2
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from h3trio import SSEEvent, SSEParser
from h3trio._cli import http
from h3trio._cli.main import main
from h3trio._cli.publish import Input, LineSplitter, StreamBody, WholeLines, publish_url
from h3trio.client._errors import reason_of, without_secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from pathlib import Path

    from trio.testing import MockClock

    Fail = Callable[[BaseException], Awaitable[None]]

IRI = "https://example.com/a?b#c"


def lines_of(capsys: pytest.CaptureFixture[str], *argv: str, **environ: str) -> list[str]:
    """Run a command with wrong arguments; return its lines on standard error."""
    with pytest.raises(SystemExit) as caught:
        main(argv, environ=environ)
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    return err.splitlines()


# -- arguments


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "the following arguments are required: TOPIC"),
        (("",), "argument TOPIC: a topic is not empty"),
        (("t\udc80",), "argument TOPIC: 't\\udc80' is not UTF-8"),
        (("t", "x", "--lines"), "--lines and --sse read standard input: give no DATA"),
        (("t", "x", "--sse"), "--lines and --sse read standard input: give no DATA"),
        (("t", "--lines", "--sse"), "argument --sse: not allowed with argument --lines"),
        (("t", "--id", "1"), "--id and --key are for one event: give its DATA"),
        (("t", "-", "--key", "k"), "--id and --key are for one event: give its DATA"),
        (("t", "--sse", "--event", "e"), "--sse takes --event and --retry from the stream itself"),
        (("t", "--sse", "--retry", "1"), "--sse takes --event and --retry from the stream itself"),
        (("t", "x", "--event", "a\nb"), "--event must not contain LF: index 1"),
        (("t", "x", "--id", "a\0"), "--id must not contain NUL: index 1"),
        (("t", "x", "--retry", "-1"), "argument --retry: '-1' is not a whole number"),
        (("t", "x", "--retry", "9" * 19), "--retry must not be above 9007199254740991"),
        (("t", "x", "--key", ""), "argument --key: '' is not visible ASCII"),
        (("t", "x", "--key", "a b"), "argument --key: 'a b' is not visible ASCII"),
        (("t", "x", "--timeout", "0"), "argument --timeout: '0' is not a positive number"),
        (("t", "x", "--heartbeat", "inf"), "argument --heartbeat: 'inf' is not a positive number"),
        (("t", "x", "--timeout", "soon"), "argument --timeout: 'soon' is not a number"),
        (("t", "x", "--url", "localhost:3000"), "is not of the form http://HOST:PORT"),
        (("t", "x", "--url", "http://a.b:c"), "Port could not be cast"),
        (("t", "x", "--url", "http://a b"), "holds a space or a control character"),
        (("t", "x", "--url", "http://a/?b"), "has a query or a fragment"),
        (
            ("t", "x", "--url", "http://a.-\u00fc-.b"),
            "http://a.-\u00fc-.b/events/t: Invalid IDNA hostname",
        ),
    ],
)
def test_wrong_arguments(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], message: str
) -> None:
    """Arguments that are wrong or don't fit together are one line, and status 2."""
    (line,) = lines_of(capsys, "publish", *argv)
    assert line.startswith("h3trio: error: ")
    assert message in line


def test_url_has_a_twin(capsys: pytest.CaptureFixture[str]) -> None:
    """The hub's address may come from the environment, and is checked there too."""
    (line,) = lines_of(capsys, "publish", "t", "x", H3TRIO_URL="nowhere")
    assert line == "h3trio: error: H3TRIO_URL: 'nowhere' is not of the form http://HOST:PORT"


@pytest.mark.parametrize("command", ["publish", "tail"])
def test_help_says_what_statuses_mean(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The help of both commands lists the exit statuses."""
    with pytest.raises(SystemExit):
        main([command, "--help"], environ={})
    text = " ".join(capsys.readouterr().out.split())
    assert "exit status: 0 done; 1 the server refused" in text
    assert "2 the arguments are wrong; 130 interrupted" in text


# -- addresses


@pytest.mark.parametrize(
    ("base", "topic", "expected"),
    [
        ("http://h:1", "news", "http://h:1/events/news"),
        ("http://h:1/hub", "a/b", "http://h:1/hub/events/a%2Fb"),
        ("http://h", IRI, "http://h/events/https%3A%2F%2Fexample.com%2Fa%3Fb%23c"),
        ("http://h", "%2F +~", "http://h/events/%252F%20%2B~"),
        ("http://h", "é", "http://h/events/%C3%A9"),
        ("http://h", ".", "http://h/events/%2E"),
        ("http://h", "..", "http://h/events/%2E%2E"),
        ("http://h", "a..b", "http://h/events/a..b"),
    ],
)
def test_publish_url(base: str, topic: str, expected: str) -> None:
    """A topic is one segment of the path, whatever it holds."""
    assert publish_url(base, topic, {}) == expected


def test_publish_url_has_the_fields_given() -> None:
    """Fields go into the query, encoded, and only those that are given."""
    fields: dict[str, str | int | None] = {"event": "a&b", "id": "", "retry": 0}
    assert publish_url("http://h", "t", fields) == "http://h/events/t?event=a%26b&id=&retry=0"
    assert publish_url("http://h", "t", {"event": None, "id": None}) == "http://h/events/t"


@given(st.text(min_size=1))
def test_any_topic_comes_through(topic: str) -> None:
    """What a server decodes is the topic, and httpx2 sends the path as it was made."""
    url = publish_url("http://h", topic, {})
    assert unquote(urlsplit(url).path) == f"/events/{topic}"
    assert httpx2.URL(url).raw_path.decode() == url.removeprefix("http://h")


@pytest.mark.parametrize("url", ["http://h", "https://[::1]:3000", "http://a:b@h:1/path"])
def test_base_url(url: str) -> None:
    """A hub's address may have a port and a path; a slash at its end counts for nothing."""
    assert http.base_url(url) == http.base_url(f"{url}/") == url


def test_secrets_are_not_shown() -> None:
    """A URL is shown without the name and password of its user."""
    assert without_secret("http://me:secret@h:1/p?q=a@b") == "http://h:1/p?q=a@b"


# -- input


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Cut bytes at some places."""
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    for start, end in pairwise(ends):
        yield data[start:end]


def split(chunks: Iterable[bytes], limit: int = 1000) -> list[bytes]:
    """Cut chunks into lines."""
    splitter = LineSplitter(limit)
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.rest()


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


def test_a_line_has_a_limit() -> None:
    """A line above the limit is an error, at the limit it is not."""
    assert split([b"12", b"34\n"], limit=4) == [b"1234"]
    with pytest.raises(http.CommandError, match="longer than 4 bytes"):
        split([b"12", b"345"], limit=4)


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
    """A line without an end is held, and one above the limit is an error."""
    lines = WholeLines(limit=4)
    assert [lines.feed(chunk) for chunk in (b"a\nb", b"c", b"\r", b"\nde")] == [
        b"a\n",
        b"",
        b"bc\r",
        b"\n",
    ]
    with pytest.raises(http.CommandError, match="longer than 4 bytes"):
        lines.feed(b"fgh")


# -- the body of a request


async def never() -> None:
    """Wait for a server that says nothing."""
    await trio.sleep_forever()


async def test_body_passes_on_whole_lines(autojump_clock: MockClock) -> None:
    """Lines go out as they come, without waiting; what is left goes out at the end."""
    send, receive = trio.open_memory_channel[bytes](10)
    body = StreamBody(receive, heartbeat=10, answered=never)
    async with send:
        for piece in (b"data: 1\nda", b"ta", b": 2\n", b"rest"):
            send.send_nowait(piece)
    assert [piece async for piece in body] == [b"data: 1\n", b"data: 2\n", b"rest"]
    assert autojump_clock.current_time() == 0


async def test_body_fills_silence_with_comments(autojump_clock: MockClock) -> None:
    """Each silence of the given length is filled with a comment, inside a line of input too."""
    send, receive = trio.open_memory_channel[bytes](10)
    body = StreamBody(receive, heartbeat=10, answered=never)
    assert await anext(body) == b":\n"
    send.send_nowait(b"dat")
    assert await anext(body) == b":\n"
    assert autojump_clock.current_time() == pytest.approx(20)
    send.send_nowait(b"a: 1\n\n")
    assert await anext(body) == b"data: 1\n\n"
    assert autojump_clock.current_time() == pytest.approx(20)


async def test_body_is_never_silent_for_long(autojump_clock: MockClock) -> None:
    """Input that trickles without completing a line is silence as well."""
    send, receive = trio.open_memory_channel[bytes](0)
    body = StreamBody(receive, heartbeat=10, answered=never)

    async def trickle() -> None:
        while True:
            await trio.sleep(1)
            await send.send(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        assert await anext(body) == b":\n"
        assert autojump_clock.current_time() == pytest.approx(10)
        nursery.cancel_scope.cancel()


async def test_body_ends_when_the_server_answers(nursery: trio.Nursery) -> None:
    """The answer ends the body, though input could still come."""
    send, receive = trio.open_memory_channel[bytes](10)
    answer = trio.Event()
    body = StreamBody(receive, heartbeat=10, answered=answer.wait)
    pieces: list[bytes] = []

    async def take() -> None:
        pieces.extend([piece async for piece in body])

    send.send_nowait(b"one\n")
    nursery.start_soon(take)
    await wait_all_tasks_blocked()
    assert not body.answered
    answer.set()
    await wait_all_tasks_blocked()
    assert (pieces, body.answered) == ([b"one\n"], True)


# -- reading


async def test_input_reads_a_pipe_to_its_end() -> None:
    """Reading a pipe gives what is there, then the end."""
    reader, writer = os.pipe()
    os.write(writer, b"hello")
    source = Input(reader)
    assert await source.receive_some() == b"hello"
    os.close(writer)
    assert await source.receive_some() == b""
    os.close(reader)


async def test_input_reads_a_file(tmp_path: Path) -> None:
    """Reading a file works as well, which no event loop can wait for."""
    (tmp_path / "input").write_bytes(b"x" * 100_000)
    fd, read = os.open(tmp_path / "input", os.O_RDONLY), b""
    while piece := await Input(fd).receive_some():
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
        read.append(await Input(reader).receive_some())
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
            await Input(reader).receive_some()
        over.set()

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    assert over.is_set()
    os.close(writer)
    os.close(reader)


async def test_input_that_cannot_be_read(tmp_path: Path) -> None:
    """What can't be read is an error in words."""
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(http.CommandError, match="can't read standard input: Is a directory"):
        await Input(fd).receive_some()
    os.close(fd)


# -- answers


def answer(status: int, body: object, location: str = "") -> http.Answer:
    """Make an answer, with JSON unless the body is bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.Answer(status, raw, location)


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
    assert http.last_id(answer(200, fields)) == event_id


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (answer(403, b"no\nway\n"), "the server answered 403: no\nway"),
        (answer(502, b""), "the server answered 502"),
        (answer(308, b"", "http://h/"), "the server answered 308: it points to http://h/"),
        (answer(200, b"ok"), "the server answered 200, but no id, so it is no hub: ok"),
        (answer(200, []), "the server answered 200, but no id, so it is no hub: []"),
        (
            answer(413, {"published": 2, "id": "a-2", "error": "too large"}),
            "the server answered 413: too large (2 published, the last as a-2)",
        ),
        (
            answer(400, {"published": 0, "id": "", "error": "bad"}),
            "the server answered 400: bad",
        ),
        (
            answer(200, {"published": 1, "id": "a-1", "error": "bad"}),
            "the server answered 200: bad (1 published, the last as a-1)",
        ),
    ],
)
def test_refusals(refused: http.Answer, message: str) -> None:
    """Any other answer is an error with its status and what the server said."""
    with pytest.raises(http.CommandError) as caught:
        http.last_id(refused)
    assert str(caught.value) == message


# -- messages and statuses


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" a\r\n b\t", "a b"),
        ("\x1b[2Jh3trio: fine", "?[2Jh3trio: fine"),
        ("\u202eabc\0", "?abc?"),
        ("é…", "é…"),
        ("x" * 501, "x" * 500 + "…"),
        ("x" * 500, "x" * 500),
    ],
)
def test_messages_are_one_printable_line(text: str, shown: str) -> None:
    """What a server says can't write a line of its own, nor control a terminal."""
    assert http.one_line(text) == shown


def test_reason_is_what_the_system_said() -> None:
    """Of an error with causes, the system's own words are the reason."""
    refused = ConnectionRefusedError(111, "Error connecting to ('127.0.0.1', 1): refused")
    group = OSError("all attempts failed")
    group.__cause__ = ExceptionGroup("all", [refused, OSError("another")])
    outer = RuntimeError("request failed")
    outer.__context__ = group
    assert reason_of(outer) == "refused"
    unknown = RuntimeError()
    unknown.__cause__ = socket.gaierror(-2, "Name or service not known")
    assert reason_of(unknown) == "Name or service not known"
    assert reason_of(RuntimeError("as it says")) == "as it says"
    assert reason_of(TimeoutError()) == "TimeoutError"


async def raising(error: BaseException) -> None:
    """Fail."""
    await trio.lowlevel.checkpoint()
    raise error


async def raising_in_nursery(error: BaseException) -> None:
    """Fail in a task."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raising, error)


@pytest.mark.parametrize("fail", [raising, raising_in_nursery])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (http.CommandError("a\nb"), (1, "h3trio: error: a b\n")),
        (http.LostError("lost"), (1, "h3trio: error: lost\n")),
        (
            ExceptionGroup("", [http.CommandError("x"), http.CommandError("y")]),
            (1, "h3trio: error: x\n"),
        ),
    ],
)
def test_statuses(
    capsys: pytest.CaptureFixture[str],
    fail: Fail,
    error: BaseException,
    expected: tuple[int, str],
) -> None:
    """What ends a command is its status and at most one line, from tasks too."""
    status = http.run_command(partial(fail, error))
    assert (status, capsys.readouterr().err) == expected


@pytest.mark.parametrize("fail", [raising, raising_in_nursery])
def test_bugs_are_not_hidden(fail: Fail) -> None:
    """An error of any other kind isn't turned into a status."""
    with pytest.RaisesGroup(RuntimeError, allow_unwrapped=True, flatten_subgroups=True):
        http.run_command(partial(fail, RuntimeError("bug")))


async def nothing() -> None:
    """Succeed."""
    await trio.lowlevel.checkpoint()


def test_success_is_status_zero() -> None:
    """A command that returns has done its work."""
    assert http.run_command(nothing) == 0


def test_lines_are_utf_8(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Output is UTF-8, with nothing changed in it."""
    http.write_line("é\r\x1b")
    assert capsysbinary.readouterr().out == "é\r\x1b\n".encode()
