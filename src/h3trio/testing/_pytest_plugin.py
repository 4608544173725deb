"""Fixtures for pytest with pytest-trio; pytest finds them by the entry point `pytest11`.

A fixture imports h3trio when a test asks for it: pytest loads this in every project's tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    import trio

    from h3trio.hub import Hub

    from ._client import Client


@pytest.fixture
async def h3trio_connect() -> AsyncGenerator[Callable[..., Awaitable[Client]]]:
    """Connect as `h3trio.testing.connect` does, by an `await`; left when the test ends."""
    import trio  # noqa: PLC0415 - see this module's docstring

    from h3trio._nursery import OwnedNursery  # noqa: PLC0415 - same

    from . import connect  # noqa: PLC0415 - same

    async def hold(client: Client, *, task_status: trio.TaskStatus[Client]) -> None:
        async with client:
            task_status.started(client)
            await trio.sleep_forever()

    # A nursery has to be left by the task that entered it, and that isn't the test's.
    async with OwnedNursery() as nursery:

        async def enter(
            *args: Any,  # noqa: ANN401 - those of `connect`
            **options: Any,  # noqa: ANN401 - same
        ) -> Client:
            client: Client = await nursery.start(hold, connect(*args, **options))
            return client

        yield enter


@pytest.fixture
async def h3trio_hub() -> AsyncGenerator[Hub]:
    """A running `Hub`, in memory."""
    from h3trio.hub import Hub  # noqa: PLC0415 - see this module's docstring

    async with Hub() as hub:
        yield hub
