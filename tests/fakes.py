"""A transport that a test can starve, stall and break; both of its ends in one object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from h3trio._server.exchange_scope import ExchangeScope
from h3trio._server.watchdog import CancelWatch

if TYPE_CHECKING:
    from collections.abc import Callable


def exchange_scope(scope: trio.CancelScope | None = None) -> ExchangeScope:
    """Make the scope of an exchange that nobody watches."""
    made = ExchangeScope(CancelWatch(None), 30)
    made.handler_begins(scope or trio.CancelScope(), "a test")
    return made


class FakeTransport:
    """A transport that takes `room` bytes (`None`: any number), and then would block."""

    def __init__(self, *, room: int | None = None) -> None:
        self.room = room
        self.sent = bytearray()
        self.incoming: list[bytes] = []
        self.closed = self.eof_sent = self.broken = self.resets = False
        self.cause: OSError = ConnectionResetError()
        self._lot = trio.lowlevel.ParkingLot()

    def change(self, **state: object) -> None:
        """Set attributes, such as `room=10` or `broken=True`."""
        vars(self).update(state)
        self._lot.unpark_all()

    async def _until(self, condition: Callable[[], object]) -> None:
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._lot.park()

    # -- the server's end: see `Transport`

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Take what there is room for."""
        assert not self.closed
        assert not self.eof_sent
        if self.broken:
            raise trio.BrokenResourceError("reset") from self.cause
        size = len(data) if self.room is None else min(self.room, len(data))
        self.sent += data[:size]
        self.change(room=None if self.room is None else self.room - size)
        return size

    @property
    def sender(self) -> FakeTransport:
        """This fake is one itself."""
        return self

    @property
    def raw_socket(self) -> None:
        """It has none."""

    def send(self, data: bytes | memoryview, /) -> int:
        """Send as a socket does: it never takes nothing."""
        try:
            taken = self.send_nowait(data)
        except trio.BrokenResourceError as error:
            raise self.cause from error
        if not taken:
            raise BlockingIOError
        return taken

    async def send_all(self, data: bytes | memoryview, *, stall_timeout: float) -> None:
        """Take all, as room is made."""
        rest = memoryview(data)
        while rest := rest[self.send_nowait(rest) :]:
            with trio.fail_after(stall_timeout):
                await self._until(lambda: self.room != 0 or self.broken)

    async def receive_some(self) -> bytes:
        """Give what the client sent."""
        await self._until(lambda: self.incoming or self.broken)
        if self.broken:
            raise trio.BrokenResourceError("reset") from self.cause
        return self.incoming.pop(0)

    async def send_eof(self) -> None:
        """Allow no more sends."""
        self.change(eof_sent=True)

    def reset_at_close(self, *, on: bool) -> None:
        """Remember it."""
        self.resets = on

    async def aclose(self) -> None:
        """Allow nothing more."""
        self.change(closed=True)

    # -- the client's end

    async def client_sends(self, data: bytes) -> None:
        """Let bytes arrive; `b""` is EOF."""
        self.change(incoming=[*self.incoming, data])
        await trio.lowlevel.checkpoint()

    async def client_receives(self) -> bytes:
        """Take what was sent."""
        await self._until(lambda: self.sent or self.closed or self.eof_sent or self.broken)
        data = bytes(self.sent)
        self.sent.clear()
        return data
