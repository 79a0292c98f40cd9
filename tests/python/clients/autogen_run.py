"""The packages autogen-agentchat and autogen-ext against a gateway: an agent at its defaults, and one with a tool."""

import asyncio
from typing import Literal

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient

from city import City
from steps import BASE, MODEL, QUESTION, SHORT, run_steps, step

# AutoGen itself wants model_info for every name that is not OpenAI's.
CAN = {"vision": False, "function_calling": True, "json_output": True, "structured_output": True, "family": "unknown"}


def client(**more):
    return OpenAIChatCompletionClient(model=MODEL, base_url=BASE, api_key="none", model_info=CAN, **more)


async def weather(city: Literal["Paris", "Rome"]) -> str:
    """Tells the weather of a city."""
    return f"Rain in {city}."


@step
def an_agent():
    result = asyncio.run(AssistantAgent("guide", model_client=client()).run(task=QUESTION))
    assert result.messages[-1].content, result


@step
def an_agent_streams():
    async def ask():
        agent = AssistantAgent("guide", model_client=client(), model_client_stream=True)
        return [message async for message in agent.run_stream(task=QUESTION)]

    assert len(asyncio.run(ask())) > 3


@step
def an_agent_with_a_tool():
    agent = AssistantAgent("guide", model_client=client(max_tokens=SHORT), tools=[weather])
    result = asyncio.run(agent.run(task="What is the weather in Paris?"))
    assert result.messages[-1].content is not None, result


@step
def an_agent_whose_tool_is_called():
    calling = client(tool_choice="required", parallel_tool_calls=False)
    agent = AssistantAgent("guide", model_client=calling, tools=[weather], reflect_on_tool_use=True)
    result = asyncio.run(agent.run(task="What is the weather in Paris?"))
    kinds = [message.type for message in result.messages]
    assert "ToolCallExecutionEvent" in kinds, kinds


@step
def structured_output():
    async def ask():
        return await client().create([UserMessage(content=QUESTION, source="user")], json_output=City)

    City.model_validate_json(asyncio.run(ask()).content)


run_steps()
