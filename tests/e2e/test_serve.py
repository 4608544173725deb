"""The contract of `python -m h3trio serve`: its ready line, its signals, its exit statuses."""

from __future__ import annotations

import gc
import json
import re
import signal
import socket
from typing import TYPE_CHECKING

import pytest
import trio
from e2e.process import Connection, ServeProcess, connect, fetch

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import gc, logging, time
import trio
from h3trio import App

app = App()
log = logging.getLogger("app").info

@app.get("/")
async def hello(event):
    return "hello"

@app.get("/events")
async def events(event):
    async with event.start_sse() as writer:
        try:
            await trio.sleep_forever()
        finally:
            log("unwound")

@app.get("/slow")
async def slow(event):
    log("waiting")
    with trio.CancelScope(shield="shield" in event.query):
        await trio.sleep_forever()

@app.get("/gc")
async def collections(event):
    return {"thresholds": gc.get_threshold(), "frozen": gc.get_freeze_count()}

@app.get("/block")
async def block(event):
    log("blocking")
    time.sleep(1000)
"""


@pytest.fixture
def app(tmp_path: Path) -> str:
    """An app in a file."""
    (tmp_path / "some_app.py").write_text(APP)
    return str(tmp_path / "some_app.py") + ":app"


async def start_request(served: ServeProcess, target: str, line: str) -> Connection:
    """Send a request, and wait until its handler says so in the log."""
    connection = await connect(served.port)
    await connection.stream.send_all(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await served.wait_line(line)
    return connection


# -- the ready line


async def test_ready_line(nursery: trio.Nursery) -> None:
    """One line on standard error holds the address, with the true port, and the store."""
    served = await ServeProcess.start(nursery)
    assert re.fullmatch(r"h3trio: http://127\.0\.0\.1:[1-9]\d* \(store: .+\)", served.ready_line)
    assert (await fetch(served.port)).status == 200
    assert await served.stop() == 0
    assert [line for line in served.log if "http://" in line] == [served.ready_line]


@pytest.mark.parametrize("form", ["path", "module"])
async def test_an_app(nursery: trio.Nursery, app: str, tmp_path: Path, form: str) -> None:
    """An app is served from `path.py:app` and from `module:app`, and the ready line names it."""
    target = app if form == "path" else "some_app:app"
    served = await ServeProcess.start(nursery, target, folder=tmp_path)
    assert served.ready_line == f"h3trio: {served.url} ({target})"
    assert (await fetch(served.port)).body == b"hello"
    assert await served.stop() == 0


async def test_a_factory(nursery: trio.Nursery, tmp_path: Path) -> None:
    """With `--factory` the app is made by a call, by the variable as well."""
    (tmp_path / "made.py").write_text(
        "from h3trio import App\n"
        "def create():\n"
        "    app = App()\n"
        "    @app.get('/')\n"
        "    async def home(event):\n"
        "        return 'made'\n"
        "    return app\n"
    )
    for flags, environ in ((["--factory"], {}), ([], {"H3TRIO_FACTORY": "1"})):
        served = await ServeProcess.start(
            nursery, "made:create", *flags, folder=tmp_path, environ=environ
        )
        assert (await fetch(served.port)).body == b"made"
        assert await served.stop() == 0


async def test_garbage_is_collected_with_streams_in_mind(nursery: trio.Nursery, app: str) -> None:
    """What is there at the start is left out of collections, and full ones are rare."""
    served = await ServeProcess.start(nursery, app)
    told = json.loads((await fetch(served.port, "GET", "/gc")).body)
    assert told["thresholds"] == [*gc.get_threshold()[:2], 50]
    assert told["frozen"] > 1000
    await served.stop()


async def test_several_addresses(nursery: trio.Nursery, app: str) -> None:
    """A name with several addresses is served at each, on one port; the line has them all."""
    served = await ServeProcess.start(nursery, app, "--host", "localhost")
    urls = served.ready_line.removeprefix("h3trio: ").removesuffix(f" ({app})").split(" ")
    found = socket.getaddrinfo("localhost", served.port, type=socket.SOCK_STREAM)
    hosts = {str(address[0]) for *_, address in found}
    assert {url.rpartition(":")[2] for url in urls} == {str(served.port)}
    assert {re.sub(r"^http://\[?|\]?:\d+$", "", url) for url in urls} <= hosts
    for host in hosts & {"127.0.0.1"}:
        assert (await fetch(served.port, host=host)).body == b"hello"


async def test_ipv6(nursery: trio.Nursery) -> None:
    """The loopback address of IPv6 is this machine too."""
    served = await ServeProcess.start(nursery, "--host", "::1")
    assert served.url == f"http://[::1]:{served.port}"
    headers = {"Host": f"[::1]:{served.port}"}
    answer = await fetch(
        served.port, "POST", "/events/news", host="::1", headers=headers, body=b"hi"
    )
    assert answer.status == 200


async def test_environment(nursery: trio.Nursery, app: str) -> None:
    """Flags may come from the environment."""
    environ = {"H3TRIO_HOST": "127.0.0.2", "H3TRIO_MAX_CONNECTIONS": "1"}
    served = await ServeProcess.start(nursery, app, environ=environ)
    assert served.url.startswith("http://127.0.0.2:")
    async with await connect(served.port, "127.0.0.2") as connection:
        await connection.ask(target="/events")
        assert (await fetch(served.port, host="127.0.0.2")).status == 503


@pytest.mark.parametrize("quiet", [False, True])
async def test_access_log(nursery: trio.Nursery, app: str, *, quiet: bool) -> None:
    """Requests are logged on standard error, unless told not to; a query never is."""
    served = await ServeProcess.start(nursery, app, *["--no-access-log"] * quiet)
    await fetch(served.port, target="/?token=secret")
    assert await served.stop() == 0
    lines = [line for line in served.log if '127.0.0.1 "GET /" 200 completed ' in line]
    assert len(lines) == (0 if quiet else 1)
    assert "secret" not in "".join(served.log)


# -- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_drains(nursery: trio.Nursery, app: str, number: signal.Signals) -> None:
    """A signal ends streams with `retry:` and their final chunk; the exit status is 0."""
    served = await ServeProcess.start(nursery, app, "--drain-soft", "0.5")
    async with await connect(served.port) as connection:
        await connection.ask(target="/events", headers={"Accept": "text/event-stream"})
        await connection.until(b":\n")
        served.send_signal(number)
        body, is_whole = await connection.rest()
    assert re.fullmatch(rb"retry: \d+\n", body)
    assert is_whole
    assert await served.wait() == 0
    await served.wait_line("unwound")
    assert "Traceback" not in "".join(served.log)


async def test_the_second_signal_ends_at_once(nursery: trio.Nursery, app: str) -> None:
    """Who asks twice doesn't wait for the drain."""
    served = await ServeProcess.start(nursery, app, "--drain-soft", "1000")
    async with await start_request(served, "/slow", "waiting"):
        served.send_signal(signal.SIGTERM)
        await served.wait_line("draining; once more to exit at once")
        assert await served.stop() == 128 + signal.SIGTERM


