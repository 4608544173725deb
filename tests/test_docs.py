"""The documentation is true: its code runs, its commands parse, its tables are those of the code.

Strategy: a page is read as text, and each kind of statement in it is held against its source: code
against the files under examples/ (which tests/test_examples.py runs), commands against the command
line's own parser, limits against `Settings`, names against the package's facade.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
import textwrap
import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import h3trio
from h3trio._cli.main import COMMANDS, load
from h3trio._cli.options import Options
from h3trio._extras import SOURCE, install
from h3trio.hub import MemoryHistory, RedisHistory, SQLiteHistory
from h3trio.hub._history.record import CURSOR, RESET
from h3trio.hubserver import Retention, create_app
from h3trio.runs import Runs, RunsSettings, RunState
from h3trio.testing import connect

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[1]
PACKAGE = Path(h3trio.__file__).parent  # of the wheel, where that is tested
DOCS = ROOT / "docs"
EXAMPLES = sorted(ROOT.glob("examples/**/*.py"))
READMES = [ROOT / "README.md", ROOT / "examples" / "README.md", ROOT / "deploy" / "README.md"]
PAGES = [*READMES, *sorted(DOCS.rglob("*.md"))]

SHELL = ("console", "sh", "bash", "shell")
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`(python -m h3trio [^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def page_id(page: Path) -> str:
    """Name a page in test ids."""
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=page_id)


def blocks(text: str, *languages: str) -> Iterator[str]:
    """Yield the fenced blocks in these languages, without the indentation they stand in."""
    for _indent, language, content in FENCE.findall(text):
        if language in languages:
            yield textwrap.dedent(content).strip("\n")


# -- code


def occurs(snippet: str, source: str) -> bool:
    """Tell whether a snippet is some consecutive lines of a source, which may be indented more."""
    lines, size = source.splitlines(), len(snippet.splitlines())
    first = snippet.partition("\n")[0]
    windows = (
        "\n".join(lines[at : at + size])
        for at in range(len(lines) - size + 1)
        if first in lines[at]
    )
    return any(textwrap.dedent(window) == snippet for window in windows)


def without_docstrings(source: str) -> str:
    """Drop the docstrings of functions: a page may say in its own words what one does."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            docstring = node.body[0]
            for at in range(docstring.lineno - 1, docstring.end_lineno or 0):
                lines[at] = "\0"
    return "\n".join(line for line in lines if line != "\0")


@cache
def sources() -> list[str]:
    """Return the code of the examples, with the functions' docstrings and without."""
    whole = [path.read_text(encoding="utf-8") for path in EXAMPLES]
    return [*whole, *map(without_docstrings, whole)]


def is_in_an_example(snippet: str) -> bool:
    """Tell whether a snippet is code of an example."""
    return any(occurs(snippet, source) for source in sources())


@every_page
def test_python_is_code_of_an_example(page: Path) -> None:
    """Each Python block of a page occurs line for line in a file that the tests run."""
    for snippet in blocks(page.read_text(encoding="utf-8"), "python", "py"):
        assert is_in_an_example(snippet), snippet


def test_scripts_of_the_page_for_browsers_are_those_of_the_examples() -> None:
    """Each block of script and HTML on that page stands in a page that the tests open."""
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.html")]
    snippets = list(blocks((DOCS / "how-to" / "browser.md").read_text("utf-8"), "js", "html"))
    # That of fetch-event-source is run as it stands there, with the package: see e2e.
    snippets = [one for one in snippets if "fetchEventSource(" not in one]
    assert len(snippets) > 5
    assert [one for one in snippets if not any(occurs(one, page) for page in pages)] == []


def test_other_python_would_be_noticed() -> None:
    """A snippet counts only if each line of it is there, in order, with nothing in between."""
    source = 'async def f() -> None:\n    """Wait."""\n    await a()\n    await b()\n'
    assert occurs("await a()\nawait b()", source)
    assert occurs("async def f() -> None:\n    await a()", without_docstrings(source))
    assert not occurs("async def f() -> None:\n    await a()", source)
    assert not occurs("await b()\nawait a()", source)
    assert not occurs("await a() ", source)
    assert list(blocks("```python\na\n```\n  ```py\n  b\n  ```\n", "python", "py")) == ["a", "b"]


# -- commands


