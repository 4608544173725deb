"""The access log: one line per exchange, when it has ended.

Logger `h3trio.access`, level INFO. Nothing is formatted when nobody listens. Whatever the
client had a say in goes through `_redaction`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ._redaction import printable, shown_path, shown_query

if TYPE_CHECKING:
    from ._close import Closing
    from ._event import H3Event

logger = logging.getLogger("h3trio.access")

_MAX_METHOD: Final = 32
_MAX_CLIENT: Final = 128


def log_exchange(event: H3Event, closing: Closing) -> None:
    """Log client, method, path, status, reason, duration, events and bytes."""
    if not logger.isEnabledFor(logging.INFO):
        return
    logger.info(
        '%s "%s %s" %d %s %.3fs %d events %d bytes',
        printable(event.client, _MAX_CLIENT),
        printable(event.method, _MAX_METHOD),
        # As sent, percent-encoded. Without the query: what may be a secret is taken out of that
        # by its names, and names are a guess. Who wants it has it from the record.
        shown_path(event.raw_path),
        closing.status,
        closing.reason.value,
        closing.duration,
        closing.events,
        closing.bytes_sent,
        extra={"query": shown_query(event.raw_query)},
    )
