"""`check_secret`: whether bytes are plainly the secret of an HMAC, and no key that others may know.

Any bytes can be the secret of an HMAC. So a public key in a form that isn't read as a key would be
one: the hub would start, and whoever has the public key could sign tokens. What is a key in any of
the usual forms is refused, also where it is wrapped in base64, hexadecimal digits or UTF-16, and so
is text that a secret never looks like. PyJWT refuses a part of that itself (since 2.14); it doesn't
look into base64, and takes private keys.

Nothing is loaded to find out: DER is told by its outermost lengths, which also finds the encrypted,
the broken and the unknown kinds. Bytes without any structure, as those of a bare Ed25519 key, can't
be told from a secret.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_ADVICE: Final = "give the public key in PEM, which begins with -----BEGIN PUBLIC KEY-----"
_PEM: Final = re.compile(
    rb"-{4,5}(?: |%20|\+|_)?BEGIN(?: |%20|\+|_)|PuTTY-User-Key-File-|RSAKeyValue"
)
# RFC 4253 section 6.6, RFC 5656, and OpenSSH's own; options or a comment may stand around it.
_SSH_NAME: Final = rb"(?:ssh-(?:rsa|dss|ed25519|ed448)|ecdsa-sha2-|sk-(?:ssh|ecdsa)-)"
_SSH: Final = re.compile(rb"(?:^|\s)" + _SSH_NAME + rb"\S*\s")
# The name behind its length; or a private key, by the mark of OpenSSH's own format.
_SSH_BLOB: Final = re.compile(rb"\0\0\0." + _SSH_NAME + rb"|openssh-key-v1\0", re.DOTALL)
_TOKEN: Final = re.compile(rb"eyJ[\w-]+\.[\w-]+\.[\w-]*")
# Where a key is, in place of it: a URI, or the name of such a file.
_PLACE: Final = re.compile(
    rb"(?:[a-z][a-z0-9+.-]*://|data:|did:|file:)\S*|\S*\.(?:pem|key|pub|crt|cer|der|json|jwks?|txt)",
    re.IGNORECASE,
)
_WHITE: Final = re.compile(rb"\s+")
_BETWEEN_HEX: Final = re.compile(rb"[\s:,;-]|0[xX]")
# X.690 section 8.1.2: SEQUENCE; the first thing in one of a key or a certificate is another, the
# version or an OBJECT IDENTIFIER.
_SEQUENCE: Final = 0x30
_FIRST_INSIDE: Final = (0x30, 0x02, 0x06)
# RFC 5280 section 4.1: a public key begins with a SEQUENCE that begins with an OBJECT IDENTIFIER.
_ALGORITHM: Final = re.compile(rb"\x30.\x30.\x06", re.DOTALL)
_LONG_FORM: Final = 0x80
_LONG_LENGTHS: Final = (0x81, 0x82)  # one byte of length, or two
_LINE_END: Final = 2  # bytes that an editor may leave behind
# SEC 1 section 2.3.3: 04, and two coordinates of P-256, P-384 or P-521.
_POINT: Final = 0x04
_POINT_SIZES: Final = (65, 97, 133)
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_MAX_WRAPPINGS: Final = 3  # as where base64 is kept in base64, and so on


def check_secret(data: bytes) -> None:
    """Check that bytes are plainly a secret.

    Raises:
        ValueError: they are a key, a certificate or a token, or a text of several lines.
    """
    if _is_json(data):
        raise ValueError("it is JSON, not a secret: a JWK Set is given by --jwks")
    for found in _unwrapped(data, _MAX_WRAPPINGS):
        if (kind := _kind(found)) is not None:
            where = "" if found is data else ", written in other characters"
            raise ValueError(f"it is {kind}{where}, not a secret: {_ADVICE}")
    if b"\n" in data.strip() and _is_text(data):
        raise ValueError(f"it has several lines, and a secret has one; for a key {_ADVICE}")


def _kind(data: bytes) -> str | None:
    """Name what is no secret; `None` for what may be one."""
    if _PEM.search(data):
        return "a key or a certificate in a form like PEM"
    if _SSH.search(data) or _SSH_BLOB.match(data):
        return "a key of OpenSSH"
    if _is_der(data):
        return "a key or a certificate in DER"
    if len(data) in _POINT_SIZES and data[0] == _POINT:
        return "a point of an elliptic curve"
    for kind, pattern in (("a token", _TOKEN), ("the place of a key", _PLACE)):
        if pattern.fullmatch(data.strip()):
            return kind
    return "a JWK" if _is_json(data) else None


def _is_der(data: bytes) -> bool:
    """Whether the outermost SEQUENCE is as long as the data, but for a line end behind it.

    A key that was cut is one too: by its OBJECT IDENTIFIER, or by a length of several bytes.
    """
    if len(data) < 4 or data[0] != _SEQUENCE:  # noqa: PLR2004 - tag and length, twice
        return False
    if _ALGORITHM.match(data):
        return True
    at, size = 2, data[1]
    if size >= _LONG_FORM:
        # X.690 section 8.1.3.5: the rest of this byte is the number of those of the length.
        at += size - _LONG_FORM
        size = len(data) - at if size in _LONG_LENGTHS else int.from_bytes(data[2:at])
    return 0 <= len(data) - (at + size) <= _LINE_END and data[at : at + 1] in map(
        int.to_bytes, _FIRST_INSIDE
    )


def _is_json(data: bytes) -> bool:
    """Whether it is a JSON object or array."""
    try:
        return isinstance(json.loads(data), dict | list)
    except RecursionError:
        return True
    except ValueError:
        return False


def _is_text(data: bytes) -> bool:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char.isspace() for char in text)


def _unwrapped(data: bytes, depth: int) -> Iterator[bytes]:
    """Give the data, and what it is the base64 or the hexadecimal digits of, again and again."""
    yield data
    if not depth:
        return
    digits = _WHITE.sub(b"", data)
    for decode, source in (
        (binascii.unhexlify, _BETWEEN_HEX.sub(b"", data)),
        (_decode_base64, digits),
        (_decode_utf16, data),
        (_decode_json, data),
    ):
        try:
            decoded = decode(source)
        except ValueError:
            continue
        if decoded:
            yield from _unwrapped(decoded, depth - 1)


def _decode_utf16(data: bytes) -> bytes:
    """Decode what some editors and shells write: text in UTF-16 behind its mark."""
    return data.decode("utf-16").encode() if data.startswith(_UTF16) else b""


def _decode_json(data: bytes) -> bytes:
    """Decode text in quotation marks, with escapes for its line ends."""
    value: object = json.loads(data) if data.lstrip().startswith(b'"') else None
    return value.encode() if isinstance(value, str) else b""


def _decode_base64(digits: bytes) -> bytes:
    """Decode either alphabet (RFC 4648 sections 4 and 5), with padding or without."""
    digits = digits.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
