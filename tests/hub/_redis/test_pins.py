"""What a store is told of a hub's pins: all, or the changes since the version that it has."""

from __future__ import annotations

from h3trio.hub._redis.pins import Pins


def told(pins: Pins) -> tuple[str, list[str]]:
    """What is told: a sign and a version, and lines."""
    _node, _version, what, _seconds = pins.told()
    first, *lines = what.split("\n")
    return (first, lines) if first.startswith(("~", "=")) else ("+", [first[1:], *lines])


def with_topics(count: int) -> Pins:
    """Pins of so many topics, which the store knows."""
    pins = Pins(count + 10)
    for number in range(count):
        pins.pin(f"t{number}")
    pins.note(pins.version)
    return pins


def test_only_what_changed_is_told() -> None:
    """Behind the version that the store has; and nothing where it has the newest."""
    pins = with_topics(3)
    assert told(pins) == ("=", [])
    pins.pin("new")
    pins.unpin("t1")
    assert told(pins) == ("~3", ["+new", "-t1"])
    pins.note(pins.version)
    assert told(pins) == ("=", [])


def test_a_store_that_knows_nothing_is_told_all() -> None:
    """At first, and where it has forgotten."""
    pins = Pins(9)
    pins.pin("a")
    assert told(pins) == ("+", ["a"])
    pins.note(pins.version)
    pins.pin("b")
    pins.forget()
    assert told(pins) == ("+", ["a", "b"])


def test_more_changes_than_topics_are_all_topics() -> None:
    """They are kept for a store that is away only while they are fewer."""
    pins = with_topics(3)
    for _ in range(9):
        pins.pin("new")
        pins.unpin("new")
    assert told(pins) == ("+", ["t0", "t1", "t2"])


def test_an_answer_to_what_was_forgotten_since_is_no_use() -> None:
    """What changed behind it isn't known any more."""
    pins = with_topics(3)
    version = pins.version
    pins.pin("new")
    pins.forget()
    pins.note(version)
    assert told(pins)[0] == "+"
    pins.note(pins.version)
    assert told(pins) == ("=", [])
