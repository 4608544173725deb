"""`Forwarded` and `X-Forwarded-For`: read from the right, and never further than makes sense."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio._server.peers.forwarded import MAX_HOPS, forwarded_hops, parse_node, x_forwarded_hops


@table(
    "text, client",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("192.0.2.1:_port", "192.0.2.1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:DB8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unknown", "unknown"),
        ("Unknown", "unknown"),
        ("_hidden", "unknown"),
        ("_hidden:80", "unknown"),
        ("", None),
        ("_", None),
        ("example.com", None),
        ("192.0.2", None),
        ("192.0.2.1:", None),
        ("192.0.2.1:123456", None),
        ("192.0.2.1:x", None),
        ("[192.0.2.1]", None),
        ("[2001:db8::1", None),
        ("[2001:db8::1]x", None),
        ("unix", None),
    ],
)
def test_node(text: str, client: str | None) -> None:
    """A node is an address, with a port or without, or a word for an unknown one."""
    assert parse_node(text) == client


@table(
    "value, hops",
    [
        ("for=192.0.2.1", [("192.0.2.1", None)]),
        ("For=192.0.2.1;Proto=HTTPS", [("192.0.2.1", "https")]),
        ('for="[2001:db8::1]:80";by=_x;host="a,b"', [("2001:db8::1", None)]),
        ("for=192.0.2.1, for=192.0.2.2", [("192.0.2.2", None), ("192.0.2.1", None)]),
        ("for=192.0.2.1,for=unknown;proto=http", [("unknown", "http"), ("192.0.2.1", None)]),
        (r'for="192.0.2.\1"', [("192.0.2.1", None)]),
        ("for=192.0.2.1;proto=gopher", [("192.0.2.1", None)]),
        # What a client left open swallows nothing of what a proxy wrote behind it.
        ('for="evil, for=192.0.2.1', [("192.0.2.1", None), (None, None)]),
        ('x", for=192.0.2.1', [("192.0.2.1", None), (None, None)]),
        ('for=1.1.1.1;x=", for="[2001:db8::1]"', [("2001:db8::1", None), (None, None)]),
        ("", [(None, None)]),
        (",", [(None, None)]),
        ("for=192.0.2.1,", [(None, None)]),
        ("proto=https", [(None, None)]),
        ("for=192.0.2.1;for=192.0.2.2", [(None, None)]),
        ("for = 192.0.2.1", [(None, None)]),
        ("for=[2001:db8::1]", [(None, None)]),
        ("for=192.0.2.1;", [(None, None)]),
    ],
)
def test_forwarded(value: str, hops: list[tuple[str | None, str | None]]) -> None:
    """Elements come nearest first, up to the first that makes no sense."""
    assert list(forwarded_hops(value)) == hops


@table(
    "addresses, schemes, hops",
    [
        ("192.0.2.1", "", [("192.0.2.1", None)]),
        ("192.0.2.1", "https", [("192.0.2.1", "https")]),
        ("1.1.1.1, 2.2.2.2", "https", [("2.2.2.2", "https"), ("1.1.1.1", "https")]),
        ("1.1.1.1,2.2.2.2", "https, http", [("2.2.2.2", "http"), ("1.1.1.1", "https")]),
        ("1.1.1.1", "https, http", [("1.1.1.1", "http")]),
        ("junk, 2.2.2.2", "x", [("2.2.2.2", None), (None, None)]),
        ("2.2.2.2,", "", [(None, None), ("2.2.2.2", None)]),
    ],
)
def test_x_forwarded(
    addresses: str, schemes: str, hops: list[tuple[str | None, str | None]]
) -> None:
    """Addresses come nearest first, each with its scheme, or with the nearest proxy's."""
    assert list(x_forwarded_hops(addresses, schemes)) == hops


def test_no_more_than_so_many() -> None:
    """The longest chain that is read, and one hop more."""
    for count in (MAX_HOPS, MAX_HOPS + 1):
        value = ",".join(["for=192.0.2.1"] * count)
        assert len(list(forwarded_hops(value))) == MAX_HOPS
        addresses = ",".join(["192.0.2.1"] * count)
        assert len(list(x_forwarded_hops(addresses, ""))) == MAX_HOPS


@given(st.text(st.characters(max_codepoint=255), max_size=60), st.ip_addresses())
def test_what_a_proxy_appends_is_read_first(before: str, address: object) -> None:
    """Whatever a client sent, the address that a proxy adds is the first that is seen."""
    node = f'"[{address}]"' if ":" in str(address) else str(address)
    assert next(forwarded_hops(f"{before}, for={node}")).client == parse_node(str(address))
    assert next(x_forwarded_hops(f"{before}, {address}", "")).client == parse_node(str(address))


@given(st.text(alphabet='for="; ,\\_[]:.1', max_size=80))
def test_anything(value: str) -> None:
    """Whatever comes is read to an end."""
    assert len(list(forwarded_hops(value))) <= MAX_HOPS
    assert len(list(x_forwarded_hops(value, value))) <= MAX_HOPS
