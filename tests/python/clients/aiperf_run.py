"""aiperf against a gateway: six requests, two at a time, streamed and not, with each kind of completions."""

import json
import pathlib
import subprocess
import sys
import tempfile

from bytes_tokenizer import bytes_tokenizer
from steps import MODEL, URL, run_steps, step

AIPERF = pathlib.Path(sys.executable).with_name("aiperf")
TOKENIZER = bytes_tokenizer()


def profile(kind, *more):
    out = pathlib.Path(tempfile.mkdtemp(prefix="aiperf-"))
    command = [AIPERF, "profile", "--model", MODEL, "--url", URL, "--endpoint-type", kind, "--tokenizer", TOKENIZER]
    command += ["--concurrency", "2", "--request-count", "6", "--isl", "64", "--osl", "16", "--ui", "none"]
    command += ["--artifact-dir", out, *more]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-2000:]
    told = json.loads(next(out.rglob("profile_export_aiperf.json")).read_text())
    assert told["request_count"]["avg"] == 6 and not told.get("error_summary"), told


@step
def chat():
    profile("chat")


@step
def chat_streamed():
    profile("chat", "--streaming")


@step
def completions_streamed():
    profile("completions", "--streaming")


@step
def responses_streamed():
    profile("responses", "--streaming")


run_steps()
