"""Header fields and query parameters as plain values.

A request has one `Headers` and one `QueryParams`, and most handlers look at two or three fields. So
both keep the bytes they were given, and decode a field when it is asked for. A field of a response
is checked when it is set (`MutableHeaders`): the traceback points at the line that set it. Nothing
is stripped or replaced in silence: a field that can't be framed is a `ValueError`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import Final, TypeVar, cast, final, overload
from urllib.parse import unquote_to_bytes

from .errors import ResponseStateError

_T = TypeVar("_T")

MAX_NUM_FIELDS: Final = 1000
"""Default bound on the fields of one query string or form."""

TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # noqa: S105 - a word of the grammar
"""RFC 9110 §5.6.2: `token = 1*tchar`, as a part of an expression."""

_TOKEN: Final = re.compile(TOKEN)
# RFC 9110 §5.5: field-vchar = VCHAR / obs-text, with SP and HTAB between them.
_FIELD_CONTENT: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# RFC 9110 §5.3: it "often appears in a response message across multiple field lines and does not
# use the list syntax".
_SET_COOKIE: Final = b"set-cookie"
_SECRETS: Final = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})


def is_token(text: str) -> bool:
    """Whether this is a token (RFC 9110 §5.6.2): a method, or the name of a field or a cookie."""
    return _TOKEN.fullmatch(text) is not None


@lru_cache(maxsize=256)  # programs ask for few names, and for each request again
def _key(name: str) -> bytes:
    # Encoded before it is lowered: U+212A (KELVIN SIGN).lower() is a plain "k". "?" is in no token,
    # so a name that is not ASCII matches nothing.
    return name.encode("ascii", "replace").lower()


def _encode_name(name: object) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"a header name is a str, not {type(name).__name__}")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"header name {name!r} is not a token (RFC 9110 §5.6.2)")
    return name.encode("ascii")


def _encode_value(name: str, value: object) -> bytes:
    # The messages don't quote the value: it may be a cookie or a token, and errors get logged.
    if not isinstance(value, str):
        raise TypeError(f"header {name!r}: the value is a str, not {type(value).__name__}")
    try:
        raw = value.encode("latin-1")
    except UnicodeEncodeError as exc:
        raise ValueError(
            f"header {name!r}: character {value[exc.start]!r} is not in latin-1"
        ) from None
    if not _FIELD_CONTENT.fullmatch(raw):
        raise ValueError(
            f"header {name!r}: the value holds CR, LF, NUL or another control character"
        )
    if raw != raw.strip(b" \t"):
        raise ValueError(f"header {name!r}: the value has whitespace at its start or end")
    return raw


def _joined(key: bytes, values: Sequence[bytes]) -> str:
    if len(values) == 1 or key == _SET_COOKIE:
        return values[0].decode("latin-1")
    return b", ".join(values).decode("latin-1")


class _Fields(Mapping[str, str]):
    """Headers of a request or a response: fields are read by a name in any case."""

    __slots__ = ()

    @abstractmethod
    def _values(self, key: bytes) -> list[bytes]:
        """Return the values of a lower-case name, in the order of the message."""

    def __getitem__(self, name: str) -> str:
        key = _key(name)
        values = self._values(key)
        if not values:
            raise KeyError(name)
        return _joined(key, values)

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, /, default: str) -> str: ...
    @overload
    def get(self, key: str, /, default: _T) -> str | _T: ...
    def get(self, key: str, /, default: object = None) -> object:
        """Return the value, or the default if there is none."""
        # Mapping's own catches a KeyError, which is slow, and most fields asked for aren't there.
        name = _key(key)
        values = self._values(name)
        return _joined(name, values) if values else default

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self._values(_key(name)))

    def __repr__(self) -> str:
        shown = {name: "[secret]" if name in _SECRETS else value for name, value in self.items()}
        return f"{type(self).__name__}({shown!r})"

    def get_list(self, name: str) -> list[str]:
        """Return every value of a field, in the order of the message; `[]` if there is none."""
        return [value.decode("latin-1") for value in self._values(_key(name))]


@final
class Headers(_Fields):
    """The header fields of a request: an immutable mapping.

    Names are taken in any case and iterated in lower case. `headers[name]` is the value; those of a
    repeated field are joined with `", "` (RFC 9110 §5.3), and of `Set-Cookie` it is the first.
    `get_list` has them one by one. Values are decoded as latin-1: `value.encode("latin-1")` gives
    the client's bytes.

    `raw` holds pairs of bytes, names in lower case. It is not copied, and must not change.
    """

    __slots__ = ("_index", "_packed", "_raw")

    def __init__(self, raw: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._raw = raw
        self._packed: bytes | None = None
        self._index: dict[bytes, list[bytes]] | None = None

    @property
    def raw(self) -> Sequence[tuple[bytes, bytes]]:
        """The pairs as received, in order."""
        if self._packed is None:
            return self._raw
        lines = self._packed.split(b"\r\n")
        return [(name, value) for name, _, value in (line.partition(b":") for line in lines)]

    def pack(self) -> None:
        """Keep the fields in one piece until they are asked for again.

        For a stream that may be idle for hours: a browser's fifteen fields are 3 KiB of small
        objects, and 1 KiB in one piece. Fields hold no line ends (RFC 9112 §2.2), and names no
        colon (RFC 9110 §5.1).
        """
        if self._packed is None and self._raw:
            self._packed = b"\r\n".join([name + b":" + value for name, value in self._raw])
        self._raw = ()
        self._index = None

    def _values(self, key: bytes) -> list[bytes]:
        if self._index is not None:
            return self._index.get(key, [])
        fields = self._raw if self._packed is None else self.raw
        return [value for name, value in fields if name == key]

    def _indexed(self) -> dict[bytes, list[bytes]]:
        # A look-up scans: a dict for a dozen fields is slower to make and would live as long as the
        # stream. But to scan for each field when all are wanted is quadratic.
        if self._index is None:
            index: dict[bytes, list[bytes]] = {}
            for name, value in self.raw:
                index.setdefault(name, []).append(value)
            self._index = index
        return self._index

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._indexed())


@final
class MutableHeaders(_Fields, MutableMapping[str, str]):
    """The header fields of a response: a mapping, made from another or from pairs of strings.

    Names are taken in any case, iterated in lower case, and sent in the case given.

    Raises:
        ValueError: naming the header: the name is not a token (RFC 9110 §5.6.2), or the value holds
            CR, LF, NUL or another control character but HTAB, has whitespace at either end (§5.5),
            or is not latin-1.
        TypeError: a name or a value is not a str.
        ResponseStateError: the head went out.
    """

    __slots__ = ("_fields", "_frozen")

    def __init__(self, source: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._fields: list[tuple[bytes, bytes, bytes]] = []
        self._frozen = False
        if isinstance(source, MutableHeaders):
            self._fields += source._fields
            return
        pairs: Iterable[tuple[str, str]] = (
            cast("Mapping[str, str]", source).items() if isinstance(source, Mapping) else source
        )
        for name, value in pairs:
            self.add(name, value)

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """The fields as they are sent, in order: a new list at each call."""
        return [(name, value) for _, name, value in self._fields]

    def _values(self, key: bytes) -> list[bytes]:
        return [value for lower, _, value in self._fields if lower == key]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(lower.decode("ascii") for lower, _, _ in self._fields))

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self.delete(name)

    def _check_open(self) -> None:
        if self._frozen:
            raise ResponseStateError(
                "the response head has been sent: its headers can no longer change"
            )

    def set(self, name: str, value: str) -> None:
        """Make this the field's one value, which moves to the end: `headers[name] = value`."""
        self._check_open()
        raw = _encode_name(name)
        field = (raw.lower(), raw, _encode_value(name, value))
        self.delete(name)
        self._fields.append(field)

    def add(self, name: str, value: str) -> None:
        """Send one more field of this name: for `Set-Cookie`, `Link`, `Vary`."""
        self._check_open()
        raw = _encode_name(name)
        self._fields.append((raw.lower(), raw, _encode_value(name, value)))

    def delete(self, name: str) -> None:
        """Remove every field of this name; unlike `del headers[name]`, there need be none."""
        self._check_open()
        key = _key(name)
        self._fields = [field for field in self._fields if field[0] != key]

    def add_missing(self, defaults: MutableHeaders) -> None:
        """Add the fields of those names that are not here yet; they were checked once already."""
        self._check_open()
        present = {key for key, _, _ in self._fields}
        self._fields += [field for field in defaults._fields if field[0] not in present]

    def freeze(self) -> None:
        """Refuse changes from now on: the head is sent."""
        self._frozen = True


