"""The app of the README: ten events, one a second.

    python -m h3trio serve examples/readme/app.py:app
    curl -N localhost:3000/events

The README shows it, without docstrings.
"""

import trio

from h3trio import App, H3Event

app = App()


@app.get("/events")
async def events(event: H3Event) -> None:
    """Count to ten; leaving the block ends the stream."""
    async with event.start_sse() as writer:
        for n in range(10):
            await writer.send(str(n), event="counter", id=str(n))
            await trio.sleep(1)
