"""`Options`: a parser of arguments whose options have a twin in the environment.

`--host` reads `H3TRIO_HOST` where the flag isn't given. An error is one line that names where the
value came from, and the exit status is 2. The environment is read after the flags, so a variable
that isn't needed is never complained about.

Each field of `Settings` is an option too, and its help is the first sentence that stands below the
field: a second table would say the same in other words.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import inspect
import itertools
import math
import re
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, final

from h3trio._http import settings as _settings
from h3trio._http.settings import Settings, check

from . import common

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from types import ModuleType

    from _typeshed import DataclassInstance

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})

# The names of values in the help, for options that give none.
_METAVARS: Final[Mapping[Callable[[str], object], str]] = {
    common.duration: "TIME",
    common.duration_or_zero: "TIME",
    common.size: "SIZE",
    common.whole: "N",
    common.counted: "N",
}
_UNITS: Final[Mapping[str, dict[str, float]]] = {"TIME": common.SECONDS, "SIZE": common.BYTES}
GRAMMAR: Final[Mapping[str, str]] = {
    "TIME": "TIME is a number with ms, s, m, h or d behind it: 500ms, 1.5h; without one, seconds.",
    "SIZE": "SIZE is a number with k, m or g behind it: 64k, 1.5m; without one, bytes.",
}
"""What the help says of the values of options."""

_WIDTH: Final = 79
_NO_TIMES: Final = frozenset({"lease_jitter", "min_body_rate"})  # all other fractions are seconds
# Kubernetes puts the addresses of services into the environment: of one that is called h3trio,
# `H3TRIO_PORT=tcp://10.96.0.7:80`. Docker's links do the same.
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://[^/]+:[0-9]+")
_NO_DEFAULT: Final = {"lease": "none, 1h for the hub"}
_SHORT: Final = {"heartbeat_interval": "--heartbeat", "max_body_bytes": "--max-body"}


class _Twin(NamedTuple):
    """The value of an option whose flag isn't given: that of a variable, or a default."""

    dest: str
    variable: str
    convert: Callable[[str], object]
    default: object


