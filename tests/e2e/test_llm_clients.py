"""The examples of OpenAI's and Anthropic's APIs, read by their own clients.

A client runs on asyncio, as with its users: breaking off a stream it leaves async generators to
the event loop, and Trio warns of each.
"""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from e2e.process import PATIENCE, ServeProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anthropic import AsyncAnthropic
    from anthropic.types import MessageParam
    from openai import AsyncOpenAI, AsyncStream
    from openai.types.chat import ChatCompletionChunk, ChatCompletionUserMessageParam
    from openai.types.responses import ResponseStreamEvent

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / "sse_llm_openai.py"
# More words than the lease leaves time for.
LONG = " ".join(["word"] * 200)
# An answer of two seconds: it goes on when its client comes back.
RESUMED = " ".join(["word"] * 40)
LEASE = ("--lease", "0.5", "--lease-jitter", "0")


@pytest.fixture
async def served(nursery: trio.Nursery) -> ServeProcess:
    """Serve the example of OpenAI's API."""
    return await ServeProcess.start(nursery, f"{EXAMPLE}:app")


async def with_openai(served: ServeProcess, use: Callable[[AsyncOpenAI], Awaitable[None]]) -> None:
    """Use the client as OpenAI's documentation shows it, but for its address."""

    async def main() -> None:
        import openai  # noqa: PLC0415 - it takes a second, which the other tests needn't wait

        url = f"{served.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            await asyncio.wait_for(use(client), PATIENCE)

    await trio.to_thread.run_sync(partial(asyncio.run, main()))


def say(text: str) -> list[ChatCompletionUserMessageParam]:
    """Make the messages of a conversation."""
    return [{"role": "user", "content": text}]


def user(text: str) -> MessageParam:
    """Make a message."""
    return {"role": "user", "content": text}


async def ask(client: AsyncOpenAI, text: str) -> AsyncStream[ChatCompletionChunk]:
    """Ask for a stream."""
    return await client.chat.completions.create(model="echo", messages=say(text), stream=True)


async def test_openai_reads_the_stream_and_the_whole(served: ServeProcess) -> None:
    """The client finds what it looks for: text piece by piece, why it ended, a whole message."""

    async def use(client: AsyncOpenAI) -> None:
        choices = [chunk.choices[0] async for chunk in await ask(client, "hello there")]
        assert "".join(choice.delta.content or "" for choice in choices) == "You said: hello there "
        assert [choice.finish_reason for choice in choices][-2:] == [None, "stop"]
        assert choices[0].delta.role == "assistant"
        whole = await client.chat.completions.create(model="echo", messages=say("hello"))
        assert whole.choices[0].message.content == "You said: hello "
        assert whole.choices[0].finish_reason == "stop"

    await with_openai(served, use)
    assert await served.stop() == 0


async def test_openai_sees_errors_before_and_amid(served: ServeProcess) -> None:
    """An error before the first byte is one of its status, a later one is raised amid the text."""
    texts: list[str | None] = []

    async def read(stream: AsyncStream[ChatCompletionChunk]) -> None:
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content)  # noqa: PERF401 - it ends by an error

    async def use(client: AsyncOpenAI) -> None:
        import openai  # noqa: PLC0415 - as above

        with pytest.raises(openai.InternalServerError, match="the model is overloaded") as refused:
            await ask(client, "refuse")
        assert refused.value.status_code == 503
        with pytest.raises(openai.BadRequestError, match="send messages"):
            await client.chat.completions.create(model="echo", messages=[], stream=True)
        stream = await ask(client, "now fail")
        with pytest.raises(openai.APIError, match="the model lost its thread"):
            await read(stream)

    await with_openai(served, use)
    assert texts == ["", "You ", "said: ", "now "]
    assert await served.stop() == 0


async def test_openai_leaves_and_the_model_is_cancelled(served: ServeProcess) -> None:
    """A client that closes its stream ends the call of the model."""

    async def use(client: AsyncOpenAI) -> None:
        stream = await ask(client, "then think")
        async for _ in stream:
            break
        await stream.close()
        # While the client is still there: closing that would end the stream too.
        line = r'"POST /v1/chat/completions" 200 client_closed'
        trio.from_thread.run(served.wait_line, line)

    await with_openai(served, use)
    assert await served.stop() == 0


