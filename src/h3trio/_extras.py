"""`install`: the command that installs an optional part, for errors that name one.

The package is in no index yet: it is installed from a copy of its repository, in whose folder the
command works. With the first release `SOURCE` becomes the package's name, here and in the docs.
"""

from __future__ import annotations

from typing import Final

SOURCE: Final = "."
"""What pip is told to install."""


def install(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install '{SOURCE}[{extra}]'"
