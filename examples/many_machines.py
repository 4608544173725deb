"""Two hubs on one Redis behind nginx: kill a hub, kill Redis, and lose nothing acknowledged.

    python examples/many_machines.py

It needs `pip install '.[redis]'` and the programs `redis-server` and `nginx`. It starts Redis with
an append-only file, `python -m h3trio serve --store redis://…` twice, and nginx in front, all on
free ports of this machine, measures that with `bench`, and then publishes and reads through nginx
while a hub and Redis are killed and started again. Redis keeps the newest 100,000 events
(`--max-events`); who wants older ones is told by `reset`.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PUBLISHERS = 4
READERS = 5
TOPIC = "/events/orders"
PATIENCE = 60  # seconds, for anything

NGINX = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr crit;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream hubs {{
        least_conn;  # streams last: a hub that was started anew gets its share
        server 127.0.0.1:{first} fail_timeout=1s;
        server 127.0.0.1:{second} fail_timeout=1s;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://hubs;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_buffering off;
        }}
    }}
}}
"""


class Program:
    """A program that is killed with SIGKILL and started again with the same arguments."""

    def __init__(self, *command: str, ready: str) -> None:
        self.command = command
        self.ready = ready
        self.start()

    def start(self) -> None:
        """Start it; return when it says that it is ready."""
        self.process = subprocess.Popen(  # noqa: S603 - it runs what this file names
            self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if self.ready in line:
                self.line = line.strip()
                # What it says from here on is read, as it would wait for that.
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return
        sys.exit(f"{self.command[0]} ended:\n{said}")

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Site:
    """Redis, two hubs and nginx, with their files in a folder."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        store, first, second, self.port = (free_port() for _ in range(4))
        self.redis = Program(
            *("redis-server", "--port", str(store), "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            ready="Ready to accept connections",
        )
        stack.callback(self.redis.kill)
        self.hubs: list[Program] = []
        for port in (first, second):
            hub = Program(
                *(sys.executable, "-m", "h3trio", "serve", "--port", str(port), "--no-access-log"),
                *("--store", f"redis://127.0.0.1:{store}", "--durability", "durable"),
                *("--forwarded-allow-ips", "127.0.0.1", "--allowed-host", "localhost"),
                *("--allow-anonymous-publish", "--allow-anonymous-subscribe"),
                ready="http://",
            )
            stack.callback(hub.kill)
            print(hub.line)
            self.hubs.append(hub)
        user = "user root;" if os.geteuid() == 0 else ""
        ports = {"first": first, "second": second, "port": self.port}
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, user=user, **ports))
        nginx = subprocess.Popen(["nginx", "-p", folder, "-c", config, "-e", "stderr"])  # noqa: S603, S607 - as above
        stack.callback(nginx.wait)
        stack.callback(nginx.terminate)
        until(self.is_ready)
        print(f"nginx: http://localhost:{self.port}")

    def is_ready(self) -> bool:
        """Whether a hub answers through nginx."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = self.connect()
            connection.request("HEAD", TOPIC)
            return connection.getresponse().status == http.HTTPStatus.OK
        return False

    def connect(self) -> http.client.HTTPConnection:
        """Make a connection to nginx."""
        return http.client.HTTPConnection("localhost", self.port, timeout=PATIENCE)


def free_port() -> int:
    """Find a port that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until(is_so: object) -> None:
    """Ask again and again until it is so."""
    assert callable(is_so)
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            sys.exit("this takes too long")
        time.sleep(0.05)


class Publisher(threading.Thread):
    """Publishes numbered events; each again, with its key, until it is acknowledged."""

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(daemon=True)
        self.site = site
        self.prefix = name
        self.acknowledged: list[str] = []
        self.refused = 0
        self.over = False

    def run(self) -> None:
        """Publish until it is over."""
        while not self.over:
            data = f"{self.prefix}-{len(self.acknowledged)}"
            while not self.publish(data):
                self.refused += 1
                time.sleep(0.1)
            self.acknowledged.append(data)

    def publish(self, data: str) -> bool:
        """Publish an event; return whether it was acknowledged."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = self.site.connect()
            # With a key it is stored once, however often it is sent.
            connection.request("POST", TOPIC, body=data, headers={"Idempotency-Key": f'"{data}"'})
            return connection.getresponse().status == http.HTTPStatus.OK
        return False


class Reader(threading.Thread):
    """Reads the log from its beginning; comes back with its last id whenever the stream is cut."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self.site = site
        self.found: list[str] = []
        self.told = 0
        self.connects = 0
        self.last_id = ""

    def run(self) -> None:
        """Read until the event "end"."""
        while self.found[-1:] != ["end"]:
            self.connects += 1
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.read()
            time.sleep(0.1)

    def read(self) -> None:
        """Read one stream."""
        connection = self.site.connect()
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        connection.request("GET", f"{TOPIC}?first=oldest&cursor=off", headers=headers)
        response = connection.getresponse()
        event: dict[str, str] = {}
        while self.found[-1:] != ["end"] and (line := response.readline().decode()):
            name, _, value = line.rstrip("\n").partition(": ")
            event[name] = value
            if line == "\n":  # an event is whole: one that was cut off doesn't count
                self.last_id = event.get("id", self.last_id)
                self.told += event.get("event") == "reset"
                self.found += [event["data"]] if "id" in event and "data" in event else []
                event = {}


def measure(site: Site) -> None:
    """Open streams through nginx and publish to them, with `bench`."""
    url = f"http://localhost:{site.port}/events/bench"
    command = [sys.executable, "-m", "h3trio", "bench", url, "--publish-url", url, "--quiet"]
    command += ["--connections", "50", "--duration", "2s", "--rate", "50"]
    subprocess.run(command, check=True)  # noqa: S603 - as above


def main() -> int:
    """Publish and read, kill and start again, compare."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        site = Site(Path(name), stack)
        measure(site)
        publishers = [Publisher(site, f"p{number}") for number in range(PUBLISHERS)]
        readers = [Reader(site) for _ in range(READERS)]
        for thread in (*publishers, *readers):
            thread.start()

        def wait_more() -> None:
            goals = [len(publisher.acknowledged) + 50 for publisher in publishers]
            for publisher, goal in zip(publishers, goals, strict=True):
                until(lambda p=publisher, g=goal: len(p.acknowledged) >= g)

        for what, program in {"a hub": site.hubs[0], "Redis": site.redis}.items():
            wait_more()
            program.kill()
            print(f"{what} was killed with SIGKILL")
            time.sleep(1)
            program.start()
            print(f"{what} is back")
        wait_more()
        for publisher in publishers:
            publisher.over = True
            publisher.join()
        until(lambda: publishers[0].publish("end"))
        for reader in readers:
            reader.join(PATIENCE)
    return compare(publishers, readers)


def compare(publishers: list[Publisher], readers: list[Reader]) -> int:
    """Compare what was acknowledged with what each reader has; return the exit status."""
    acknowledged = {data for publisher in publishers for data in publisher.acknowledged}
    refused = sum(publisher.refused for publisher in publishers)
    print(f"{len(acknowledged)} events acknowledged; {refused} attempts weren't, and were repeated")
    orders = {tuple(reader.found) for reader in readers}
    lost = max(len(acknowledged - set(reader.found)) for reader in readers)
    twice = max(len(order) - len(set(order)) for order in orders)
    told = sum(reader.told for reader in readers)
    connects = sum(reader.connects for reader in readers)
    print(
        f"{READERS} readers, {connects} streams; the same order for all: {len(orders) == 1}; "
        f"twice: {twice}; gaps told: {told}; lost: {lost}"
    )
    return 1 if lost or twice or told or len(orders) > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
