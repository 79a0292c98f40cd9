"""The package ollama against a gateway: list, show, chat, generate, structured output, tools."""

from ollama import Client, ResponseError

from city import City
from steps import MODEL, QUESTION, SHORT, URL, run_steps, step

client = Client(host=URL)
BRIEF = {"num_predict": SHORT}
ASKED = [{"role": "user", "content": QUESTION}]


def weather(city: str) -> str:
    """Tells the weather of a city.

    Args:
        city: the city's name
    """
    return f"Rain in {city}."


@step
def models():
    names = [model.model for model in client.list().models]
    assert any(name.split(":")[0] == MODEL for name in names), names


@step
def show():
    shown = client.show(MODEL)
    assert shown.modelinfo and "tools" in shown.capabilities, shown


@step
def ps():
    assert client.ps().models


@step
def chat():
    answer = client.chat(MODEL, ASKED)
    assert answer.message.content and answer.done and answer.eval_count, answer


@step
def chat_streamed():
    parts = list(client.chat(MODEL, ASKED, stream=True, options=BRIEF))
    assert "".join(part.message.content for part in parts) and parts[-1].done


@step
def chat_by_a_schema():
    City.model_validate_json(client.chat(MODEL, ASKED, format=City.model_json_schema()).message.content)


@step
def chat_with_tools():
    first = client.chat(MODEL, ASKED, tools=[weather], options=BRIEF)
    call = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
    # With this API nothing makes a model call; the second turn says that it did.
    turns = [*ASKED, {"role": "assistant", "tool_calls": [call]}]
    turns.append({"role": "tool", "tool_name": "weather", "content": weather("Paris")})
    assert first.done
    assert client.chat(MODEL, turns, tools=[weather], options=BRIEF).message.content is not None


@step
def generate():
    assert client.generate(MODEL, QUESTION, options=BRIEF).response


@step
def generate_streamed():
    parts = list(client.generate(MODEL, QUESTION, stream=True, options=BRIEF))
    assert "".join(part.response for part in parts) and parts[-1].done


@step
def generate_by_a_schema():
    City.model_validate_json(client.generate(MODEL, QUESTION, format=City.model_json_schema()).response)


@step
def embed():
    assert len(client.embed(MODEL, ["a cat", "a dog"]).embeddings) == 2


@step
def a_model_that_is_not_there():
    try:
        client.chat("no-such-model", ASKED)
    except ResponseError as error:
        assert error.status_code == 404 and "no-such-model" in error.error, error
    else:
        raise AssertionError("it was taken")


run_steps()
