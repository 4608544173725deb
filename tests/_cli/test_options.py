"""Options of the command line: flags, their twins in the environment, and the settings."""

from __future__ import annotations

import dataclasses
import itertools
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from h3trio import Settings
from h3trio._cli.options import (
    Options,
    env_flag,
    env_name,
    fail,
    first_sentences,
    settings_from,
)
from h3trio._http import settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

FIELDS = [field.name for field in dataclasses.fields(Settings)]
WHOLE = {field.name for field in dataclasses.fields(Settings) if "int" in str(field.type)}


def whole(text: str) -> int:
    """Convert as the options of this file do: an error says what is wrong in its own words."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None


def parse(*argv: str, environ: Mapping[str, str] | None = None) -> argparse.Namespace:
    """Parse with an option, a switch and the settings."""
    parser = Options(prog="prog")
    parser.add_option("--size", "-s", default=3, type=whole, help="how large")
    parser.add_switch("--loud", help="make noise")
    parser.add_settings()
    arguments = parser.parse_args(argv)
    parser.complete(arguments, environ or {})
    return arguments


def error_of(capsys: pytest.CaptureFixture[str], *argv: str, **environ: str) -> str:
    """Return the one line that parsing ends with."""
    with pytest.raises(SystemExit) as caught:
        parse(*argv, environ=environ)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.rstrip()


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        ((), {}, 3),
        (("--size", "4"), {}, 4),
        (("-s4",), {}, 4),
        ((), {"H3TRIO_SIZE": "5"}, 5),
        (("--size", "4"), {"H3TRIO_SIZE": "5"}, 4),
        ((), {"H3TRIO_SIZE": ""}, 3),
    ],
)
def test_flag_then_environment_then_default(
    argv: tuple[str, ...], environ: dict[str, str], expected: int
) -> None:
    """A flag counts before its variable, a variable that isn't empty before the default."""
    assert parse(*argv, environ=environ).size == expected


SWITCHES = [
    ((), "", False),
    (("--loud",), "", True),
    (("--loud",), "0", True),
    *(((), text, True) for text in ("1", "true", "YES", "on")),
    *(((), text, False) for text in ("0", "False", "no", "OFF")),
]


def test_switch(subtests: pytest.Subtests) -> None:
    """A switch is on by its flag or by a true word in its variable."""
    for argv, value, expected in SWITCHES:
        with subtests.test(argv=argv, value=value):
            assert parse(*argv, environ={"H3TRIO_LOUD": value}).loud is expected


def test_bad_values_name_their_source(capsys: pytest.CaptureFixture[str]) -> None:
    """One line says which flag or variable is wrong, and how."""
    assert error_of(capsys, "--size", "x") == (
        "h3trio: error: argument --size/-s: 'x' is no number"
    )
    assert error_of(capsys, H3TRIO_SIZE="x") == "h3trio: error: H3TRIO_SIZE: 'x' is no number"
    assert error_of(capsys, H3TRIO_LOUD="loud") == (
        "h3trio: error: H3TRIO_LOUD: 'loud' is neither 1 nor 0"
    )


def test_an_unused_variable_is_not_looked_at() -> None:
    """A bad variable doesn't matter where the flag is given."""
    assert parse("--size", "4", environ={"H3TRIO_SIZE": "x"}).size == 4


def test_no_abbreviations(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag is written out, so that new flags never change what old commands mean."""
    assert "unrecognized arguments: --siz" in error_of(capsys, "--siz", "4")


def test_help_names_variable_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Help says for each option how its variable is called, and the default."""
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "how large [H3TRIO_SIZE, default 3]" in text
    assert "make noise [H3TRIO_LOUD]" in text


def test_fail_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A message of several lines is joined to one."""
    with pytest.raises(SystemExit) as caught:
        fail("first\n  second")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "h3trio: error: first second\n"


def test_names() -> None:
    """A field, its flag and its variable differ only in how words are joined."""
    assert env_flag("drain_soft") == "--drain-soft"
    assert env_name("--drain-soft") == "H3TRIO_DRAIN_SOFT"


# -- settings


def test_every_setting_has_help() -> None:
    """The help of each field of `Settings` is the first sentence below it."""
    found = first_sentences(settings, "Settings")
    assert list(found) == FIELDS
    assert found["max_connections"] == "connections at once; one more is answered 503"
    assert not [text for text in found.values() if len(text) > 160 or "`" in text]


def test_help_without_a_source() -> None:
    """A module whose source isn't there has no help, and that is no error."""
    assert first_sentences(ModuleType("made"), "Settings") == {}


def test_every_setting_is_an_option() -> None:
    """Each field of `Settings` can be given by a flag and by a variable."""
    values: dict[str, Any] = dict.fromkeys(FIELDS, 7) | {"lease_jitter": 0.5}
    texts = {env_flag(name): str(value) for name, value in values.items()}
    by_flag = settings_from(parse(*itertools.chain(*texts.items())))
    environ = {env_name(flag): text for flag, text in texts.items()}
    by_variable = settings_from(parse(environ=environ))
    assert by_flag == by_variable == Settings(**values)
    for name in FIELDS:
        assert type(getattr(by_flag, name)) is (int if name in WHOLE else float)


def test_settings_default_to_their_own_defaults() -> None:
    """Without any option the settings are those of `Settings()`."""
    assert settings_from(parse()) == Settings()


def test_settings_have_short_forms() -> None:
    """The two longest names that are often typed can be shortened."""
    settings = settings_from(parse("--heartbeat", "2", "--max-body", "3"))
    assert (settings.heartbeat_interval, settings.max_body_bytes) == (2, 3)


def test_a_setting_may_be_none() -> None:
    """A setting that can be off is turned off by the word, over a variable that says otherwise."""
    environ = {"H3TRIO_LEASE": "60"}
    assert settings_from(parse(environ=environ)).lease == 60
    assert settings_from(parse("--lease", "none", environ=environ)).lease is None


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        ("--drain-soft", "-1", "'-1' is not a time"),
        ("--drain-soft", "soon", "'soon' is not a time"),
        ("--drain-soft", "none", "'none' is not a time"),
        ("--drain-soft", "inf", "'inf' is not a time"),
        ("--lease", "0", "lease must be positive, not 0.0"),
        ("--queue-bytes", "0", "'0' is not a size"),
        ("--max-connections", "1.5", "'1.5' is not a whole number"),
        ("--max-connections", "0", "max_connections must be positive, not 0"),
    ],
)
def test_a_bad_setting_is_refused_where_it_was_given(
    capsys: pytest.CaptureFixture[str], flag: str, text: str, message: str
) -> None:
    """A value that `Settings` refuses is one line too, with the name of flag or variable."""
    assert error_of(capsys, flag, text).startswith(f"h3trio: error: argument {flag}: {message}")
    variable = env_name(flag)
    line = error_of(capsys, **{variable: text})
    assert line.startswith(f"h3trio: error: {variable}: {message}")


def test_settings_that_do_not_fit_together(capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that don't fit together are one line as well."""
    arguments = parse()
    arguments.lease = -1.0
    with pytest.raises(SystemExit):
        settings_from(arguments)
    assert capsys.readouterr().err == "h3trio: error: lease must be positive, not -1.0\n"
