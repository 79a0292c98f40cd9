"""The package pydantic-ai against a gateway: text, stream, tools, and its ways to structured output."""

import asyncio
from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic_ai import Agent, NativeOutput, PromptedOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from city import City
from steps import BASE, MODEL, QUESTION, SHORT, run_steps, step

GATEWAY = OpenAIProvider(base_url=BASE, api_key="none")
LOOP = asyncio.Runner()
BRIEF = {"max_tokens": SHORT}
# A small model may make one call after the other until its context is full.
ONE_CALL = {"parallel_tool_calls": False}


class AnyObject(BaseModel):
    model_config = ConfigDict(extra="allow")


def ask(agent_options=None, kind=OpenAIChatModel, **more):
    model = kind(MODEL, provider=GATEWAY)
    return LOOP.run(Agent(model, **(agent_options or {})).run(QUESTION, **more))


def weather(city: Literal["Paris", "Rome"]) -> str:
    """Tells the weather of a city."""
    return f"Rain in {city}."


@step
def text():
    assert ask().output


@step
def text_streamed():
    async def once():
        async with Agent(OpenAIChatModel(MODEL, provider=GATEWAY)).run_stream(QUESTION, model_settings=BRIEF) as result:
            return "".join([part async for part in result.stream_text(delta=True)])

    assert LOOP.run(once())


@step
def a_tool():
    assert ask({"tools": [weather], "model_settings": BRIEF}).output is not None


@step
def output_by_a_tool():
    # The default way: the call of a tool is wanted, and its arguments are the answer.
    assert isinstance(ask({"output_type": City, "model_settings": ONE_CALL}).output, City)


@step
def output_by_a_schema():
    assert isinstance(ask({"output_type": NativeOutput(City)}).output, City)


@step
def output_by_the_prompt():
    # It asks for any object, and tells the schema in words alone, which a small model does not follow.
    assert isinstance(ask({"output_type": PromptedOutput(AnyObject)}).output, AnyObject)


@step
def by_the_responses_api():
    assert ask({"model_settings": BRIEF}, OpenAIResponsesModel).output
    assert isinstance(ask({"output_type": City, "model_settings": ONE_CALL}, OpenAIResponsesModel).output, City)


run_steps()
