"""The package instructor against a gateway, in three of its modes."""

import instructor
from openai import OpenAI

from steps import BASE, MODEL, QUESTION, City, run_steps, step

CLIENT = OpenAI(base_url=BASE, api_key="none")
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "response_model": City}


def ask(mode):
    assert isinstance(instructor.from_openai(CLIENT, mode=mode).create(**ASKED), City)


@step
def mode_tools():
    ask(instructor.Mode.TOOLS)


@step
def mode_json():
    ask(instructor.Mode.JSON)


@step
def mode_json_schema():
    ask(instructor.Mode.JSON_SCHEMA)


@step
def mode_tools_streamed():
    parts = list(instructor.from_openai(CLIENT).create_partial(**ASKED))
    City.model_validate(parts[-1].model_dump())


run_steps()