@final
class Options(argparse.ArgumentParser):
    """An argument parser whose errors are one line each."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - argparse's own, which grow
        # An abbreviation would change its meaning when an option is added.
        kwargs["allow_abbrev"] = False
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        self._group: argparse._ArgumentGroup | None = None  # pyright: ignore[reportPrivateUsage] - argparse has no other name for it
        self._values: set[str] = set()
        super().__init__(**kwargs)
        self._twins: list[_Twin] = []
        # `-1s` is a wrong value and no flag. argparse sees that of plain numbers alone.
        self._negative_number_matcher = re.compile(r"-[0-9.]")

    @contextlib.contextmanager
    def group(self, title: str) -> Generator[None]:
        """Put what is added meanwhile under a title of its own in the help."""
        self._group = self.add_argument_group(title)
        yield
        self._group = None

    @property
    def dests(self) -> frozenset[str]:
        """The names under which the options' values are found, of those added so far."""
        return frozenset(twin.dest for twin in self._twins)

    @property
    def variables(self) -> frozenset[str]:
        """The variables that are read, of the options added so far."""
        return frozenset(twin.variable for twin in self._twins)

    @property
    def grammar(self) -> str:
        """How values of the options are written, as far as these options have such values."""
        return " ".join(text for unit, text in GRAMMAR.items() if unit in self._values)

    def format_help(self) -> str:
        """Return argparse's help, with the grammar at its end."""
        grammar = textwrap.fill(self.grammar, _WIDTH)
        return "\n".join(filter(None, (super().format_help(), grammar and f"{grammar}\n")))

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        fail(message)

    def add_argument(self, *flags: str, shown: str = "", **kwargs: Any) -> argparse.Action:  # noqa: ANN401 - argparse's own, which grow
        """Add an argument without a twin; argparse's own, but for the errors of its `type`.

        The help shows the default, or what `shown` says of it.
        """
        if "type" in kwargs:
            kwargs.setdefault("metavar", _METAVARS.get(kwargs["type"]))
            kwargs["type"] = common.checked(kwargs["type"])
        metavar, default = kwargs.get("metavar"), kwargs.get("default")
        self._values.add((metavar or "").partition("|")[0])
        if default is not argparse.SUPPRESS:
            shown = shown or _text(default, metavar)
            kwargs["help"] = kwargs.get("help", "") + f" [default {shown}]" * bool(shown)
        add = self._group.add_argument if self._group else super().add_argument
        return add(*flags, **kwargs)

    def add_option(
        self,
        *flags: str,
        help: str,  # noqa: A002 - argparse's name for it
        default: object = None,
        type: Callable[[str], object] = str,  # noqa: A002 - argparse's name for it
        metavar: str | None = None,
        repeated: bool = False,
        variable: str | None = None,
        shown: str = "",
    ) -> None:
        """Add an option with a value, and its twin in the environment.

        Where it may be repeated, `type` returns a list, and the value is all of them. Without
        dashes it is an argument that may be left out. `shown` is what the help says of a default
        that isn't simply this one.
        """
        variable = variable or env_name(flags[0])
        metavar = metavar or _METAVARS.get(type)
        shown = shown or _text(default, metavar)
        end = f", default {shown}]" if shown else "]"
        action = self.add_argument(
            *flags,
            help=f"{help} [{variable}{end}",
            default=argparse.SUPPRESS,
            type=_unless_absent(type),
            metavar=metavar,
            action="extend" if repeated else "store",
            **({} if flags[0].startswith("-") else {"nargs": "?"}),
        )
        self._twins.append(_Twin(action.dest, variable, type, default))

    def add_switch(self, flag: str, *, help: str) -> None:  # noqa: A002 - argparse's name for it
        """Add a switch that is off unless given, and its twin in the environment."""
        variable = env_name(flag)
        action = self.add_argument(
            flag, help=f"{help} [{variable}]", action="store_true", default=argparse.SUPPRESS
        )
        self._twins.append(_Twin(action.dest, variable, _truth, default=False))

    def add_header(self, *, help: str) -> None:  # noqa: A002 - argparse's name for it
        """Add `--header`, which may be repeated: a list of `NAME: VALUE`."""
        self.add_argument(
            *("--header", "-H"),
            metavar="NAME: VALUE",
            type=common.header,
            action="append",
            default=[],
            help=f"{help}; may be repeated",
        )

    def add_variable(self, dest: str, variable: str) -> None:
        """Add what comes by the environment alone: a secret, which flags would show."""
        self._twins.append(_Twin(dest, variable, str, None))

    def add_settings(self) -> None:
        """Add an option for each field of `Settings`: first limits, then times."""
        told = first_sentences(_settings, Settings.__name__)
        fields = dataclasses.fields(Settings)
        for title, of_group in ("limits", False), ("times", True):
            with self.group(title):
                for field in fields:
                    kind, _, none = str(field.type).partition(" | ")
                    is_time = kind == "float" and field.name not in _NO_TIMES
                    if is_time is of_group:
                        unit = "TIME" if is_time else "SIZE" if _is_size(field.name) else "N"
                        self.add_option(
                            env_flag(field.name),
                            *filter(None, [_SHORT.get(field.name)]),
                            help=told.get(field.name, field.name),
                            default=field.default,
                            type=_setting(field.name, unit, kind, may_be_none=bool(none)),
                            metavar=f"{unit}|none" if none else unit,
                            shown=_NO_DEFAULT.get(field.name, ""),
                        )

    def complete(self, arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
        """Give the options that were not given their value from the environment, or the default.

        A variable that is set and empty counts as not set. `arguments.given` maps those that were
        given to the flag or variable that did.
        """
        given: dict[str, str] = {}
        for dest, variable, convert, default in self._twins:
            if hasattr(arguments, dest):
                given[dest] = env_flag(dest)
                continue
            text = environ.get(variable)
            if text and variable.endswith("_PORT") and _SERVICE_LINK.fullmatch(text):
                text = None
            if text:
                given[dest] = variable
            try:
                value = convert(text) if text else default
            except ValueError as exc:
                fail(f"{variable}: {exc}")
            setattr(arguments, dest, value)
        arguments.given = given


def refuse(arguments: argparse.Namespace, dests: Iterable[str], why: str) -> None:
    """Exit with one line if the flag of one of these options was given: it has no effect.

    A variable may be there for another command, or another day: it is passed over.
    """
    for dest in dests:
        if (name := arguments.given.get(dest, "")).startswith("-"):
            fail(f"{name} {why}")


def fields_from(arguments: argparse.Namespace, kind: type[DataclassInstance]) -> dict[str, Any]:
    """Return the arguments that are named like a field of a dataclass, to make one of."""
    given = vars(arguments)
    return {f.name: given[f.name] for f in dataclasses.fields(kind) if f.name in given}


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Make the `Settings` of parsed arguments; exit with one line if they don't fit together."""
    try:
        return Settings(**fields_from(arguments, Settings))
    except ValueError as exc:
        fail(str(exc))


def first_sentences(module: ModuleType, name: str) -> dict[str, str]:
    """Map the fields of a dataclass to what its source says of them; nothing without a source.

    The string below a field is there for readers and for Sphinx; Python itself drops it.
    """
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError):  # no file; a module that never had one
        return {}
    (node,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    found: dict[str, str] = {}
    for field, below in itertools.pairwise(node.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                sentence = " ".join(text.split()).partition(". ")[0].removesuffix(".")
                plain = sentence.replace("`None`", "none").replace("`", "").replace("%", "%%")
                found[name] = plain if plain[1:2].isupper() else plain[:1].lower() + plain[1:]
            case _:
                pass
    return found


def _unless_absent(convert: Callable[[str], object]) -> Callable[[str], object]:
    """Make a converter that leaves the mark of an absent argument, which argparse converts too."""

    def convert_given(text: str) -> object:
        return text if text is argparse.SUPPRESS else convert(text)

    return convert_given


def env_flag(name: str) -> str:
    """`log_level` is `--log-level`."""
    return "--" + name.replace("_", "-")


def env_name(flag: str) -> str:
    """`--log-level` is `H3TRIO_LOG_LEVEL`."""
    return "H3TRIO_" + flag.lstrip("-").replace("-", "_").upper()


def fail(message: str, status: int = common.EXIT_USAGE) -> NoReturn:
    """Print one line on standard error and exit, with status 2 unless another is given."""
    print(f"h3trio: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _is_size(name: str) -> bool:
    return name.endswith("_bytes") or name == "notsent_lowat"


_CONVERTERS: Final[Mapping[str, Callable[[str], float]]] = {
    "TIME": common.duration_or_zero,
    "SIZE": common.size,
}


def _setting(
    name: str, unit: str, kind: str, *, may_be_none: bool
) -> Callable[[str], float | None]:
    plain = common.whole if kind == "int" else common.number
    convert_value = _CONVERTERS.get(unit, plain)

    def convert(text: str) -> float | None:
        value: float | None = None
        if text.lower() != "none" or not may_be_none:
            try:
                value = convert_value(text)
            except ValueError as exc:
                raise ValueError(f"{exc}{'; none for no end' * may_be_none}") from None
        check(name, value)
        return value

    return convert


def _text(default: object, metavar: str | None) -> str:
    """Write a default as it is typed; nothing if there is none."""
    unit, _, none = (metavar or "").partition("|")
    if isinstance(default, int | float) and math.isfinite(default):
        if unit in _UNITS:
            return common.scaled_text(default, _UNITS[unit])
        return f"{default:g}" if isinstance(default, float) else f"{default}"
    return none if none == "none" else f"{default or ''}"


def _truth(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither 1 nor 0")
