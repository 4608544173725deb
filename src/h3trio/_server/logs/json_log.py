"""`JSONFormatter`: log records as lines of JSON, for programs that collect logs.

A line is one object in ASCII: JSON escapes characters that end a line or steer a terminal. The
`extra=` fields of a record, such as those of the access log, stand beside ours, and never in their
place. Whatever they hold, the line is JSON by RFC 8259, which has no NaN.
"""

from __future__ import annotations

import contextlib
import json
import logging
from datetime import UTC, datetime
from typing import Final, final

import trio

# What every record has, so that the rest is `extra`; and what 3.12 adds for asyncio.
_USUAL: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})


@final
class JSONFormatter(logging.Formatter):
    """Formats a record as `{"time", "level", "logger", "message", "task", ...}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        fields: dict[str, object] = {
            "time": _time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "task": _task_name(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        told = {name: value for name, value in fields.items() if value is not None}
        for name, value in vars(record).items():
            if name not in _USUAL and value is not None:
                told.setdefault(name, value)
        try:
            return _dumped(told)
        except Exception:  # noqa: BLE001 - whatever a value raises, the record is worth its line
            return _dumped({name: _sayable(value) for name, value in told.items()})


def _dumped(value: object) -> str:
    return json.dumps(value, default=str, skipkeys=True, allow_nan=False)


def _sayable(value: object) -> object:
    """Return a value that JSON has a form for, else its `repr`, else what it is an instance of."""
    with contextlib.suppress(Exception):
        _dumped(value)
        return value
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - such as too deep a nesting
        return f"<{type(value).__name__}>"


def _time(created: float) -> str:
    """RFC 3339, in UTC, with milliseconds."""
    moment = datetime.fromtimestamp(created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _task_name() -> str | None:
    try:
        return trio.lowlevel.current_task().name
    except RuntimeError:
        return None  # another thread, or none of Trio's runs
