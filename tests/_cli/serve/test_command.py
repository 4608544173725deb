"""`serve` up to the point where it listens: the app is loaded, or said in one line why not.

What happens afterwards (signals, exit statuses) needs a process: see tests/e2e/test_serve.py.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

import pytest
import trio

from h3trio._cli.main import main
from h3trio._cli.options import Options
from h3trio._cli.serve.command import add_arguments, unknown_variables
from h3trio._cli.serve.load_app import describe, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

APP = "async def app(event):\n    return 'hi'\n"


@pytest.fixture(autouse=True)
def import_state() -> Iterator[None]:
    """Undo what loading an app does to the interpreter."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> str:
    """Write a file; return its path."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def refusal(capsys: pytest.CaptureFixture[str], target: str, *, is_factory: bool = False) -> str:
    """Return the one line that loading ends with."""
    with pytest.raises(SystemExit) as caught:
        load(target, is_factory=is_factory)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.removeprefix("h3trio: error: ").rstrip()


# -- loading


def test_a_file(tmp_path: Path) -> None:
    """`path.py:name` loads a file under its own name."""
    handler = load(write(tmp_path, "one_app.py", APP) + ":app")
    assert handler is sys.modules["one_app"].app


def test_a_file_finds_its_neighbours(tmp_path: Path) -> None:
    """A file may import what lies beside it, as when it is run."""
    write(tmp_path, "neighbour_app.py", APP)
    target = write(tmp_path, "two_app.py", "from neighbour_app import app as handler")
    assert load(f"{target}:handler") is sys.modules["neighbour_app"].app


def test_a_module_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`package.module:name` is looked for from the current folder, as `python -m` does."""
    write(tmp_path, "three/app.py", APP)
    monkeypatch.chdir(tmp_path)
    assert load("three.app:app") is sys.modules["three.app"].app


def test_a_file_never_replaces_a_module_in_use(tmp_path: Path) -> None:
    """A file that is called like a loaded module leaves that alone."""
    load(write(tmp_path, "trio.py", APP) + ":app")
    assert sys.modules["trio"] is trio


def test_a_path_may_hold_colons(tmp_path: Path) -> None:
    """The last colon divides path and name."""
    assert callable(load(write(tmp_path, "a:b.py", APP) + ":app"))


@pytest.mark.parametrize("target", ["nowhere", "no.py", "nowhere:", ":app", ":"])
def test_a_target_without_both_parts(capsys: pytest.CaptureFixture[str], target: str) -> None:
    """A target that isn't of the form is told the form."""
    meant = "" if ":" in target else f"; did you mean {target}:app?"
    form = "module:app or path.py:app"
    assert refusal(capsys, target) == f"{target!r} is not of the form {form}{meant}"


def test_a_missing_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A path that leads nowhere is named, and a folder is no file."""
    path = str(tmp_path / "missing.py")
    assert refusal(capsys, f"{path}:app") == f"there is no file {path!r}"
    (tmp_path / "missing.py").mkdir()
    assert refusal(capsys, f"{path}:app") == f"there is no file {path!r}"


def test_a_missing_module(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module or package that isn't there is named."""
    write(tmp_path, "four/__init__.py", "")
    monkeypatch.chdir(tmp_path)
    assert refusal(capsys, "nowhere.app:app") == "there is no module 'nowhere'"
    assert refusal(capsys, "four.app:app") == "there is no module 'four.app'"


def test_a_missing_import_is_the_apps_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A module that the app imports and doesn't find is told apart from the app itself."""
    path = write(tmp_path, "five_app.py", "\nimport nowhere")
    assert refusal(capsys, f"{path}:app") == (
        f"{path} can't be imported: ModuleNotFoundError: No module named 'nowhere' ({path}:2)"
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1/0", "ZeroDivisionError: division by zero ({path}:1)"),
        ("\n\nraise OSError('no disk')", "no disk"),
        ("open('/nowhere/x')", "No such file or directory: '/nowhere/x' ({path}:1)"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines ({path}:1)"),
    ],
)
def test_an_app_that_raises(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, code: str, message: str
) -> None:
    """An error while the app is imported is one line that says what and where."""
    path = write(tmp_path, "six_app.py", code)
    line = refusal(capsys, f"{path}:app")
    assert line.startswith(f"{path} can't be imported: ")
    assert line.endswith(message.format(path=path))


