"""The package openai against a gateway: chat, tools, structured output, responses, embeddings."""

from openai import BadRequestError, OpenAI, pydantic_function_tool

from city import City
from steps import BASE, MODEL, QUESTION, SHORT, run_steps, step

client = OpenAI(base_url=BASE, api_key="none")
ASKED = [{"role": "user", "content": QUESTION}]
CITY = pydantic_function_tool(City, name="city", description="Takes what is known of a city")
CITY_OF_RESPONSES = {"type": "function", **CITY["function"]}
ENDS = ("response.completed", "response.incomplete")
# One call, as a small model may make one after the other until its context is full.
CALLING = {"model": MODEL, "tools": [CITY], "tool_choice": "required", "parallel_tool_calls": False}


@step
def chat():
    answer = client.chat.completions.create(model=MODEL, messages=ASKED)
    assert answer.choices[0].message.content and answer.usage.completion_tokens, answer


@step
def chat_streamed():
    chunks = list(client.chat.completions.create(model=MODEL, messages=ASKED, stream=True, max_completion_tokens=SHORT))
    assert "".join(c.choices[0].delta.content or "" for c in chunks)
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices[0].finish_reason


@step
def chat_stream_helper():
    with client.chat.completions.stream(model=MODEL, messages=ASKED, max_completion_tokens=SHORT) as events:
        kinds = [event.type for event in events]
        whole = events.get_final_completion()
    assert "content.delta" in kinds and "content.done" in kinds, kinds
    assert whole.choices[0].message.content


@step
def chat_stream_helper_with_a_model():
    with client.chat.completions.stream(model=MODEL, messages=ASKED, response_format=City) as events:
        events.until_done()
        assert isinstance(events.get_final_completion().choices[0].message.parsed, City)


@step
def parse():
    answer = client.chat.completions.parse(model=MODEL, messages=ASKED, response_format=City)
    assert isinstance(answer.choices[0].message.parsed, City), answer


@step
def tools_with_a_second_turn():
    first = client.chat.completions.create(**CALLING, messages=ASKED)
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls", first
    City.model_validate_json(message.tool_calls[0].function.arguments)
    results = [{"role": "tool", "tool_call_id": call.id, "content": "Taken."} for call in message.tool_calls]
    turns = [*ASKED, message, *results]
    second = client.chat.completions.create(model=MODEL, messages=turns, tools=[CITY], max_completion_tokens=SHORT)
    assert second.choices[0].message.content or second.choices[0].message.tool_calls, second


@step
def tools_parsed():
    answer = client.chat.completions.parse(**CALLING, messages=ASKED)
    assert isinstance(answer.choices[0].message.tool_calls[0].function.parsed_arguments, City)


@step
def tools_streamed():
    with client.chat.completions.stream(**CALLING, messages=ASKED) as events:
        kinds = {event.type for event in events}
        call = events.get_final_completion().choices[0].message.tool_calls[0]
    assert "tool_calls.function.arguments.delta" in kinds, kinds
    assert isinstance(call.function.parsed_arguments, City), call


@step
def responses():
    answer = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=SHORT)
    assert answer.status in ("completed", "incomplete") and answer.output_text and answer.usage.output_tokens, answer


@step
def responses_streamed():
    events = list(client.responses.create(model=MODEL, input=QUESTION, stream=True, max_output_tokens=SHORT))
    assert events[0].type == "response.created" and events[-1].type in ENDS, events[-1]
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == events[-1].response.output_text


@step
def responses_stream_helper():
    with client.responses.stream(model=MODEL, input=QUESTION, text_format=City) as events:
        events.until_done()
        assert isinstance(events.get_final_response().output_parsed, City)


@step
def responses_parse():
    assert isinstance(client.responses.parse(model=MODEL, input=QUESTION, text_format=City).output_parsed, City)


@step
def responses_tools_with_a_second_turn():
    first = client.responses.create(**{**CALLING, "tools": [CITY_OF_RESPONSES]}, input=QUESTION)
    calls = [item for item in first.output if item.type == "function_call"]
    City.model_validate_json(calls[0].arguments)
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "Taken."} for call in calls]
    asked = [{"role": "user", "content": QUESTION}, *first.output, *results]
    tools = [CITY_OF_RESPONSES]
    assert client.responses.create(model=MODEL, input=asked, tools=tools, max_output_tokens=SHORT).output


@step
def embeddings():
    # The default of this client is base64, which it turns into numbers itself.
    answer = client.embeddings.create(model=MODEL, input=["a cat", "a dog"])
    assert [item.index for item in answer.data] == [0, 1]
    assert abs(sum(x * x for x in answer.data[0].embedding) - 1) < 0.01, "not of length 1"


@step
def completions():
    assert client.completions.create(model=MODEL, prompt="The sky is").choices[0].text


@step
def models():
    assert client.models.retrieve(MODEL).id == MODEL


@step
def a_prompt_that_is_too_long():
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 9000}])
    except BadRequestError as error:
        assert error.code == "context_length_exceeded", error
    else:
        raise AssertionError("it was taken")


run_steps()
