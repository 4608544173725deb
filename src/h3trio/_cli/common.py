"""Parts of every command: converters of arguments, and lines for the terminal.

A converter takes the text of a flag or of a variable. It returns the value, or raises `ValueError`
with a message that can stand behind the option's name.

Texts of others (a server's words, a topic) steer no terminal: in messages they are cut to one line
of printable characters; what a command prints goes as it is to a file or a pipe, and to a terminal
with its control characters written out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from typing import TYPE_CHECKING, Final, TextIO, TypeVar, cast
from urllib.parse import urlsplit

from h3trio._http.headers import is_token

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

KEY_VARIABLE: Final = "H3TRIO_JWT_KEY"
"""The variable that holds a secret, or a public key in PEM."""

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE: Final = 141  # 128 + SIGPIPE: the status of other tools whose reader left

MAX_MESSAGE: Final = 500
_MAX_DIGITS: Final = 19  # of 64 bits
_MAX_LABEL: Final = 63  # of a name between two dots (RFC 1035 section 2.3.4)

# C0 but for TAB and LF, DEL and C1 (some terminals take 0x9b for ESC [); the separators of lines
# that only some obey; and what turns the direction of a line round (Unicode UAX #9, section 2), so
# that it reads as what it isn't.
_STEERING: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)

BYTES: Final[dict[str, float]] = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
SECONDS: Final[dict[str, float]] = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SCALED: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([a-z]*)")
_MOST: Final = 1e15


class CommandError(Exception):
    """Ends a command; its text is the line for people."""

    status = EXIT_FAILED


# -- converters


def checked(convert: Callable[[str], T]) -> Callable[[str], T]:
    """Make a converter for argparse, which shows the message of no error but its own."""

    def convert_or_say_why(text: str) -> T:
        try:
            return convert(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc

    return convert_or_say_why


def whole(text: str) -> int:
    """Convert a whole number, zero or more."""
    # `isdigit` takes other alphabets' digits, and Python may refuse to read very many.
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def counted(text: str) -> int:
    """Convert a whole number, one or more."""
    if (value := whole(text)) == 0:
        raise ValueError("must be at least 1")
    return value


def up_to(most: int) -> Callable[[str], int]:
    """Make a converter of whole numbers from 1 to `most`."""

    def convert(text: str) -> int:
        if not 1 <= (value := whole(text)) <= most:
            raise ValueError(f"must be 1 to {most:,}")
        return value

    return convert


def one_of(*words: str) -> Callable[[str], str]:
    """Make a converter of one of these words."""

    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is neither {' nor '.join(words)}")
        return text

    return convert


def number(text: str) -> float:
    """Convert a number."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def duration(text: str) -> float:
    """Convert a time above zero, with its unit behind it, to seconds: `500ms`, `2m`, `1.5h`."""
    return _scaled(text, SECONDS, "time")


def duration_or_zero(text: str) -> float:
    """Convert a time as `duration` does; zero is one too."""
    found = _SCALED.fullmatch(text.lower())
    is_zero = found is not None and found[2] in SECONDS and not float(found[1])
    return 0.0 if is_zero else duration(text)


def size(text: str) -> int:
    """Convert a number of bytes above zero, with its unit behind it: `64k` is 65,536."""
    if (value := _scaled(text, BYTES, "size")) != int(value):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(value)


def _scaled(text: str, units: dict[str, float], what: str) -> float:
    found = _SCALED.fullmatch(text.lower())
    value = float(found[1]) * units.get(found[2], 0) if found else 0.0
    if not 0 < value < _MOST:
        suffixes = ", ".join(filter(None, units))
        raise ValueError(
            f"{text!r} is not a {what}: write a positive number, with {suffixes} behind it if "
            "need be"
        )
    return value


def scaled_text(value: float, units: dict[str, float]) -> str:
    """Write a time or a size as it is typed, in the largest unit that gives a whole number."""
    own = "s" if "s" in units else ""
    fitting = [unit for unit in units if value and round(value / units[unit], 9).is_integer()]
    best = max(fitting, key=units.__getitem__, default=own) or own
    return f"{value / units[best]:g}{best}"


def visible(text: str) -> str:
    """Check a header's value that has no space in it (RFC 9110 section 5.5)."""
    if not (text.isascii() and text.isprintable()) or " " in text or not text:
        raise ValueError(f"{text!r} is not visible ASCII")
    return text


def header(text: str) -> str:
    """Check a header field, `NAME: VALUE`; return it with one space behind the colon."""
    name, colon, value = text.partition(":")
    if not colon or not is_token(name):
        raise ValueError(f"{text!r} is not of the form NAME: VALUE")
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{text!r} holds what no header may")
    return f"{name}: {value.strip()}"


def topic(text: str) -> str:
    """Check a topic as far as a client can."""
    if not text:
        raise ValueError("a topic is not empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} is not UTF-8") from None
    return text


def absolute_url(text: str) -> str:
    """Check an absolute URL for HTTP; return it without a fragment, which no server gets."""
    # `urlsplit` drops some control characters, and a URL has none.
    if " " in text or not text.isprintable():
        raise ValueError(f"{text!r} holds a space or a control character")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r} is not of the form http://HOST:PORT")
    _ = parts.port  # raises `ValueError` itself
    labels = parts.hostname.removesuffix(".").split(".")
    if not all(0 < len(label) <= _MAX_LABEL for label in labels):
        raise ValueError(f"{text!r} has a host with an empty or too long part")
    return text.partition("#")[0]


def base_url(text: str) -> str:
    """Check the address of a hub, which may have a path; return it without a slash at its end."""
    absolute_url(text)
    if "?" in text or "#" in text:
        raise ValueError(f"{text!r} has a query or a fragment: give the hub's own address")
    return text.rstrip("/")


def json_object(text: bytes | str) -> dict[str, object]:
    """Read a JSON object; anything else is one without fields."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


# -- lines


def has_rich(stream: TextIO | None) -> bool:
    """Tell whether rich can draw: it comes with an extra, and draws on terminals."""
    is_terminal = stream is not None and stream.isatty()
    return is_terminal and importlib.util.find_spec("rich") is not None


def write_line(text: str) -> None:
    """Write a line to standard output, at once; in UTF-8, as event streams are.

    A terminal gets no character that would steer it. Half a surrogate pair, which UTF-8 has no
    bytes for but JSON can hold, is written out.
    """
    if sys.stdout.isatty():
        text = tamed(text)
    sys.stdout.buffer.write(text.encode(errors="backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def tamed(text: str) -> str:
    r"""Write out what steers a terminal, as `\u001b`, which JSON reads as the same text.

    Lines and tabs stay, and so do the joiners that hold emoji and some scripts together.
    """
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(message: str) -> None:
    """Write one line to standard error."""
    print(f"h3trio: {one_line(message)}", file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Cut a text of anybody's to one line that a terminal only shows."""
    words = " ".join(text.split())
    shown = "".join(char if char.isprintable() else "?" for char in words[:MAX_MESSAGE])
    return shown + "…" * (len(words) > MAX_MESSAGE)
