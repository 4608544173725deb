"""The access log: one line per exchange, when it has ended.

Logger `h3trio.access`, level INFO. Nothing is formatted when nobody listens.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._close import Closing
    from ._event import H3Event

logger = logging.getLogger("h3trio.access")


def log_exchange(event: H3Event, closing: Closing) -> None:
    """Log client, method, path, status, reason, duration, events and bytes."""
    if not logger.isEnabledFor(logging.INFO):
        return
    logger.info(
        '%s "%s %s" %d %s %.3fs %d events %d bytes',
        event.client,
        event.method,
        # As sent: percent-encoded, so it can't forge a line. Without the query, which may hold
        # tokens.
        event.raw_path.decode("ascii", "backslashreplace"),
        closing.status,
        closing.reason.value,
        closing.duration,
        closing.events,
        closing.bytes_sent,
    )
