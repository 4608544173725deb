"""One process of the load generator: `python -m h3trio._cli.bench.worker`, started by `bench`.

It reads its job and its commands from standard input, and ends with it: so nothing is left running
if `bench` goes. See `job` for what the lines say.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Final, final

from .job import DRAIN, GO, PublishJob, job_from, to_json
from .publish import PATIENCE, Publisher
from .subscribe import Swarm

if TYPE_CHECKING:
    from .job import SubscribeJob

PROGRESS: Final = 0.5  # seconds between two lines
_STDIN: Final = 0


@final
class Commands:
    """Lines on standard input, read when the loop finds it readable."""

    def __init__(self) -> None:
        self._held = b""
        self.is_over = False

    def first(self) -> str:
        """Wait for the first line."""
        while b"\n" not in self._held and not self.is_over:
            self._read()
        line, _, self._held = self._held.partition(b"\n")
        return line.decode()

    def read(self) -> list[str]:
        """Return the lines that are there; at the end of the input, `is_over` says so."""
        self._read()
        *lines, self._held = self._held.split(b"\n")
        return [line.decode() for line in lines]

    def _read(self) -> None:
        data = os.read(_STDIN, 65536)
        self._held += data
        self.is_over = not data


def main() -> int:
    """Do the job on standard input."""
    # An interrupt goes to all processes of the terminal; `bench` tells us what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands = Commands()
    job = job_from(commands.first())
    if isinstance(job, PublishJob):
        _publish(job, commands)
    else:
        _subscribe(job, commands)
    return 0


def _say(kind: str, text: str) -> None:
    print(f'{{"{kind}": {text}}}', flush=True)


def _subscribe(job: SubscribeJob, commands: Commands) -> None:
    swarm, ready, drained = Swarm(job), False, 0.0
    swarm.watch(_STDIN)
    told = time.perf_counter()
    while not (drained and swarm.is_quiet(drained)):
        if swarm.turn(PROGRESS):
            for line in commands.read():
                if line == GO:
                    swarm.go()
                    _say("going", "true")
                elif line == DRAIN:
                    drained = time.perf_counter()
            if commands.is_over:
                break
        if not ready and swarm.is_open:
            ready = True
            _say("ready", str(swarm.received.opened))
        if (now := time.perf_counter()) - told >= PROGRESS:
            told = now
            _tell(swarm)
    _say("result", to_json(swarm.result()))


def _tell(swarm: Swarm) -> None:
    found = swarm.received
    fields = ("opened", "ended", "events", "bytes")
    progress = {name: getattr(found, name) for name in fields}
    progress["gone"] = found.ended + found.lost.total() + found.refused.total()
    _say("progress", json.dumps(progress))


def _publish(job: PublishJob, commands: Commands) -> None:
    publisher = Publisher(job)
    if commands.first() != GO:
        return
    publisher.go()
    publisher.watch(_STDIN)
    while not publisher.turn(PROGRESS, publishes=True):
        pass
    # Any command ends it.
    stopped = time.perf_counter()
    while (
        not publisher.is_idle and time.perf_counter() < stopped + PATIENCE and not commands.is_over
    ):
        if publisher.turn(0.1, publishes=False):
            commands.read()
    _say("result", to_json(publisher.result(stopped)))


if __name__ == "__main__":
    sys.exit(main())