def commands(line: str) -> Iterator[Sequence[str]]:
    """Yield the arguments of each `python -m h3trio` in a line of shell."""
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in (";", "&", "&&", "|", "||"):
            words.append(word)
            continue
        while words and "=" in words[0]:
            del words[0]
        if ">" in words:
            del words[words.index(">") :]
        if words[1:3] == ["-m", "h3trio"] and Path(words[0]).name == "python":
            yield words[3:]
        words = []


@cache
def parser_of_all() -> Options:
    """Make a parser with what the modules of the commands say of their arguments."""
    parser = Options(prog="h3trio")
    subparsers = parser.add_subparsers(required=True, parser_class=Options)
    for command in COMMANDS:
        load(command).add_arguments(subparsers.add_parser(command))
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command's arguments.

    Raises:
        SystemExit: they are wrong.
    """
    return parser_of_all().parse_args(arguments)


def check_command(arguments: Sequence[str]) -> None:
    """See that a command's arguments are right, and that the example it names is there."""
    path, _, attribute = (getattr(parse(arguments), "app", None) or "").partition(":")
    if path.startswith("examples/"):
        assert (ROOT / path).is_file(), path
        assert attribute == "app"


@every_page
def test_command_is_understood(page: Path) -> None:
    """Each `python -m h3trio` in shell blocks and code spans has flags and examples that exist."""
    text = page.read_text(encoding="utf-8")
    shell = re.sub(r"\\\n *", "", "\n".join(blocks(text, *SHELL))).splitlines()
    for line in [*shell, *SPAN.findall(text)]:
        for arguments in commands(line):
            check_command(arguments)


@pytest.mark.parametrize("path", EXAMPLES, ids=page_id)
def test_command_of_an_example_is_understood(path: Path) -> None:
    """Each `python -m h3trio` in an example's docstring has flags and examples that exist."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or ""
    for line in re.findall(r"^    (.+)$", docstring, re.MULTILINE):
        for arguments in commands(line):
            check_command(arguments)


def test_wrong_command_would_be_noticed() -> None:
    """A command is found behind others and behind variables, and a flag too many ends it."""
    line = "$ pip install . && A=1 /opt/bin/python -m h3trio serve --port 0 > log | cat"
    assert list(commands(line)) == [["serve", "--port", "0"]]
    for wrong in (["serve", "--no-such-flag"], ["serve", "--port", "x"], ["no-such-command"]):
        with pytest.raises(SystemExit):
            check_command(wrong)
    with pytest.raises(AssertionError):
        check_command(["serve", "examples/no_such_file.py:app"])


# -- links


def slug(heading: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link leads to a file, and its anchor to a heading in it."""
    for path, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / path) if path else page
        assert target.exists(), path
        if anchor:
            text = target.read_text(encoding="utf-8")
            assert anchor in map(slug, re.findall(r"^#+ (.+)$", text, re.MULTILINE)), anchor


def test_index_leads_to_every_page() -> None:
    """Whoever begins at the index of docs/ finds every page of it."""
    found, new = set[Path](), {DOCS / "index.md"}
    while new:
        page = new.pop()
        found.add(page)
        links = LINK.findall(page.read_text(encoding="utf-8"))
        pages = {(page.parent / path).resolve() for path, _ in links if path.endswith(".md")}
        new |= {page for page in pages - found if DOCS in page.parents}
    assert set(DOCS.rglob("*.md")) <= found


