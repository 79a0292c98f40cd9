"""The package anthropic against a gateway: messages, streams, tools, counting, structured output."""

from typing import Literal

from anthropic import Anthropic, BadRequestError
from pydantic import BaseModel

from city import City
from steps import MODEL, QUESTION, SHORT, URL, run_steps, step

client = Anthropic(base_url=URL, api_key="none")
ASKED = [{"role": "user", "content": QUESTION}]
CITY = {"name": "city", "description": "Takes what is known of a city", "input_schema": City.model_json_schema()}
BRIEF = {"model": MODEL, "max_tokens": SHORT}


class Colour(BaseModel):
    """For parse(): this client takes bounds of numbers and texts out of a schema, but holds the answer to them."""

    name: Literal["red", "green"]


@step
def create():
    answer = client.messages.create(**BRIEF, messages=ASKED, system="You are brief.")
    assert answer.content[0].text and answer.stop_reason in ("end_turn", "max_tokens"), answer
    assert answer.usage.input_tokens and answer.usage.output_tokens


@step
def create_streamed():
    events = list(client.messages.create(**BRIEF, messages=ASKED, stream=True))
    assert events[0].type == "message_start" and events[-1].type == "message_stop", events


@step
def stream_helper():
    with client.messages.stream(**BRIEF, messages=ASKED) as stream:
        text = "".join(stream.text_stream)
        assert text and stream.get_final_message().content[0].text == text


@step
def tools_with_a_second_turn():
    choice = {"type": "any", "disable_parallel_tool_use": True}
    first = client.messages.create(model=MODEL, max_tokens=256, messages=ASKED, tools=[CITY], tool_choice=choice)
    calls = [block for block in first.content if block.type == "tool_use"]
    assert first.stop_reason == "tool_use" and calls, first
    City.model_validate(calls[0].input)
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "Taken."} for call in calls]
    turns = [*ASKED, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    second = client.messages.create(**BRIEF, messages=turns, tools=[CITY])
    assert second.stop_reason in ("end_turn", "max_tokens", "tool_use"), second


@step
def tools_streamed():
    choice = {"type": "tool", "name": "city"}
    asked = {"model": MODEL, "max_tokens": 256, "messages": ASKED, "tools": [CITY], "tool_choice": choice}
    with client.messages.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_message()
    assert "input_json" in kinds, kinds
    City.model_validate(message.content[0].input)


@step
def parse():
    answer = client.messages.parse(model=MODEL, max_tokens=256, messages=ASKED, output_format=Colour)
    assert isinstance(answer.parsed_output, Colour), answer


@step
def count_tokens():
    counted = client.messages.count_tokens(model=MODEL, messages=ASKED).input_tokens
    assert counted == client.messages.create(**BRIEF, messages=ASKED).usage.input_tokens


@step
def models():
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


@step
def a_prompt_that_is_too_long():
    try:
        client.messages.create(**BRIEF, messages=[{"role": "user", "content": "word " * 9000}])
    except BadRequestError as error:
        assert error.type == "invalid_request_error", error.body
    else:
        raise AssertionError("it was taken")


run_steps()
