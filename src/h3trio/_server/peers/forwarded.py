"""Readers of `Forwarded` (RFC 7239) and `X-Forwarded-For`, in which proxies name their clients.

Each proxy appends, so the client may have written all but the right end of a list. Both are read
from the right, an element at a time, and no further than the caller trusts them: a quote that a
client left open can't take in an element that a proxy wrote behind it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from h3trio._http.headers import TOKEN

from .addresses import UNKNOWN, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_HOPS: Final = 32
"""Proxies in a row that are looked at: more than any honest chain has."""

_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_PAIR: Final = rf"({TOKEN})=({TOKEN}|{_QUOTED})"
_ELEMENT: Final = re.compile(rf"\s*{_PAIR}(?:\s*;\s*{_PAIR})*\s*", re.DOTALL)
_PAIRS: Final = re.compile(_PAIR, re.DOTALL)
_SCHEMES: Final = ("http", "https")
_PORT: Final = re.compile(r":(?:[0-9]{1,5}|_[A-Za-z0-9._-]+)")


class Hop(NamedTuple):
    """The client of one proxy, as that proxy names it."""

    client: str | None
    """Its peer's address, `unknown` if it hides that, `None` if what it says makes no sense."""
    scheme: str | None
    """`http` or `https`, `None` if it says neither."""


MALFORMED: Final = Hop(None, None)


def forwarded_hops(value: str) -> Iterator[Hop]:
    """Read a `Forwarded` header, the nearest proxy first; ends with the first malformed element."""
    end = len(value)
    for _ in range(MAX_HOPS):
        start, hop = _last_element(value, end)
        yield hop
        if hop is MALFORMED or start == 0:
            return
        end = start - 1


def _last_element(value: str, end: int) -> tuple[int, Hop]:
    """Find the element that ends here: from the last comma, or one before if that is quoted."""
    start = end
    for _ in range(MAX_HOPS):
        start = value.rfind(",", 0, start) + 1
        if _ELEMENT.fullmatch(value, start, end):
            return start, _hop(value[start:end])
        if start == 0:
            break
        start -= 1
    return 0, MALFORMED


def _hop(element: str) -> Hop:
    fields: dict[str, str] = {}
    for name, raw in _PAIRS.findall(element):
        text = re.sub(r"\\(.)", r"\1", raw[1:-1]) if raw.startswith('"') else raw
        # RFC 7239 section 4: each parameter at most once.
        if name.lower() in fields:
            return MALFORMED
        fields[name.lower()] = text
    if "for" not in fields:
        return MALFORMED
    return Hop(parse_node(fields["for"]), _scheme(fields.get("proto", "")))


def x_forwarded_hops(addresses: str, schemes: str) -> Iterator[Hop]:
    """Read `X-Forwarded-For` and `X-Forwarded-Proto`, the nearest proxy first.

    Schemes are one for each address, or one for all: the nearest proxy's.
    """
    nodes = addresses.rsplit(",", MAX_HOPS)[-MAX_HOPS:]
    said = [_scheme(text) for text in schemes.rsplit(",", MAX_HOPS)[-MAX_HOPS:]]
    if len(said) != len(nodes):
        said = [said[-1]] * len(nodes)
    for node, scheme in zip(reversed(nodes), reversed(said), strict=True):
        yield Hop(parse_node(node.strip()), scheme)


def parse_node(text: str) -> str | None:
    """Read a node of RFC 7239 section 6, or an address as `X-Forwarded-For` has it.

    A port is dropped. `unknown` and hidden names (`_x`) are `unknown`; `None` for the rest.
    """
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or ":" not in name:
            return None
    elif text.count(":") == 1:
        name, _, port = text.partition(":")
        port = f":{port}"
    else:
        name, port = text, ""
    if port and not _PORT.fullmatch(port):
        return None
    if name.lower() == UNKNOWN or re.fullmatch(r"_[A-Za-z0-9._-]+", name):
        return UNKNOWN
    address = parse_address(name)
    return None if address is None else str(address)


def _scheme(text: str) -> str | None:
    scheme = text.strip().lower()
    return scheme if scheme in _SCHEMES else None
