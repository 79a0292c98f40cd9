"""The package instructor against a gateway, in three of its modes."""

import instructor
from openai import OpenAI
from pydantic import BaseModel, ConfigDict

from city import City
from steps import BASE, MODEL, QUESTION, run_steps, step

CLIENT = OpenAI(base_url=BASE, api_key="none")
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "response_model": City}


class AnyObject(BaseModel):
    model_config = ConfigDict(extra="allow")


def ask(mode):
    assert isinstance(instructor.from_openai(CLIENT, mode=mode).create(**ASKED), City)


@step
def mode_tools():
    ask(instructor.Mode.TOOLS)


@step
def mode_json():
    # This mode asks for any object, and tells the schema in words alone, which a small model does not follow.
    asked = {**ASKED, "response_model": AnyObject}
    assert isinstance(instructor.from_openai(CLIENT, mode=instructor.Mode.JSON).create(**asked), AnyObject)


@step
def mode_json_schema():
    ask(instructor.Mode.JSON_SCHEMA)


@step
def mode_tools_streamed():
    parts = list(instructor.from_openai(CLIENT).create_partial(**ASKED))
    City.model_validate(parts[-1].model_dump())


run_steps()
