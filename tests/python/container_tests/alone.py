"""One container is a whole swarm, by `up` in the operator's image."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.request

from container_tests.strangers import image, own
from running import BOUND, docker, wait_until

QUESTION, ANSWER = "What is the capital of France?", "Paris"
MODEL = "/model.gguf"


def one_container_serves_alone(scene):
    since = time.monotonic()
    container = docker(
        *("run", "--detach", *own(scene), "--publish", "127.0.0.1::8080"),
        *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
        *("--mount", f"type=bind,source={scene.swarm.variables['MODEL_FILE']},target={MODEL},readonly"),
        *(image(scene, "llama-swarm"), "up", "--host", "0.0.0.0", "--model", MODEL),
    ).strip()
    wait_until(lambda: "Ctrl-C" in said(container), "the swarm in one container is ready")
    address = docker("port", container, "8080/tcp").split()[0]
    key = re.search(r"key +(\S+)", said(container))[1]
    refused, _ = ask(address, None)
    status, answer = ask(address, key)
    took = time.monotonic() - since
    good = refused == 401 and status == 200 and ANSWER in answer
    scene.report.check(good, f"one container answers after {took:.1f} s, {refused} without a key: {answer.strip()!r}")
    docker("stop", "--time", "20", container)
    code = docker("inspect", "--format", "{{.State.ExitCode}}", container).strip()
    scene.report.check(code == "0", f"it ends in order when it is stopped: {code}")
    docker("rm", container)


def without_pip_the_default_model_says_what_to_do(scene):
    command = ["docker", "run", "--rm", *own(scene), image(scene, "llama-swarm"), "up", "--host", "0.0.0.0"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=BOUND)
    good = told.returncode == 1 and "container images have no pip" in told.stderr and "hf:" in told.stderr
    scene.report.check(good, f"without --model: {told.stderr.strip()}")


def said(container):
    log = subprocess.run(["docker", "logs", container], capture_output=True, text=True, timeout=BOUND)
    return log.stdout + log.stderr


def ask(address, key):
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12, "temperature": 0}
    request = urllib.request.Request(f"http://{address}/v1/chat/completions", json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    if key:
        request.add_header("authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=BOUND) as response:
            return response.status, json.load(response)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
