"""`user_of`: the user that a peer on this machine runs as, asked of the kernel.

A unix socket knows who connected it (`SO_PEERCRED`, unix(7)). Of a TCP connection over loopback the
other end is a socket of this machine too: `NETLINK_SOCK_DIAG` (sock_diag(7)) finds it by its two
addresses and ports, without privileges and without waiting: the answer is there when the question
is sent.

Only a socket that some program still holds has an owner. One that was closed already is reported as
root's, and has no inode. So an answer counts only with an inode, with the very addresses that were
asked for (without a connection the kernel may answer with a listener), and in a state in which
there is a connection. Everything else is no answer: another operating system, a sandbox without
netlink, a network namespace that isn't ours.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Final, Protocol

from .addresses import parse_address

if TYPE_CHECKING:
    import ipaddress

# user_namespaces(7): a user without a number in our user namespace is shown as this one, and many
# services share it. Who it is, nobody can say.
_NOBODY: Final = 65534

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h: the module `socket` has none of them.
_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST: Final = 1  # NLM_F_REQUEST; without NLM_F_DUMP one socket is looked up
_ANY_STATE: Final = 0xFFFFFFFF
_NO_COOKIE: Final = 0xFFFFFFFF
# nlmsghdr: length, type, flags, sequence number, port.
_HEADER: Final = struct.Struct("=IHHII")
# inet_diag_req_v2 up to the addresses: family, protocol, extensions, padding, states.
_ASKED: Final = struct.Struct("=BBBxI")
# inet_diag_sockid: both ports and both addresses, in network order; then interface and cookie.
_ID: Final = struct.Struct("!HH16s16s")
_ID_REST: Final = struct.Struct("=III")
# inet_diag_msg: family, state, timer, retransmits; the id; expires, both queues, user, inode.
_STATE: Final = struct.Struct("=xBxx")
_OWNER: Final = struct.Struct("=12xII")
_ANSWER_SIZE: Final = _HEADER.size + _STATE.size + _ID.size + _ID_REST.size + _OWNER.size
_RECEIVE: Final = 4096
# linux/tcp_states.h: established, both kinds of FIN-WAIT, CLOSE-WAIT, LAST-ACK, CLOSING. Not
# SYN-SENT: another program may ask for the same ports once the peer is gone.
_CONNECTED: Final = frozenset({1, 4, 5, 8, 9, 11})
# struct ucred: process, user, group.
_CREDENTIALS: Final = struct.Struct("=iII")


class PeerSocket(Protocol):
    """The methods of a socket that are needed here: the standard library's and Trio's have them."""

    @property
    def family(self) -> int: ...

    def getsockname(self) -> Any: ...  # noqa: ANN401 - each family has its own

    def getpeername(self) -> Any: ...  # noqa: ANN401 - same

    def getsockopt(self, level: int, option: int, buflen: int, /) -> bytes: ...


def open_netlink() -> socket.socket | None:
    """Open the socket by which the kernel is asked about TCP; `None` where there is none.

    A server keeps one: it must be able to ask when it has no descriptor left.
    """
    if sys.platform != "linux":
        return None
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)
    except OSError:  # a sandbox without netlink
        return None


def user_of(sock: PeerSocket, netlink: socket.socket | None) -> int | None:
    """Return the effective user id of the program at the other end of a connected socket.

    Of a unix socket it is the one of when that program connected.

    Args:
        sock: the connection.
        netlink: from `open_netlink`; without one there is no answer about TCP.

    Returns:
        The user id; `None` where the kernel doesn't say it, or the peer is on another machine.
    """
    if sys.platform != "linux":
        return None
    try:
        if sock.family == socket.AF_UNIX:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            user: int | None = _CREDENTIALS.unpack(raw)[1]
        elif netlink is None:
            user = None
        else:
            user = _user_over_loopback(sock.getpeername(), sock.getsockname(), netlink)
    except OSError:  # closed
        return None
    return None if user == _NOBODY else user


def _user_over_loopback(
    peer: tuple[Any, ...], own: tuple[Any, ...], netlink: socket.socket
) -> int | None:
    theirs, ours = parse_address(str(peer[0])), parse_address(str(own[0]))
    if theirs is None or ours is None or theirs.version != ours.version or not theirs.is_loopback:
        return None
    is_v4 = theirs.version == 4  # noqa: PLR2004 - of the protocol
    family = socket.AF_INET if is_v4 else socket.AF_INET6
    # Seen from the other end: theirs is the source.
    found = _ID.pack(peer[1], own[1], theirs.packed, ours.packed)
    ids = {found}
    if is_v4:
        # A socket for IPv6 may speak IPv4, and then writes its addresses so.
        ids.add(_ID.pack(peer[1], own[1], _mapped(theirs), _mapped(ours)))
    asked = b"".join(
        (
            _ASKED.pack(family, socket.IPPROTO_TCP, 0, _ANY_STATE),
            found,
            _ID_REST.pack(0, _NO_COOKIE, _NO_COOKIE),
        )
    )
    head = _HEADER.pack(_HEADER.size + len(asked), _BY_FAMILY, _REQUEST, 0, 0)
    netlink.send(head + asked)
    # Were it the answer to an earlier question, it would be about other addresses.
    return read_answer(netlink.recv(_RECEIVE, socket.MSG_DONTWAIT), ids)


def _mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    return b"\0" * 10 + b"\xff\xff" + address.packed


def read_answer(answer: bytes, ids: set[bytes]) -> int | None:
    """Read the user out of an answer of sock_diag to a question for one socket.

    Args:
        answer: one netlink message.
        ids: the beginnings of an `inet_diag_sockid` that mean this socket.
    """
    if len(answer) < _ANSWER_SIZE or _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        return None  # NLMSG_ERROR: there is no such socket
    at = _HEADER.size
    (state,) = _STATE.unpack_from(answer, at)
    at += _STATE.size
    is_it = answer[at : at + _ID.size] in ids
    user, inode = _OWNER.unpack_from(answer, at + _ID.size + _ID_REST.size)
    return int(user) if is_it and inode and state in _CONNECTED else None
