"""How Sphinx makes a site of the Markdown pages: `nox -s docs`.

Strategy: the pages are plain Markdown, with links that a forge follows as well. So the source
folder is the repository's root and the site has its layout: a link to ../README.md or to a program
under examples/ is true in both. What plain Markdown can't say is added here when a page is read:
the tables of contents, in `DRAWERS`, find pages by patterns, so that a new one needs no entry.

Nothing is fetched: no inventories of other projects, no fonts.
"""

from __future__ import annotations

import pkgutil
import re
from typing import TYPE_CHECKING, Final

from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer

import h3trio

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "h3trio"
author = "The h3trio authors"
copyright = "the h3trio authors"  # noqa: A001 - Sphinx's name for it
release = version = h3trio.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]

# -- the pages

root_doc = "docs/index"
include_patterns = ["*.md", "*/README.md", "docs/**"]
# Folders that hold no page aren't walked.
exclude_patterns = [".*", "build", "dist", "changes", "src", "docs/_templates"]
templates_path = ["_templates"]
html_additional_pages = {"index": "redirect.html"}
html_theme = "furo"
html_title = f"h3trio {release}"
html_copy_source = False

DRAWERS: Final = {
    "Tutorial": ["docs/tutorial/*"],
    "How-to": ["docs/how-to/index", "docs/how-to/*"],
    "Coming from": ["docs/how-to/coming-from/index", "docs/how-to/coming-from/*"],
    "Reference": [
        *(f"docs/reference/{page}" for page in ("index", "supported", "h3trio", "hub", "client")),
        *(f"docs/reference/{page}" for page in ("hubserver", "testing", "command-line", "*")),
    ],
    "Explanation": ["docs/explanation/*", "docs/*"],
    "Project": ["README", "examples/README", "CHANGELOG", "*", "*/README"],
}
"""The caption of each table of contents, and the pages in it."""

# GitHub's and GitLab's anchors for headings, down to `###`.
myst_heading_anchors = 3


def add_contents(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Append the hidden tables of contents to the first page."""
    if docname == root_doc:
        source[0] += "".join(
            f"\n\n```{{toctree}}\n:caption: {caption}\n:hidden:\n:glob:\n\n"
            + "\n".join(f"/{page}" for page in pages)
            + "\n```\n"
            for caption, pages in DRAWERS.items()
        )


# -- the reference

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 80
# Every page's contents would carry every name: that takes as long as half of the rest.
toc_object_entries = False
# A single backquote in a docstring: a link where there is such a name, code otherwise.
default_role = "py:obj"

NOT_MADE_BY_USERS: Final = {
    f"h3trio.{name}"
    for name in (
        "H3Event",
        "SSEWriter",
        "Server",
        "client.EventSourceStatistics",
        "hub.EventChannel",
        "hub.Subscription",
        "testing.Client",
    )
}
"""Classes whose objects come from h3trio: how they are made is nobody's business."""


def hide_signature(
    _app: Sphinx,
    _what: str,
    name: str,
    _obj: object,
    _options: object,
    _signature: str | None,
    _returned: str | None,
) -> tuple[str, str] | None:
    """Show no arguments for what only h3trio makes, and for the values of an enumeration."""
    return ("", "") if name in NOT_MADE_BY_USERS else None


def read_docstring(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Turn the Google style into reStructuredText.

    As an extension, napoleon takes the words before a colon in a property's docstring for its
    type, and leaves its `Raises:` alone. Hence the class alone.
    """
    lines[:] = GoogleDocstring(lines, what="method").lines()


def find_docstrings_of_attributes() -> None:
    """Tell Sphinx where the doors' names come from.

    They call themselves `h3trio.Settings`, so it looks into `h3trio/__init__.py` for the strings
    below their fields.
    """
    packages = [h3trio.__name__] + [
        found.name for found in pkgutil.iter_modules(h3trio.__path__, "h3trio.") if found.ispkg
    ]
    for package in packages:
        door = ModuleAnalyzer.for_module(package)
        door.analyze()
        for name in re.findall(r"^from (\._[\w.]+) import", door.code, re.MULTILINE):
            room = ModuleAnalyzer.for_module(package + name)
            room.analyze()
            door.attr_docs.update(room.attr_docs)
            door.annotations.update(room.annotations)
            door.tagorder.update(room.tagorder)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is above; say that pages may be read and written by several processes."""
    find_docstrings_of_attributes()
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", hide_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