def test_an_app_that_is_not_python(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A syntax error is one line that says where it is."""
    path = write(tmp_path, "seven_app.py", "\ndef")
    line = refusal(capsys, f"{path}:app")
    assert line.endswith("can't be imported: SyntaxError: invalid syntax (seven_app.py, line 2)")


def test_an_app_that_exits(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A program that ends itself while it is imported doesn't look like a success."""
    path = write(tmp_path, "eight_app.py", "import sys; sys.exit(0)")
    line = refusal(capsys, f"{path}:app")
    assert line == f"{path} ended the program while it was imported: exit status 0"


def test_an_attribute_that_is_no_app(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An attribute that is missing, or can't be called, is named."""
    path = write(tmp_path, "nine_app.py", "app = 3")
    assert refusal(capsys, f"{path}:handler") == f"{path} has no attribute 'handler'"
    line = refusal(capsys, f"{path}:app")
    assert line == f"{path}:app is not an app: a handler is a function, and 3 can't be called"


@pytest.mark.parametrize(
    "code",
    ["def app(event):\n    return 'x'", "async def app(event):\n    yield", "class app: pass"],
)
def test_an_app_of_the_wrong_shape(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, code: str
) -> None:
    """What would fail at each request is refused before the server listens."""
    path = write(tmp_path, "ten_app.py", code)
    assert refusal(capsys, f"{path}:app").startswith(f"{path}:app is not an app")


def test_a_handler_that_the_app_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What `App` refuses is told with the line of the app's file, and not with one of ours."""
    code = "from h3trio import App\napp = App()\n@app.get('/')\ndef home(event):\n    return 'x'\n"
    path = write(tmp_path, "eleven_app.py", code)
    line = refusal(capsys, f"{path}:app")
    assert "write `async def home(event)`" in line
    assert f"({path}:3)" in line


# -- factories

FACTORY = "from h3trio import App\nasync def app(event): ...\n"


@pytest.mark.parametrize(
    "create",
    [
        "def create():\n    return App()",
        "def create(debug=False):\n    return App()",
        "def create():\n    return app",
        "create = App",
        "create = lambda: App()",
    ],
)
def test_a_factory(tmp_path: Path, create: str) -> None:
    """With `--factory` the app is what a function without arguments returns."""
    path = write(tmp_path, "factory.py", FACTORY + create)
    assert callable(load(f"{path}:create", is_factory=True))


@pytest.mark.parametrize("create", ["def create():\n    return App()", "create = App"])
def test_a_factory_without_the_flag(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, create: str
) -> None:
    """A factory that is given as the app is refused, and the flag named."""
    path = write(tmp_path, "factory.py", FACTORY + create)
    line = refusal(capsys, f"{path}:create")
    assert f"{path}:create is not an app; if it returns one, give --factory as well" in line


@pytest.mark.parametrize(
    ("create", "message"),
    [
        ("create = App()", " is no factory"),
        ("create = 3", " is no factory"),
        ("def create(config):\n    return App()", " is no factory"),
        ("async def create():\n    return App()", " is async, and a factory is a def"),
        ("def create():\n    1/0", " failed: ZeroDivisionError: division by zero ({path}:4)"),
        ("def create():\n    raise SystemExit(3)", " ended the program: exit status 3"),
        ("def create():\n    pass", "() is not an app: a handler is a function, and None"),
        ("def create():\n    return create", "() is not an app: create is a `def`"),
    ],
)
def test_a_factory_that_makes_no_app(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, create: str, message: str
) -> None:
    """A factory that needs arguments, fails, or gives something else is one line."""
    path = write(tmp_path, "factory.py", FACTORY + create)
    line = refusal(capsys, f"{path}:create", is_factory=True)
    assert line.startswith(f"{path}:create{message.format(path=path)}")


def test_a_factory_of_the_hub(capsys: pytest.CaptureFixture[str]) -> None:
    """`--factory` without an app is refused: there is nothing to call."""
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "--factory"])
    assert "--factory needs an app" in capsys.readouterr().err


def test_describe_unwraps_groups_of_one() -> None:
    """A nursery around one error doesn't hide it; a group of several is named as such."""
    one = ExceptionGroup("nursery", [ExceptionGroup("nursery", [ValueError("no")])])
    assert describe(one) == "ValueError: no"
    two = ExceptionGroup("nursery", [ValueError("no"), KeyError("nor")])
    assert describe(two) == "ExceptionGroup: nursery (2 sub-exceptions)"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--drain-soft", "-1s"), "--drain-soft: '-1s' is not a time"),
        (("--lease", "off"), "; none for no end"),
        (("--recheck-interval", "off"), "; none for no end"),
    ],
)
def test_wrong_values(refused: Callable[..., str], argv: tuple[str, ...], said: str) -> None:
    """The line names the value, and what would turn the limit off."""
    assert said in refused("serve", *argv)


def test_the_variable_is_named(refused: Callable[..., str]) -> None:
    """What came from the environment isn't called by its flag."""
    assert refused("serve", H3TRIO_TLS_KEY="x") == "H3TRIO_TLS_KEY needs --tls-cert"
    line = refused("serve", H3TRIO_FORWARDED_ALLOW_IPS="localhost")
    assert line.startswith("H3TRIO_FORWARDED_ALLOW_IPS: 'localhost' is no address")
    assert refused("serve", H3TRIO_JWKS="/no").startswith("H3TRIO_JWKS: can't read /no")


def test_a_misspelt_variable() -> None:
    """What no command reads is named; what another reads, or Kubernetes sets, isn't."""
    names = ["STOER", "STORE", "TOKEN", "PORT_80_TCP", "SERVICE_HOST", "KEY_FILE", "JWT_KEY"]
    parser = Options(prog="serve")
    add_arguments(parser)
    arguments = Namespace(options=parser)
    environ = {f"H3TRIO_{name}": "x" for name in names} | {"HOME": "x"}
    assert unknown_variables(arguments, environ) == ["H3TRIO_STOER"]


# -- the hub


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_a_hub_for_other_machines_says_what_they_may(
    capsys: pytest.CaptureFixture[str], host: str
) -> None:
    """A host beyond loopback is refused before anything listens, with the flags that it takes."""
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--host", host, "--port", "0"], environ={})
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"h3trio: error: --host {host} is reachable from other machines: give a key for tokens "
        "with --jwt-key-file or --jwks, or say with --allow-anonymous-subscribe or "
        "--allow-anonymous-publish what anyone may do\n"
    ).replace("  ", " ")
