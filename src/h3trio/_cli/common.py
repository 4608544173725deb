"""What several commands take: converters of arguments, and the token that they send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .http import whole

if TYPE_CHECKING:
    from .options import Options

KEY_VARIABLE: Final = "H3TRIO_JWT_KEY"
"""The variable that holds a secret, or a public key in PEM."""


def counted(text: str) -> int:
    """Convert a whole number, one or more; raise `ValueError` for anything else."""
    if (value := whole(text)) == 0:
        raise ValueError("must be at least 1")
    return value


def visible(text: str) -> str:
    """Check what is to be the value of a header (RFC 9110 section 5.5); ValueError otherwise."""
    if not (text.isascii() and text.isprintable()) or " " in text or not text:
        raise ValueError(f"{text!r} is not visible ASCII")
    return text


def header(text: str) -> str:
    """Check a header field to send, `NAME: VALUE`; ValueError otherwise."""
    name, colon, value = text.partition(":")
    letters = name.replace("-", "").replace("_", "")
    # `isalnum` alone takes letters of any alphabet, and a name is ASCII (RFC 9110 section 5.1).
    if not colon or not (letters.isascii() and letters.isalnum()):
        raise ValueError(f"{text!r} is not of the form NAME: VALUE")
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{text!r} holds what no header may")
    return f"{name}: {value.strip()}"


def add_token(parser: Options) -> None:
    """Add `--token`, whose twin `H3TRIO_TOKEN` no other user of the machine sees."""
    what = "token to show the hub; other users of this machine can see flags, not the environment"
    parser.add_option("--token", type=_token, metavar="TOKEN", help=what)


def _token(text: str) -> str:
    try:
        return visible(text)
    except ValueError:
        # Without what it is: it is a secret.
        raise ValueError("a token is visible ASCII, without spaces") from None
