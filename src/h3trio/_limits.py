"""`check_limit`: the check of a number that bounds something: a count, a size or a time."""

from __future__ import annotations

import math


def check_limit(
    name: str,
    value: object,
    *,
    whole: bool = True,
    least: int | None = None,
    finite: bool = True,
) -> None:
    """Check that a limit is a number, and positive, or no less than `least` where that is given.

    Raises:
        TypeError: it isn't a number, or not a whole one. A bool is neither.
        ValueError: it is too small, NaN, or infinite where it must be `finite`.
    """
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise TypeError(f"{name} must be a {'whole ' if whole else ''}number, not {value!r}")
    # Not `<`: NaN is no limit either.
    is_enough = value > 0 if least is None else value >= least
    if not is_enough or (finite and math.isinf(value)):
        wanted = "positive" if least is None else f"at least {least}"
        raise ValueError(f"{name} must be {wanted}, not {value!r}")
