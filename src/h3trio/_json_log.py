"""Log records as lines of JSON, for programs that collect logs.

One object a line, all of ASCII: JSON escapes what could end the line or steer a terminal. The
fields that a record brings along (`extra=`), such as those of the access log, stand beside ours.
"""

from __future__ import annotations

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
        fields |= {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        told = {name: value for name, value in fields.items() if value is not None}
        return json.dumps(told, default=str, skipkeys=True)


def _time(created: float) -> str:
    """RFC 3339, in UTC, with milliseconds."""
    moment = datetime.fromtimestamp(created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _task_name() -> str | None:
    try:
        return trio.lowlevel.current_task().name
    except RuntimeError:
        return None  # another thread, or none of Trio's runs
