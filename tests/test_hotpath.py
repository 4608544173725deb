"""What the hot paths cost, counted and not timed, so that it is the same on a busy machine.

For each path: the calls of functions written in Python inside this package, the calls into h11, and
the steps of tasks (each is a turn of Trio's scheduler), all divided by the number of operations.
Besides, the memory blocks that an idle subscriber keeps. Transports are fakes that take everything,
so a send takes the way it takes on a socket with room.

The ceilings stand some per cent above what is measured. A change that goes beyond one has made the
path longer: make it shorter again, or raise the ceiling in the same commit and say why. One that
falls well below leaves it too loose: lower it. `nox -s hotpath` prints the figures; comprehensions
aren't counted, as Python 3.12 made them no calls.
"""

from __future__ import annotations

import gc
import itertools
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, final

import h11
import pytest
import trio
from fakes import FakeTransport
from helpers import connection_of, post, request
from trio.testing import wait_all_tasks_blocked

import h3trio
from h3trio import App, H3Event, Settings
from h3trio._server.state import ServerState
from h3trio.hub import Hub, MemoryHistory
from h3trio.hub._fanout import sweep
from h3trio.hubserver import create_app

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from types import FrameType

    Served = tuple[App, ServerState]
    Opens = Callable[[Served], FakeTransport]

OPERATIONS = 10
EVENTS = 100
SUBSCRIBERS = 20
INLINED = {"<listcomp>", "<dictcomp>", "<setcomp>"}
PACKAGES = {
    "h3trio": str(Path(h3trio.__file__).parent),
    "h11": str(Path(h11.__file__).parent),
}

# What it may cost at most, of: calls in h3trio, calls in h11, steps of tasks.
CEILINGS = {
    "GET": (148.0, 70.0, 4.9),
    "POST": (300.0, 95.0, 6.6),
    "connect": (318.0, 70.0, 10.6),  # up to five more or less: Trio shuffles the tasks of a turn
    "delivery": (7.4, 0.0, 1.5),
    "lone delivery": (7.7, 0.0, 1.5),
    "send": (16.0, 0.7, 2.1),
}
MOST_IDLE_BLOCKS = 140.0
# Below this share of a ceiling it says nothing any more.
SLACK = 0.75

app = App()


@app.get("/")
async def small(_event: H3Event) -> str:
    """Answer a small request."""
    return "hello\n"


@app.get("/stream")
async def stream(event: H3Event) -> None:
    """Send events, each by an awaited `send`."""
    async with event.start_sse() as writer:
        for _ in range(EVENTS):
            await writer.send("x" * 100)


@final
class Counting(trio.abc.Instrument):
    """Counts calls by package, and steps of tasks, between `start` and `stop`."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.steps = 0
        self._packages: dict[str, str] = {}

    def _profile(self, frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_name not in INLINED:
            package = self._packages.get(code.co_filename)
            if package is None:
                package = package_of(code.co_filename)
                self._packages[code.co_filename] = package
            self.calls[package] += 1

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a step, unless it is the test's own."""
        self.steps += "test_hotpath" not in task.name

    def start(self) -> None:
        """Begin."""
        trio.lowlevel.add_instrument(self)
        sys.setprofile(self._profile)

    def stop(self) -> None:
        """End."""
        sys.setprofile(None)
        trio.lowlevel.remove_instrument(self)


def package_of(filename: str) -> str:
    """Name the package that a file belongs to, of those that count."""
    return next((name for name, root in PACKAGES.items() if filename.startswith(root)), "")


