"""`python -m h3trio serve` as a process, and plain HTTP to talk to it.

The process's log is read all the time, so it can't block on a full pipe, and a test can wait for a
line instead of for time to pass. Everything has a deadline far beyond what it takes, so that a
test that would hang fails instead.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, final

import h11
import trio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PATIENCE: Final = 60


@final
class ServeProcess:
    """A running `python -m h3trio serve`; killed with the nursery it was started in."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._log = ""
        self._more = trio.Event()
        self._is_over = False
        self.url = ""
        self.ready_line = ""

    @classmethod
    async def start(
        cls,
        nursery: trio.Nursery,
        *args: str,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
        prefix: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> ServeProcess:
        """Start it on a free port, unless told otherwise; return when it listens."""
        served = await cls.launch(
            nursery,
            *("--port", "0", *args),
            environ=environ,
            folder=folder,
            prefix=prefix,
            pass_fds=pass_fds,
        )
        served.ready_line = await served.wait_line(r"h3trio: (https?|unix):")
        served.url = served.ready_line.split()[1]
        return served

    @classmethod
    async def launch(
        cls,
        nursery: trio.Nursery,
        *args: str,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
        prefix: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> ServeProcess:
        """Start it and return at once."""
        inherited = {key: value for key, value in os.environ.items() if "H3TRIO" not in key}
        run = partial(
            trio.run_process,
            [*prefix, sys.executable, "-m", "h3trio", "serve", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            env=inherited | dict(environ or {}),
            cwd=folder,
            pass_fds=pass_fds,
            deliver_cancel=_kill,
        )
        self = cls(await nursery.start(run))
        nursery.start_soon(self._read_log)
        return self

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        async for data in self._process.stderr:
            self._log += bytes(data).decode()
            self._more.set()
            self._more = trio.Event()
        self._is_over = True
        self._more.set()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> list[str]:
        """The whole lines that it has written on standard error."""
        return self._log.split("\n")[:-1]

    async def wait_line(self, pattern: str) -> str:
        """Wait for a line of its log in which the pattern is found."""
        with trio.fail_after(PATIENCE):
            while True:
                found = next((line for line in self.log if re.search(pattern, line)), None)
                if found is not None:
                    return found
                assert not self._is_over, f"ended without {pattern!r}:\n{self._log}"
                await self._more.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Wait for its end, with all it had to say; return the exit status."""
        with trio.fail_after(PATIENCE):
            while not self._is_over:
                await self._more.wait()
            return await self._process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; return the exit status."""
        self.send_signal(number)
        return await self.wait()


async def _kill(process: trio.Process) -> None:
    process.kill()


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool


@final
class Connection(trio.abc.AsyncResource):
    """One HTTP connection over a real socket: `async with await connect(port) as connection`."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def ask(
        self,
        method: str = "GET",
        target: str = "/",
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> h11.Response:
        """Send a request; return the head of the answer."""
        if self._http.our_state is h11.DONE:
            if self._http.their_state is not h11.DONE:
                assert isinstance(await self._next(), h11.EndOfMessage), "the last one isn't read"
            self._http.start_next_cycle()
        fields = {"Host": "localhost", "Content-Length": str(len(body)), **(headers or {})}
        request = h11.Request(method=method, target=target, headers=list(fields.items()))
        parts = [self._http.send(request), self._http.send(h11.Data(data=body))]
        parts.append(self._http.send(h11.EndOfMessage()))
        await self.stream.send_all(b"".join(filter(None, parts)))
        head = await self._next()
        assert isinstance(head, h11.Response), head
        return head

    async def _next(self) -> type[h11.PAUSED | h11.NEED_DATA] | h11.Event:
        with trio.fail_after(PATIENCE):
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(bytes(await self.stream.receive_some()))
            return event

    async def piece(self) -> bytes:
        """Return the next piece of the body, `b""` at its end."""
        event = await self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), event
        return b""

    async def until(self, text: bytes) -> bytes:
        """Read the body up to and with a text."""
        body = b""
        while text not in body:
            piece = await self.piece()
            assert piece, f"ended without {text!r}: {body!r}"
            body += piece
        return body

    async def rest(self) -> tuple[bytes, bool]:
        """Read the rest of the body; tell whether its end was framed, and not cut off."""
        body = b""
        with contextlib.suppress(h11.RemoteProtocolError, trio.BrokenResourceError):
            while piece := await self.piece():
                body += piece
            return body, True
        return body, False

    async def aclose(self) -> None:
        """Close the socket."""
        await self.stream.aclose()


async def connect(port: int, host: str = "127.0.0.1") -> Connection:
    """Connect to a port of this machine."""
    return Connection(await trio.open_tcp_stream(host, port))


async def fetch(
    port: int,
    method: str = "GET",
    target: str = "/",
    *,
    host: str = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Answer:
    """Send one request on a connection of its own; return the whole answer."""
    async with await connect(port, host) as connection:
        head = await connection.ask(method, target, headers=headers, body=body)
        content, is_whole = await connection.rest()
    named = {name.decode(): value.decode() for name, value in head.headers}
    return Answer(head.status_code, named, content, is_whole)
