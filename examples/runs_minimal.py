"""An answer that outlives its connection: any tab shows all of it, and any tab can stop it.

    python -m h3trio serve examples/runs_minimal.py:app
    curl -N localhost:3000/answers -H 'Accept: text/event-stream' -d 'Tell me a story'
    curl localhost:3000/answers -d 'Tell me a story'

Then open http://localhost:3000/ and ask; open the address that it leads to in a second tab; reload;
stop. The second curl is told at once where the answer is. The hub keeps 10,000 events in memory.
"""

from pathlib import Path

import trio

from h3trio import App, H3Event, Response
from h3trio.hub import Hub
from h3trio.runs import Run, Runs

runs = Runs(Hub())
app = App(lifespan=runs.lifespan)


async def answer(run: Run, prompt: str) -> None:
    """Stand in for the call of a model: echo the prompt."""
    for word in ["You", "said:", *prompt.split()]:
        await trio.sleep(0.1)
        await run.send(f"{word} ")


@app.post("/answers")
async def start(event: H3Event) -> Response | None:
    """Start an answer."""
    run = await runs.start(answer, await event.text())
    return run.reply(event)


@app.get("/answers/:id")
async def watch(event: H3Event) -> None:
    """Show an answer, from its first word or from where the client was."""
    await runs.watch(event, event.params["id"])


@app.delete("/answers/:id")
async def stop(event: H3Event) -> None:
    """Stop an answer: to leave isn't to stop it."""
    await runs.stop(event.params["id"])


@app.get("/")
async def page(_event: H3Event) -> Response:
    """Show the page."""
    return Response.html(Path(__file__).with_suffix(".html").read_text())
