"""The official OpenAI client: streams an answer, then shows that a seed repeats it.

    pip install -r requirements.txt
    python chat.py http://127.0.0.1:8080 "Why is the sky blue?"
"""

import os
import sys

from openai import OpenAI

url, question = sys.argv[1:3]
# Where no key is asked for, the client wants one all the same.
client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("LLAMA_SWARM_API_KEY", "none"))
# The swarm serves one model, and says which.
model = client.models.list().data[0].id


def ask(seed):
    """The answer, piece by piece."""
    chunks = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=48,
        temperature=0.8,
        seed=seed,
        stream=True,
    )
    for chunk in chunks:
        yield chunk.choices[0].delta.content or ""


first = ""
for piece in ask(seed=7):
    print(piece, end="", flush=True)
    first += piece
print()

# Not a matter of luck: also when a worker dies in the middle, a seed gives the same text.
again = "".join(ask(seed=7))
print("the same seed:", "the same text" if again == first else f"another text: {again}")
