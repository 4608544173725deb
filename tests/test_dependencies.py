"""No dependency's floor lets in a version with a published vulnerability.

The list is kept by hand, from the advisories of each project, so that the check needs no network. A
dependency without a row fails: whoever adds one looks first.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
NONE = ("", "no advisory published")

# The first version without a known vulnerability that a server or client meets, and why.
ADVISORIES = {
    "h11": ("0.16", "GHSA-vqfr-h8mv-ghfj: chunk endings that smuggle a request"),
    "hiredis": NONE,
    "httpx2": NONE,
    "prometheus-client": NONE,
    "pyjwt": ("2.14", "GHSA-r6x4-923q-g947: a public key taken for the secret of an HMAC"),
    "rich": NONE,
    "trio": NONE,
    "watchfiles": NONE,
}


def floors() -> dict[str, str]:
    """Return what the project and its extras ask for at least."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    declared = [*project["dependencies"], *(line for extra in extras for line in extra)]
    parts = [re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line) for line in declared]
    assert all(parts), declared
    return {found[1].lower(): found[2] for found in parts if found}


def test_the_hub_brings_its_tools() -> None:
    """The extra `hub` brings what each command beside the hub needs, as README says."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    tools = [line for name in ("client", "top", "bench", "metrics") for line in extras[name]]
    assert set(extras["hub"]) == set(tools)


def numbers(version: str) -> list[int]:
    """Return what versions are compared by."""
    return [int(part) for part in version.split(".") if part]


def test_every_dependency_is_looked_after() -> None:
    """Each has a row, and no row is of something else."""
    assert floors().keys() == ADVISORIES.keys()


def test_floors_are_above_known_vulnerabilities() -> None:
    """The least version of each is one without."""
    found = floors()
    low = [name for name, (fixed, _) in ADVISORIES.items() if numbers(found[name]) < numbers(fixed)]
    assert low == []
