"""A virtual cable from this machine's network to a namespace, to be unplugged."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tools import missing, require_tool

if TYPE_CHECKING:
    from collections.abc import Generator


class Cable(NamedTuple):
    """A virtual cable from here to a namespace."""

    namespace: str
    here: str
    address: str

    def unplug(self) -> None:
        """Let nothing through any more, in either direction; nobody is told."""
        ip("link", "set", self.here, "down")

    def plug(self) -> None:
        """Let all through again."""
        ip("link", "set", self.here, "up")

    @property
    def inside(self) -> tuple[str, ...]:
        """What stands in front of a command that is to run in the namespace."""
        return (require_tool("ip"), "netns", "exec", self.namespace)


def ip(*words: str) -> None:
    """Run `ip`."""
    subprocess.run([require_tool("ip"), *words], check=True, capture_output=True)


@contextmanager
def plugged_cable() -> Generator[Cable]:
    """Make a namespace and a cable into it, with names and addresses of this run alone."""
    require_tool("ip")
    number = os.getpid() % 60_000
    name = f"h3t{number}"
    # Of the range for tests between networks, RFC 2544: nobody's address.
    prefix = f"198.18.{number % 250}"
    found = Cable(name, f"{name}a", f"{prefix}.1")
    try:
        try:
            ip("netns", "add", name)
            ip("link", "add", found.here, "type", "veth", "peer", "name", f"{name}b", "netns", name)
        except subprocess.CalledProcessError as exc:
            missing(f"no network namespace can be made: {exc.stderr.decode().strip()}")
        ip("address", "add", f"{prefix}.1/24", "dev", found.here)
        ip("link", "set", found.here, "up")
        ip("-n", name, "address", "add", f"{prefix}.2/24", "dev", f"{name}b")
        ip("-n", name, "link", "set", f"{name}b", "up")
        yield found
    finally:
        for words in (("link", "delete", found.here), ("netns", "delete", name)):
            subprocess.run([require_tool("ip"), *words], check=False, capture_output=True)
