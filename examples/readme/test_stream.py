"""The test of the README: ten seconds of the app, in no time.

    pip install pytest pytest-trio
    cd examples/readme && python -m pytest -o trio_mode=true test_stream.py

The README shows it, without docstrings.
"""

from app import app
from trio.testing import MockClock

from h3trio.testing import connect


async def test_counts_to_ten(autojump_clock: MockClock) -> None:
    """The client gets ten numbers."""
    async with connect(app, "/events") as client:
        for n in range(10):
            assert (await client.next_event()).data == str(n)
    assert autojump_clock.current_time() == 9
