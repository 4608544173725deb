"""The test of the README: ten seconds of the app, in no time.

    pip install pytest pytest-trio
    python -m pytest -o trio_mode=true examples/readme/test_stream.py

The README shows it, without docstrings.
"""

import pytest
from app import app

from h3trio.testing import connect


@pytest.mark.usefixtures("autojump_clock")
async def test_counts_to_ten() -> None:
    """The client gets ten numbers."""
    async with connect(app, "/events") as client:
        for n in range(10):
            assert (await client.next_event()).data == str(n)
