"""`work`: one process of the load generator, started by `bench`.

It ends with the pipe to `bench`: so nothing is left running if that goes. See `job` for the
messages.
"""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING, Any, Final

from .job import DRAIN, END, GO, PublishJob
from .publish import PATIENCE, PacedPublisher
from .subscribe import Swarm

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from .job import SubscribeJob

    Pipe = Connection[Any, Any]

PROGRESS: Final = 0.5  # seconds between two messages


def work(job: SubscribeJob | PublishJob, pipe: Pipe) -> None:
    """Do a job."""
    # An interrupt goes to all processes of the terminal; `bench` turns it into a command.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError):
        if isinstance(job, PublishJob):
            _publish(job, pipe)
        else:
            _subscribe(job, pipe)


def _subscribe(job: SubscribeJob, pipe: Pipe) -> None:
    swarm, ready, drained, command = Swarm(job), False, 0.0, ""
    swarm.watch(pipe.fileno())
    told = time.perf_counter()
    while command != END and not (drained and swarm.is_quiet(drained)):
        if swarm.turn(PROGRESS):
            command = pipe.recv()
            if command == GO:
                swarm.go()
                pipe.send(("going", True))
            elif command == DRAIN:
                drained = time.perf_counter()
        if not ready and swarm.is_open:
            ready = True
            pipe.send(("ready", swarm.received.opened))
        if (now := time.perf_counter()) - told >= PROGRESS:
            told = now
            pipe.send(("progress", _progress(swarm)))
    pipe.send(("result", swarm.result()))


def _progress(swarm: Swarm) -> dict[str, int]:
    found = swarm.received
    progress = {name: getattr(found, name) for name in ("opened", "ended", "events", "bytes")}
    progress["gone"] = found.ended + found.lost.total() + found.refused.total()
    return progress


def _publish(job: PublishJob, pipe: Pipe) -> None:
    publisher = PacedPublisher(job)
    if pipe.recv() != GO:
        return
    publisher.go()
    publisher.watch(pipe.fileno())
    while not publisher.turn(PROGRESS, publishes=True):
        pass
    # Any command ends it.
    stopped, command = time.perf_counter(), pipe.recv()
    while not publisher.is_idle and time.perf_counter() < stopped + PATIENCE and command != END:
        if publisher.turn(0.1, publishes=False):
            command = pipe.recv()
    pipe.send(("result", publisher.result(stopped)))
