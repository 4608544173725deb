r"""Text of a client, made fit for a log: without secrets, without a way to forge, bounded.

Two steps, in this order:

1. The values of parameters whose *name* tells of a secret are replaced, in queries and in paths
   (`/a;token=x`), and so is all that looks like a JWT. Names are matched loosely: it is better to
   hide a value too many.
2. A line end, an escape sequence of a terminal, a quote or U+2028 could make one entry look like
   two. So the rest is ASCII: characters that aren't printable, `"` and `\` are written as `\x..`
   or `\u....`.

Every pattern here runs in linear time: the text is the client's. Of a long one only the beginning
is read, as a name costs some microseconds, and a target has room for thousands.
"""

from __future__ import annotations

import logging
import re
from typing import Final, final
from urllib.parse import unquote

REDACTED: Final = "[redacted]"
MAX_FIELD: Final = 1024
"""Characters of one field in a log line: longer than a path that people made."""

# Whole words of a name, which may have several: `api_key`, `X-Amz-Signature`.
_SECRET_WORDS: Final = frozenset(
    ("auth", "bearer", "code", "hmac", "key", "otp", "pass", "pin", "pwd", "sid", "sig", "ticket")
)
# Wherever they stand in a name: `accessToken`, `clientsecret`.
_SECRET_STEMS: Final = re.compile(
    "token|secret|passw|passphrase|apikey|accesskey|authoriz|signature|credential|jwt|cookie|session"
)
_NOT_WORD: Final = re.compile(r"[^a-z0-9]+")
_SEPARATORS: Final = re.compile(r"[?&;/#,]")
# RFC 7519 section 3: a header that begins with `{"`, a dot, and more. Begun only where no such
# character stands before: otherwise "eyJeyJeyJ…" takes quadratic time.
_JWT: Final = re.compile(r"(?<![\w-])eyJ[\w-]+\.[\w.-]+", re.ASCII)
_UNSAFE: Final = re.compile(r"[^ !#-\[\]-~]")
# Control characters but the line end: C0, DEL, C1, and the line ends of Unicode.
_CONTROLS: Final = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
# A name may be encoded more than once on its way through several programs.
_DECODINGS: Final = 3


def is_secret(name: str) -> bool:
    """Whether a parameter of this name, percent-encoded or not, is likely to hold a secret."""
    name = _decode(name).lower()
    if _SECRET_STEMS.search(_NOT_WORD.sub("", name)):
        return True
    return not _SECRET_WORDS.isdisjoint(_NOT_WORD.split(name))


def redact_query(query: str) -> str:
    """Replace the values that are likely to be secrets in a query string, as it was sent."""
    fields = _beginning(query).split("&")
    return _JWT.sub(REDACTED, "&".join(map(_redact_field, fields)))


def redact_path(path: str) -> str:
    """Replace what is likely to be a secret in a path: `/a;token=x` and JWTs."""
    path = _beginning(path)
    if "=" in path:
        path = "/".join(map(_redact_field, path.split("/")))
    return _JWT.sub(REDACTED, path)


def _beginning(text: str) -> str:
    """Return what an entry has room for: the rest would be looked through for nothing."""
    return text if len(text) <= MAX_FIELD else f"{text[:MAX_FIELD]}..."


def _redact_field(field: str) -> str:
    name, equals, value = field.partition("=")
    if equals and (is_secret(name) or _tells(value)):
        return f"{name}={REDACTED}"
    return field


def _tells(value: str) -> bool:
    """Whether a value holds parameters of its own, such as a URL, and one of them is a secret."""
    if "=" not in value and "%" not in value:
        return False
    fields = (field.partition("=") for field in _SEPARATORS.split(_decode(value)))
    return any(equals and is_secret(name) for name, equals, _ in fields)


def _decode(text: str) -> str:
    for _ in range(_DECODINGS):
        if "%" not in text:
            break
        text = unquote(text)
    return text


def printable(text: str, limit: int = MAX_FIELD) -> str:
    """Return a text as printable ASCII without `"` and single backslashes, at most `limit` long."""
    safe = _UNSAFE.sub(_escape, text[: limit + 1])
    return safe if len(safe) <= limit else f"{safe[: limit - 3]}..."


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code <= 0xFF:  # noqa: PLR2004 - what two digits hold
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - what four digits hold


def shown_path(path: bytes) -> str:
    """Return the path of a request, as sent, as a log may have it."""
    return printable(redact_path(path.decode("latin-1")))


def shown_query(query: bytes) -> str:
    """Return the query of a request, as sent, as a log may have it."""
    return printable(redact_query(query.decode("latin-1"))) if query else ""


@final
class LogFormatter(logging.Formatter):
    """A formatter none of whose entries can look like two.

    Control characters and line ends of the message are escaped. A traceback, which may quote a
    client, is indented: no line of it begins as an entry does.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name for it
        """Return the entry's first part, in one line."""
        return _CONTROLS.sub(_escape, super().formatMessage(record)).replace("\n", "\\x0a")

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name for it
        """Return a stack, indented."""
        return self._indent(super().formatStack(stack_info))

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name for it
        """Return the traceback, indented."""
        return self._indent(super().formatException(ei))  # type: ignore[arg-type]  # typeshed names no public type for it

    def _indent(self, text: str) -> str:
        return "\n".join(f"  {_CONTROLS.sub(_escape, line)}" for line in text.split("\n"))
