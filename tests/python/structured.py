#!/usr/bin/env python3
"""Structured answers of a gateway, judged by jsonschema: structured.py URL.

First 200 requests over 20 schemas, in the forms that clients have for it. Then, for 24 of them, it says "kill N" when a
few tokens have come, waits for the line "killed", and compares the whole answer with the undisturbed one. Ends with "ok".
"""

import itertools
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import openai

WORD = {"type": "string", "minLength": 1, "maxLength": 16}
LINE = {"type": "string", "maxLength": 24}


def an_object(properties: dict, **more) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


SCHEMAS = {
    "person": an_object({"name": WORD, "age": {"type": "integer", "minimum": 0, "maximum": 120}}),
    "choice": {"enum": ["red", "green", "blue", 7, None, True]},
    "constant": {"const": {"kind": "fixed", "values": [1, 2.5, "x\"y"]}},
    "boolean": {"type": "boolean"},
    "nullable": an_object({"nickname": {"type": ["string", "null"], "maxLength": 12}}),
    "numbers": an_object(
        {
            "percent": {"type": "integer", "minimum": 0, "maximum": 100},
            "negative": {"type": "integer", "minimum": -50, "maximum": -1},
        }
    ),
    # With as many digits as it likes a number may go on for ever.
    "fraction": an_object({"score": {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25}}),
    "list": {"type": "array", "items": WORD, "minItems": 2, "maxItems": 4},
    "tuple": {
        "type": "array",
        "prefixItems": [WORD, {"type": "integer", "minimum": 0, "maximum": 9}],
        "items": False,
        "minItems": 2,
        "maxItems": 2,
    },
    "nested": an_object({"a": an_object({"b": an_object({"c": an_object({"d": {"type": "boolean"}})})})}),
    "matrix": {
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "items": {
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "items": {"type": "integer", "minimum": 0, "maximum": 99},
        },
    },
    "pattern": an_object({"code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"}}),
    "identity": an_object({"id": {"type": "string", "format": "uuid"}}),
    "optional": {
        "type": "object",
        "properties": {"title": LINE, "subtitle": LINE},
        "required": ["title"],
        "additionalProperties": False,
    },
    "union": {"anyOf": [an_object({"circle": {"type": "integer", "minimum": 1, "maximum": 9}}), an_object({"side": {"type": "integer", "minimum": 1, "maximum": 9}})]},
    "reference": {
        "$defs": {"point": an_object({"x": {"type": "integer", "minimum": 0, "maximum": 9}, "y": {"type": "integer", "minimum": 0, "maximum": 9}})},
        **an_object({"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}}),
    },
    "tree": {
        "$defs": {
            "node": an_object({"value": {"type": "integer", "minimum": 0, "maximum": 9}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]}}),
            "leaf": an_object({"value": {"type": "integer", "minimum": 0, "maximum": 9}}),
        },
        "$ref": "#/$defs/node",
    },
    "others": {
        "type": "object",
        "properties": {"name": WORD},
        "required": ["name"],
        # Names that may be of any length may go on for ever.
        "patternProperties": {"^x_[a-z]{1,6}$": {"type": "boolean"}},
        "additionalProperties": False,
        "maxProperties": 3,
    },
    "steps": an_object(
        {
            "steps": {
                "type": "array",
                "minItems": 1,
                "maxItems": 3,
                "items": an_object({"do": LINE, "minutes": {"type": "integer", "minimum": 1, "maximum": 60}}),
            },
            "difficulty": {"enum": ["easy", "hard"]},
        }
    ),
    "città": an_object({"città": WORD, "größe": {"enum": ["klein", "groß"]}, "日本": {"type": "boolean"}}),
}
PROMPTS = ["Describe a good soup.", "Tell me about a town in Italy.", "Make something up.", "Who are you?", "Plan a walk."]
MAX_TOKENS = 300

client: openai.OpenAI


def forms(schema: dict):
    """The ways in which clients ask for it."""
    named = {"name": "answer", "schema": schema}
    yield {"response_format": {"type": "json_schema", "json_schema": {**named, "strict": True}}}
    yield {"response_format": {"type": "json_schema", "json_schema": named}}
    yield {"extra_body": {"structured_outputs": {"json": schema}}}
    yield {"extra_body": {"guided_json": schema}}