def check(name: str, counting: Counting, operations: int) -> None:
    """Hold the counts of one path against its ceilings."""
    found = (counting.calls["h3trio"], counting.calls["h11"], counting.steps)
    each = tuple(count / operations for count in found)
    told = f"{name}: h3trio {each[0]:.1f}, h11 {each[1]:.1f}, steps {each[2]:.1f}"
    print(told)  # noqa: T201 - for `nox -s hotpath`
    for what, count, most in zip(("h3trio", "h11", "steps"), each, CEILINGS[name], strict=True):
        assert count <= most, f"{name}: {count:.2f} {what}, at most {most}"
        assert count >= most * SLACK, f"{name}: {count:.2f} {what}: lower the ceiling of {most}"


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock that ends turns of the sweep early: a busy machine takes more of them."""
    monkeypatch.setattr(sweep, "perf_counter", itertools.repeat(0.0).__next__)


@pytest.fixture
def open_connection(nursery: trio.Nursery) -> Opens:
    """Give a function that runs a connection, and returns what it is carried by."""

    def open_one(served: Served) -> FakeTransport:
        transport = FakeTransport()
        connection = connection_of(transport, *served)
        nursery.start_soon(connection.run)
        return transport

    return open_one


@pytest.fixture
async def hub(nursery: trio.Nursery) -> AsyncGenerator[tuple[Hub, Served]]:
    """A hub, and what its connections have in common."""
    running = Hub(MemoryHistory())
    served = create_app(running)
    async with served.lifespan():
        yield running, (served, ServerState(Settings()))
        nursery.cancel_scope.cancel()


async def exchange(transport: FakeTransport, raw: bytes) -> bytes:
    """Send a request, and return all that comes back."""
    transport.incoming.append(raw)
    transport.change()
    await wait_all_tasks_blocked()
    answer = bytes(transport.sent)
    transport.sent.clear()
    return answer


async def count(
    name: str,
    operation: Callable[[], Awaitable[object]],
    *,
    each: int = 1,
    times: int = OPERATIONS,
) -> None:
    """Warm a path up, and count it; one operation counts for `each`."""
    await operation()
    counting = Counting()
    counting.start()
    try:
        for _ in range(times):
            await operation()
    finally:
        counting.stop()
    check(name, counting, times * each)


def local(raw: bytes) -> bytes:
    """The same request, asking for this machine."""
    return raw.replace(b"Host: test", b"Host: localhost", 1)


async def test_a_get(open_connection: Opens) -> None:
    """A small GET on a connection that is kept alive."""
    transport = open_connection((app, ServerState(Settings())))
    assert (await exchange(transport, request())).endswith(b"hello\n")
    await count("GET", partial(exchange, transport, request()))


async def test_a_post(hub: tuple[Hub, Served], open_connection: Opens) -> None:
    """An event published over HTTP, with nobody subscribed."""
    transport = open_connection(hub[1])
    raw = local(post(b"x" * 100, "/events/news"))
    assert b" 200 OK" in await exchange(transport, raw)
    await count("POST", partial(exchange, transport, raw))


async def test_a_connect(hub: tuple[Hub, Served], open_connection: Opens) -> None:
    """A connection that subscribes to a topic of the hub."""
    served = hub[1]

    async def connect() -> None:
        answer = await exchange(open_connection(served), local(request("/events/news")))
        assert b"event-stream" in answer

    await count("connect", connect)


@pytest.mark.parametrize(("name", "path"), [("delivery", ""), ("lone delivery", "&topic=own-%d")])
async def test_a_delivery(
    hub: tuple[Hub, Served],
    open_connection: Opens,
    name: str,
    path: str,
) -> None:
    """An event published to 20 streams: what each costs, of one feed or of one feed each."""
    running, served = hub
    transports = [open_connection(served) for _ in range(SUBSCRIBERS)]
    for number, transport in enumerate(transports):
        target = "/events?topic=news" + path.replace("%d", str(number))
        assert b"event-stream" in await exchange(transport, local(request(target)))

    async def publish() -> None:
        await running.publish("x" * 100, topics=["news"])
        await wait_all_tasks_blocked()

    await publish()
    assert all(transport.sent.count(b"x" * 100) == 1 for transport in transports)
    await count(name, publish, each=SUBSCRIBERS)


async def test_a_send(open_connection: Opens) -> None:
    """An event of an own stream, by an awaited `send`; its request and end are shared by 100."""
    served = (app, ServerState(Settings()))

    async def whole_stream() -> None:
        answer = await exchange(open_connection(served), request("/stream"))
        assert answer.count(b"data:") == EVENTS

    await count("send", whole_stream, each=EVENTS, times=2)


async def test_an_idle_subscriber(hub: tuple[Hub, Served], open_connection: Opens) -> None:
    """The memory blocks that a subscriber keeps while nothing happens."""
    served = hub[1]
    raw = local(request("/events/news"))

    async def subscribe(number: int) -> None:
        for _ in range(number):
            await exchange(open_connection(served), raw)
        gc.collect()

    await subscribe(10)
    before = sys.getallocatedblocks()
    await subscribe(SUBSCRIBERS)
    each = (sys.getallocatedblocks() - before) / SUBSCRIBERS
    print(f"idle subscriber: {each:.0f} blocks")  # noqa: T201 - for `nox -s hotpath`
    assert each <= MOST_IDLE_BLOCKS
    assert each >= MOST_IDLE_BLOCKS * SLACK, "lower the ceiling"
