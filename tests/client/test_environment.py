"""Variables of the environment that a client reads: wrong ones are named, unneeded ones ignored."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from h3trio.client import EventSource, LostError, RequestError
from h3trio.client._environment import LateTLS, check_proxies, load_authorities, proxy_note
from h3trio.client._request import new_client, translated

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Begin without any of the variables."""
    for name in [name for name in os.environ if name.upper() in VARIABLES]:
        monkeypatch.delenv(name)
    return monkeypatch


# -- certificates


def test_files_without_certificates(environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file or folder of authorities that can't be used is one line that names the variable."""
    (tmp_path / "empty").touch()
    (tmp_path / "junk").write_bytes(b"\0" * 99)
    for variable, names in (
        ("SSL_CERT_FILE", ("missing", "empty", "junk", ".")),
        ("SSL_CERT_DIR", ("missing", "empty", ".", ".:missing")),
    ):
        for name in names:
            environ.setenv(variable, str(tmp_path / name))
            with pytest.raises(RequestError, match=f"^{variable}: .*{name}") as caught:
                load_authorities()
            assert "\n" not in str(caught.value)
        environ.delenv(variable)


def test_the_file_goes_before_the_folder(environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As everywhere a folder counts only without a file, so it isn't looked at."""
    environ.setenv("SSL_CERT_DIR", "/nowhere")
    environ.setenv("SSL_CERT_FILE", str(tmp_path))
    with pytest.raises(RequestError, match=r"^SSL_CERT_FILE"):
        load_authorities()


async def test_plain_http_needs_no_certificates(environ: pytest.MonkeyPatch) -> None:
    """A client loads the authorities for its first `https://`, in front of any connection."""
    environ.setenv("SSL_CERT_FILE", "/nowhere/cacert.pem")
    async with new_client(timeout=1) as client:
        with pytest.raises(RequestError, match=r"^SSL_CERT_FILE: can't load '/nowhere/cacert"):
            await client.get("https://127.0.0.1:9/")
        with pytest.raises(LostError), translated("http://127.0.0.1:9/", 1):
            await client.get("http://127.0.0.1:9/")


async def test_late_tls_is_tls(nursery: trio.Nursery, environ: pytest.MonkeyPatch) -> None:
    """A handshake with what isn't trusted fails for that reason, and with an offer by ALPN."""
    environ.delenv("SSL_CERT_FILE", raising=False)
    ours, theirs = trio.testing.memory_stream_pair()
    tls = LateTLS()
    tls.set_alpn_protocols(["h2", "http/1.1"])
    stream = trio.SSLStream(ours, cast("ssl.SSLContext", tls), server_hostname="test")
    nursery.start_soon(stream.do_handshake)
    hello = await theirs.receive_some()
    assert b"\x02h2\x08http/1.1" in hello
    nursery.cancel_scope.cancel()


# -- proxies

WRONG = {
    "ftp://h": "'ftp://h' is not of the form http://HOST:PORT",
    "http://h:x": "'http://h:x' is no URL: Invalid port",
    "h:99999": "'http://h:99999' is no URL: its port",
    "http://": "is not of the form",
    "http://a..b": "is no URL",
    "http://me:secret@h:x": "'http://h:x' is no URL",
    "socks4://h": "is not of the form",
}


def test_proxies_that_are_wrong(environ: pytest.MonkeyPatch) -> None:
    """A proxy that is none is one line, which names the variable as written and no password."""
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        for value, message in WRONG.items():
            environ.setenv(name, value)
            with pytest.raises(RequestError, match=f"^{name}: .*{message}") as caught:
                new_client(timeout=1)
            assert "secret" not in str(caught.value)
        environ.delenv(name)


async def test_an_event_source_says_so(environ: pytest.MonkeyPatch) -> None:
    """An event source without a client of its own fails with that line where it is entered."""
    environ.setenv("HTTP_PROXY", "ftp://h")
    with pytest.raises(RequestError, match=r"^HTTP_PROXY: "):
        await EventSource("http://test/").__aenter__()


def test_a_proxy_over_tls_needs_certificates(environ: pytest.MonkeyPatch) -> None:
    """Where the proxy itself is asked by TLS, the certificates are looked at with it."""
    environ.setenv("HTTP_PROXY", "https://h")
    environ.setenv("SSL_CERT_FILE", "/nowhere")
    with pytest.raises(RequestError, match=r"^SSL_CERT_FILE: "):
        check_proxies()


def test_exceptions_that_are_wrong(environ: pytest.MonkeyPatch) -> None:
    """What httpx2 would pass over in `NO_PROXY` is an error, if there is a proxy at all."""
    good = ["", "*", ".a.b", "*.a", "a:80", "localhost", "10.0.0.1", "10.0.0.0/8", "::1", "[::1]"]
    good += ["[::1]:80", "fd00::/8", "[fd00::]/8", "http://a", "all://*.b", " a "]
    environ.setenv("NO_PROXY", ",".join(good))
    check_proxies()
    environ.setenv("HTTP_PROXY", "http://h")
    check_proxies()
    for entry in ("10.0.0.0/99", "a/b", "a:x", "[::1", "::x", "http://a:x", "a b:c"):
        environ.setenv("NO_PROXY", f"a,{entry}")
        with pytest.raises(RequestError, match=r"^NO_PROXY: .* is neither a host nor a net"):
            check_proxies()
    environ.delenv("HTTP_PROXY")
    check_proxies()


def test_a_proxy_that_does_not_answer_is_named(environ: pytest.MonkeyPatch) -> None:
    """Where a server can't be reached, the line names the variable that led elsewhere."""
    import httpx2  # noqa: PLC0415 - as the client does

    assert proxy_note("http://h/") == ""
    environ.setenv("http_proxy", "http://127.0.0.1:9")
    environ.setenv("ALL_PROXY", "http://127.0.0.1:9")
    environ.setenv("NO_PROXY", "own.test")
    assert proxy_note("http://h/") == " (http_proxy names a proxy)"
    assert proxy_note("https://h/") == " (ALL_PROXY names a proxy)"
    assert proxy_note("http://own.test/") == ""
    for error in (httpx2.ConnectError("no"), httpx2.ProxyError("no")):
        with (
            pytest.raises(LostError, match=r"can't reach http://h/: .*no \(http_proxy names") as e,
            translated("http://h/", 1),
        ):
            raise error
        assert not e.value.connected
