"""How programs use the public API, as a type checker sees it: checked, never run."""

from __future__ import annotations

from typing import assert_type

from h3trio import SSEEvent


def an_event_knows_its_fields(event: SSEEvent) -> None:
    """Fields that an event may lack are optional, its data is not."""
    assert_type(event.id, str | None)
    assert_type(event.retry, int | None)
