"""Addresses of clients: what counts as one, who is local, and books that are exact."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, final

import pytest
import trio
from helpers import NamedPeers, request
from hypothesis import given
from hypothesis import strategies as st
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import H3Event, HTTPError, Server, Settings, serve
from h3trio._server.peers.addresses import AddressBook, address_key, is_local, parse_address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from h3trio._server.event import Handler


@table(
    "client, key",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("junk", "unknown"),
        ("127.0.0.1", None),
        ("127.9.9.9", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("unix", None),
        ("memory", None),
    ],
)
def test_key(client: str, key: str | None) -> None:
    """An address counts as itself, an IPv6 one as its /64, and this machine doesn't count."""
    assert address_key(client) == key


def test_local() -> None:
    """Loopback in each of its forms, unix sockets and memory are this machine; nothing else is."""
    local = ("127.0.0.1", "::1", "::ffff:127.0.0.1", "unix", "memory")
    assert all(map(is_local, local))
    assert not any(map(is_local, ("192.0.2.1", "::", "0.0.0.0", "unknown", "", "localhost")))


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_a_network_is_one_client(address: object, other: int) -> None:
    """Two addresses of one /64 have one key, whatever their last half."""
    first = parse_address(str(address))
    assert first is not None
    if first.version == 6 and not first.is_loopback:
        sibling = type(first)((int(first) >> 64 << 64) | other)
        if parse_address(str(sibling)) == sibling and not sibling.is_loopback:
            assert address_key(str(first)) == address_key(str(sibling))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.booleans())))
def test_books(steps: list[tuple[str, bool, bool]]) -> None:
    """The books are those of a plain count, refuse only at the limit, and end empty."""
    book, held = AddressBook(max_connections=2, max_streams=1), list[tuple[str, bool]]()
    for key, is_stream, is_taking in steps:
        taken = held.count((key, is_stream))
        if is_taking:
            accepted = (book.streams if is_stream else book.connections).take(key)
            assert accepted is (taken < (1 if is_stream else 2))
            held += [(key, is_stream)] * accepted
        elif taken:
            held.remove((key, is_stream))
            (book.streams if is_stream else book.connections).leave(key)
        expected = {key: (held.count((key, False)), held.count((key, True))) for key, _ in held}
        assert book.loads == expected
    for key, is_stream in held:
        (book.streams if is_stream else book.connections).leave(key)
    assert not book.loads


def test_what_is_not_counted() -> None:
    """Without a key there is no limit, and nothing in the books."""
    book = AddressBook(max_connections=1, max_streams=1)
    assert all(book.connections.take(None) and book.streams.take(None) for _ in range(5))
    assert not book.loads


# -- in a server


@final
class Running:
    """A server in memory whose clients have addresses."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._listener = NamedPeers()
        self.scope = trio.CancelScope()
        self.server: Server

    async def start(self, handler: Handler, **settings: float) -> None:
        """Serve."""
        made = Settings(**settings)  # type: ignore[arg-type]  # whole numbers are
        serving = partial(serve, handler, listeners=[self._listener], settings=made)
        self.server = await self._nursery.start(self._run, serving)

    async def _run(self, serving: partial[object], *, task_status: object) -> None:
        with self.scope:
            await serving(task_status=task_status)  # type: ignore[misc]  # a partial of `serve`

    async def connect(self, host: str) -> trio.abc.Stream:
        """Connect from an address."""
        return await self._listener.connect_from(host)

    async def ask(self, host: str, data: bytes | None = None) -> tuple[str, trio.abc.Stream]:
        """Send a request from an address; return what comes first, and the stream."""
        stream = await self.connect(host)
        await stream.send_all(data or request())
        return bytes(await stream.receive_some()).decode(), stream

    def loads(self) -> dict[str, tuple[int, int]]:
        """Return the server's books."""
        return dict(self.server._state.addresses.loads)  # noqa: SLF001 - nothing public leads there


