"""The package openai-agents against a gateway: its default, which is the Responses API, and chat completions."""

import asyncio
from typing import Literal

import agents
from openai import AsyncOpenAI

from city import City
from steps import BASE, MODEL, QUESTION, SHORT, run_steps, step

agents.set_tracing_disabled(True)  # Traces would go to OpenAI.
agents.set_default_openai_client(AsyncOpenAI(base_url=BASE, api_key="none"), use_for_tracing=False)
LOOP = asyncio.Runner()


def run(agent, ask=QUESTION, **more):
    return LOOP.run(agents.Runner.run(agent, ask, **more))


@agents.function_tool
def weather(city: Literal["Paris", "Rome"]) -> str:
    """Tells the weather of a city."""
    return f"Rain in {city}."


@step
def an_agent():
    assert run(agents.Agent("guide", model=MODEL)).final_output


@step
def an_agent_streams():
    async def ask():
        result = agents.Runner.run_streamed(agents.Agent("guide", model=MODEL), QUESTION)
        kinds = [event.type async for event in result.stream_events()]
        return kinds, result.final_output

    kinds, told = LOOP.run(ask())
    assert "raw_response_event" in kinds and told, kinds


@step
def an_agent_with_a_tool():
    agent = agents.Agent("guide", model=MODEL, tools=[weather])
    assert run(agent, "What is the weather in Paris?").final_output is not None


@step
def an_agent_whose_tool_is_called():
    settings = agents.ModelSettings(tool_choice="required", parallel_tool_calls=False)
    agent = agents.Agent("guide", model=MODEL, tools=[weather], model_settings=settings)
    result = run(agent, "What is the weather in Paris?")
    kinds = [item.type for item in result.new_items]
    assert "tool_call_output_item" in kinds, kinds


@step
def structured_output():
    assert isinstance(run(agents.Agent("guide", model=MODEL, output_type=City)).final_output, City)


@step
def by_chat_completions():
    agents.set_default_openai_api("chat_completions")
    try:
        brief = agents.ModelSettings(max_tokens=SHORT)
        assert run(agents.Agent("guide", model=MODEL, model_settings=brief)).final_output
        assert isinstance(run(agents.Agent("guide", model=MODEL, output_type=City)).final_output, City)
    finally:
        agents.set_default_openai_api("responses")


run_steps()
