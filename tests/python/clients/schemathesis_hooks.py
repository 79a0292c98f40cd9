"""Names the model that is there, so that it is asked, and keeps what is asked for short.

An answer of a few tokens shows its form as well as a long one.
"""

import os

import schemathesis

FEW = 4
LIMITS = {
    "/v1/chat/completions": ["max_tokens", "max_completion_tokens", "n_predict", "num_predict"],
    "/v1/completions": ["max_tokens", "max_completion_tokens", "n_predict", "num_predict"],
    "/v1/messages": ["max_tokens"],
    "/v1/responses": ["max_output_tokens"],
}


@schemathesis.hook
def before_call(context, case, kwargs):
    if not isinstance(case.body, dict):
        return
    path = case.operation.path
    if isinstance(case.body.get("model"), str):
        case.body["model"] = os.environ["MODEL"]
    if path in ("/api/chat", "/api/generate"):
        # null is no limit either.
        if case.body.get("options") is None:
            case.body["options"] = {}
        if isinstance(case.body["options"], dict):
            case.body["options"]["num_predict"] = FEW
    for place, limit in enumerate(LIMITS.get(path, [])):
        given = case.body.get(limit)
        # What is neither a number nor null is left: it is to be refused.
        if isinstance(given, (int, float)) or place == 0 and given is None:
            case.body[limit] = FEW
    if isinstance(case.body.get("n"), (int, float)) and case.body["n"] > 2:
        case.body["n"] = 2
