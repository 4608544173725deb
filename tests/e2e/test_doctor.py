"""`doctor` on real sockets: as a process at our own hub, and behind a real nginx, and over TLS."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
import trustme
from e2e.process import PATIENCE, ServeProcess
from tools import require_tool

from h3trio._cli.doctor.check_head import Severity
from h3trio._cli.doctor.check_stream import diagnose, exit_status
from h3trio._cli.doctor.observe import DoctorPlan, observe
from h3trio._cli.http import open_client, trust_from

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from h3trio.client._environment import Trust

OTHERS = re.compile("H3TRIO|PROXY", re.IGNORECASE)
ENVIRON = {name: value for name, value in os.environ.items() if not OTHERS.search(name)}
TOPIC = "/events/news"


async def run(told: dict[str, tuple[int, str]], name: str, *args: str) -> None:
    """Run the command; note its exit status and its output."""
    command = [sys.executable, "-m", "h3trio", "doctor", "--quiet", *args]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, env=ENVIRON
        )
    assert done.stderr == b""
    told[name] = done.returncode, done.stdout.decode()


async def test_the_command(nursery: trio.Nursery) -> None:
    """At a hub of ours nothing is to do; where there is no stream, that is an error."""
    served = await ServeProcess.start(nursery, "--heartbeat", "1.1")
    stream, told = served.url + TOPIC, dict[str, tuple[int, str]]()
    gone = f"http://127.0.0.1:{await free_port()}/"
    async with trio.open_nursery() as commands:
        commands.start_soon(run, told, "hub", stream, "--publish", "--wait", "5", "--json")
        commands.start_soon(run, told, "nowhere", served.url + "/nowhere")
        commands.start_soon(run, told, "gone", gone)
    status, out = told["hub"]
    as_json: dict[str, Any] = json.loads(out)
    found = {entry["check"]: (entry["severity"], entry["text"]) for entry in as_json["findings"]}
    assert {severity for severity, _ in found.values()} == {"ok", "info"}
    assert found["delivery"][1].startswith("5 published events came one by one")
    # Not exactly: a machine that is busy with other tests may send or see one late.
    assert re.fullmatch(r"a comment every [1-3]\.\d s of silence", found["heartbeat"][1])
    assert found["resume"][1] == "Last-Event-ID brings the 4 events that followed it"
    assert (status, as_json["status"]) == (0, 0)
    assert told["nowhere"][0] == told["gone"][0] == 3
    assert "\nerror    answer  404: Not Found\n" in told["nowhere"][1]
    assert "Connection refused" in told["gone"][1]
    assert await served.stop() == 0


class Told:
    """What was found of several streams: an exit status each, and a severity and text by check."""

    def __init__(self) -> None:
        self.status: dict[str, int] = {}
        self.found: dict[str, dict[str, tuple[Severity, str]]] = {}

    async def examine(self, name: str, plan: DoctorPlan, context: Trust | None = None) -> None:
        """Look at a stream."""
        async with open_client(timeout=60, tls=context) as client:
            findings = diagnose(await observe(client, plan, lambda _: None))
        self.status[name] = exit_status(findings)
        self.found[name] = {found.check: (found.severity, found.text) for found in findings}

    def problems(self, name: str) -> set[str]:
        """Return the checks that found a problem."""
        found = self.found[name].items()
        return {check for check, (severity, _) in found if severity >= Severity.WARNING}


# -- behind nginx


@contextlib.asynccontextmanager
async def nginx(folder: Path, *servers: str) -> AsyncGenerator[None]:
    """Run nginx with these servers."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    scratch = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    config = folder / "nginx.conf"
    config.write_text(
        f"""daemon off; pid {folder}/pid; worker_processes 1; error_log stderr;
        events {{ worker_connections 256; }}
        http {{
          access_log off; {scratch}
          gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;
          proxy_set_header Host localhost;
          {" ".join(servers)}
        }}"""
    )
    command = [require_tool("nginx"), "-p", str(folder), "-c", str(config), "-e", "stderr"]
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, command, stderr=subprocess.DEVNULL, check=False)
        process: trio.Process = await nursery.start(start)
        yield
        process.terminate()


async def free_port() -> int:
    """Return a port that nobody has."""
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def until_it_listens(port: int) -> None:
    """Wait until a process that says nothing about it listens."""
    with trio.fail_after(PATIENCE):
        while True:
            with contextlib.suppress(OSError):
                async with await trio.open_tcp_stream("127.0.0.1", port):
                    return
            await trio.sleep(0.01)


