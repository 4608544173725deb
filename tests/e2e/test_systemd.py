"""Sockets that are inherited, and a service manager that is told."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from e2e.process import PATIENCE, ServeProcess, connect, fetch

from h3trio._server.sockets.systemd import adopt, notify, watchdog_interval

if TYPE_CHECKING:
    from pathlib import Path

# What systemd does between fork and exec.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
"""


async def refusal(nursery: trio.Nursery, *args: str, pass_fds: tuple[int, ...] = ()) -> str:
    """Return the one line that a start ends with; the status is 2."""
    served = await ServeProcess.launch(nursery, *args, pass_fds=pass_fds)
    assert await served.wait() == 2
    (line,) = served.log
    return line.removeprefix("h3trio: error: ")


async def test_descriptors(nursery: trio.Nursery) -> None:
    """Sockets that were inherited are listened on, each under its address."""
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.2", 0)) as second,
    ):
        numbers = (first.fileno(), second.fileno())
        flag = ("--fd", ",".join(map(str, numbers)))
        served = await ServeProcess.start(nursery, *flag, pass_fds=numbers)
        for sock in (first, second):
            host, port = sock.getsockname()
            assert f"http://{host}:{port}" in served.ready_line
            assert (await fetch(port, host=host)).status == 200
        assert await served.stop() == 0


async def test_socket_activation(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Started as systemd does, it takes the sockets, and says when it is ready and stops."""
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        served = await ServeProcess.start(
            nursery,
            environ={"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(tmp_path / "notify")},
            prefix=(sys.executable, "-c", ACTIVATE, str(sock.fileno())),
            pass_fds=(sock.fileno(),),
        )
        port = sock.getsockname()[1]
        assert served.url == f"http://127.0.0.1:{port}"
        assert await trio.to_thread.run_sync(manager.recv, 100) == b"READY=1"
        assert (await fetch(port)).status == 200
        assert await served.stop() == 0
        assert manager.recv(100) == b"STOPPING=1"


async def test_watchdog(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A manager that asks for it hears of a loop that turns, and nothing while it is blocked."""
    path = tmp_path / "app.py"
    path.write_text("import time\n\nasync def app(event):\n    time.sleep(1.5)\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        served = await ServeProcess.start(nursery, f"{path}:app", environ=environ)
        for state in (b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"):
            assert await trio.to_thread.run_sync(manager.recv, 100) == state
        end = trio.current_time() + PATIENCE
        async with await connect(served.port) as client:
            await client.stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            gap = 0.0
            while gap < 1:
                since = trio.current_time()
                assert since < end, "it was fed all the while"
                assert await trio.to_thread.run_sync(manager.recv, 100) == b"WATCHDOG=1"
                gap = trio.current_time() - since
        assert await served.stop() == 0


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "x"}, 0.0),
        ({"WATCHDOG_USEC": ""}, 0.0),
        ({}, 0.0),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float) -> None:
    """A manager asks by a number of microseconds, and may ask one process only."""
    assert watchdog_interval(environ) == seconds


async def test_a_descriptor_that_is_none(nursery: trio.Nursery) -> None:
    """What isn't a listening socket is one line; so is what isn't a number."""
    wrong = "descriptor 77 is not a listening stream socket"
    assert (await refusal(nursery, "--fd", "77")).startswith(wrong)
    with socket.socket() as sock:
        number = sock.fileno()
        line = await refusal(nursery, "--fd", str(number), pass_fds=(number,))
    assert line == f"descriptor {number} is not a listening stream socket"
    assert "'x' is not a list of descriptors" in await refusal(nursery, "--fd", "x")


async def test_an_open_descriptor_needs_a_word(nursery: trio.Nursery) -> None:
    """A hub on an inherited socket beyond loopback is refused as it is on a host."""
    with socket.create_server(("0.0.0.0", 0)) as sock:
        number = sock.fileno()
        line = await refusal(nursery, "--fd", str(number), pass_fds=(number,))
    assert line.startswith("--host 0.0.0.0 is reachable from other machines: ")


def test_adopting() -> None:
    """A descriptor becomes a socket of its family, that children don't inherit."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        copy = os.dup(sock.fileno())
        os.set_inheritable(copy, True)  # noqa: FBT003 - its only argument
        with adopt(copy) as adopted:
            assert adopted.getsockname() == sock.getsockname()
            assert not adopted.get_inheritable()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(ValueError, match="is not a listening stream socket"):
            adopt(datagrams.fileno())
        # It is still the caller's.
        assert datagrams.getsockname()


def test_abstract_names(caplog: pytest.LogCaptureFixture) -> None:
    """A manager may have an abstract name; one that isn't there is said, and harms nothing."""
    name = f"h3trio-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        notify("READY=1", f"@{name}")
        assert manager.recv(100) == b"READY=1"
    notify("READY=1", None)
    assert caplog.messages == []
    notify("READY=1", f"@{name}")
    assert caplog.messages == [f"can't notify @{name}: Connection refused"]
