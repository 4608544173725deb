"""`small_disk`: a file system of some megabytes, in memory, and a program that fills it."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tools import missing, require_tool

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@contextmanager
def small_disk(folder: Path, size: int) -> Generator[Path]:
    """Mount one of so many bytes; skip the test where that isn't possible."""
    if os.geteuid() != 0:
        missing("mounting a small disk takes root")
    mount, unmount = require_tool("mount"), require_tool("umount")
    folder.mkdir()
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        missing(f"a small disk can't be mounted: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run([unmount, "--lazy", str(folder)], check=True)


def free(folder: Path) -> int:
    """Return the free bytes of a disk."""
    figures = os.statvfs(folder)
    return figures.f_bavail * figures.f_frsize


def occupy(folder: Path, *, leave: int) -> Path:
    """Let another program fill the disk."""
    file = folder / "other"
    with file.open("wb") as other:
        os.posix_fallocate(other.fileno(), 0, free(folder) - leave)
    return file
