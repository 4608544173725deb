"""The public names, frozen: adding or taking one away is a decision, made here too."""

from __future__ import annotations

import types

from tables import table

import h3trio

EXPECTED = {
    "App",
    "CORS",
    "CloseReason",
    "Closing",
    "EventTooLargeError",
    "H3Event",
    "HTTPError",
    "Response",
    "ResponseStateError",
    "SSEEvent",
    "SSEParser",
    "SSEWriter",
    "Server",
    "ServerStatistics",
    "Settings",
    "StreamWriter",
    "TrustedProxies",
    "WriterStatistics",
    "serve",
}


def public_names() -> set[str]:
    """List what `import h3trio` offers: everything without an underscore but our own modules."""
    return {
        name
        for name, value in vars(h3trio).items()
        # "@": what pytest adds to the package of a plugin, to explain its assertions
        if not name.startswith(("_", "@"))
        and name != "annotations"  # what `from __future__ import annotations` leaves behind
        and not (isinstance(value, types.ModuleType) and value.__name__ == f"h3trio.{name}")
    }


def test_public_names_are_the_expected_ones() -> None:
    """Exactly the frozen list of names is public, and no import leaks out of the door."""
    assert public_names() == EXPECTED


def test_all_agrees_if_there_is_one() -> None:
    """`from h3trio import *` gives the same names."""
    assert set(getattr(h3trio, "__all__", EXPECTED)) == EXPECTED


@table("name", sorted(EXPECTED))
def test_public_name_says_where_to_import_it_from(name: str) -> None:
    """Each public name calls itself `h3trio.<name>`, in tracebacks, reprs and pickles."""
    value = getattr(h3trio, name)
    assert (value.__module__, value.__qualname__) == ("h3trio", name)


@table("name", sorted(EXPECTED))
def test_public_name_has_a_docstring(name: str) -> None:
    """Each public name is documented, in words that no base class or decorator wrote for it."""
    doc = getattr(h3trio, name).__doc__ or ""
    assert doc.strip()
    assert not doc.startswith(f"{name}(")