async def with_anthropic(
    served: ServeProcess, use: Callable[[AsyncAnthropic], Awaitable[None]]
) -> None:
    """Use the client as Anthropic's documentation shows it, but for its address."""

    async def main() -> None:
        import anthropic  # noqa: PLC0415 - as above

        url = served.url
        async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
            await asyncio.wait_for(use(client), PATIENCE)

    await trio.to_thread.run_sync(partial(asyncio.run, main()))


async def test_anthropic_reads_the_stream(nursery: trio.Nursery) -> None:
    """The client finds the text and the whole message."""
    served = await ServeProcess.start(nursery, f"{EXAMPLES / 'sse_llm_messages.py'}:app")

    async def use(client: AsyncAnthropic) -> None:
        asked = client.messages.stream(model="echo", max_tokens=99, messages=[user("hello")])
        async with asked as stream:
            texts = [text async for text in stream.text_stream]
            message = await stream.get_final_message()
        assert "".join(texts) == "You said: hello "
        assert message.stop_reason == "end_turn"

    await with_anthropic(served, use)
    assert await served.stop() == 0


async def test_openai_raises_where_the_answer_is_cut_short(nursery: trio.Nursery) -> None:
    """Half of an answer is an error for the client, whatever the server ended it for."""
    served = await ServeProcess.start(nursery, f"{EXAMPLE}:app", *LEASE)
    texts: list[str | None] = []

    async def read(stream: AsyncStream[ChatCompletionChunk]) -> None:
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content)  # noqa: PERF401 - it ends by an error

    async def use(client: AsyncOpenAI) -> None:
        import openai  # noqa: PLC0415 - as above

        with pytest.raises(openai.APIConnectionError):
            await read(await ask(client, LONG))

    await with_openai(served, use)
    assert len(texts) > 1
    await served.wait_line(r'"POST /v1/chat/completions" 200 lease')
    assert await served.stop() == 0


async def test_anthropic_raises_where_the_answer_is_cut_short(nursery: trio.Nursery) -> None:
    """So it is for Anthropic's client."""
    served = await ServeProcess.start(nursery, f"{EXAMPLES / 'sse_llm_messages.py'}:app", *LEASE)
    texts: list[str] = []

    async def read(client: AsyncAnthropic) -> None:
        asked = client.messages.stream(model="echo", max_tokens=99, messages=[user(LONG)])
        async with asked as stream:
            async for text in stream.text_stream:
                texts.append(text)  # noqa: PERF401 - it ends by an error

    async def use(client: AsyncAnthropic) -> None:
        with pytest.raises(Exception, match="without sending complete message body"):
            await read(client)

    await with_anthropic(served, use)
    assert len(texts) > 1
    assert await served.stop() == 0


# -- OpenAI's Responses, which go on without their client


async def test_openai_resumes_a_response_by_its_number(nursery: trio.Nursery) -> None:
    """Who comes back with `starting_after` gets each event behind it, once; then all can be had."""
    served = await ServeProcess.start(nursery, f"{EXAMPLES / 'runs_openai_responses.py'}:app")

    async def use(client: AsyncOpenAI) -> None:
        stream = await client.responses.create(
            model="echo", input=RESUMED, stream=True, background=True
        )
        seen: list[ResponseStreamEvent] = []
        async for piece in stream:
            seen.append(piece)
            if piece.type == "response.output_text.delta" and piece.delta == "word ":
                break
        await stream.close()
        assert seen[0].type == "response.created"
        name = seen[0].response.id
        rest = await client.responses.retrieve(
            name, stream=True, starting_after=seen[-1].sequence_number
        )
        seen += [piece async for piece in rest]
        assert [piece.sequence_number for piece in seen] == list(range(len(seen)))
        assert text_of(seen) == f"You said: {RESUMED} "
        assert seen[-1].type == "response.completed"
        whole = await client.responses.retrieve(name)
        assert (whole.status, whole.output_text) == ("completed", text_of(seen))
        assert seen[-1].response == whole
        again = [piece async for piece in await client.responses.retrieve(name, stream=True)]
        assert again == seen
        nothing = await client.responses.retrieve(
            name, stream=True, starting_after=seen[-1].sequence_number
        )
        assert [piece async for piece in nothing] == []

    await with_openai(served, use)
    assert await served.stop() == 0