SHOWN_BY = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_each_threat_is_shown_by_tests_that_exist() -> None:
    """Every row of the tables of docs/security.md names a test, and every test is there."""
    text = (DOCS / "security.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "threat |" not in line]
    assert len(rows) > 30
    assert [row for row in rows if not SHOWN_BY.search(row)] == []
    missing = [
        f"{path}::{name}"
        for path, name in SHOWN_BY.findall(text)
        if f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8")
    ]
    assert missing == []


TOLD_TO_BE_REPLAYED = re.compile(r"`reset`|first=oldest|--first oldest")


def test_retention_is_named_wherever_replay_is() -> None:
    """A page that tells of replay or its gaps leads to what is kept."""
    # The flags, the page itself, and the test kit's way for a connection to end.
    lists = ("reference/command-line.md", "how-to/resume.md", "how-to/testing.md")
    others = [page for page in PAGES if page not in [DOCS / name for name in lists]]
    telling = [page for page in others if TOLD_TO_BE_REPLAYED.search(page.read_text("utf-8"))]
    assert len(telling) > 8
    leads = [page for page in telling if "resume.md#what-is-kept" in page.read_text("utf-8")]
    assert leads == telling


def test_defaults_of_retention_are_true() -> None:
    """The page on resuming says how much each history keeps, and every flag for more."""
    text = (DOCS / "how-to" / "resume.md").read_text(encoding="utf-8")
    told = text.partition("## What is kept")[2].partition("\n## ")[0]
    for history in (MemoryHistory, SQLiteHistory, RedisHistory):
        defaults = inspect.signature(history).parameters
        events, size = (defaults[name].default for name in ("max_events", "max_bytes"))
        unit = "GiB" if size >= 2**30 else "MiB"
        assert f"{events:,} events, {size // 2 ** (30 if unit == 'GiB' else 20)} {unit}" in told
    for field in fields(Retention):
        assert f"--{field.name.replace('_', '-')}" in told


@pytest.mark.parametrize("path", EXAMPLES, ids=page_id)
def test_example_of_a_hub_says_what_it_keeps(path: Path) -> None:
    """The docstring of each program with a hub says how many events that keeps."""
    code = path.read_text(encoding="utf-8")
    if re.search(r"\bHub\(|create_app\(hub|\"--store\"", code):
        assert re.search(r",000\sevents", ast.get_docstring(ast.parse(code)) or "")


def test_examples_readme_names_every_example() -> None:
    """The list of examples is complete."""
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    alone = {path.stem for path in EXAMPLES if path.parent.name == "examples"}
    assert set(re.findall(r"\[`(\w+)`\]", text)) == alone
    folders = {path.parent.name for path in EXAMPLES} - {"examples"}
    assert set(re.findall(r"\[`(\w+)/`\]", text)) == folders


# -- tables


def shown(name: str, value: float | None) -> str:
    """Write a setting's value as the page does."""
    if value is None:
        return "none"
    if name.endswith("_jitter"):
        return f"± {value:.0%}"
    if name.endswith("_bytes") or name == "notsent_lowat":
        mebibytes, rest = divmod(value, 2**20)
        return f"{value / 2**10:g} KiB" if rest else f"{mebibytes:g} MiB"
    if name.endswith("_rate"):
        return f"{value:g} B/s"
    return f"{value:,}" if isinstance(value, int) else f"{value:g} s"


def test_settings_are_documented_with_their_defaults() -> None:
    """The page on the server's behaviour has a row for each setting, with its true default."""
    text = (DOCS / "reference" / "server-behavior.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+?) \| [^|]+ \|$", text, re.MULTILINE)
    defaults = h3trio.Settings()
    names = [field.name for field in fields(h3trio.Settings)]
    expected = {name: shown(name, getattr(defaults, name)) for name in names}
    assert dict(rows) == expected


def test_limits_of_runs_are_documented_with_their_defaults() -> None:
    """The page on runs has a row for each of their limits, with its true default."""
    text = (DOCS / "how-to" / "runs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+?) \| [^|]+ \|$", text, re.MULTILINE)
    arguments = inspect.signature(Runs).parameters
    defaults: dict[str, float | None] = {
        name: arguments[name].default for name in ("retain", "cancel_unwatched_after")
    }
    defaults |= {field.name: getattr(RunsSettings(), field.name) for field in fields(RunsSettings)}
    told = {name: value for name, value in rows if name not in list(RunState)}
    assert told == {name: shown(name, value) for name, value in defaults.items()}


LIMIT_ROW = re.compile(r"^\| `(\w+)` \| (`--[^|]+?) \| (?:\d{3}|-) \| [^|]+ \|$", re.MULTILINE)


def test_limits_are_documented_with_their_flags() -> None:
    """The table of what happens at a limit has a row for each setting, with all its flags."""
    rows = LIMIT_ROW.findall(
        (DOCS / "reference" / "server-behavior.md").read_text(encoding="utf-8")
    )
    parser = Options()
    parser.add_settings()
    told = {name: re.findall(r"--[\w-]+", flags) for name, flags in rows}
    flags = {action.dest: action.option_strings for action in parser._actions}  # noqa: SLF001 - argparse names its options nowhere else
    assert told == {field.name: flags[field.name] for field in fields(h3trio.Settings)}


def test_statuses_are_documented() -> None:
    """Every status of an error that the sources name is in the table on the server's behaviour."""
    named = {
        status
        for path in Path(h3trio.__path__[0]).rglob("*.py")
        for status in re.findall(r"(?:HTTPError|ProtocolError)\((\d{3})", path.read_text("utf-8"))
    }
    text = (DOCS / "reference" / "server-behavior.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}(?:, \d{3})*) \|", text, re.MULTILINE)
    assert named - {"500"} <= {status for row in rows for status in row.split(", ")} - {"500"}
    assert len(named) > 12


HUB_SOURCES = "".join(
    path.read_text("utf-8") for path in sorted((PACKAGE / "hubserver").rglob("*.py"))
)
HUB_PAGE = (DOCS / "reference" / "hub-http.md").read_text(encoding="utf-8")


def test_routes_of_the_hub_are_documented() -> None:
    """The page on the hub's HTTP API has each route that the hub server's sources register."""
    found = re.findall(r"app\.(get|post|delete|put|patch)\(f?\"([^\"]+)\"\)", HUB_SOURCES)
    routes = {f"{method.upper()} {path}" for method, path in found}
    assert {"GET /events", "POST /events/*", "GET /static/{name}"} <= routes
    shown = {route.replace("*", "TOPIC").replace("{name}", "NAME") for route in routes}
    assert {route for route in shown if f"`{route}`" not in HUB_PAGE} == set()


@pytest.mark.parametrize(
    "asked",
    [
        *("GET /events", "GET /events/TOPIC", "POST /events/TOPIC", "DELETE /events/TOPIC"),
        "GET /statistics",
    ],
)
async def test_parameters_of_the_hub_are_documented(asked: str) -> None:
    """The row of an endpoint names each parameter that the endpoint itself says it knows."""
    method, _, path = asked.partition(" ")
    rows = re.findall(r"^\| (`(?:GET|POST|DELETE) /.+?`) \| (`\w+`.*) \|$", HUB_PAGE, re.MULTILINE)
    (told,) = (what for which, what in rows if f"`{asked}`" in which)
    async with connect(create_app(), f"{path}?no_such_parameter=1", method=method) as client:
        assert client.status == 400
        refusal = (await client.body()).decode()
    known = refusal.partition("there is: ")[2].strip()
    assert known
    names = set() if known == "none" else set(known.split(", "))
    assert names <= set(re.findall(r"`(\w+)`", told))


def test_statuses_of_the_hub_are_documented() -> None:
    """The page on the hub's HTTP API has a row for each status that the hub server names."""
    named = set(re.findall(r"(?:HTTPError\(|_answer\(|status=)(\d{3})\b", HUB_SOURCES))
    assert {"304", "401", "503"} <= named
    rows = re.findall(r"^\| (\d{3}(?:, \d{3})*) \|", HUB_PAGE, re.MULTILINE)
    assert named <= {status for row in rows for status in row.split(", ")}


def test_types_and_reasons_of_the_hub_are_documented() -> None:
    """The page on the hub's HTTP API has the hub's own types, and each reason of a `reset`."""
    replay = (PACKAGE / "hub/_fanout/replay.py").read_text("utf-8")
    reasons = set(re.findall(r"_tell_reset\(\w+, \"(\w+)\"", replay))
    assert len(reasons) == 4
    assert {name for name in {CURSOR, RESET, *reasons} if f"`{name}`" not in HUB_PAGE} == set()


def test_close_reasons_are_documented() -> None:
    """The page on the server's behaviour has a row for each reason of a stream's end."""
    text = (DOCS / "reference" / "server-behavior.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", text, re.MULTILINE)
    assert set(rows) == set(h3trio.CloseReason)


def test_command_line_is_that_of_the_parsers() -> None:
    """The page on the command line says of each command what its parser says."""
    spec = importlib.util.spec_from_file_location("command_line", DOCS / "command_line.py")
    assert spec is not None
    assert spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    assert writer.PAGE.read_text(encoding="utf-8") == writer.written(), (
        "a flag has changed: run `python docs/command_line.py`"
    )


def test_what_installs_it_is_said_in_one_place() -> None:
    """Docs and examples install from where the code's own errors say, and name extras there are."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    paths = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.*")]
    said = 0
    for path in paths:
        if path.suffix in (".md", ".py"):
            text = path.read_text("utf-8")
            for source, extras in re.findall(r"pip install '([^'\[]*)\[([^'\]]+)\]'", text):
                said += 1
                assert source == SOURCE, path
                assert set(extras.split(",")) <= project["optional-dependencies"].keys(), path
    assert said
    assert install("auth") == f"pip install '{SOURCE}[auth]'"
