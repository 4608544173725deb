"""`Response`: a whole answer, as a value.

A `Response` that exists can be sent: its status, headers and body are checked where it is made.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

from .cookies import SetsCookies
from .headers import MutableHeaders

if TYPE_CHECKING:
    from .errors import HTTPError

HeadersLike: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Headers to send: a mapping, or pairs, in which a name may be repeated."""

TEXT: Final = "text/plain; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"

# Made once: most responses hold one of these and nothing else.
_KNOWN_TYPES: Final[Mapping[str | None, MutableHeaders]] = {
    known: MutableHeaders({"Content-Type": known}) for known in (TEXT, HTML, JSON, BYTES)
}
# `json.dumps` makes one for each call that asks for anything special.
_JSON: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)

# JSON escapes the other characters at which `str.splitlines` splits, as it does all controls.
_LINE_ENDS: Final = (("\u0085", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))

_LOWEST_FINAL: Final = 200
_HIGHEST: Final = 599
# RFC 9110 §15.3.5, §15.3.6, §15.4.5: these end with the head.
_BODILESS: Final = frozenset({204, 205, 304})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_VISIBLE_ASCII: Final = re.compile(r"[!-~]+")


@final
class Response(SetsCookies):
    """A whole answer: status, headers, body.

    A `str` body is sent as UTF-8, as `text/plain` unless `content_type` or the headers say
    otherwise; `bytes` go out as `application/octet-stream`; no body, no content type.
    Middleware may change `headers`; for another status or body, make another response.

    Raises:
        ValueError: a status outside 200 to 599, a body with 204, 205 or 304, a content type given
            twice, or a header that `MutableHeaders` refuses.
        TypeError: a body that is neither `str` nor `bytes`.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        body: bytes | str = b"",
        *,
        status: int = 200,
        headers: HeadersLike | None = None,
        content_type: str | None = None,
    ) -> None:
        if not _LOWEST_FINAL <= status <= _HIGHEST:
            raise ValueError(f"a response takes a status from 200 to 599, not {status!r}")
        if body and status in _BODILESS:
            raise ValueError(f"a {int(status)} response has no body")
        self.status: Final = int(status)
        """From 200 to 599."""
        if content_type is None and body:
            content_type, is_default = TEXT if isinstance(body, str) else BYTES, True
        else:
            is_default = False
        self.headers: Final = _with_type(headers, content_type, is_default=is_default)
        """The fields that go out, in this order; they may be changed."""
        self.body: Final = _encode_body(body)
        """The bytes that go out."""

    def _cookie_headers(self) -> MutableHeaders:
        return self.headers

    def __repr__(self) -> str:
        content_type = self.headers.get("content-type", "no content type")
        return f"<Response {self.status}, {content_type}, {len(self.body)} bytes>"

    @classmethod
    def json(
        cls, obj: object, *, status: int = 200, headers: HeadersLike | None = None
    ) -> Response:
        """Answer with compact JSON in UTF-8 (RFC 8259).

        Raises:
            TypeError: JSON has no form for this.
            ValueError: NaN or an infinity, a lone surrogate, or what holds itself or is nested too
                deep.
        """
        try:
            body = json_text(obj).encode("utf-8")
        except TypeError as exc:
            raise TypeError(f"can't be sent as JSON: {exc}") from exc
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"can't be sent as JSON: {exc}") from exc
        return cls(body, status=status, headers=headers, content_type=JSON)

    @classmethod
    def html(cls, text: str, *, status: int = 200, headers: HeadersLike | None = None) -> Response:
        """Answer with HTML, sent as UTF-8. Nothing is escaped."""
        return cls(text, status=status, headers=headers, content_type=HTML)

    @classmethod
    def redirect(
        cls, location: str, *, status: int = 302, headers: HeadersLike | None = None
    ) -> Response:
        """Send the client to a URI reference, absolute or relative (RFC 9110 §10.2.2).

        Raises:
            ValueError: a status other than 301, 302, 303, 307 and 308, or a location that is empty
                or holds other than visible ASCII: in a URI the rest is percent-encoded (RFC 3986
                §2), and browsers differ in how they read one where it isn't.
        """
        if status not in _REDIRECTS:
            raise ValueError(f"a redirect takes status 301, 302, 303, 307 or 308, not {status!r}")
        if not _VISIBLE_ASCII.fullmatch(location):
            raise ValueError(f"redirect location {location!r} is not a URI: percent-encode it")
        response = cls(status=status, headers=headers)
        response.headers.set("Location", location)
        return response


def json_text(obj: object) -> str:
    """Write compact JSON that is one line for every reader.

    Raises:
        TypeError, ValueError, RecursionError: as `json.dumps`; ValueError for NaN and infinities.
    """
    return escape_line_ends(_JSON.encode(obj))


def escape_line_ends(text: str) -> str:
    """Escape NEL, U+2028 and U+2029 in JSON: they can only stand in its strings.

    No standard of ours ends a line there. Python's `str.splitlines` does, and so do clients that
    read a stream through it, such as httpx's `iter_lines`.
    """
    if not text.isascii():
        for char, escaped in _LINE_ENDS:
            text = text.replace(char, escaped)
    return text


def _with_type(
    headers: HeadersLike | None, content_type: str | None, *, is_default: bool
) -> MutableHeaders:
    if not headers and (known := _KNOWN_TYPES.get(content_type)) is not None:
        return MutableHeaders(known)
    fields = MutableHeaders(headers or ())
    if content_type is None:
        return fields
    if "content-type" not in fields:
        fields.set("Content-Type", content_type)
    elif not is_default:
        raise ValueError("the content type is given twice: in content_type and in headers")
    return fields


def _encode_body(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode("utf-8")
    raise TypeError(f"a response body is str or bytes, not {type(body).__name__}")


def to_response(result: object) -> Response:
    """Make a response of what a handler returned.

    `str` is sent as `text/plain`, `bytes` as `application/octet-stream`, `dict` and
    `list` as JSON, None as 204, a `Response` as it is.

    Raises:
        TypeError: anything else, named; or what JSON has no form for.
        ValueError: as `Response.json`.
    """
    if isinstance(result, Response):
        return result
    if result is None:
        return Response(status=204)
    if isinstance(result, str):
        return Response(result, content_type=TEXT)
    if isinstance(result, bytes):
        return Response(result, content_type=BYTES)
    if isinstance(result, dict | list):
        return Response.json(cast("object", result))
    hint = " (is an await missing?)" if inspect.isawaitable(result) else ""
    raise TypeError(
        "a handler returns str, bytes, dict, list, Response or None, or it streams; "
        f"this one returned {type(result).__name__}{hint}"
    )


def error_response(error: HTTPError) -> Response:
    """Make the response of an error: status, headers, and the detail as a line of plain text.

    Raises:
        ValueError: the error's headers can't be sent.
    """
    headers = MutableHeaders(error.headers)
    headers.setdefault("Content-Type", TEXT)
    # A lone surrogate is replaced, not refused: failing here would hide the error to be reported.
    body = f"{error.detail}\n".encode("utf-8", "replace")
    return Response(body, status=error.status, headers=headers)
