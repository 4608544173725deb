"""The scripts that run in Redis, and the names of what they work on.

Each is a file of `lua/`, with what all share in front of it. There is one for each step that has
to be one: what is checked, counted, removed and told belongs together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from h3trio._redis.values import Script

VERSION: Final = 1
"""The version of the state. One that is newer says which is the oldest that may work with it: an
upgrade goes node by node, and a version that its neighbour can't work with comes in two steps."""

_FOLDER: Final = Path(__file__).with_name("lua")


def _script(name: str) -> Script:
    parts = (_FOLDER / "common.lua", _FOLDER / f"{name}.lua")
    return Script(b"\n".join(path.read_bytes() for path in parts))


RIGHTS: Final = _script("rights")
CONNECT: Final = _script("connect")
APPEND: Final = _script("append")
REMOVE: Final = _script("remove")
FOLLOW: Final = _script("follow")
READ: Final = _script("read")
FIND: Final = _script("find")
PINS: Final = _script("pins")
PROBE: Final = _script("probe")
MEET: Final = _script("meet")
ASK: Final = _script("ask")


def state_key(prefix: str) -> str:
    """Return the key of the state; all others have the same hash tag, and so the same slot."""
    return f"{{{prefix}}}:state"


def channel_of(prefix: str, db: int) -> str:
    """Return the channel's name. Publishing ignores databases, so it has the number of this one."""
    return f"{{{prefix}}}:{db}:messages"


def questions_of(prefix: str, db: int) -> str:
    """Return the channel of nodes' questions; that of answers to a node has its word behind it."""
    return f"{{{prefix}}}:{db}:nodes"
