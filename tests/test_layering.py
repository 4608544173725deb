"""The rules that keep the source tree in rooms, read from the source itself.

Strategy: parse every module of the package under test (the checkout's, or an installed wheel's)
without importing it, and hold it against the tables below. Each rule is a function from sources to
a list of offences, so each is also tried on a small tree that breaks it.

An import counts wherever it stands: inside a function or under `TYPE_CHECKING` it is knowledge of
another room all the same.
"""

from __future__ import annotations

import ast
import graphlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PACKAGE = "h3trio"

# Bottom first. A room is a folder, or a file of the root. A module may import from the rows below
# its room's, and from its own row as long as the imports make no circle.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("_version", "_facade", "_extras", "_limits", "_nursery", "_tasks"),
    ("_redis",),  # a client that knows nothing of events
    ("_wire",),
    ("_http",),
    ("_server.logs",),
    ("_server.peers",),
    ("_server.sockets",),
    ("_server",),  # serves any handler: below _app, which is one
    ("_app",),
    ("__init__",),
    ("hub", "client", "testing"),
    ("runs",),
    ("metrics",),
    ("hubserver",),
    ("_cli", "__main__"),
)

# The one file that knows h11: everything else sees our own values and errors.
H11_DOOR = {"_http.http1"}

# Values in, values out: usable and tested without an event loop.
WITHOUT_TRIO = ("_wire", "_http", "_server.peers", "_app.routing")

# Publish/subscribe knows the wire format and nothing of HTTP ...
HUB_MAY_IMPORT = ("_version", "_facade", "_limits", "_tasks", "_redis", "_wire", "hub")

# ... nor HTTP of publish/subscribe: these are the rows below the package's own door.
HTTP_ROOMS = tuple(name for row in LAYERS[: LAYERS.index(("__init__",))] for name in row)

# A file that is one concept is rarely longer.
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
# A shorter file that one other imports is a part of that, unless it has a reason here.
SLIVER_LINES = 80
REASONS = {
    "_cli.top.screen": "draws with rich, which an extra brings",
    "_server.access_log": "the line and the fields of the log are looked for by this name",
    "_server.body_stream": "stands above the responder, and the buffer that it reads from below it",
    "_server.handler_errors": "whose an error is, is decided beside the course of an exchange",
    "_server.logs.json_log": "a formatter of logs, which has nothing of the command that uses it",
    "hub._serving": "the course of one subscription; `_hub` has what callers see, and is full",
    "hubserver._access.uri_template": "a grammar of its own, RFC 6570",
    "hubserver._monitoring.routes": "the routes of this room, as `_app` has the others",
}

# A module's place in the package, such as "hub._feed", and its source.
Sources: TypeAlias = "Mapping[str, str]"


class Import(NamedTuple):
    """One imported name, and the module it comes from: ours, or the top one of another package."""

    line: int
    module: str
    name: str
    is_ours: bool


@cache
def package_sources() -> dict[str, str]:
    """Read every module of the package that the tests would import."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        pytest.fail(f"{PACKAGE} is not importable: install it, or run `nox -s tests`")
    sources = {}
    for root in map(Path, spec.submodule_search_locations):
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if len(parts) > 1 and parts[-1] == "__init__":
                parts = parts[:-1]
            sources[".".join(parts)] = path.read_text(encoding="utf-8")
    return sources


@cache
def nodes(source: str) -> tuple[ast.AST, ...]:
    """Every node of a source; each rule goes through all of them."""
    return tuple(ast.walk(ast.parse(source)))


def imports(sources: Sources, module: str) -> Iterator[Import]:
    """List what one module imports, an item for each name."""
    for node in nodes(sources[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield resolve(sources, node.lineno, alias.name, "")
        elif isinstance(node, ast.ImportFrom):
            origin = absolute(sources, module, node)
            for alias in node.names:
                yield resolve(sources, node.lineno, origin, alias.name)


def absolute(sources: Sources, module: str, node: ast.ImportFrom) -> str:
    """Turn the `..x` of a `from ..x import y` into a full module name."""
    if not node.level:
        return node.module or ""
    inside = [] if module == "__init__" else module.split(".")
    is_package = module == "__init__" or any(name.startswith(f"{module}.") for name in sources)
    parents = [PACKAGE, *inside][: len(inside) + 1 - node.level + is_package]
    return ".".join([*parents, node.module] if node.module else parents)


def resolve(sources: Sources, line: int, origin: str, name: str) -> Import:
    """Name the module that an import statement reaches."""
    top, _, inside = origin.partition(".")
    if top != PACKAGE:
        return Import(line, top, name, is_ours=False)
    # `from .hub import _feed` may name a module or a thing in one.
    deeper = f"{inside}.{name}".strip(".")
    reached = deeper if deeper in sources else inside or "__init__"
    return Import(line, reached, name, is_ours=True)


def all_imports(sources: Sources) -> Iterator[tuple[str, Import]]:
    """List every import of every module, with the module it stands in."""
    for module in sources:
        for imported in imports(sources, module):
            yield module, imported


def is_in(module: str, rooms: tuple[str, ...]) -> bool:
    """Tell whether a module is in one of these rooms, or a room below one."""
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def row_of(module: str) -> int | None:
    """Return the row of a module's room, counted from the bottom; its own folder counts first."""
    rows = {room: n for n, row in enumerate(LAYERS) for room in row}
    parts = module.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((rows[prefix] for prefix in prefixes if prefix in rows), None)


