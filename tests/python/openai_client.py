"""The official OpenAI client against a gateway: python openai_client.py http://host:port [KEY]

With a key, the gateway takes no other.
"""

import sys

from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAI

url, key = f"{sys.argv[1]}/v1", (sys.argv[2:] or ["none"])[0]
if sys.argv[2:]:
    try:
        OpenAI(base_url=url, api_key="lsk-wrong").models.list()
        raise SystemExit("a wrong key was taken")
    except AuthenticationError as error:
        assert error.code == "invalid_api_key", error
client = OpenAI(base_url=url, api_key=key)
model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model
question = [{"role": "user", "content": "What is the capital of France?"}]

whole = client.chat.completions.create(model=model, messages=question, max_tokens=24, temperature=0)
text = whole.choices[0].message.content
assert "Paris" in text, text
assert whole.choices[0].finish_reason in ("stop", "length")
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

chunks = list(
    client.chat.completions.create(
        model=model,
        messages=question,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
)
streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert streamed == text, (streamed, text)
assert chunks[-1].usage == whole.usage, (chunks[-1].usage, whole.usage)

scored = client.chat.completions.create(
    model=model, messages=question, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
)
tokens = scored.choices[0].logprobs.content
assert tokens and all(len(t.top_logprobs) == 3 and t.top_logprobs[0].logprob == t.logprob for t in tokens)

two = client.chat.completions.create(model=model, messages=question, max_tokens=8, n=2, seed=7)
again = client.chat.completions.create(model=model, messages=question, max_tokens=8, n=2, seed=7)
assert [c.message.content for c in two.choices] == [c.message.content for c in again.choices]

plain = client.completions.create(model=model, prompt="The sky is", max_tokens=8, temperature=0, echo=True, logprobs=1)
assert plain.choices[0].text.startswith("The sky is"), plain
assert plain.choices[0].logprobs.token_logprobs[0] is None
parts = list(client.completions.create(model=model, prompt="The sky is", max_tokens=8, temperature=0, stream=True))
assert "The sky is" + "".join(p.choices[0].text for p in parts) == plain.choices[0].text

stop = text.split()[2]
stopped = client.chat.completions.create(model=model, messages=question, max_tokens=24, temperature=0, stop=[stop])
assert stopped.choices[0].message.content == text.split(stop)[0], stopped
assert stopped.choices[0].finish_reason == "stop"

try:
    client.chat.completions.create(model="no-such-model", messages=question)
    raise SystemExit("an unknown model was served")
except NotFoundError as error:
    assert error.code == "model_not_found", error
try:
    client.chat.completions.create(model=model, messages=question, temperature=9)
    raise SystemExit("temperature 9 was served")
except BadRequestError as error:
    assert error.param == "temperature", error
print("ok:", text)