@final
class QueryParams(Mapping[str, str]):
    """The fields of a query string or a form, decoded as WHATWG URL §5.1 says.

    `+` is a space. `query[name]` is the first value of a repeated field, `get_list` has all. `a`
    and `a=` both are a field with an empty value; an empty field between two `&` is skipped. Bytes
    that are not UTF-8 become U+FFFD, and a `%` without two hex digits stays as it is.

    `raw` comes without the `?`.

    Raises:
        ValueError: at once, for more than `max_num_fields` fields (counted by their separators).
    """

    __slots__ = ("_parsed", "_raw")

    def __init__(self, raw: bytes = b"", *, max_num_fields: int = MAX_NUM_FIELDS) -> None:
        if raw and raw.count(b"&") + 1 > max_num_fields:
            raise ValueError(f"more than {max_num_fields} fields (max_num_fields)")
        self._raw = raw
        self._parsed: dict[str, list[str]] | None = None

    @property
    def raw(self) -> bytes:
        """The bytes as received."""
        return self._raw

    def _fields(self) -> dict[str, list[str]]:
        if self._parsed is None:
            parsed: dict[str, list[str]] = {}
            for field in self._raw.split(b"&"):
                if field:
                    name, _, value = field.partition(b"=")
                    parsed.setdefault(_decode_component(name), []).append(_decode_component(value))
            self._parsed = parsed
        return self._parsed

    def __getitem__(self, name: str) -> str:
        return self._fields()[name][0]

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, /, default: str) -> str: ...
    @overload
    def get(self, key: str, /, default: _T) -> str | _T: ...
    def get(self, key: str, /, default: object = None) -> object:
        """Return the first value, or the default if there is none."""
        values = self._fields().get(key)  # as in `_Fields.get`
        return default if values is None else values[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields())

    def __len__(self) -> int:
        return len(self._fields())

    def __repr__(self) -> str:
        # Names only: tokens and tickets travel in query strings.
        return f"<QueryParams {', '.join(self) or 'empty'}>"

    def get_list(self, name: str) -> list[str]:
        """Return every value of a repeated field, in order; `[]` if there is none."""
        return list(self._fields().get(name, ()))


def _decode_component(raw: bytes) -> str:
    spaced = raw.replace(b"+", b" ")
    return unescape_text(spaced) if b"%" in spaced else spaced.decode("utf-8", "replace")


def unescape_text(raw: bytes) -> str:
    """Percent-decode to text: a `%` without two hex digits stays; what isn't UTF-8 is U+FFFD."""
    try:
        octets = unescape(raw)
    except ValueError:
        octets = unquote_to_bytes(raw)
    return octets.decode("utf-8", "replace")


def unescape(raw: bytes) -> bytes:
    """Percent-decode.

    As `urllib.parse.unquote_to_bytes`, which takes twenty times as long for many escapes.

    Raises:
        ValueError: a `%` without two hex digits.
    """
    if b"%" not in raw:
        return raw
    # Python's own escapes are decoded in C, and `\\x` is the only one that is left.
    text = raw.replace(b"\\", b"\\\\").replace(b"%", b"\\x").decode("unicode_escape")
    return text.encode("latin-1")
