"""A real hub, watched as operators do: a scrape, `top`, and a log of JSON lines."""

from __future__ import annotations

import json
import os
import pty
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from e2e.process import PATIENCE, ServeProcess, connect, fetch
from e2e.test_cli_publish_tail import ENVIRON, PROGRAM, Command, run
from prometheus_client.parser import text_string_to_metric_families as parse

import h3trio
from h3trio.hubserver import create_app

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


@pytest.fixture
async def hub_url(nursery: trio.Nursery) -> AsyncGenerator[str]:
    """A hub in this process, on a real socket: one process less to wait for."""
    server = await nursery.start(partial(h3trio.serve, create_app(), port=0))
    yield server.addresses[0]
    nursery.cancel_scope.cancel()


async def test_a_scrape_and_a_snapshot(nursery: trio.Nursery) -> None:
    """`/metrics` and `top --once` tell of the same stream and the same event."""
    served = await ServeProcess.start(nursery)
    stream = await connect(served.port)
    assert (await stream.ask(target="/events/news")).status_code == 200
    assert (await fetch(served.port, "POST", "/events/news", body=b"hi")).status == 200
    await stream.until(b"data: hi\n\n")
    answer = await fetch(served.port, target="/metrics")
    found = {
        sample.name: sample.value
        for metric in parse(answer.body.decode())
        for sample in metric.samples
    }
    assert found["h3trio_streams"] == found["h3trio_ready_subscribers"] == 1
    assert found["h3trio_published_events_total"] == found["h3trio_delivered_events_total"] == 1
    assert found["h3trio_publish_seconds_count"] == 1
    assert found["process_open_fds"] > 0
    status, out, err = await run("top", served.url, "--once")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("h3trio ")
    assert any(line.startswith("published ") and line.endswith(", 1 in all") for line in lines)
    assert lines[-1].split() == ["news", "1", lines[-1].split()[2], "1"]
    await stream.aclose()
    assert await served.stop() == 0


async def test_what_goes_wrong_is_one_line(hub_url: str) -> None:
    """What is no hub, and one that isn't there, are status 1, and nothing on standard output."""
    port = await closed_port()
    for url, why in ((f"{hub_url}/no", "404"), (f"http://127.0.0.1:{port}", "Connection refused")):
        status, out, err = await run("top", url, "--once")
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert why in err


async def closed_port() -> int:
    """A port at which nobody listens."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


async def test_lines_for_a_pipe(nursery: trio.Nursery, hub_url: str) -> None:
    """Without a terminal snapshots follow one another; SIGTERM ends it."""
    top = await Command.start(nursery, "top", hub_url, "--interval", "0.5")
    for _ in range(2):
        await top.out.find("^h3trio ")
    top.process.send_signal(signal.SIGTERM)
    assert await top.wait() == 128 + signal.SIGTERM
    assert await top.err.rest() == ""


async def test_a_terminal_is_given_back(hub_url: str) -> None:
    """On a terminal it draws on the other screen, and Ctrl-C leaves that."""
    ours, theirs = pty.openpty()
    process = await trio.lowlevel.open_process(
        [*PROGRAM, "top", hub_url],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**ENVIRON, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
    )
    os.close(theirs)
    seen = await read_until(ours, lambda text: "subscribers" in text)
    assert "\x1b[?1049h" in seen
    process.send_signal(signal.SIGINT)
    with trio.fail_after(PATIENCE):
        assert await process.wait() == 128 + signal.SIGINT
    assert "\x1b[?1049l" in await read_until(ours, lambda text: "\x1b[?1049l" in text)
    os.close(ours)


async def read_until(fd: int, enough: Callable[[str], bool]) -> str:
    """Read from a terminal until there is enough."""
    seen = ""
    with trio.fail_after(PATIENCE):
        while not enough(seen):
            await trio.lowlevel.wait_readable(fd)
            seen += os.read(fd, 4096).decode()
    return seen


async def test_a_log_of_json_lines(nursery: trio.Nursery) -> None:
    """With `--log-format json` every line of the log is an object; the ready line too."""
    served = await ServeProcess.launch(
        nursery, "--port", "0", environ={"H3TRIO_LOG_FORMAT": "json"}
    )
    ready = json.loads(await served.wait_line("h3trio: http://"))
    assert ready["message"].startswith(f"h3trio: {ready['addresses'][0]} (store: memory")
    assert (await fetch(int(ready["addresses"][0].rpartition(":")[2]))).status == 200
    assert await served.stop() == 0
    records = [json.loads(line) for line in served.log]
    (access,) = [record for record in records if record["logger"] == "h3trio.access"]
    assert (access["method"], access["path"], access["status"]) == ("GET", "/", 200)
    assert access["task"] == "h3trio handler for 127.0.0.1"
