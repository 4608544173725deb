"""The reference is whole: every public name, method and attribute says what it is, and is listed.

Strategy: the public packages ("facades") are found by looking, so a new one is held to the same. A
facade's names are those it re-exports as `X as X`, or defines. Classes and their methods are
imported and asked; fields and constants have no docstring at run time, so the string below each is
looked for in the source. The pages of docs/reference/ list names in Sphinx's `auto...` directives.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import h3trio

if TYPE_CHECKING:
    from collections.abc import Iterator

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
DIRECTIVE = re.compile(r"^\.\. auto(?:class|exception|function|data):: ([\w.]+)", re.MULTILINE)
ENTRY = re.compile(r"^ +(\w+): ", re.MULTILINE)


def facades() -> Iterator[str]:
    """Name every package and module that users may import from."""
    yield "h3trio"
    for found in pkgutil.walk_packages(h3trio.__path__, "h3trio."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            yield found.name


FACADES = list(facades())


@cache
def tree(path: Path) -> ast.Module:
    """Parse a source file, once."""
    return ast.parse(path.read_text(encoding="utf-8"))


def source_of(module: str) -> Path:
    """Return the file of a module."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def origins(facade: str) -> dict[str, str]:
    """Map a facade's public names to the modules they are written in."""
    found: dict[str, str] = {}
    for node in tree(source_of(facade)).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            for alias in node.names:
                if alias.asname == alias.name:
                    found[alias.name] = f"{facade}.{node.module}"
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = facade
        else:
            found |= dict.fromkeys(assigned(node), facade)
    return {name: module for name, module in found.items() if not name.startswith("_")}


def assigned(node: ast.stmt, owner: str = "") -> list[str]:
    """Return the names that a statement gives a value or a type: `x = 1`, `x: int`.

    With an `owner` of `self.` those of `self.x = 1`.
    """
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    names = [
        text.removeprefix(owner) for t in targets if (text := ast.unparse(t)).startswith(owner)
    ]
    return [name for name in names if name.isidentifier()]


def described(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, bool]]:
    """Yield each name that these statements assign, and whether a string stands below it."""
    for node, below in zip(body, [*body[1:], ast.Pass()], strict=True):
        is_told = (
            isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        )
        for name in assigned(node, owner):
            yield name, is_told


def attributes(node: ast.ClassDef) -> tuple[set[str], set[str]]:
    """Return the public attributes of a class, from its body and its `__init__`, and those told of.

    A string below tells of one, or a line in the section `Attributes:` of the class's docstring.
    """
    found = list(described(node.body))
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            found += described(method.body, "self.")
    section = (ast.get_docstring(node) or "").partition("\nAttributes:\n")[2]
    told = {name for name, is_told in found if is_told} | set(ENTRY.findall(section))
    return {name for name, _ in found if not name.startswith("_")}, told


def undescribed_attributes(value: type, facade: str) -> set[str]:
    """List the public attributes of a class that neither it nor a base class tells of."""
    all_of_them, all_told = set[str](), set[str]()
    for base in value.__mro__:
        origin = origins(facade).get(base.__name__)
        if origin is not None and base.__module__.startswith(facade):
            body = tree(source_of(origin)).body
            (node,) = (n for n in body if isinstance(n, ast.ClassDef) and n.name == base.__name__)
            found, told = attributes(node)
            all_of_them |= found
            all_told |= told
    return all_of_them - all_told


def undescribed_methods(value: type) -> set[str]:
    """List the public methods and properties of a class that have no docstring of their own.

    Those that override one of a class of Trio or of the standard library inherit its docstring.
    """
    return {
        name
        for base in value.__mro__
        if base.__module__.partition(".")[0] == "h3trio"
        for name, member in vars(base).items()
        if not name.startswith("_")
        and (inspect.isroutine(member) or isinstance(member, property | classmethod | staticmethod))
        and not inspect.getdoc(getattr(value, name))
    }


def undescribed(facade: str) -> list[str]:
    """List what a facade shows and doesn't explain."""
    module, missing = importlib.import_module(facade), set[str]()
    if not module.__doc__:
        missing.add(facade)
    for name, origin in origins(facade).items():
        value = getattr(module, name)
        if inspect.isclass(value):
            members = undescribed_methods(value) | undescribed_attributes(value, facade)
            missing |= {f"{name}.{member}" for member in members}
        if inspect.isclass(value) or inspect.isroutine(value):
            if not value.__doc__ or value.__doc__.startswith(f"{name}("):
                missing.add(name)
        elif not dict(described(tree(source_of(origin)).body)).get(name):
            missing.add(name)
    return sorted(missing)


@pytest.mark.parametrize("facade", FACADES)
def test_everything_public_is_described(facade: str) -> None:
    """Each public name of a facade has a docstring, as has each of its methods and attributes."""
    assert undescribed(facade) == []


def test_everything_public_is_in_the_reference() -> None:
    """The pages of the reference list each public name of each facade, and nothing else."""
    listed = [
        name
        for page in REFERENCE.glob("*.md")
        for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))
    ]
    assert sorted(listed) == sorted(
        f"{facade}.{name}" for facade in FACADES for name in origins(facade)
    )


SOURCE = '''
class Told:
    """A class."""

    field: int
    """A field."""
    bare: int
    _private: int

    def __init__(self) -> None:
        local = 1
        self.own = local
        """An attribute."""
        self.forgotten: int = 2
'''


def test_an_attribute_without_words_would_be_noticed() -> None:
    """A public attribute needs a string below it, in the class's body or in its `__init__`."""
    (told,) = ast.parse(SOURCE).body
    assert isinstance(told, ast.ClassDef)
    found, described_ones = attributes(told)
    assert found - described_ones == {"bare", "forgotten"}
