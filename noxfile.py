"""Every check of this project, one session each; `nox -l` is the menu, plain `nox` the gate.

`.ci/run` runs the same gate with CI=true. That changes two things: the tests run on each Python
named in pyproject.toml's classifiers, and a test whose tool is missing (a browser, Redis, nginx,
HAProxy, Caddy, systemd, curl, iproute2, gcc, the corpora) fails. Elsewhere the running Python is
enough, and such a test is skipped.

Rules: (1) what a session needs is declared in pyproject.toml. (2) A test run that finds no tests
fails. (3) Words after `--` go to the tool.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
IN_CI = os.environ.get("CI") == "true"

# None is the running Python, in which case the sessions' names carry no version.
PYTHONS = nox.project.python_versions(PYPROJECT) if IN_CI else None
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
# On the running one `package` runs the same tests with the same dependencies, from the wheel.
OTHERS = [version for version in PYTHONS if version != RUNNING] if PYTHONS else None

# More processes only take longer to find the tests.
PARALLEL = ("--numprocesses=auto", "--maxprocesses=4")
# What talks to processes and browsers waits for them half of the time. The longest takes a minute:
# whoever has nothing left takes from the others' work.
WAITING = ("--numprocesses=4", "--dist=worksteal")

# All tests that are quick: the default run, and the tools' beside it.
QUICK = ("-m", "not slow and not e2e")

EDITABLE = ("-e", ".[hub,client,auth]")

CHECKED = ("src", "tests", "examples", "benchmarks", "docs/command_line.py", "noxfile.py")

# To compile everything anew is a third of what the default run costs. Whoever wants no byte code
# beside the sources gets it in the folder of nox.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".nox" / "pycache"))

nox.needs_version = ">=2025.2.9"  # `dependency_groups`, and `venv` taken without virtualenv
# Without uv it works as well, and takes two minutes longer.
nox.options.default_venv_backend = "uv|venv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = IN_CI


def group(name: str) -> list[str]:
    """List the requirements of one dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def prepare(session: nox.Session, *requirements: str) -> None:
    """Install, but not what the environment was given the last time: asking takes seconds."""
    given = Path(session.virtualenv.location, "given.txt")
    wanted = "\n".join([*requirements, (ROOT / "pyproject.toml").read_text(encoding="utf-8")])
    if given.is_file() and given.read_text(encoding="utf-8") == wanted:
        session.log("Everything is installed, as pyproject.toml is what it was.")
        return
    session.install(*requirements)
    # As the line above, this is left out by `nox -R`.
    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2], 'utf-8')"
    session.run_install("python", "-c", write, str(given), wanted, log=False)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting (ruff), dangerous calls (bandit), and the change notes."""
    prepare(session, *group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("bandit", "--quiet", "--configfile", "pyproject.toml", "--recursive", "src")
    session.run("towncrier", "build", "--draft", "--version", "next", silent=True)


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: mypy and pyright on everything, and that the public API is fully typed."""
    prepare(session, *EDITABLE, *group("typing"))
    session.run("mypy", *CHECKED)
    session.run("pyright", *CHECKED)
    session.run("pyright", "--verifytypes", "h3trio", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Make the documentation's site in build/docs, offline; a warning is an error."""
    # Of thousands of modules the build imports some hundred, and those it compiles.
    session.install("--no-compile", *EDITABLE, *group("docs"))
    # CI leaves nothing in the tree.
    built = session.create_tmp() if IN_CI else "build"
    options = ("--fail-on-warning", "--keep-going", "--quiet", "--jobs", "auto")
    folders = ("--conf-dir", "docs", "--doctree-dir", f"{built}/doctrees", ".", f"{built}/docs")
    session.run("sphinx-build", *options, *session.posargs, *folders)


@nox.session(python=OTHERS)
def tests(session: nox.Session) -> None:
    """Run the default tests: fast, in memory, without sockets; in CI the tools' on the newest."""
    prepare(session, *EDITABLE, *group("tests"))
    # The oldest runs them in `package`.
    is_newest = OTHERS is not None and session.python == OTHERS[-1]
    options = QUICK if IN_CI and is_newest else ()
    session.run("pytest", *PARALLEL, *options, *session.posargs)


@nox.session(default=not IN_CI)
def tools(session: nox.Session) -> None:
    """Run the tests of the command line, and those of the documentation and of deploy/."""
    prepare(session, *EDITABLE, *group("tests"))
    options = ("--ignore=tests/test_examples.py", "-m", "tools and not slow and not e2e")
    session.run("pytest", *PARALLEL, *options, *session.posargs)


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the default tests with the oldest dependencies that pyproject.toml allows."""
    prepare(session, *EDITABLE, *group("tests"), *floors())
    session.run("pytest", *PARALLEL, *session.posargs)


def floors() -> list[str]:
    """Pin each dependency, those of the extras too, to the floor it declares."""
    project = PYPROJECT["project"]
    declared = [project["dependencies"], *project["optional-dependencies"].values()]
    return [needed.replace(">=", "==") for requirements in declared for needed in requirements]


@nox.session
def examples(session: nox.Session) -> None:
    """Start each example, talk to it, stop it."""
    prepare(session, *EDITABLE, *group("tests"))
    session.run("pytest", "-m", "", "tests/test_examples.py", *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """Run what the default run leaves out: real sockets, processes, browsers, and slow tests."""
    prepare(session, *EDITABLE, *group("tests"))
    # The examples have a session of their own.
    options = (
        "--ignore=tests/test_examples.py",
        "--hypothesis-profile=ci",
        "-o",
        "faulthandler_timeout=300",
    )
    beside = "(slow or e2e) and not alone"
    # Of the tests that are named here, one half or the other may have none.
    good = (0, 5) if session.posargs else (0,)
    session.run("pytest", "-m", beside, *WAITING, *options, *session.posargs, success_codes=good)
    session.run("pytest", "-m", "alone", *options, *session.posargs, success_codes=good)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed strangers' bytes to every door for 30 s; `nox -s fuzz -- --seconds 3600` for longer."""
    prepare(session, *EDITABLE, *group("tests"))
    if "--coverage" in session.posargs:
        session.install("atheris")
    # In CI the same inputs each time, as Hypothesis does there.
    options = ("--seconds", "30", *(("--seed", "0") if IN_CI else ()))
    session.run("python", "tests/fuzz/drive.py", *options, *session.posargs)
    # In CI it is `package` that has as many examples.
    if not IN_CI and not session.posargs:
        quick = "hypothesis and not slow and not e2e"
        session.run("pytest", "-m", quick, *PARALLEL, "--hypothesis-profile=ci")


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and wheel; compare the sdist with git; test the wheel where there is no src/."""
    session.install(*group("package"))
    with tempfile.TemporaryDirectory(prefix="h3trio-package-") as scratch:
        here = Path(scratch)
        session.run("python", "-m", "build", "--outdir", str(here))
        (sdist,), (wheel,) = here.glob("*.tar.gz"), here.glob("*.whl")
        tree = unpack(sdist, here)
        compare_with_git(session, tree)
        shutil.rmtree(tree / "src")
        # Tests look for the corpora beside the tree.
        if (shared := ROOT.parent / "shared").is_dir():
            (here / "shared").symlink_to(shared)
        # A wheel of the same version from an earlier run would be taken for this one.
        session.install("--force-reinstall", "--no-deps", str(wheel))
        session.install(f"{wheel}[hub,client,auth]", *group("tests"))
        with session.chdir(tree):
            examples = ("--hypothesis-profile=ci",) if IN_CI else ()
            session.run("pytest", *PARALLEL, *QUICK, *examples, *session.posargs)


def unpack(sdist: Path, into: Path) -> Path:
    """Extract an sdist and return its one top folder."""
    with tarfile.open(sdist) as archive:
        archive.extractall(into, filter="data")
    return into / sdist.name.removesuffix(".tar.gz")


def compare_with_git(session: nox.Session, tree: Path) -> None:
    """Fail unless the unpacked sdist holds the files that git tracks, and no others."""
    if not (ROOT / ".git").exists():
        session.warn("not a git checkout: the sdist's list of files goes unchecked")
        return
    listing = session.run("git", "ls-files", "-z", external=True, silent=True, log=False)
    tracked = {name for name in str(listing).split("\0") if name}
    packed = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    packed.discard("PKG-INFO")
    if missing := sorted(tracked - packed):
        session.error(f"tracked by git, not in the sdist: {', '.join(missing)}")
    if extra := sorted(packed - tracked):
        session.error(f"in the sdist, neither tracked nor ignored by git: {', '.join(extra)}")


@nox.session(python=PYTHONS, default=False)
def hotpath(session: nox.Session) -> None:
    """Count what the hot paths cost, and print it; the default tests hold it against ceilings."""
    prepare(session, *EDITABLE, *group("tests"))
    session.run("pytest", "-rP", "tests/test_hotpath.py", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure fan-out, encoding and connecting; `nox -s bench -- --help` lists the options."""
    session.install(*EDITABLE, *group("bench"))
    session.run("python", "benchmarks", *session.posargs)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Load a hub steadily for minutes: `nox -s soak -- --minutes 5`; the record goes to docs/."""
    session.install(*EDITABLE, *group("soak"))
    session.run("python", "benchmarks/soak.py", *session.posargs)


@nox.session(default=False)
def dev(session: nox.Session) -> None:
    """Make .venv, with everything for an editor and for running the tools by hand."""
    session.run(sys.executable, "-m", "venv", ".venv", external=True)
    python = str(ROOT / ".venv" / "bin" / "python")
    session.run(python, "-m", "pip", "install", *EDITABLE, *group("dev"), external=True)


if __name__ == "__main__":
    nox.main()
