"""The commands of deploy/ run: the unit's under a socket, the image's, and the manifest's."""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
import trio
from deployed import DEPLOY, dockerfile, image_environ, manifest, unit
from e2e.process import PATIENCE, ServeProcess, connect, fetch
from e2e.test_systemd import ACTIVATE
from tools import require_tool

if TYPE_CHECKING:
    from pathlib import Path

EXPOSURE: Final = 10
"""At most, of 100, by `systemd-analyze security`."""
SAFE: Final = 19
"""The most that is "safe" there: with a network, which a store on a server needs."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a key and the store are."""
    (tmp_path / "jwt.key").write_text(secrets.token_hex(32))
    (tmp_path / "h3trio").mkdir()
    return tmp_path


# -- systemd


async def analyze(*args: str) -> str:
    """Ask systemd about units; return what it has to say if it isn't content."""
    command = [require_tool("systemd-analyze"), *args]
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(
            command, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
    return result.stdout.decode() if result.returncode else ""


async def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """Systemd finds no fault in the units, and the service well shut in."""
    for path in (DEPLOY / "systemd").iterdir():
        text = path.read_text(encoding="utf-8")
        # It looks whether the program is there.
        (tmp_path / path.name).write_text(text.replace("/opt/h3trio/bin/python", sys.executable))
    service, sock = str(tmp_path / "h3trio.service"), str(tmp_path / "h3trio.socket")
    assert await analyze("verify", service, sock) == ""
    offline = ("--offline=true", "--no-pager")
    assert await analyze("security", *offline, f"--threshold={EXPOSURE}", service) == ""
    added = tmp_path / "h3trio.service.d"
    added.mkdir()
    (tmp_path / "redis.conf").rename(added / "redis.conf")
    assert await analyze("verify", service, sock) == ""
    assert await analyze("security", *offline, f"--threshold={SAFE}", service) == ""


async def test_the_service_under_its_socket(nursery: trio.Nursery, folder: Path) -> None:
    """The unit's command serves on the socket it is passed; who comes between two runs waits."""
    (command,) = unit("h3trio.service")["ExecStart"]
    command = command.replace("%d", str(folder)).replace("%S", str(folder))
    python, *rest = shlex.split(command)
    assert (python, rest[:3]) == ("/opt/h3trio/bin/python", ["-m", "h3trio", "serve"])
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(str(folder / "notify"))
        manager.settimeout(PATIENCE)
        port = sock.getsockname()[1]

        async def start() -> ServeProcess:
            served = await ServeProcess.start(
                nursery,
                *rest[3:],
                environ={"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(folder / "notify")},
                prefix=(sys.executable, "-c", ACTIVATE, str(sock.fileno())),
                pass_fds=(sock.fileno(),),
            )
            assert manager.recv(100) == b"READY=1"
            return served

        first = await start()
        assert first.url == f"http://127.0.0.1:{port}"
        assert (await fetch(port, target="/events/news")).status == 401
        assert await first.stop() == 0
        assert manager.recv(100) == b"STOPPING=1"
        async with await connect(port) as waiting:
            await waiting.stream.send_all(b"GET /healthz/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            second = await start()
            with trio.fail_after(PATIENCE):
                assert bytes(await waiting.stream.receive_some()).startswith(b"HTTP/1.1 200")
        assert await second.stop() == 0


# -- containers


def image(folder: Path) -> dict[str, str]:
    """Return what the image's environment tells the hub, with the paths of this machine."""
    (words,) = [words for name, words in dockerfile() if name == "ENTRYPOINT"]
    assert words == ["/opt/h3trio/bin/python", "-m", "h3trio", "serve"]
    environ = image_environ()
    for name, old, new in (
        ("H3TRIO_JWT_KEY_FILE", "/run/secrets", str(folder)),
        ("H3TRIO_STORE", "/var/lib/h3trio", str(folder / "h3trio")),
        ("H3TRIO_PORT", "3000", "0"),
    ):
        assert old in environ[name]
        environ[name] = environ[name].replace(old, new)
    return environ


async def test_the_image_tells_its_health(nursery: trio.Nursery, folder: Path) -> None:
    """The image's command serves, and its health check succeeds for as long as it does."""
    environ = image(folder)
    hub = await ServeProcess.start(nursery, environ=environ)
    (words,) = [words for name, words in dockerfile() if name == "HEALTHCHECK"]
    python, *rest = words
    assert python == "/opt/h3trio/bin/python"
    checked = {**os.environ, **environ, "H3TRIO_PORT": str(hub.port)}

    async def check() -> int:
        with trio.fail_after(PATIENCE):
            result = await trio.run_process(
                [sys.executable, *rest],
                check=False,
                capture_stdout=True,
                capture_stderr=True,
                env=checked,
            )
        return result.returncode

    assert await check() == 0
    # To the page others have no right, unless they are given one.
    probe = {"Host": "10.1.2.3:3000"}
    assert (await fetch(hub.port, headers=probe)).status == 403
    assert await hub.stop() == 0
    assert await check() != 0


async def test_the_kubelet_may_ask(nursery: trio.Nursery, folder: Path) -> None:
    """With the manifest's arguments the probes succeed, though they name the pod as the host."""
    (container,) = manifest("StatefulSet")["spec"]["template"]["spec"]["containers"]
    hub = await ServeProcess.start(nursery, *container["args"], environ=image(folder))
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        path: str = container[name]["httpGet"]["path"]
        answer = await fetch(hub.port, target=path, headers={"Host": "10.1.2.3:3000"})
        assert answer.status == 200, name
    assert (await fetch(hub.port, target="/events/news")).status == 401
    assert await hub.stop() == 0
