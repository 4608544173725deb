"""Which peers are believed, and whom a request comes from in the end."""

from __future__ import annotations

import pytest
from tables import table

from h3trio import TrustedProxies
from h3trio._http.headers import Headers
from h3trio._server.peers.trusted_proxies import seen_through


def origin(allow: str, peer: str = "10.0.0.1", **fields: str) -> tuple[str, str]:
    """Return client and scheme of a request with these headers."""
    raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in fields.items()]
    return TrustedProxies(allow.split()).origin(peer, "http", Headers(raw))


@table(
    "allow, peer, trusted",
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.0/8", "10.9.9.9", True),
        ("10.0.0.0/8", "::ffff:10.9.9.9", True),
        ("2001:db8::/32", "2001:db8:1::1", True),
        ("2001:db8::/32", "10.0.0.1", False),
        ("unix", "unix", True),
        ("10.0.0.0/8", "unix", False),
        ("10.0.0.0/8", "unknown", False),
        ("*", "unknown", True),
        ("*", "192.0.2.1", True),
    ],
)
def test_trust(allow: str, peer: str, *, trusted: bool) -> None:
    """A peer is trusted by its address, its network, its kind, or with everyone."""
    assert TrustedProxies([allow]).trusts(peer) is trusted
    assert TrustedProxies(allow).trusts(peer) is trusted


@table("entry", ["localhost", "10.0.0.1/8", "10.0.0.0/33", "", "all"])
def test_a_bad_entry(entry: str) -> None:
    """What is no address, network or word is named; host bits beside a mask are a slip."""
    with pytest.raises(ValueError, match=f"'{entry}' is no address, network, unix or"):
        TrustedProxies([entry])


def test_nobody() -> None:
    """An empty list is a slip too."""
    with pytest.raises(ValueError, match="no proxy is named"):
        TrustedProxies([])


def test_everyone_is_no_name() -> None:
    """Behind the PROXY protocol everyone may connect, and only those named are believed."""
    proxies = TrustedProxies(["*", "10.0.0.1"], proxy_protocol=True)
    assert (proxies.trusts("192.0.2.1"), proxies.believes("192.0.2.1")) == (True, False)
    assert proxies.believes("10.0.0.1")
    assert TrustedProxies("*").believes("192.0.2.1")
    assert repr(proxies) == "TrustedProxies(['*', '10.0.0.1/32'], proxy_protocol=True)"


NETWORK = "10.0.0.0/8"


@table(
    "forwarded_for, client",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("9.9.9.9, 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 10.0.0.2", "192.0.2.1"),
        ("9.9.9.9, 192.0.2.1, 10.0.0.3, 10.0.0.2", "192.0.2.1"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        # Malformed: the last address that was believed.
        ("junk", "10.0.0.1"),
        ("192.0.2.1, junk", "10.0.0.1"),
        ("192.0.2.1, junk, 10.0.0.2", "10.0.0.2"),
        ("192.0.2.1, unknown", "unknown"),
        # Local to another machine.
        ("127.0.0.1", "unknown"),
        ("::1", "unknown"),
    ],
)
def test_walk(forwarded_for: str, client: str) -> None:
    """From the right, past trusted hops, to the first that isn't; both headers alike."""
    assert origin(NETWORK, x_forwarded_for=forwarded_for) == (client, "http")
    forwarded = ", ".join(f'for="{text}"' for text in forwarded_for.split(", "))
    if "::1" not in forwarded_for:
        assert origin(NETWORK, forwarded=forwarded) == (client, "http")


def test_everyone_is_walked_past() -> None:
    """With `*` the client is the leftmost."""
    assert origin("*", x_forwarded_for="192.0.2.1, 9.9.9.9")[0] == "192.0.2.1"


def test_scheme() -> None:
    """The scheme is that of the last hop that was believed."""
    walk = "for=9.9.9.9;proto=gopher, for=192.0.2.1;proto=https, for=10.0.0.2;proto=http"
    assert origin(NETWORK, forwarded=walk) == ("192.0.2.1", "https")
    both = {"x_forwarded_for": "192.0.2.1", "x_forwarded_proto": "https"}
    assert origin(NETWORK, **both) == ("192.0.2.1", "https")
    assert origin(NETWORK, x_forwarded_proto="https") == ("10.0.0.1", "https")
    assert origin(NETWORK, x_forwarded_proto="junk") == ("10.0.0.1", "http")
    assert origin(NETWORK) == ("10.0.0.1", "http")


def test_headers_that_disagree() -> None:
    """A client can't add the header that its proxy doesn't write and be believed."""
    agreed = origin(NETWORK, x_forwarded_for="192.0.2.1", forwarded="for=192.0.2.1;proto=https")
    assert agreed[0] == "192.0.2.1"
    assert origin(NETWORK, x_forwarded_for="192.0.2.1", forwarded="for=9.9.9.9")[0] == "unknown"


def test_local_is_seen_from_where() -> None:
    """A proxy of this machine may name a program of this machine; another's is unknown."""
    assert seen_through("127.0.0.1", "::1") == "127.0.0.1"
    assert seen_through("unix", "unix") == "unix"
    assert seen_through("unix", "10.0.0.1") == "unknown"
    assert seen_through("192.0.2.1", "10.0.0.1") == "192.0.2.1"