def texts(answer, stream: bool) -> list[str]:
    """The text of each choice. All must have come to their end by themselves."""
    if not stream:
        assert all(choice.finish_reason == "stop" for choice in answer.choices), answer
        return [choice.message.content for choice in answer.choices]
    said, ended = {}, {}
    for chunk in answer:
        for choice in chunk.choices:
            said[choice.index] = said.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                ended[choice.index] = choice.finish_reason
    assert set(ended.values()) == {"stop"} and ended.keys() == said.keys(), (said, ended)
    return [said[index] for index in sorted(said)]


def check(schema: dict, text: str):
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(json.loads(text))


def one(number: int, name: str, schema: dict) -> int:
    ways = list(forms(schema))
    n, stream = 1 + number % 2, number % 3 == 0
    answer = client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": PROMPTS[number % len(PROMPTS)]}],
        temperature=[0, 0.7, 1.3][number % 3],
        seed=number,
        max_tokens=MAX_TOKENS,
        n=n,
        stream=stream,
        logprobs=number % 4 == 0,
        **ways[number % len(ways)],
    )
    found = texts(answer, stream)
    assert len(found) == n, found
    for text in found:
        try:
            check(schema, text)
        except Exception as error:
            raise AssertionError(f"{name}: {text!r}: {error}") from error
    return n


def all_validate():
    numbered = list(enumerate(itertools.islice(itertools.cycle(SCHEMAS.items()), 200)))
    with ThreadPoolExecutor(8) as pool:
        answers = sum(pool.map(lambda item: one(item[0], *item[1]), numbered))
    print(f"validated {answers} answers to {len(numbered)} requests", flush=True)


def the_other_forms():
    def ask(**body):
        answer = client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": "Answer."}], temperature=0, max_tokens=60, extra_body=body
        )
        return answer.choices[0].message.content

    assert ask(structured_outputs={"choice": ["tea (green)", "coffee"]}) in ("tea (green)", "coffee")
    assert ask(guided_choice=["a.b", "c*d"]) in ("a.b", "c*d")
    assert re.fullmatch("[0-9]{3}-[a-f]{2}", ask(guided_regex="[0-9]{3}-[a-f]{2}"))
    assert re.fullmatch("(ab)+!", ask(grammar='start: ("ab")~2..5 "!"'))
    assert ask(response_format={"type": "json_object"}).startswith("{")
    text = client.completions.create(
        model="any", prompt="A number:", temperature=0, max_tokens=20, extra_body={"guided_regex": " [0-9]{1,3}"}
    )
    assert re.fullmatch(" [0-9]{1,3}", text.choices[0].text), text


def streamed(name: str, schema: dict, seed: int, kill: int | None) -> str:
    """The document; in the middle of it a worker is killed, if that is wanted."""
    events = client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": PROMPTS[seed % len(PROMPTS)]}],
        temperature=0.8,
        seed=seed,
        max_tokens=MAX_TOKENS,
        stream=True,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    )
    text = ""
    for event in events:
        text += event.choices[0].delta.content or ""
        if kill is not None and len(text) >= 4:
            print(f"kill {kill}", flush=True)
            assert sys.stdin.readline().strip() == "killed"
            kill = None
    assert kill is None, f"{name}: {text!r} was over before a worker could be killed"
    check(schema, text)
    return text


def killed_workers_change_nothing():
    names = ["person", "numbers", "list", "nested", "matrix", "reference", "steps", "città"]
    for number, (name, worker) in enumerate(itertools.product(names, range(3))):
        undisturbed = streamed(name, SCHEMAS[name], number, None)
        disturbed = streamed(name, SCHEMAS[name], number, worker)
        assert disturbed == undisturbed, f"{name}, worker {worker}: {disturbed!r} is not {undisturbed!r}"


def main():
    global client
    client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", timeout=600, max_retries=0)
    all_validate()
    the_other_forms()
    killed_workers_change_nothing()
    print("ok", flush=True)


if __name__ == "__main__":
    main()
