#!/usr/bin/env python3
"""Calls of functions through a gateway, judged by jsonschema: tools.py URL [PROMPTS]. Ends with "ok".

100 prompts, or so many, that must call something, each plain and streamed; then what clients do with calls.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import openai

WORD = {"type": "string", "minLength": 1, "maxLength": 12}


def function(name: str, properties: dict, description: str) -> dict:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [
    function("get_weather", {"city": WORD, "unit": {"enum": ["celsius", "fahrenheit"]}}, "The weather of a city."),
    function("add", {"a": {"type": "integer", "minimum": 0, "maximum": 999}, "b": {"type": "integer", "minimum": 0, "maximum": 999}}, "Adds two numbers."),
    function("set_light", {"on": {"type": "boolean"}, "room": WORD}, "Turns a light on or off."),
    function("get_time", {}, "The time now."),
    function("book", {"guests": {"type": "array", "items": WORD, "minItems": 1, "maxItems": 3}, "note": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 16}]}}, "Books a table."),
]
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
PROMPTS = ["What is the weather in Rome?", "What is 3 + 4?", "Turn on the light!", "How late is it?", "A table for Ann."]

client: openai.OpenAI


def ask(number: int, max_tokens=300, tools=TOOLS, **more):
    return client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": f"{PROMPTS[number % len(PROMPTS)]} ({number})"}],
        tools=tools,
        temperature=[0, 0.7, 1.2][number % 3],
        seed=number,
        max_tokens=max_tokens,
        **more,
    )


def check(name: str, arguments: str):
    jsonschema.Draft202012Validator(SCHEMAS[name]).validate(json.loads(arguments))


def joined(events) -> tuple[list[tuple[str, str]], str, str]:
    """The calls that a stream tells of, the text beside them, and why it ended."""
    calls, text, reason = [], "", None
    for event in events:
        choice = event.choices[0]
        text += choice.delta.content or ""
        reason = choice.finish_reason or reason
        for call in choice.delta.tool_calls or []:
            if call.index == len(calls):
                assert call.id.startswith("call_") and call.type == "function", call
                calls.append([call.function.name, ""])
            calls[call.index][1] += call.function.arguments or ""
    return [tuple(call) for call in calls], text, reason


def one(number: int) -> int:
    wish = "required" if number % 4 else {"type": "function", "function": {"name": TOOLS[number // 4 % 5]["function"]["name"]}}
    more = {"tool_choice": wish, "parallel_tool_calls": number % 10 == 1}
    choice = ask(number, **more).choices[0]
    calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None, choice
    for name, arguments in calls:
        check(name, arguments)
    if wish != "required":
        assert [name for name, _ in calls] == [wish["function"]["name"]], calls
    if not more["parallel_tool_calls"]:
        assert len(calls) == 1, calls
    assert joined(ask(number, stream=True, **more)) == (calls, "", "tool_calls")
    return len(calls)


def a_conversation_goes_on_with_what_came_of_a_call():
    call = ask(0, tool_choice="required", parallel_tool_calls=False).choices[0].message
    history = [
        {"role": "user", "content": PROMPTS[0]},
        call,
        {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": '{"degrees": 21}'},
    ]
    answer = client.chat.completions.create(model="any", messages=history, tools=TOOLS, temperature=0, max_tokens=40)
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls, answer
    # Nothing is called when nothing may be.
    answer = client.chat.completions.create(
        model="any", messages=history, tools=TOOLS, tool_choice="none", temperature=0, max_tokens=40
    )
    assert answer.choices[0].message.tool_calls is None and answer.choices[0].message.content, answer


def plain_and_streamed_are_the_same_where_the_model_may_choose(prompts):
    for number in range(prompts):
        message = ask(number, 40).choices[0].message
        calls = [(call.function.name, call.function.arguments) for call in message.tool_calls or []]
        streamed, text, _ = joined(ask(number, 40, stream=True))
        assert (streamed, text) == (calls, message.content or ""), (number, message, streamed, text)


def strict_functions_are_held_where_the_model_may_choose(prompts):
    tools = [{**tool, "function": {**tool["function"], "strict": True}} for tool in TOOLS]
    brace = client.post(f"{sys.argv[1]}/tokenize", body={"prompt": "{"}, cast_to=dict[str, object])["tokens"][-1]
    for number in range(prompts):
        # A model that wants to begin with a brace, and to write as many as it may.
        choice = ask(number, tools=tools, logit_bias={str(brace): 100}).choices[0]
        assert choice.finish_reason == "tool_calls" and len(choice.message.tool_calls) == 1, choice
        for call in choice.message.tool_calls:
            check(call.function.name, call.function.arguments)
    words = ask(0, 40, tools=tools, logit_bias={str(brace): -100}).choices[0].message
    assert words.content and not words.tool_calls, words


def what_cannot_be_is_refused_by_field():
    wrong = [
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [function("f", {"x": {"type": "strange"}}, "")], "tool_choice": "required"}, "tools"),
    ]
    for more, param in wrong:
        try:
            client.chat.completions.create(model="any", messages=[{"role": "user", "content": "x"}], **more)
            raise SystemExit(f"{more} was taken")
        except openai.BadRequestError as error:
            assert error.param == param, error


def main():
    global client
    client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", timeout=600, max_retries=0)
    calls, prompts = 0, int(sys.argv[2]) if len(sys.argv) > 2 else 100
    with ThreadPoolExecutor(8) as pool:
        for number, count in enumerate(pool.map(one, range(prompts))):
            calls += count
            print(f"prompt {number}: {count}", flush=True)
    print(f"{prompts} prompts, {calls} calls, all valid", flush=True)
    a_conversation_goes_on_with_what_came_of_a_call()
    # Two answers, and one, of each of these.
    plain_and_streamed_are_the_same_where_the_model_may_choose(min(prompts // 3, 12))
    strict_functions_are_held_where_the_model_may_choose(min(prompts // 3, 12))
    what_cannot_be_is_refused_by_field()
    print("ok", flush=True)


if __name__ == "__main__":
    main()
