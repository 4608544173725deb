"""The app that `serve` is told to run: `module:app` or `path.py:app`, imported or made.

A failure on the way is said in one line: the code is the user's, and a traceback through ours
shows nothing of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import trio

import h3trio
from h3trio._cli.options import fail
from h3trio._nursery import bare
from h3trio._server.callables import HANDLER, require_async, takes
from h3trio.hub import HistoryError

if TYPE_CHECKING:
    from types import ModuleType

    from h3trio._server.event import Handler


FACTORY: Final = "--factory"
_NOT_THEIRS: Final = tuple(f"{Path(inspect.getfile(each)).parent}/" for each in (h3trio, trio))


def load(target: str, *, is_factory: bool = False) -> Handler:
    """Import `module:attribute` or `path.py:attribute`; exit 2 with one line if that fails.

    A factory is called without arguments, and what it returns is the app.
    """
    name, colon, attribute = target.rpartition(":")
    if not colon or not name or not attribute:
        meant = f"; did you mean {target}:app?" if target and not colon else ""
        fail(f"{target!r} is not of the form module:app or path.py:app{meant}")
    app: object = getattr(_import(name), attribute, None)
    if app is None:
        fail(f"{name} has no attribute {attribute!r}")
    if is_factory:
        app, target = _make(app, target), f"{target}()"
    try:
        require_async(app, HANDLER)
    except TypeError as exc:
        if not is_factory and callable(app) and takes(app, 0):
            fail(f"{target} is not an app; if it returns one, give {FACTORY} as well ({exc})")
        fail(f"{target} is not an app: {exc}")
    return cast("Handler", app)


def _make(factory: object, target: str) -> object:
    if not callable(factory) or not takes(factory, 0):
        fail(
            f"{target} is no factory, as it can't be called without arguments: leave out {FACTORY}"
        )
    try:
        app: object = factory()
    except SystemExit as exc:
        fail(f"{target} ended the program: exit status {exc.code}")
    except Exception as exc:  # noqa: BLE001 - whatever the app's code raises is said in one line
        fail(f"{target} failed: {describe(exc)}")
    if inspect.iscoroutine(app):
        app.close()
        fail(f"{target} is async, and a factory is a def: it is called before the event loop runs")
    return app


def _import(name: str) -> ModuleType:
    path = Path(name) if name.endswith(".py") else None
    if path is not None and not path.is_file():
        fail(f"there is no file {name!r}")
    try:
        if path is not None:
            return _import_file(path)
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(name)
    except SystemExit as exc:
        fail(f"{name} ended the program while it was imported: exit status {exc.code}")
    except Exception as exc:  # noqa: BLE001 - whatever the app's code raises is said in one line
        cause = bare(exc)
        if isinstance(cause, ModuleNotFoundError) and _is_part(cause.name, name):
            fail(f"there is no module {cause.name!r}")
        fail(f"{name} can't be imported: {describe(exc)}")


def _is_part(missing: str | None, name: str) -> bool:
    """Tell whether what is missing is the module asked for, and not one that it imports."""
    return missing is not None and f"{name}.".startswith(f"{missing}.")


def _import_file(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.parent.absolute()))
    # Under its own name, as the file's classes may be looked for there; but never in the place of
    # a module that is in use.
    name = path.stem if path.stem not in sys.modules else f"{path.stem} (served)"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a .py file has a loader"
    assert spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def describe(exc: BaseException) -> str:
    """Say in one line what failed in the app's code, and where."""
    exc = bare(exc)
    if isinstance(exc, SyntaxError):
        return f"{type(exc).__name__}: {exc}"
    if isinstance(exc, OSError) and exc.filename is None:
        return str(exc.strerror or exc)
    if isinstance(exc, HistoryError):
        return str(exc)
    frames = traceback.extract_tb(exc.__traceback__)
    # Where the app calls us with what is refused, its own line is the one to mend.
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)] or frames
    where = f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""
    return f"{type(exc).__name__}: {exc}{where}"
