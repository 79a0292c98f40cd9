"""The package litellm against a gateway: chat, stream, tools, fallbacks when a prompt is too long."""

import litellm

from city import City
from steps import BASE, MODEL, QUESTION, SHORT, run_steps, step

GATEWAY = {"model": f"openai/{MODEL}", "api_base": BASE, "api_key": "none"}
ASKED = [{"role": "user", "content": QUESTION}]
LONG = [{"role": "user", "content": "word " * 9000}]
CITY = {"type": "function", "function": {"name": "city", "parameters": City.model_json_schema()}}
# One call, as a small model may make one after the other until its context is full.
CALLING = {"tools": [CITY], "tool_choice": "required", "parallel_tool_calls": False}


@step
def chat():
    assert litellm.completion(**GATEWAY, messages=ASKED).choices[0].message.content


@step
def chat_streamed():
    parts = litellm.completion(**GATEWAY, messages=ASKED, stream=True, max_tokens=SHORT)
    assert "".join(part.choices[0].delta.content or "" for part in parts)


@step
def tools_with_a_second_turn():
    first = litellm.completion(**GATEWAY, messages=ASKED, **CALLING).choices[0].message
    City.model_validate_json(first.tool_calls[0].function.arguments)
    results = [{"role": "tool", "tool_call_id": call.id, "content": "Taken."} for call in first.tool_calls]
    turns = [*ASKED, first, *results]
    assert litellm.completion(**GATEWAY, messages=turns, tools=[CITY], max_tokens=SHORT).choices


@step
def tools_streamed():
    parts = list(litellm.completion(**GATEWAY, messages=ASKED, **CALLING, stream=True))
    whole = litellm.stream_chunk_builder(parts)
    City.model_validate_json(whole.choices[0].message.tool_calls[0].function.arguments)


@step
def structured_output():
    answer = litellm.completion(**GATEWAY, messages=ASKED, response_format=City)
    City.model_validate_json(answer.choices[0].message.content)


@step
def a_prompt_that_is_too_long():
    try:
        litellm.completion(**GATEWAY, messages=LONG)
    except litellm.ContextWindowExceededError:
        return
    raise AssertionError("it was taken")


@step
def fallback_when_a_prompt_is_too_long():
    short = {"model_name": "short", "litellm_params": GATEWAY}
    # Stands for a model with a longer context: this deployment answers by itself.
    long = {"model_name": "long", "litellm_params": {**GATEWAY, "mock_response": "from the long one"}}
    router = litellm.Router([short, long], context_window_fallbacks=[{"short": ["long"]}], num_retries=0)
    assert router.completion("short", messages=LONG).choices[0].message.content == "from the long one"


@step
def embeddings():
    assert len(litellm.embedding(**GATEWAY, input=["a cat", "a dog"]).data) == 2


@step
def responses():
    assert litellm.responses(**GATEWAY, input=QUESTION, max_output_tokens=SHORT).output


@step
def messages_of_anthropic():
    here = {"model": f"anthropic/{MODEL}", "api_base": BASE.removesuffix("/v1"), "api_key": "none"}
    assert litellm.completion(**here, messages=ASKED, max_tokens=SHORT).choices[0].message.content


run_steps()
