"""Kill the hub with SIGKILL while events are published; show that no acknowledged one is lost.

    python examples/survive_kill.py

It starts `python -m h3trio serve --store sqlite:…` on a free port, publishes over HTTP, kills the
hub in the middle, starts it again on the same file, and reads everything back. A file keeps the
newest 1,000,000 events (`--max-events`); who wants older ones is told by `reset`.
"""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit


class HubProcess:
    """`python -m h3trio serve` on a file."""

    def __init__(self, database: Path) -> None:
        command = [sys.executable, "-m", "h3trio", "serve", "--port", "0", "--no-access-log"]
        command += ["--store", f"sqlite:{database}"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603 - it runs this project's own command
        assert self.process.stderr is not None
        ready = next(line for line in self.process.stderr if "http://" in line)
        print(ready.strip())
        self.address = urlsplit(next(word for word in ready.split() if "http://" in word)).netloc

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def publish_until_it_dies(address: str, acknowledged: list[str], enough: threading.Event) -> None:
    """Publish numbered events one by one; note each that was acknowledged."""
    connection = http.client.HTTPConnection(address)
    try:
        for n in range(1_000_000):
            connection.request("POST", "/events/orders", body=str(n))
            if connection.getresponse().read().startswith(b'{"id":'):
                acknowledged.append(str(n))
            if n == 500:
                enough.set()
    except (OSError, http.client.HTTPException):
        enough.set()


def read_back(address: str, count: int) -> list[str]:
    """Read so many events from the beginning of the log."""
    connection = http.client.HTTPConnection(address)
    connection.request("GET", "/events/orders?first=oldest")
    response = connection.getresponse()
    found: list[str] = []
    while len(found) < count:
        line = response.readline().decode().rstrip("\n")
        if line.startswith("data: "):
            found.append(line.removeprefix("data: "))
    connection.close()
    return found


def main() -> int:
    """Publish, kill, start again, compare."""
    with tempfile.TemporaryDirectory() as folder:
        hub = HubProcess(Path(folder, "hub.db"))
        acknowledged: list[str] = []
        enough = threading.Event()
        publisher = threading.Thread(
            target=publish_until_it_dies, args=(hub.address, acknowledged, enough)
        )
        publisher.start()
        enough.wait()
        hub.kill()
        publisher.join()
        print(f"killed with SIGKILL after {len(acknowledged)} acknowledged events")
        hub = HubProcess(Path(folder, "hub.db"))
        found = read_back(hub.address, len(acknowledged))
        hub.kill()
    lost = set(acknowledged) - set(found)
    print(f"{len(found)} read back in order: {found == acknowledged}; lost: {len(lost)}")
    return 1 if lost or found != acknowledged else 0


if __name__ == "__main__":
    sys.exit(main())