def without_a_row(sources: Sources) -> list[str]:
    """Find modules that the table does not know."""
    return [
        f"{module} has no row: add it to LAYERS in tests/test_layering.py, as low as it can stand"
        for module in sources
        if row_of(module) is None
    ]


def upward(sources: Sources) -> list[str]:
    """Find imports from a higher row."""
    offences = []
    for module, imported in all_imports(sources):
        own, other = row_of(module), row_of(imported.module) if imported.is_ours else -1
        if own is not None and (other is None or other > own):
            offences.append(f"{module}:{imported.line} imports {imported.module}, from above")
    return offences


def circles(sources: Sources) -> list[str]:
    """Find modules that import each other, at whatever distance."""
    graph: dict[str, set[str]] = {module: set() for module in sources}
    for module, imported in all_imports(sources):
        if imported.is_ours and imported.module != module:
            graph[module].add(imported.module)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(reversed(error.args[1]))]
    return []


def h11_outside_its_door(sources: Sources) -> list[str]:
    """Find imports of h11 in any file but one."""
    return [
        f"{module}:{imported.line} imports h11"
        for module, imported in all_imports(sources)
        if imported.module == "h11" and not imported.is_ours and module not in H11_DOOR
    ]


def hub_meets_http(sources: Sources) -> list[str]:
    """Find imports between HTTP and publish/subscribe, either way."""
    offences = []
    for module, imported in all_imports(sources):
        from_hub = is_in(module, ("hub",))
        strange = from_hub and not is_in(imported.module, HUB_MAY_IMPORT)
        to_hub = is_in(module, HTTP_ROOMS) and is_in(imported.module, ("hub",))
        if imported.is_ours and (strange or to_hub):
            offences.append(f"{module}:{imported.line} imports {imported.module}")
    return offences


def trio_in_wire_rooms(sources: Sources) -> list[str]:
    """Find imports of Trio where only values are handled."""
    return [
        f"{module}:{imported.line} imports trio"
        for module, imported in all_imports(sources)
        if imported.module == "trio" and not imported.is_ours and is_in(module, WITHOUT_TRIO)
    ]


def over_budget(sources: Sources) -> list[str]:
    """Find files and functions that are too long."""
    offences = []
    for module, source in sources.items():
        if (lines := len(source.splitlines())) > MAX_FILE_LINES:
            offences.append(f"{module} has {lines} lines, more than {MAX_FILE_LINES}")
        for node in nodes(source):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    offences.append(f"{module}.{node.name} has {lines} lines")
    return offences


def slivers(sources: Sources) -> list[str]:
    """Find short files that one other imports; what a package re-exports is no part of it."""
    importers: dict[str, set[str]] = {}
    for module, imported in all_imports(sources):
        if imported.is_ours and imported.module != module:
            importers.setdefault(imported.module, set()).add(module)
    packages = {module.rpartition(".")[0] for module in sources} | {"__init__"}
    return [
        f"{module} is short, and a part of {only}: fold it, or give a reason in REASONS"
        for module, source in sources.items()
        if len(source.splitlines()) < SLIVER_LINES
        and len(importers.get(module, ())) == 1
        and (only := next(iter(importers[module]))) not in packages
        and module not in packages
        and module not in REASONS
    ]


def shields(sources: Sources) -> list[str]:
    """Find cancel scopes that may be shielded: a shield without an end hangs a shutdown."""
    offences = []
    for module, source in sources.items():
        for node in nodes(source):
            if isinstance(node, ast.keyword) and node.arg == "shield":
                offences.append(f"{module}:{node.lineno} passes shield=")
            elif isinstance(node, ast.Attribute) and node.attr == "shield":
                offences.append(f"{module}:{node.lineno} uses .shield")
    return offences


def private_names_in_hubserver(sources: Sources) -> list[str]:
    """Find what the ready-made hub imports that other programs could not.

    The words of a command of pip's don't count: a program has its own.
    """
    offences = []
    for module, imported in all_imports(sources):
        if not (imported.is_ours and is_in(module, ("hubserver",))):
            continue
        own = is_in(imported.module, ("hubserver",))
        public = imported.module in ("__init__", "hub", "metrics", "runs", "_extras") or own
        if not public or (imported.name.startswith("_") and not own):
            offences.append(f"{module}:{imported.line} imports {imported.module} {imported.name}")
    return offences


def test_every_module_has_a_row() -> None:
    """Every module stands in the table of layers."""
    assert without_a_row(package_sources()) == []


def test_imports_point_downward() -> None:
    """A module imports only from its own row of the table and those below."""
    assert upward(package_sources()) == []


