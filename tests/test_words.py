"""The words of src/: docstrings say what a thing is or does, and measured times stay in docs/.

Strategy: comments are the tokens of a source, docstrings the nodes of its tree. Each rule is a
function from a source to a list of offences, and is also tried on a source that breaks it.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from typing import TYPE_CHECKING, TypeAlias

import pytest
from test_layering import package_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Rule: TypeAlias = "Callable[[str], list[str]]"

# A sentence that begins so is a question or a riddle: it has no subject that does something.
RIDDLE = re.compile(r"(?:What|Who|Whom|Whose|Where|Which)\b")
# Times differ between machines and change with the code; docs/benchmarks.md has them, measured.
MEASURED = re.compile(r"\d ?(?:µs|us|microseconds?)\b")

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of a source, each with the line of what it is of."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments of a source, each with its line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the strings that stand alone: docstrings, and what is said below a field."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.lineno, str(node.value.value)


def riddles(source: str) -> list[str]:
    """Find docstrings that begin with a word that asks."""
    return [f"{line}: {text[:40]}" for line, text in docstrings(source) if RIDDLE.match(text)]


def measured_times(source: str) -> list[str]:
    """Find microseconds in comments and docstrings."""
    told = [*comments(source), *strings(source)]
    return [f"{line}: {found[0]}" for line, text in told for found in MEASURED.finditer(text)]


@pytest.mark.parametrize("rule", [riddles, measured_times])
def test_every_source_keeps_the_rule(rule: Rule) -> None:
    """No docstring is a riddle, and no comment holds a measured time."""
    sources = package_sources()
    assert sources
    offences = [f"{name}:{found}" for name, text in sources.items() for found in rule(text)]
    assert offences == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (riddles, '"""What a server is."""'),
        (riddles, 'def f():\n    """Whose turn it is."""'),
        (riddles, 'class A:\n    async def f(self):\n        """Where it is."""'),
        (measured_times, "x = 1  # took 65 µs"),
        (measured_times, '"""It takes 120 microseconds."""'),
        (measured_times, 'class A:\n    x: int\n    """Some 3us."""'),
    ],
)
def test_a_breach_is_seen(rule: Rule, source: str) -> None:
    """Each rule finds the one offence in a source that breaks it."""
    assert len(rule(source)) == 1


def test_a_good_source_passes() -> None:
    """Words that only look like those, and times that nobody measured, are no offences."""
    source = '"""Whatever is sent."""\nx = 5  # at most 5 ms, by RFC 1\ny = "12 µs"\n'
    assert riddles(source) + measured_times(source) == []
