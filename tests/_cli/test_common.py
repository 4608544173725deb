"""Converters of arguments, and lines for the terminal."""

from __future__ import annotations

import json
import os
import sys
import tty
from typing import TYPE_CHECKING, Any

import pytest
from tables import table

from h3trio._cli import common

if TYPE_CHECKING:
    from collections.abc import Callable

    Convert = Callable[[str], object]


TAKEN: list[tuple[Convert, str, Any]] = [
    (common.whole, "0", 0),
    (common.whole, "9" * 19, 10**19 - 1),
    (common.counted, "1", 1),
    (common.up_to(3), "3", 3),
    (common.duration, "0.5", 0.5),
    (common.duration, "500ms", 0.5),
    (common.duration, "30s", 30.0),
    (common.duration, "2M", 120.0),
    (common.duration, "1.5h", 5400.0),
    (common.duration, "7d", 604800.0),
    *((common.duration_or_zero, text, 0.0) for text in ("0", "0s", "0.0", "0ms", "0H")),
    (common.size, "2K", 2048),
    (common.size, "7", 7),
    (common.size, "1.5m", 1572864),
    (common.visible, "a.b-c", "a.b-c"),
    (common.header, "X-a_b:  c d ", "X-a_b: c d"),
    (common.header, "a!~: ", "a!~: "),
    (common.topic, "a ü", "a ü"),
    (common.absolute_url, "https://[::1]:1/p?q#f", "https://[::1]:1/p?q"),
    (common.base_url, "http://a:b@h:1/path/", "http://a:b@h:1/path"),
]
REFUSED: list[tuple[Convert, str, str]] = [
    *((common.whole, text, "whole number") for text in ("-1", "", "1.0", "٣", "9" * 20)),
    (common.counted, "0", "at least 1"),
    *((common.up_to(3), text, "must be 1 to 3") for text in ("0", "4")),
    *((common.duration, text, "is not a time") for text in ("0", "-1", "inf", "nan", "soon", "1y")),
    *((common.duration, text, "is not a time") for text in ("1 s", "1e3", "٣s", "9" * 15 + "d")),
    *((common.duration_or_zero, text, "is not a time") for text in ("", "s", "0k", "0y")),
    (common.duration_or_zero, "-1", "positive number, with ms, s, m, h, d behind it"),
    *((common.size, text, "is not a size") for text in ("0", "1d", "k", "-1k", "", "1kb")),
    (common.size, "1.5", "not a whole number of bytes"),
    *((common.visible, text, "visible ASCII") for text in ("", "a b", "é", "a\n")),
    *((common.header, text, "NAME: VALUE") for text in ("nothing", "É: x", ": x", "a b: c")),
    (common.header, "a: b\r\nc: d", "no header may"),
    (common.topic, "", "not empty"),
    (common.topic, "t\udc80", "not UTF-8"),
    *((common.absolute_url, text, "http://HOST:PORT") for text in ("h:1", "ftp://h", "http://")),
    *((common.absolute_url, text, "a space or a control") for text in ("http://a b", "http://a\n")),
    (common.absolute_url, "http://h:x/", "Port could not be cast"),
    *((common.absolute_url, f"http://{host}/", "or too long part") for host in ("a..b", "a" * 64)),
    *((common.base_url, text, "query or a fragment") for text in ("http://h?a", "http://h#a")),
]


def test_converters(subtests: pytest.Subtests) -> None:
    """A converter returns the value of a text, or says what is wrong with it."""
    for convert, text, value in TAKEN:
        with subtests.test(text=text):
            assert convert(text) == value
    for convert, text, message in REFUSED:
        with subtests.test(text=text), pytest.raises(ValueError, match=message):
            convert(text)


@table(
    "value, text",
    [(0, "0s"), (0.5, "500ms"), (0.05, "50ms"), (1.5, "1500ms"), (90, "90s"), (7200, "2h")],
)
def test_times_are_written_as_they_are_typed(value: float, text: str) -> None:
    """A time is shown in the largest unit that gives a whole number, and is read back the same."""
    assert common.scaled_text(value, common.SECONDS) == text
    assert common.duration_or_zero(text) == value


def test_messages_are_one_printable_line(subtests: pytest.Subtests) -> None:
    """The words of a server can't write a line of their own, nor control a terminal."""
    for text, shown in [
        (" a\r\n b\t", "a b"),
        ("\x1b[2Jh3trio: fine", "?[2Jh3trio: fine"),
        ("\u202eabc\0", "?abc?"),
        ("é…", "é…"),
        ("x" * 501, "x" * 500 + "…"),
        ("x" * 500, "x" * 500),
    ]:
        with subtests.test(text=text):
            assert common.one_line(text) == shown


def test_lines_are_utf_8(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Output is UTF-8, with nothing changed in it."""
    common.write_line("é\r\x1b")
    assert capsysbinary.readouterr().out == "é\r\x1b\n".encode()


STEERS = [*map(chr, {*range(32), *range(127, 160)} - {9, 10}), *"\u202e\u2066\u200f\u2028\u061c"]


def test_output_does_not_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets no control characters of others, but all else as it is; JSON stays JSON."""
    reader, writer = os.openpty()
    tty.setraw(writer)
    with os.fdopen(writer, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        common.write_line("é\t👩\u200d🚀 \u05d0\x1b[2J\n\udc80")
        assert os.read(reader, 999).decode() == "é\t👩\u200d🚀 \u05d0\\u001b[2J\n\\udc80\n"
        for char in STEERS:
            common.write_line(json.dumps({"data": f"a{char}b"}, ensure_ascii=False))
            shown = os.read(reader, 999).decode()
            assert char not in shown
            assert json.loads(shown) == {"data": f"a{char}b"}
    os.close(reader)


def test_half_a_surrogate_pair_is_written_out(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """JSON can hold what UTF-8 can't, such as an id of a server: that is no error."""
    common.write_line("\ud800x")
    assert capsysbinary.readouterr().out == b"\\ud800x\n"


def test_json_objects() -> None:
    """Whatever is no JSON object has no fields."""
    assert common.json_object('{"a": 1}') == {"a": 1}
    assert [common.json_object(text) for text in (b"[]", "x", "[" * 100_000)] == [{}, {}, {}]
