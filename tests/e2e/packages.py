"""Scripts that pages load, out of the packages that have them: kept with pytest's cache.

Nothing of a package is run here: its own install scripts are switched off, or it is only unpacked.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.process import PATIENCE
from tools import missing, require_tool

if TYPE_CHECKING:
    import pytest

DATASTAR: Final = "starhtml/static/js/datastar-core.js"
"""Datastar 1.0.1, with two small changes for that package. Of 1.0 npm has a beta alone, with
other events."""


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="h3trio-packages-")


def npm_modules(config: pytest.Config, name: str, version: str) -> Path:
    """Install a package of npm; return the folder `node_modules` that it is in."""
    folder = _folder(config, f"{name}-{version}")
    if not (folder / "node_modules" / name / "package.json").is_file():
        install = (require_tool("npm"), "install", "--prefix", str(folder), "--ignore-scripts")
        _run(name, *install, "--no-audit", "--no-fund", f"{name}@{version}")
    return folder / "node_modules"


def datastar(config: pytest.Config) -> Path:
    """Return the path of Datastar's script."""
    folder = _folder(config, "datastar-1.0.1")
    if not (folder / DATASTAR).is_file():
        # It is not for each of our versions of Python, and nothing of it is run.
        download = (require_tool("pip3"), "download", "--no-deps", "--only-binary=:all:")
        _run("starhtml", *download, "--python-version=3.13", "-d", str(folder), "starhtml==0.7.0")
        (wheel,) = folder.glob("starhtml-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(DATASTAR, folder)
    return folder / DATASTAR


def _folder(config: pytest.Config, name: str) -> Path:
    """Make a folder, which is kept where there is a cache (`-p no:cacheprovider` has none)."""
    cache: pytest.Cache | None = getattr(config, "cache", None)
    name = name.replace("/", "-")
    folder = Path(_scratch().name) / name if cache is None else cache.mkdir(name)
    folder.mkdir(exist_ok=True)
    return folder


def _run(name: str, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        missing(f"{name} can't be had: {done.stderr[-200:]}")