IGNORING = "proxy_ignore_headers X-Accel-Buffering;"

# What nginx is told, the exit status that this comes to, and the checks that find it.
WAYS: Mapping[str, tuple[str, int, set[str]]] = {
    "off": ("proxy_buffering off;", 0, set()),
    "obeyed": ("proxy_buffering on;", 0, set()),  # X-Accel-Buffering is
    "gzip": ("proxy_buffering off; gzip on;", 1, {"compression"}),
    "on": (f"{IGNORING} proxy_buffering on;", 3, {"answer"}),
    "on-gzip": (f"{IGNORING} proxy_buffering on; gzip on;", 3, {"answer"}),
    "timeout": ("proxy_read_timeout 1s;", 3, {"end"}),
}


async def test_nginx_is_seen_through(nursery: trio.Nursery, tmp_path: Path) -> None:
    """What nginx does to a stream is found; where it leaves it alone, nothing is."""
    served = await ServeProcess.start(nursery)
    ports = {name: await free_port() for name in WAYS}
    servers = [
        f"server {{ listen 127.0.0.1:{ports[name]}; {options}"
        f" location / {{ proxy_pass {served.url}; }} }}"
        for name, (options, _, _) in WAYS.items()
    ]
    told = Told()
    async with nginx(tmp_path, *servers), trio.open_nursery() as looking:
        for name, port in ports.items():
            await until_it_listens(port)
            url = f"http://127.0.0.1:{port}{TOPIC}/{name}"
            plan = DoctorPlan(url=url, wait=3, timeout=2, publish_url=f"{served.url}{TOPIC}/{name}")
            looking.start_soon(told.examine, name, plan)
    for name, (_, status, problems) in WAYS.items():
        assert (name, told.status[name], told.problems(name)) == (name, status, problems)
        if problems == {"answer"}:
            assert "the stream is held back" in told.found[name]["answer"][1]
        else:
            assert told.found[name]["delivery"][1].startswith("5 published events came one by one")
    assert await served.stop() == 0


# -- over TLS


async def test_certificates_and_protocols(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A certificate that browsers refuse is said to be so; HTTP/2 is noticed where it is."""
    authority = trustme.CA()
    pem, trusted = tmp_path / "server.pem", tmp_path / "authority.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    authority.cert_pem.write_to_path(str(trusted))
    served = await ServeProcess.start(nursery, "--tls-cert", str(pem), "--tls-key", str(pem))
    port, told = await free_port(), Told()
    both = f"ssl_certificate {pem}; ssl_certificate_key {pem}; proxy_ssl_verify off;"
    server = f"server {{ listen 127.0.0.1:{port} ssl http2; {both} location / "
    server += f"{{ proxy_pass https://127.0.0.1:{served.port}; }} }}"

    async def look(name: str, port: int, *, ca_file: str | None, is_trusting: bool) -> None:
        arguments = Namespace(ca_file=ca_file, insecure=is_trusting, given={})
        contexts = [trust_from(arguments) for _ in range(2)]
        url = f"https://localhost:{port}{TOPIC}"
        plan = DoctorPlan(url=url, wait=0.3, timeout=5, is_trusting=is_trusting, tls=contexts[1])
        await told.examine(name, plan, contexts[0])

    async with nginx(tmp_path, server):
        await until_it_listens(port)
        async with trio.open_nursery() as looking:
            start = looking.start_soon
            start(partial(look, "untrusted", served.port, ca_file=None, is_trusting=False))
            start(partial(look, "trusting", served.port, ca_file=None, is_trusting=True))
            start(partial(look, "trusted", served.port, ca_file=str(trusted), is_trusting=False))
            start(partial(look, "http2", port, ca_file=str(trusted), is_trusting=False))
    assert (told.status["untrusted"], set(told.found["untrusted"])) == (3, {"certificate"})
    assert (told.status["trusting"], told.problems("trusting")) == (1, {"certificate"})
    assert (told.status["trusted"], told.problems("trusted")) == (0, set())
    assert told.found["trusted"]["connections"][1].startswith("browsers open at most six")
    assert (told.status["http2"], told.problems("http2")) == (0, set())
    assert told.found["http2"]["connections"][1].startswith("HTTP/2 is offered")
    assert await served.stop() == 0
