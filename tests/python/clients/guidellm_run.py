"""guidellm against a gateway: six requests, two at a time, with each kind of completions."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from bytes_tokenizer import bytes_tokenizer
from steps import MODEL, URL, run_steps, step

GUIDELLM = pathlib.Path(sys.executable).with_name("guidellm")
TOKENIZER = bytes_tokenizer()


def benchmark(path):
    out = pathlib.Path(tempfile.mkdtemp(prefix="guidellm-")) / "told.json"
    command = [GUIDELLM, "run", "--disable-console-interactive"]
    command += ["--backend", f"kind=openai_http,target={URL},model={MODEL},request_format={path}"]
    command += ["--profile", "kind=concurrent,streams=2", "--constraint", "kind=max_requests,count=6"]
    command += ["--data", "kind=synthetic_text,prompt_tokens=64,output_tokens=16"]
    command += ["--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}"]
    command += ["--output", f"kind=json,path={out}"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, env=offline)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-2000:]
    totals = json.loads(out.read_text())["benchmarks"][0]["metrics"]["request_totals"]
    assert totals["successful"] == 6 and totals["errored"] == 0, totals


@step
def text_completions():
    benchmark("/v1/completions")


@step
def chat_completions():
    benchmark("/v1/chat/completions")


@step
def responses():
    benchmark("/v1/responses")


run_steps()
