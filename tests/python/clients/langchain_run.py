"""The package langchain-openai against a gateway: invoke, stream, tools, structured output, embeddings."""

import importlib.util
import math
import os

# OpenAIEmbeddings counts in a vocabulary of OpenAI's, which tiktoken fetches at first use. Here it comes with litellm.
os.environ["TIKTOKEN_CACHE_DIR"] = (
    importlib.util.find_spec("litellm").submodule_search_locations[0] + "/litellm_core_utils/tokenizers"
)

from langchain_core.messages import ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from city import City
from steps import BASE, MODEL, QUESTION, SHORT, run_steps, step

GATEWAY = {"base_url": BASE, "api_key": "none", "model": MODEL}
chat = ChatOpenAI(**GATEWAY)


@step
def invoke():
    answer = chat.invoke(QUESTION)
    assert answer.content and answer.usage_metadata["output_tokens"], answer


@step
def stream():
    assert "".join(part.content for part in ChatOpenAI(**GATEWAY, max_tokens=SHORT).stream(QUESTION))


@step
def invoke_by_the_responses_api():
    answer = ChatOpenAI(**GATEWAY, use_responses_api=True, max_tokens=SHORT).invoke(QUESTION)
    assert answer.text, answer


@step
def bind_tools_with_a_second_turn():
    first = chat.bind_tools([City], tool_choice="required", parallel_tool_calls=False).invoke(QUESTION)
    City.model_validate(first.tool_calls[0]["args"])
    results = [ToolMessage("Taken.", tool_call_id=call["id"]) for call in first.tool_calls]
    second = ChatOpenAI(**GATEWAY, max_tokens=SHORT).bind_tools([City]).invoke([("user", QUESTION), first, *results])
    assert second.content or second.tool_calls or second.invalid_tool_calls, second


@step
def with_structured_output_by_default():
    assert isinstance(chat.with_structured_output(City).invoke(QUESTION), City)


@step
def with_structured_output_json_schema():
    assert isinstance(chat.with_structured_output(City, method="json_schema").invoke(QUESTION), City)


@step
def with_structured_output_function_calling():
    assert isinstance(chat.with_structured_output(City, method="function_calling").invoke(QUESTION), City)


@step
def with_structured_output_json_mode():
    # This method asks for any object, which a small model may not end.
    told = ChatOpenAI(**GATEWAY, max_tokens=SHORT).with_structured_output(City, method="json_mode", include_raw=True)
    raw = told.invoke(f"{QUESTION} Answer in JSON with its name and its inhabitants.")["raw"]
    assert raw.content.lstrip().startswith("{"), raw


@step
def embeddings():
    # check_embedding_ctx_length is left as it is: texts go as token ids of OpenAI's own vocabulary.
    vectors = OpenAIEmbeddings(**GATEWAY).embed_documents(["a cat", "a dog"])
    assert len(vectors) == 2 and math.isclose(sum(x * x for x in vectors[0]), 1, rel_tol=0.01)


@step
def embeddings_of_texts():
    assert OpenAIEmbeddings(**GATEWAY, check_embedding_ctx_length=False).embed_query("a cat")


run_steps()
