"""Scripts that pages load, out of the packages that have them: kept with pytest's cache.

Nothing of a package is run here: its own install scripts are switched off, or it is only unpacked.
Tests run in several processes, so a package is put into a folder of its own and then renamed.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.process import PATIENCE
from tools import missing, require_tool

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

DATASTAR: Final = "starhtml/static/js/datastar-core.js"
"""Datastar 1.0.1, with two small changes for that package. Of 1.0 npm has a beta alone, with
other events."""


def npm_modules(config: pytest.Config, name: str, version: str) -> Path:
    """Install a package of npm; return the folder `node_modules` that it is in."""

    def install(folder: Path) -> None:
        command = (require_tool("npm"), "install", "--prefix", str(folder), "--ignore-scripts")
        _run(name, *command, "--no-audit", "--no-fund", f"{name}@{version}")

    return _kept(config, f"{name}-{version}", install) / "node_modules"


def datastar(config: pytest.Config) -> Path:
    """Return the path of Datastar's script."""

    def unpack(folder: Path) -> None:
        # It isn't for each of our versions of Python, and nothing of it is run.
        download = (require_tool("pip3"), "download", "--no-deps", "--only-binary=:all:")
        _run("starhtml", *download, "--python-version=3.13", "-d", str(folder), "starhtml==0.7.0")
        (wheel,) = folder.glob("starhtml-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(DATASTAR, folder)

    return _kept(config, "datastar-1.0.1", unpack) / DATASTAR


def _kept(config: pytest.Config, name: str, fill: Callable[[Path], None]) -> Path:
    """Return a folder that was filled once; `-p no:cacheprovider` keeps it for this run alone."""
    cache: pytest.Cache | None = getattr(config, "cache", None)
    parent = Path(_scratch().name) if cache is None else cache.mkdir("h3trio-packages")
    kept = parent / name.replace("/", "-")
    if not kept.is_dir():
        with tempfile.TemporaryDirectory(dir=parent) as made:
            fill(folder := Path(made) / "filled")
            # Another process may have been quicker.
            with contextlib.suppress(OSError):
                folder.replace(kept)
    return kept


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="h3trio-packages-")


def _run(name: str, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        missing(f"{name} can't be had: {done.stderr[-200:]}")
