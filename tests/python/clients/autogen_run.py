"""The packages autogen-agentchat and autogen-ext against a gateway: an agent at its defaults, and one with a tool."""

import asyncio
import json
from typing import Literal

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    UserMessage,
)
from autogen_core.tools import FunctionTool
from autogen_ext.models.openai import OpenAIChatCompletionClient

from city import City
from steps import BASE, MODEL, QUESTION, SHORT, run_steps, step

# AutoGen itself wants model_info for every name that is not OpenAI's.
CAN = {"vision": False, "function_calling": True, "json_output": True, "structured_output": True, "family": "unknown"}

LOOP = asyncio.Runner()


def client(**more):
    return OpenAIChatCompletionClient(model=MODEL, base_url=BASE, api_key="none", model_info=CAN, **more)


async def weather(city: Literal["Paris", "Rome"]) -> str:
    """Tells the weather of a city."""
    return f"Rain in {city}."


@step
def an_agent():
    result = LOOP.run(AssistantAgent("guide", model_client=client()).run(task=QUESTION))
    assert result.messages[-1].content, result


@step
def an_agent_streams():
    async def ask():
        agent = AssistantAgent("guide", model_client=client(max_tokens=SHORT), model_client_stream=True)
        return [message async for message in agent.run_stream(task=QUESTION)]

    assert len(LOOP.run(ask())) > 3


@step
def an_agent_with_a_tool():
    agent = AssistantAgent("guide", model_client=client(max_tokens=SHORT), tools=[weather])
    result = LOOP.run(agent.run(task="What is the weather in Paris?"))
    assert result.messages[-1].content is not None, result


@step
def a_tool_that_is_called():
    # An agent always says "auto", so the client is asked itself.
    tool, asked = FunctionTool(weather, description="Tells the weather"), UserMessage(content=QUESTION, source="user")

    async def ask():
        called = await client(parallel_tool_calls=False).create([asked], tools=[tool], tool_choice="required")
        call = called.content[0]
        result = FunctionExecutionResult(content=await weather("Rome"), name=call.name, call_id=call.id)
        turns = [asked, AssistantMessage(content=called.content, source="guide")]
        turns.append(FunctionExecutionResultMessage(content=[result]))
        return call, await client(max_tokens=SHORT).create(turns, tools=[tool])

    call, answer = LOOP.run(ask())
    assert call.name == "weather" and json.loads(call.arguments)["city"] in ("Paris", "Rome"), call
    assert answer.content is not None, answer


@step
def structured_output():
    async def ask():
        return await client().create([UserMessage(content=QUESTION, source="user")], json_output=City)

    City.model_validate_json(LOOP.run(ask()).content)


run_steps()
