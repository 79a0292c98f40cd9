"""A release for another system than this one, run by an emulator: a swarm of its programs gives an answer."""

import json
import os
import subprocess
import tarfile
import tempfile
import urllib.request
import zipfile
from contextlib import ExitStack
from pathlib import Path

from release_checks.installs import ANSWER, QUESTION
from running import wait_until

# Emulators are slow, and what is slow is no fault.
PATIENCE = 600.0


class Programs:
    """What is in an archive, unpacked, with what runs it."""

    def __init__(self, dist, folder, runner):
        opened = zipfile.ZipFile(dist.archive) if dist.is_windows else tarfile.open(dist.archive)
        with opened:
            opened.extractall(folder)
        top = folder / dist.top
        self.folder = folder
        self.command = [*runner, str(top / "llama-swarm.exe" if dist.is_windows else top / "bin/llama-swarm")]

    def run(self, *arguments):
        command = [*self.command, *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
        )
        return done.stdout + done.stderr

    def starts(self, stack, name, *arguments):
        """What a node says of where it listens. It ends with the stack."""
        told = self.folder / f"{name}.json"
        own = ("--address-file", told.name, "--identity", f"{name}.key", "--grpc-listen", "127.0.0.1:0")
        environment = {**os.environ, "NO_COLOR": "1", "WINEDEBUG": "-all"}
        log = stack.enter_context((self.folder / f"{name}.log").open("wb"))
        node = stack.enter_context(
            subprocess.Popen(
                [*self.command, *map(str, arguments), *own],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        )
        stack.callback(node.kill)
        wait_until(lambda: told.exists() or node.poll() is not None, f"{name} listens", bound=PATIENCE)
        return json.loads(told.read_text())


def ask(address):
    with urllib.request.urlopen(f"http://{address}/v1/models", timeout=PATIENCE) as models:
        model = json.load(models)["data"][0]["id"]
    body = {"model": model, "temperature": 0, "max_tokens": 12, "messages": [{"role": "user", "content": QUESTION}]}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{address}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def is_ready(address):
    try:
        return urllib.request.urlopen(f"http://{address}/readyz", timeout=10).status == 200
    except OSError:
        return False


def a_swarm_of_it_answers(dist, model, runner, report):
    # Wine lacks the socket options that QUIC wants.
    listen = [] if dist.is_windows else ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]
    listen += ["--listen", "/ip4/127.0.0.1/tcp/0"]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        programs = Programs(dist, Path(folder), runner)
        version = programs.run("--version")
        report.check("llama-swarm" in version, f"it runs: {version.strip()}")
        entry = programs.starts(stack, "rendezvous", "rendezvous", "--total-shards", 2, *listen)["addresses"][0]
        member = ("--total-shards", 2, "--model", model, "--rendezvous", entry, *listen)
        for shard in range(2):
            programs.starts(stack, f"worker-{shard}", "worker", "--shard-id", shard, "--threads", 1, *member)
        gateway = programs.starts(stack, "gateway", "gateway", "--http-listen", "127.0.0.1:0", *member)["http"]
        wait_until(lambda: is_ready(gateway), "the swarm is ready", bound=PATIENCE)
        answer = ask(gateway)
        report.check(ANSWER in answer, f"two workers and a gateway of it answer: {answer!r}")