async def test_openai_reads_a_response_in_its_other_ways(nursery: trio.Nursery) -> None:
    """The client's own helper for streams understands it; so do those who don't stream."""
    served = await ServeProcess.start(nursery, f"{EXAMPLES / 'runs_openai_responses.py'}:app")

    async def use(client: AsyncOpenAI) -> None:
        async with client.responses.stream(model="echo", input="hello") as stream:
            names = [p.response.id async for p in stream if p.type == "response.created"]
            whole = await stream.get_final_response()
        assert whole.output_text == "You said: hello "
        async with client.responses.stream(response_id=names[0], starting_after=3) as stream:
            numbers = [piece.sequence_number async for piece in stream]
            assert await stream.get_final_response() == whole
        assert numbers[0] == 4
        waited_for = await client.responses.create(
            model="echo", input=[{"role": "user", "content": "hi"}]
        )
        assert (waited_for.status, waited_for.output_text) == ("completed", "You said: hi ")

    await with_openai(served, use)
    assert await served.stop() == 0


async def test_openai_cancels_a_response(nursery: trio.Nursery) -> None:
    """To cancel ends the stream of whoever reads it, keeps what there was, and may be repeated."""
    served = await ServeProcess.start(nursery, f"{EXAMPLES / 'runs_openai_responses.py'}:app")

    async def use(client: AsyncOpenAI) -> None:
        import openai  # noqa: PLC0415 - as above

        started = await client.responses.create(model="echo", input=LONG, background=True)
        assert started.status == "in_progress"
        seen: list[ResponseStreamEvent] = []
        async for piece in await client.responses.retrieve(started.id, stream=True):
            if piece.type == "response.output_text.delta" and not text_of(seen):
                cancelled = await client.responses.cancel(started.id)
                assert cancelled.status == "cancelled"
            seen.append(piece)
        assert seen[-1].type == "response.incomplete"
        assert (await client.responses.cancel(started.id)) == seen[-1].response
        assert f"You said: {LONG}".startswith(text_of(seen))
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve("no-such-id")

    await with_openai(served, use)
    assert await served.stop() == 0


async def test_openai_is_told_of_a_response_that_failed(nursery: trio.Nursery) -> None:
    """A response that fails has the model's message, what there was of it, and no `completed`."""
    served = await ServeProcess.start(nursery, f"{EXAMPLES / 'runs_openai_responses.py'}:app")

    async def use(client: AsyncOpenAI) -> None:
        stream = await client.responses.create(model="echo", input="now fail", stream=True)
        seen = [piece async for piece in stream]
        last = seen[-1]
        assert last.type == "response.failed"
        assert last.response.error is not None
        assert last.response.error.message == "the model lost its thread"
        assert last.response.output_text == "You said: now "

    await with_openai(served, use)
    assert await served.stop() == 0


async def test_openai_is_told_of_a_response_whose_server_goes_away(nursery: trio.Nursery) -> None:
    """A response that isn't whole when the server must go is a failed one for those who read it."""
    served = await ServeProcess.start(
        nursery, f"{EXAMPLES / 'runs_openai_responses.py'}:app", "--drain-finish", "2"
    )

    async def use(client: AsyncOpenAI) -> None:
        stream = await client.responses.create(model="echo", input=LONG * 10, stream=True)
        seen: list[ResponseStreamEvent] = []
        async for piece in stream:
            if not text_of(seen) and piece.type == "response.output_text.delta":
                served.send_signal(signal.SIGTERM)
            seen.append(piece)
        last = seen[-1]
        assert last.type == "response.failed"
        assert last.response.error is not None
        assert last.response.error.message == "interrupted"
        assert last.response.output_text == text_of(seen)

    await with_openai(served, use)
    assert await served.wait() == 0


def text_of(pieces: Sequence[ResponseStreamEvent]) -> str:
    """Join the text of a stream."""
    return "".join(p.delta for p in pieces if p.type == "response.output_text.delta")
