"""The files of deploy/ as what they are: units, a Dockerfile, a manifest of Kubernetes."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
DEPLOY: Final = ROOT / "deploy"


def unit(name: str) -> dict[str, list[str]]:
    """Read a unit: the values of each key, whatever the section."""
    values: dict[str, list[str]] = defaultdict(list)
    for line in (DEPLOY / "systemd" / name).read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values[key].append(value)
    return values


def dockerfile() -> list[tuple[str, list[str]]]:
    """Read the Dockerfile: each instruction with its words.

    Raises:
        ValueError: a command isn't in the exec form, and would get a shell around it.
    """
    text = (DEPLOY / "docker" / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    steps: list[tuple[str, list[str]]] = []
    for line in filter(None, text.splitlines()):
        name, _, rest = line.partition(" ")
        if name in ("RUN", "ENTRYPOINT", "CMD", "HEALTHCHECK"):
            steps.append((name, json.loads(rest[rest.index("[") :])))
        else:
            steps.append((name, shlex.split(rest)))
    return steps


def image_environ() -> dict[str, str]:
    """Return the variables that the image sets."""
    words = [word for name, words in dockerfile() if name == "ENV" for word in words]
    return dict(word.split("=", 1) for word in words)


@cache
def documents() -> list[dict[str, Any]]:
    """Read the manifest: its documents."""
    text = (DEPLOY / "kubernetes" / "h3trio.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load_all(text))


def manifest(kind: str) -> dict[str, Any]:
    """Return the one document of the manifest that is of this kind."""
    (found,) = [document for document in documents() if document["kind"] == kind]
    return found
