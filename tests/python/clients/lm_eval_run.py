"""lm-eval against a gateway: its models local-completions and local-chat-completions, on a task of four questions."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from steps import BASE, MODEL, run_steps, step

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="lm-eval-"))
LM_EVAL = pathlib.Path(sys.executable).with_name("lm_eval")
DATA = FOLDER / "questions.jsonl"
CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo"}
DATA.write_text("".join(json.dumps({"land": land, "city": city}) + "\n" for land, city in CAPITALS.items()))

# Which of two cities is likelier: asks for log-probabilities of a given text.
CHOOSE = """
task: choose
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "The capital of {{land}} is"
doc_to_choice: "{{[city, 'Cairo']}}"
doc_to_target: 0
metric_list: [{metric: acc}]
""" % DATA
# What comes next: asks for text.
WRITE = """
task: write
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: generate_until
doc_to_text: "The capital of {{land}} is"
doc_to_target: "{{city}}"
generation_kwargs: {max_gen_toks: 16, until: ["."]}
metric_list: [{metric: exact_match}]
""" % DATA
(FOLDER / "choose.yaml").write_text(CHOOSE)
(FOLDER / "write.yaml").write_text(WRITE)


def evaluate(kind, task, arguments, *more):
    out = FOLDER / f"{kind}-{task}"
    command = [LM_EVAL, "run", "--model", kind, "--tasks", task, "--include_path", FOLDER, "--output_path", out]
    command += ["--model_args", f"model={MODEL},{arguments}", *more]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(FOLDER)}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, env=offline)
    assert ran.returncode == 0, ran.stderr[-1500:]
    told = json.loads(next(out.rglob("results*.json")).read_text())
    return told["results"][task]


@step
def local_completions_chooses():
    # Which of two texts is likelier is no matter of chance: a wrong sum of log-probabilities would be seen here.
    told = evaluate("local-completions", "choose", f"base_url={BASE}/completions,tokenizer_backend=remote")
    assert told["acc,none"] == 1, told


@step
def local_completions_writes():
    told = evaluate("local-completions", "write", f"base_url={BASE}/completions,tokenizer_backend=remote")
    assert "exact_match,none" in told, told


@step
def local_completions_writes_without_a_tokenizer():
    told = evaluate("local-completions", "write", f"base_url={BASE}/completions,tokenizer_backend=None")
    assert "exact_match,none" in told, told


@step
def local_chat_completions_writes():
    told = evaluate("local-chat-completions", "write", f"base_url={BASE}/chat/completions", "--apply_chat_template")
    assert "exact_match,none" in told, told


run_steps()
