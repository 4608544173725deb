"""`Watchers`: counts the streams of those who watch the hub, which are no clients of it.

The server counts every stream. A page that shows its own two among the others' shows a hub that
nobody uses as busy, so the counts of watchers stand beside the server's, to be taken off.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Generator

    from h3trio import CloseReason, Closing, H3Event


@final
@dataclass(slots=True)
class Watchers:
    """The streams of dashboards, `top` and other readers of `/statistics`."""

    streams: int = 0
    """Open now; each has a connection."""
    stream_closings: Counter[CloseReason] = field(default_factory=Counter["CloseReason"])
    """Those that have ended, by reason."""
    refusals: Counter[int] = field(default_factory=Counter[int])
    """Answers to who asked for one and got none, by status."""

    def count_answer(self, event: H3Event) -> None:
        """Count what becomes of a request for a stream."""
        event.on_close(self._count)

    @contextmanager
    def streaming(self) -> Generator[None]:
        """Count a stream as open, within the block."""
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    def _count(self, closing: Closing) -> None:
        if closing.is_stream:
            self.stream_closings[closing.reason] += 1
        else:
            self.refusals[closing.status] += 1
