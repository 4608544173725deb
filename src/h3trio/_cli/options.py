"""Command-line options that have a twin in the environment.

`--host` reads `H3TRIO_HOST` where the flag isn't given. An error is one line
that names where the value came from, and the exit status is 2. The environment
is read after the flags, so what isn't needed is never complained about.

Every field of `Settings` is an option too: `SETTINGS` is the table of their
help, the rest comes from the field itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, final

from h3trio._http.settings import Settings, check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})

EXIT_USAGE: Final = 2

SETTINGS: Final = {
    "max_connections": "connections at once; one more is answered 503",
    "max_connections_per_address": "connections of one address; one more is answered 429",
    "max_streams_per_address": "event streams of one address; one more is answered 429",
    "backlog": "connections the kernel may hold before they are accepted",
    "max_requests_per_connection": "requests on one connection, or none for no end",
    "max_head_bytes": "longest request line and headers",
    "max_target_bytes": "longest request target",
    "max_header_count": "most header fields of one request",
    "max_body_bytes": "longest request body that is taken as a whole",
    "max_event_bytes": "longest event that a client publishes",
    "body_buffer_bytes": "request body held before it is asked for",
    "max_discard_bytes": "unread request body thrown away to keep a connection",
    "head_timeout": "seconds for a request's head to arrive",
    "tls_handshake_timeout": "seconds for a TLS handshake",
    "body_timeout": "longest silence, in seconds, inside a request body",
    "min_body_rate": "bytes a second that a request body must come to, or none",
    "keepalive_timeout": "seconds a connection may idle between requests",
    "write_timeout": "seconds without progress before a slow client is closed",
    "linger_timeout": "seconds to read on after the last response",
    "heartbeat_interval": "seconds of silence on a stream before a comment",
    "lease": "longest life of a stream in seconds, or none",
    "lease_jitter": "share by which leases differ, so that they don't end together",
    "reconnect_delay": "middle of the delay, in seconds, that clients are told",
    "queue_events": "events that wait for one slow client",
    "queue_bytes": "bytes that wait for one slow client",
    "notsent_lowat": "unsent bytes the kernel takes for one connection",
    "farewell_timeout": "seconds an ended stream may take to accept what it holds",
    "drain_soft": "first phase of a shutdown, in seconds: streams are ended one by one",
    "drain_hard": "second phase of a shutdown, in seconds: then what is left is cancelled",
    "blocked_loop_warning": "seconds the loop may be blocked before the task is logged, or none",
    "cancel_warning": "seconds a cancelled handler may go on before it is logged, or none",
}
"""The fields of `Settings` and what they do, as `--help` says it."""

_SHORT: Final = {"heartbeat_interval": "--heartbeat", "max_body_bytes": "--max-body"}


class _Twin(NamedTuple):
    """What an option is where the flag isn't given."""

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
        super().__init__(**kwargs)
        self._twins: list[_Twin] = []

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        fail(message)

    def add_option(
        self,
        *flags: str,
        help: str,  # noqa: A002 - argparse's name for it
        default: object = None,
        type: Callable[[str], object] = str,  # noqa: A002 - argparse's name for it
        metavar: str | None = None,
        repeated: bool = False,
        variable: str | None = None,
    ) -> None:
        """Add an option with a value, and its twin in the environment.

        Where it may be repeated, `type` returns a list, and the value is all of them.

        `type` raises `ValueError` with a message that can stand behind the option's name.
        """

        def convert(text: str) -> object:
            try:
                return type(text)
            except ValueError as exc:
                raise argparse.ArgumentTypeError(str(exc)) from exc

        variable = variable or env_name(flags[0])
        shown = f"{help} [{variable}" + (
            "]" if default in (None, "", ()) else f", default {default}]"
        )
        action = self.add_argument(
            *flags,
            help=shown,
            default=argparse.SUPPRESS,
            type=convert,
            metavar=metavar,
            action="extend" if repeated else "store",
        )
        self._twins.append(_Twin(action.dest, variable, convert, default))

    def add_switch(self, flag: str, *, help: str) -> None:  # noqa: A002 - argparse's name for it
        """Add a switch that is off unless given, and its twin in the environment."""
        variable = env_name(flag)
        action = self.add_argument(
            flag, help=f"{help} [{variable}]", action="store_true", default=argparse.SUPPRESS
        )
        self._twins.append(_Twin(action.dest, variable, _truth, default=False))

    def add_variable(self, dest: str, variable: str) -> None:
        """Add what comes by the environment alone: a secret, which flags would show."""
        self._twins.append(_Twin(dest, variable, str, None))

    def add_settings(self) -> None:
        """Add an option for each field of `Settings`."""
        for field in dataclasses.fields(Settings):
            self.add_option(
                env_flag(field.name),
                *filter(None, [_SHORT.get(field.name)]),
                help=SETTINGS[field.name],
                default=field.default,
                type=_setting(field.name, str(field.type)),
                metavar="N",
            )

    def complete(self, arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
        """Give the options that were not given their value from the environment, or the default.

        A variable that is set and empty counts as not set.
        """
        for dest, variable, convert, default in self._twins:
            if hasattr(arguments, dest):
                continue
            text = environ.get(variable)
            try:
                value = convert(text) if text else default
            except (ValueError, argparse.ArgumentTypeError) as exc:
                fail(f"{variable}: {exc}")
            setattr(arguments, dest, value)


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Make the `Settings` of parsed arguments; exit with one line if they don't fit together."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Settings)}
    try:
        return Settings(**values)
    except ValueError as exc:
        fail(str(exc))


def env_flag(name: str) -> str:
    """`log_level` is `--log-level`."""
    return "--" + name.replace("_", "-")


def env_name(flag: str) -> str:
    """`--log-level` is `H3TRIO_LOG_LEVEL`."""
    return "H3TRIO_" + flag.lstrip("-").replace("-", "_").upper()


def fail(message: str) -> NoReturn:
    """Print one line on standard error and exit with status 2."""
    print(f"h3trio: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(EXIT_USAGE)


def _setting(name: str, annotation: str) -> Callable[[str], float | None]:
    def convert(text: str) -> float | None:
        value = _number(text, annotation)
        check(name, value)
        return value

    return convert


def _number(text: str, annotation: str) -> float | None:
    if text.lower() == "none" and annotation.endswith("None"):
        return None
    kind, what = (int, "a whole number") if annotation.startswith("int") else (float, "a number")
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is not {what}") from None


def _truth(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither 1 nor 0")
