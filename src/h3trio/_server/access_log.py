"""The access log: one line per exchange, when it has ended.

Logger `h3trio.access`, level INFO. Nothing is formatted when nobody listens. Whatever the
client had a say in goes through `_redaction`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from .logs.redaction import printable, shown_path, shown_query

if TYPE_CHECKING:
    from h3trio._http.closing import Closing

    from .event import H3Event

logger = logging.getLogger("h3trio.access")

_LINE: Final = (
    '%(client)s "%(method)s %(path)s" %(status)d %(reason)s'
    " %(duration).3fs %(events)d events %(bytes)d bytes"
)
_MAX_METHOD: Final = 32
_MAX_CLIENT: Final = 128
_MAX_SUBJECT: Final = 256


def log_exchange(event: H3Event, closing: Closing) -> None:
    """Log client, method, path, status, reason, duration, events and bytes.

    The record has them as attributes too, and the query and the subject.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    fields = {
        "client": printable(event.client, _MAX_CLIENT),
        "method": printable(event.method, _MAX_METHOD),
        # As sent, percent-encoded. Without the query: what may be a secret is taken out of that
        # by its names, and names are a guess. Who wants it has it from the record.
        "path": shown_path(event.raw_path),
        "status": closing.status,
        "reason": closing.reason.value,
        "duration": round(closing.duration, 6),
        "events": closing.events,
        "bytes": closing.bytes_sent,
        "query": shown_query(event.raw_query),
    }
    if event.subject:
        fields["subject"] = printable(event.subject, _MAX_SUBJECT)
    logger.info(_LINE, fields, extra=fields)
