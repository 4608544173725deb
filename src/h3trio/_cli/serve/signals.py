"""The signals that stop `serve`: the first asks for a drain, a second one ends the process.

A thread watches them, for the event loop may be what hangs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import math
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Final, final

import trio

if TYPE_CHECKING:
    from types import FrameType

logger = logging.getLogger("h3trio.server")

EXIT_STUCK: Final = 70
"""The exit status where the shutdown was late."""
GRACE: Final = 5.0
"""Seconds by which the shutdown may be late."""
STOP: Final = (signal.SIGTERM, signal.SIGINT)


@final
class StopSignals:
    """SIGTERM, SIGINT and SIGHUP, and what to do when they aren't followed.

    SIGHUP, which a terminal sends when it closes, stops the server unless somebody else has a word
    on it: `nohup` has it ignored, and an app may listen to it for a reason of its own.

    A signal handler of Python's runs when the main thread comes to it, which may be never. What
    doesn't wait for that is the wakeup descriptor: the number of the signal is written there at
    once. So a thread reads the descriptor, and the handlers do nothing.
    """

    def __init__(self, patience: float) -> None:
        self.patience: float = patience
        """Seconds from the first signal to the end of the process; may still grow after that."""
        self._reader, self._writer = socket.socketpair()
        self._writer.settimeout(0)

    def watch(self) -> trio.Event:
        """Take over the signals of a process in which Trio runs; return what the first one sets."""
        asked = trio.Event()
        token = trio.lowlevel.current_trio_token()
        for number in STOP:
            signal.signal(number, _do_nothing)
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signal.signal(signal.SIGHUP, _do_nothing)
        # The descriptor of before is Trio's own; Trio puts it back when it ends, with the handlers.
        others = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # A daemon: it must outlive the loop, and may not keep the process.
        threading.Thread(
            target=self._watch, args=(token, asked, others), name="h3trio signals", daemon=True
        ).start()
        return asked

    def restore(self) -> None:
        """Let them end the process at once: only the interpreter's own end is left."""
        for number in STOP:
            signal.signal(number, signal.SIG_DFL)

    def _watch(self, token: trio.lowlevel.TrioToken, asked: trio.Event, others: int) -> None:
        self._wait_stop(others, since=math.inf)
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(asked.set)
        logger.info("draining; once more to exit at once")
        number = self._wait_stop(others, since=time.monotonic())
        if number is None:
            logger.critical("the shutdown is %s s late; this is where each thread is:", GRACE)
            faulthandler.dump_traceback()
        os._exit(EXIT_STUCK if number is None else 128 + number)

    def _wait_stop(self, others: int, *, since: float) -> int | None:
        """Wait for a signal to stop, `None` if none came in time; pass on what is not for us."""
        while (left := since + self.patience - time.monotonic()) > 0:
            self._reader.settimeout(None if left == math.inf else left)
            with contextlib.suppress(TimeoutError):
                number = self._reader.recv(1)[0]
                if number in STOP or signal.getsignal(number) == _do_nothing:
                    return number
                with contextlib.suppress(OSError):
                    os.write(others, bytes([number]))
        return None


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Be a handler: without one, the signal would end the process before it is written."""