async def test_a_signal_before_it_is_ready(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A start that hangs can be ended like anything else."""
    (tmp_path / "hangs.py").write_text(
        "import sys, trio, contextlib\n"
        "from h3trio import App\n"
        "@contextlib.asynccontextmanager\n"
        "async def lifespan():\n"
        "    print('waiting', file=sys.stderr, flush=True)\n"
        "    await trio.sleep_forever()\n"
        "    yield\n"
        "app = App(lifespan=lifespan)\n"
    )
    served = await ServeProcess.launch(nursery, "--port", "0", "hangs:app", folder=tmp_path)
    await served.wait_line("waiting")
    assert await served.stop(signal.SIGINT) == 0
    assert "Traceback" not in "".join(served.log)


@pytest.mark.parametrize("behind", ["trio.sleep(0.2)", "trio.sleep_forever()"])
async def test_a_lifespan_may_wait_at_the_end(
    nursery: trio.Nursery, tmp_path: Path, behind: str
) -> None:
    """What stands behind its `yield` isn't cancelled, unless it takes too long."""
    (tmp_path / "waits.py").write_text(
        "import contextlib, sys, trio\n"
        "from h3trio import App\n"
        "@contextlib.asynccontextmanager\n"
        "async def lifespan():\n"
        "    yield\n"
        f"    await {behind}\n"
        "    print('closed', file=sys.stderr, flush=True)\n"
        "app = App(lifespan=lifespan)\n"
    )
    served = await ServeProcess.start(nursery, "waits:app", folder=tmp_path)
    assert await served.stop() == 0
    assert ("closed" in "".join(served.log)) == ("forever" not in behind)


async def test_a_hangup_that_is_ignored(nursery: trio.Nursery, app: str) -> None:
    """Started by `nohup`, it goes on when its terminal closes."""
    served = await ServeProcess.start(nursery, app, prefix=("nohup",))
    served.send_signal(signal.SIGHUP)
    async with await connect(served.port) as connection:
        await connection.ask(target="/events")
        await connection.until(b":\n")
    assert "draining" not in "".join(served.log)
    assert await served.stop() == 0


async def test_an_apps_own_signals(nursery: trio.Nursery, tmp_path: Path) -> None:
    """An app may receive other signals, as in any program of Trio's."""
    (tmp_path / "listens.py").write_text(
        "import contextlib, logging, signal, trio\n"
        "from h3trio import App\n"
        "async def listen(*, task_status):\n"
        "    with trio.open_signal_receiver(signal.SIGHUP) as signals:\n"
        "        task_status.started()\n"
        "        async for number in signals:\n"
        "            logging.getLogger('app').info('reloading')\n"
        "@contextlib.asynccontextmanager\n"
        "async def lifespan():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        await nursery.start(listen)\n"
        "        yield\n"
        "        nursery.cancel_scope.cancel()\n"
        "app = App(lifespan=lifespan)\n"
    )
    served = await ServeProcess.start(nursery, "listens:app", folder=tmp_path)
    served.send_signal(signal.SIGHUP)
    await served.wait_line("reloading")
    assert await served.stop() == 0


async def test_what_does_not_end_is_named_and_left(nursery: trio.Nursery, app: str) -> None:
    """Five seconds after the hard deadline the process exits 70, blocked loop or not."""
    timing = ("--drain-soft", "0.1", "--drain-hard", "0.1")
    shielded = await ServeProcess.start(nursery, app, *timing)
    blocked = await ServeProcess.start(nursery, app, *timing)
    async with (
        await start_request(shielded, "/slow?shield", "waiting"),
        await start_request(blocked, "/block", "blocking"),
    ):
        start = trio.current_time()
        for served in (shielded, blocked):
            served.send_signal(signal.SIGTERM)
        assert await shielded.wait() == await blocked.wait() == 70
    assert 5 <= trio.current_time() - start < 15
    named = await shielded.wait_line("was cancelled and doesn't end")
    assert re.search(r"connection from 127\.0\.0\.1 .*some_app\.py:\d+, in slow", named)
    assert any(re.search(r"some_app\.py\", line \d+ in block", line) for line in blocked.log)


async def test_the_second_signal_ends_a_blocked_loop(nursery: trio.Nursery, app: str) -> None:
    """Asking twice works too when the loop doesn't run."""
    served = await ServeProcess.start(nursery, app)
    async with await start_request(served, "/block", "blocking"):
        served.send_signal(signal.SIGINT)
        await served.wait_line("draining")
        assert await served.stop(signal.SIGINT) == 128 + signal.SIGINT


# -- what can't be started


async def refusal(nursery: trio.Nursery, *args: str, folder: Path | None = None) -> str:
    """Return the one line that a start ends with; the status is 1 where it may succeed later."""
    served = await ServeProcess.launch(nursery, *args, folder=folder)
    status = await served.wait()
    assert status == (1 if "can't start: " in served.log[0] else 2)
    (line,) = served.log
    return line.removeprefix("h3trio: error: ")


async def test_a_busy_port(nursery: trio.Nursery) -> None:
    """A port that is taken is named."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        line = await refusal(nursery, "--port", str(port))
    assert line == f"can't start: can't listen on 127.0.0.1 port {port}: Address already in use"


async def test_a_host_that_is_not_there(nursery: trio.Nursery, app: str) -> None:
    """A name that can't be resolved is named, and an address of another machine too."""
    line = await refusal(nursery, app, "--host", "nowhere.invalid")
    assert line.startswith("can't start: can't find host 'nowhere.invalid': ")
    line = await refusal(nursery, app, "--host", "192.0.2.77", "--port", "0")
    assert line.startswith("can't start: can't listen on 192.0.2.77 port 0: ")


async def test_an_app_that_is_not_there(nursery: trio.Nursery, app: str, tmp_path: Path) -> None:
    """A missing module or attribute is one line, without a traceback."""
    assert await refusal(nursery, "nowhere:app") == "there is no module 'nowhere'"
    line = await refusal(nursery, app.replace(":app", ":nothing"), folder=tmp_path)
    assert line.endswith("some_app.py has no attribute 'nothing'")


@pytest.mark.parametrize(
    "error", ["RuntimeError('no database')", "GeneratorExit('early')", "SystemExit(3)"]
)
async def test_an_app_that_fails_to_start(
    nursery: trio.Nursery, tmp_path: Path, error: str
) -> None:
    """An error of the app's lifespan is one line that says what and where."""
    (tmp_path / "fails.py").write_text(
        "import contextlib\n"
        "from h3trio import App\n"
        "@contextlib.asynccontextmanager\n"
        "async def lifespan():\n"
        f"    raise {error}\n"
        "    yield\n"
        "app = App(lifespan=lifespan)\n"
    )
    line = await refusal(nursery, "fails:app", "--port", "0", folder=tmp_path)
    name, text = re.fullmatch(r"(\w+)\('?(.*?)'?\)", error).groups()  # type: ignore[union-attr]  # it is of the form
    assert line == f"can't start: {name}: {text} ({tmp_path / 'fails.py'}:5)"


async def test_a_hub_for_everyone_needs_a_word(nursery: trio.Nursery) -> None:
    """A hub beyond loopback doesn't start before it is said what others may do there."""
    line = await refusal(nursery, "--host", "0.0.0.0")
    assert "--allow-anonymous-subscribe" in line
    served = await ServeProcess.start(nursery, "--host", "0.0.0.0", "--allow-anonymous-subscribe")
    assert served.url.startswith("http://0.0.0.0:")
