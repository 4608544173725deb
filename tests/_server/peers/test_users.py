"""The user of a peer: what the kernel says, and when it counts. Real sockets: `e2e/test_rights`."""

from __future__ import annotations

import socket
import struct
import sys
from typing import final

import pytest
from tables import table

from h3trio import Settings
from h3trio._server.peer import Peer
from h3trio._server.peers.users import open_netlink, read_answer, user_of
from h3trio._server.state import ServerState

NAMES = struct.pack("!HH16s16s", 50000, 3000, b"peer", b"server")
ESTABLISHED, SYN_SENT, FIN_WAIT_2, TIME_WAIT, LISTEN = 1, 2, 5, 6, 10


@final
class UnixSocket:
    """A unix socket whose peer runs as a user, and a count of how often that was asked."""

    family = socket.AF_UNIX

    def __init__(self, user: int) -> None:
        self.user = user
        self.asked = 0

    def getsockname(self) -> str:
        """Without a name."""
        return ""

    getpeername = getsockname

    def getsockopt(self, level: int, option: int, buflen: int, /) -> bytes:
        """Tell the credentials."""
        assert (level, option, buflen) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.asked += 1
        return struct.pack("=iII", 4711, self.user, self.user)


def answer(
    *,
    kind: int = 20,
    state: int = ESTABLISHED,
    names: bytes = NAMES,
    user: int = 33,
    inode: int = 7,
) -> bytes:
    """Make an answer of sock_diag."""
    body = struct.pack("=BBBB", 2, state, 0, 0) + names + struct.pack("=III", 0, 1, 2)
    body += struct.pack("=IIIII", 0, 0, 0, user, inode)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


@table(
    "told, expected",
    [
        (answer(), 33),
        (answer(user=0), 0),
        (answer(state=FIN_WAIT_2), 33),
        (answer(user=0, inode=0), None),
        (answer(state=FIN_WAIT_2, inode=0), None),
        (answer(state=TIME_WAIT), None),
        (answer(state=SYN_SENT), None),
        (answer(state=LISTEN), None),
        (answer(names=NAMES[:-1] + b"x"), None),
        (answer(names=struct.pack("!HH16s16s", 50000, 0, b"peer", b"")), None),
        (answer(kind=2), None),
        (struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -2), None),
        (answer()[:-1], None),
        (b"", None),
    ],
)
def test_an_answer(told: bytes, expected: int | None) -> None:
    """It counts for the very connection that was asked for, while a program holds its other end."""
    assert read_answer(told, {NAMES}) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="SO_PEERCRED is Linux's")
def test_a_unix_socket() -> None:
    """It knows who connected it; nobody is no answer, as that may be anybody."""
    assert user_of(UnixSocket(33), None) == 33
    assert user_of(UnixSocket(0), None) == 0
    assert user_of(UnixSocket(65534), None) is None


@pytest.mark.skipif(sys.platform != "linux", reason="SO_PEERCRED is Linux's")
def test_the_kernel_is_asked_once() -> None:
    """Each request of a connection asks for its user, and the kernel is asked for the first."""
    sock = UnixSocket(33)
    peer = Peer("unix", "http", ServerState(Settings()), sock)
    assert [sock.asked, *(peer.user for _ in range(3)), sock.asked] == [0, 33, 33, 33, 1]


def test_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere there is no answer."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert open_netlink() is None
    assert user_of(UnixSocket(33), None) is None


def test_a_peer_without_a_socket() -> None:
    """One in memory is in this process, and so its user's, unless told otherwise."""
    state = ServerState(Settings())
    assert Peer("memory", "http", state).user is not None
    assert Peer("memory", "http", state, told_user=33).user == 33
    assert Peer("unknown", "http", state).user is None