async def endless(event: H3Event) -> None:
    """Stream until ended."""
    if event.method == "POST":
        raise HTTPError(404)
    async with event.start_sse():
        await trio.sleep_forever()


async def test_connections_at_the_limit_and_above(nursery: trio.Nursery) -> None:
    """One connection too many of an address is answered 429 and when to return; others are not."""
    running = Running(nursery)
    await running.start(endless, max_connections_per_address=2)
    for host in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        assert (await running.ask(host))[0].startswith("HTTP/1.1 200 ")
    refused, _ = await running.ask("192.0.2.1")
    assert refused.startswith("HTTP/1.1 429 Too Many Requests\r\n")
    assert "\r\nRetry-After: " in refused
    assert "\r\nConnection: close\r\n" in refused
    now = running.server.statistics()
    assert (now.connections, now.refused, now.refused_by_address) == (3, 0, 1)
    assert now.limits == {"max_connections_per_address": 1}
    assert running.loads() == {"192.0.2.1": (2, 2), "192.0.2.2": (1, 1)}
    nursery.cancel_scope.cancel()


async def test_this_machine_has_no_limit(nursery: trio.Nursery) -> None:
    """A proxy or a tool on this machine may hold all there is."""
    running = Running(nursery)
    await running.start(endless, max_connections_per_address=1, max_streams_per_address=1)
    for _ in range(3):
        assert (await running.ask("127.0.0.1"))[0].startswith("HTTP/1.1 200 ")
    assert running.loads() == {}
    nursery.cancel_scope.cancel()


async def test_streams_at_the_limit_and_above(nursery: trio.Nursery) -> None:
    """One stream too many gets a 429, its connection goes on, and a stream that ends makes room."""
    running = Running(nursery)
    await running.start(endless, max_streams_per_address=2)
    _, first = await running.ask("2001:db8::1")
    await running.ask("2001:db8::2")
    refused, stream = await running.ask("2001:db8::3")
    assert refused.startswith("HTTP/1.1 429 Too Many Requests\r\n")
    assert "\r\nRetry-After: " in refused
    await stream.send_all(request(method="POST"))
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 404 ")
    assert running.loads() == {"2001:db8::/64": (3, 2)}
    await first.aclose()
    await wait_all_tasks_blocked()
    await stream.send_all(request())
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
    now = running.server.statistics()
    assert (now.refused_streams, now.streams) == (1, 2)
    assert now.limits == {"max_streams_per_address": 1}
    nursery.cancel_scope.cancel()


async def test_a_handler_that_renames_its_client(nursery: trio.Nursery) -> None:
    """What a handler does to `event.client` doesn't touch the books."""

    async def renaming(event: H3Event) -> None:
        async with event.start_sse():
            event.client = "203.0.113.9"

    running = Running(nursery)
    await running.start(renaming)
    _, stream = await running.ask("192.0.2.1")
    await wait_all_tasks_blocked()
    assert running.loads() == {"192.0.2.1": (1, 0)}
    await stream.aclose()
    await wait_all_tasks_blocked()
    assert running.loads() == {}
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("step", range(8))
async def test_books_are_empty_after_a_cancellation(nursery: trio.Nursery, step: int) -> None:
    """However far a connection has come when the server is cancelled, the books are empty."""
    running = Running(nursery)
    await running.start(endless, max_connections_per_address=2)
    async with trio.open_nursery() as clients:
        for host in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "2001:db8::1"):
            clients.start_soon(quietly, partial(running.ask, host))
        for _ in range(step):
            await trio.lowlevel.checkpoint()
        running.scope.cancel()
        clients.cancel_scope.cancel()
    await wait_all_tasks_blocked()
    assert running.loads() == {}


async def quietly(ask: Callable[[], Awaitable[object]]) -> None:
    """Ask, whatever becomes of it."""
    with contextlib.suppress(trio.BrokenResourceError):
        await ask()
