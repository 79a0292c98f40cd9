"""The command llm against a gateway, as a model of extra-openai-models.yaml: text, --schema, -T."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from steps import BASE, MODEL, QUESTION, SHORT, run_steps, step

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llm-"))
LLM = pathlib.Path(sys.executable).with_name("llm")
(FOLDER / "extra-openai-models.yaml").write_text(
    f"""
- model_id: swarm
  model_name: {MODEL}
  api_base: {BASE}
  api_key_name: swarm
  supports_tools: true
  supports_schema: true
"""
)
(FOLDER / "keys.json").write_text(json.dumps({"swarm": "none"}))


def llm(*arguments):
    command = [LLM, "-m", "swarm", *arguments]
    place = {**os.environ, "LLM_USER_PATH": str(FOLDER)}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, env=place)
    assert ran.returncode == 0, ran.stderr[-1500:]
    return ran.stdout


@step
def text():
    assert llm(QUESTION).strip()


@step
def text_not_streamed():
    assert llm("--no-stream", "-o", "max_tokens", str(SHORT), QUESTION).strip()


@step
def with_a_schema():
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["age"],
        "additionalProperties": False,
    }
    assert isinstance(json.loads(llm("--schema", json.dumps(schema), QUESTION))["age"], int)


@step
def with_a_tool():
    llm("-T", "llm_version", "-o", "max_tokens", str(SHORT), "Which version of llm is this?")


run_steps()
