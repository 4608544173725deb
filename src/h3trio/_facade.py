"""`own`: makes the names that a public package re-exports its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def own(names: Mapping[str, object], facade: str) -> None:
    """Make classes and functions say that they live where users import them from.

    A traceback, a pickle and a page of documentation then name `h3trio.SSEEvent`,
    not the private module.
    """
    for value in names.values():
        if getattr(value, "__module__", "").startswith(f"{facade}._"):
            value.__module__ = facade