def test_imports_make_no_circle() -> None:
    """No two modules import each other, directly or through others."""
    assert circles(package_sources()) == []


def test_h11_is_imported_in_one_file() -> None:
    """One file translates between h11 and us, so h11 can be looked at, and replaced, there."""
    assert len(H11_DOOR) == 1
    assert h11_outside_its_door(package_sources()) == []


def test_http_and_hub_never_import_each_other() -> None:
    """The server runs without the hub, and the hub without the server."""
    assert hub_meets_http(package_sources()) == []


def test_wire_rooms_are_without_trio() -> None:
    """Formats, headers and routes are plain values that need no event loop."""
    assert trio_in_wire_rooms(package_sources()) == []


def test_files_and_functions_keep_their_budget() -> None:
    """No file has more than 500 lines, no function more than 60."""
    assert over_budget(package_sources()) == []


def test_no_file_is_a_sliver() -> None:
    """A file is one concept, and no piece of its only importer; each reason is of a file."""
    assert slivers(package_sources()) == []
    assert REASONS.keys() <= package_sources().keys()


def test_no_cancel_scope_is_shielded() -> None:
    """Nothing escapes cancellation."""
    assert shields(package_sources()) == []


def test_hubserver_imports_public_names_only() -> None:
    """The ready-made hub is an App that anybody could have written."""
    assert private_names_in_hubserver(package_sources()) == []


BREACHES: list[tuple[Callable[[Sources], list[str]], dict[str, str]]] = [
    (without_a_row, {"_new": ""}),
    (without_a_row, {"folder._new": ""}),
    (upward, {"_wire.event": "from .._app.app import App", "_app.app": ""}),
    (upward, {"_wire.event": "from h3trio import SSEEvent", "__init__": ""}),
    (upward, {"_wire.event": "import h3trio._app.app", "_app.app": ""}),
    (upward, {"_wire.event": "def later():\n    from .. import _app", "_app": ""}),
    (upward, {"_http.request": "from .._unknown import x"}),
    (upward, {"hub": "from .. import _cli", "hub._hub": "", "_cli": ""}),
    (circles, {"_wire.event": "from . import parser", "_wire.parser": "from .event import x"}),
    (circles, {"hub._a": "from . import _b", "hub._b": "import h3trio.hub._a"}),
    (circles, {"_a": "from . import _b", "_b": "from . import _c", "_c": "from . import _a"}),
    (h11_outside_its_door, {"_server.reader": "import h11"}),
    (h11_outside_its_door, {"_server.reader": "from h11._util import x"}),
    (hub_meets_http, {"hub._fanout.feed": "from ..._http.headers import x", "_http.headers": ""}),
    (hub_meets_http, {"hub._hub": "from h3trio import App", "__init__": ""}),
    (hub_meets_http, {"_app.app": "from ..hub import Hub", "hub": ""}),
    (hub_meets_http, {"_app.app": "from .. import hub", "hub": ""}),
    (trio_in_wire_rooms, {"_app.routing": "import trio.abc"}),
    (over_budget, {"_wire.event": "\n" * 501}),
    (over_budget, {"_wire.event": "async def long():\n" + "    x\n" * 60}),
    (slivers, {"_http.errors": "", "_http.request": "from .errors import x"}),
    (shields, {"_server.writer": "with trio.CancelScope(shield=True): pass"}),
    (shields, {"_server.writer": "scope.shield = True"}),
    (private_names_in_hubserver, {"hubserver._routes": "from .._writer import x", "_writer": ""}),
    (private_names_in_hubserver, {"hubserver": "from h3trio import _http", "_http": ""}),
    (private_names_in_hubserver, {"hubserver._a": "from .. import _http", "_http": ""}),
    (private_names_in_hubserver, {"hubserver": "from h3trio.hub import _feed", "hub._feed": ""}),
    (private_names_in_hubserver, {"hubserver": "from h3trio import _secret", "__init__": ""}),
]


@pytest.mark.parametrize(("rule", "sources"), BREACHES)
def test_a_breach_is_seen(rule: Callable[[Sources], list[str]], sources: dict[str, str]) -> None:
    """Each rule finds the one offence in a tree that breaks it."""
    assert len(rule(sources)) == 1


def test_good_sources_pass_every_rule() -> None:
    """A tree that keeps the rules has no offences."""
    sources = {
        "_wire.event": "import re",
        "_wire.parser": "from .event import SSEEvent",
        "_http.http1": "import h11",
        "_server.reader": "from h3trio._http.http1 import x",
        "_app.app": "from h3trio._http.http1 import x\nimport trio",
        "__init__": "from ._app.app import App as App\nfrom h3trio import _version",
        "_version": "",
        "hub": "from ._hub import Hub as Hub",
        "hub._hub": "from .._wire.event import SSEEvent\nimport trio",
        "hubserver": "from ._routes import _build",
        "hubserver._routes": "from h3trio import App\nfrom h3trio.hub import Hub",
    }
    assert [offence for rule, _ in BREACHES for offence in rule(sources)] == []
