"""What models of usual sizes take, by `llama-swarm plan`, and whether running workers take what it says.

    python sizes.py --bin-dir target/release
    python sizes.py --bin-dir target/release --model FILE --measure

The first writes headers with the dimensions and types of Llama's files in Q4_K_M, without their weights, has them planned
for eight shards, and prints the table of docs/kubernetes.md. The second runs the model, one worker for each shard, and
has some long prompts answered at once, so that batches are full, and holds the workers' resident memory, at most while
they answer, against the plan and what a process takes: fails where all together are more than a tenth apart, or one of
them more than a seventh. How many messages wait for a worker at its fullest is another each time.

Only the standard library. Needs Linux and a file system with sparse files.
"""

import argparse
import json
import math
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

SHARDS = 8
MIB = 1 << 20
# Numbers in ggml's table of types, and bytes of how many weights.
F32, Q4_K, Q5_K, Q6_K = (0, 1, 4), (12, 256, 144), (13, 256, 176), (14, 256, 210)
U32, FLOAT, TEXT = 4, 6, 8
ALIGNMENT = 32
# What a busy worker takes besides: its program, of which most is in memory then, its connections, the allocator's own.
PROCESS = 38 * MIB
MOST_APART, MOST_APART_ALONE = 1 / 10, 1 / 7
# Together more tokens than a batch has rows, each for itself more than a piece of a prompt: buffers take memory once
# they have been computed.
PROMPTS = [f"{number}. " + "Why is the sky blue, and why is it red in the evening? " * 45 for number in range(4)]


class Llama(NamedTuple):
    name: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    head: int
    tied: bool
    # Of the file in Q4_K_M that bartowski publishes, as the hub tells it.
    published: int
    kv_heads: int = 8
    vocabulary: int = 128256
    context: int = 131072

    def wants_more_bits(self, layer):
        """Which layers llama.cpp gives Q6_K for values and the way down (`use_more_bits`)."""
        eighth = self.layers // 8
        return layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2

    def tensors(self):
        """Name, type and shape, innermost first, of each in Q4_K_M."""
        wide, kv = self.heads * self.head, self.kv_heads * self.head
        yield "token_embd.weight", Q6_K if self.tied else Q4_K, (self.hidden, self.vocabulary)
        if not self.tied:
            yield "output.weight", Q6_K, (self.hidden, self.vocabulary)
        yield "output_norm.weight", F32, (self.hidden,)
        yield "rope_freqs.weight", F32, (self.head // 2,)
        for layer in range(self.layers):
            more = self.wants_more_bits(layer)
            # With 80 layers llama.cpp gives values one step more, as they are small there.
            values = Q6_K if more else Q5_K if self.layers == 80 else Q4_K
            for name, kind, shape in (
                ("attn_norm", F32, (self.hidden,)),
                ("attn_q", Q4_K, (self.hidden, wide)),
                ("attn_k", Q4_K, (self.hidden, kv)),
                ("attn_v", values, (self.hidden, kv)),
                ("attn_output", Q4_K, (wide, self.hidden)),
                ("ffn_norm", F32, (self.hidden,)),
                ("ffn_gate", Q4_K, (self.hidden, self.feed_forward)),
                ("ffn_up", Q4_K, (self.hidden, self.feed_forward)),
                ("ffn_down", Q6_K if more else Q4_K, (self.feed_forward, self.hidden)),
            ):
                yield f"blk.{layer}.{name}.weight", kind, shape

    def metadata(self):
        yield "general.architecture", TEXT, "llama"
        yield "general.name", TEXT, self.name
        for key, value in (
            ("block_count", self.layers),
            ("context_length", self.context),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head),
            ("attention.value_length", self.head),
            ("rope.dimension_count", self.head),
            ("vocab_size", self.vocabulary),
        ):
            yield f"llama.{key}", U32, value
        yield "llama.attention.layer_norm_rms_epsilon", FLOAT, 1e-5
        yield "llama.rope.freq_base", FLOAT, 500000.0
        yield "tokenizer.ggml.model", TEXT, "gpt2"


MODELS = (
    Llama("SmolLM2-1.7B", 24, 2048, 8192, 32, 64, True, 1_055_609_824, 32, 49152, 8192),
    Llama("Llama-3.2-1B", 16, 2048, 8192, 32, 64, True, 807_694_464),
    Llama("Llama-3.2-3B", 28, 3072, 8192, 24, 128, True, 2_019_377_696),
    Llama("Llama-3.1-8B", 32, 4096, 14336, 32, 128, False, 4_920_739_232),
    Llama("Llama-3.1-70B", 80, 8192, 28672, 64, 128, False, 42_520_398_432),
)


def bytes_of(kind, shape):
    _, weights, size = kind
    return math.prod(shape) // weights * size


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def write_header(model, path):
    """The file as it is, with nothing where the weights are."""
    tensors, metadata = list(model.tensors()), list(model.metadata())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, kind, value in metadata:
        forms = {U32: lambda: struct.pack("<I", value), FLOAT: lambda: struct.pack("<f", value), TEXT: lambda: text(value)}
        head += text(key) + struct.pack("<I", kind) + forms[kind]()
    offset = 0
    for name, kind, shape in tensors:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind[0], offset)
        offset += -(-bytes_of(kind, shape) // ALIGNMENT) * ALIGNMENT
    with path.open("wb") as file:
        file.write(head)
        file.truncate(-(-len(head) // ALIGNMENT) * ALIGNMENT + offset)


def plan(binary, path, *flags):
    command = [binary, "plan", path, "--total-shards", str(SHARDS), "--json", *flags]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)


def part(model, shard):
    """Bytes of the file that a worker of this shard needs, without the header."""
    first, end = shard["first_layer"], shard["end_layer"]
    last = shard["shard"] + 1 == SHARDS
    total = 0
    for name, kind, shape in model.tensors():
        layer = re.match(r"blk\.(\d+)\.", name)
        embedding = name == "token_embd.weight" and (shard["shard"] == 0 or (last and model.tied))
        head = name in ("output.weight", "output_norm.weight") and last
        if embedding or head or name == "rope_freqs.weight" or (layer and first <= int(layer[1]) < end):
            total += bytes_of(kind, shape)
    return total


def gigabytes(count):
    return f"{count / 1e9:.2f}" if count < 10e9 else f"{count / 1e9:.1f}"


def gibibytes(count):
    return f"{count / (1 << 30):.2f}"


def span(values, shown):
    low, high = shown(min(values)), shown(max(values))
    return low if low == high else f"{low}–{high}"


def table(binary):
    print(
        "| Q4_K_M | file, GB | a worker fetches, GB | a gateway fetches, MB | weights and buffers, GiB"
        " | a session of 8192, MiB | all eight, GiB | with 1 GiB of caches each |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            path = Path(folder, f"{model.name}.gguf")
            write_header(model, path)
            planned = plan(binary, path, "--context", "8192", "--kv-memory", "1GiB")
            path.unlink()
            shards = planned["shards"]
            header = model.published - sum(bytes_of(kind, shape) for _, kind, shape in model.tensors())
            if not 0 < header < 16e6:
                raise SystemExit(f"{model.name} is not as published: {header} bytes are left for its header")
            own = [shard["weight_bytes"] + shard["buffer_bytes"] for shard in shards]
            cells = (
                model.name,
                gigabytes(model.published),
                span([part(model, shard) + header for shard in shards], gigabytes),
                f"{header / 1e6:.0f}",
                span(own, gibibytes),
                span([shard["session_cache_bytes"] for shard in shards], lambda count: f"{count / MIB:.0f}"),
                gibibytes(sum(own)),
                f"{planned['total_bytes'] / (1 << 30):.1f}",
            )
            print(f"| {' | '.join(cells)} |")


def memory(pid, name):
    """Bytes of a process by the kernel's name for them: VmRSS is what is resident now, VmHWM was at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) << 10


def begin_peak(pid):
    """What was resident before no longer counts for the most."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def workers(parent):
    """Shard and process of each worker that `up` has started."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_text().split("\0")
            of_parent = f"PPid:\t{parent}\n" in (entry / "status").read_text()
        except OSError:
            continue
        if of_parent and "worker" in arguments[1:2]:
            found[int(arguments[arguments.index("--shard-id") + 1])] = int(entry.name)
    return found


def answered(url, prompt):
    """Has a prompt answered; gives how many tokens there were in all."""
    asked = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 32}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(asked).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["usage"]["total_tokens"]


def measure(binary, model):
    """Holds each worker's memory, after an answer, against the plan and what a process takes without a model."""
    planned = plan(binary, model)
    command = [binary, "up", "--model", model, "--http-port", "0", "--grpc-port", "0"]
    # What workers keep to send it again is as much as they may, and told apart.
    environment = {**os.environ, "LLAMA_SWARM_REPLAY_MEMORY": "0"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as up:
        try:
            url = None
            for line in up.stderr:
                if "live page" in line:
                    url = line.split()[-1].rstrip("/")
                if "Ctrl-C" in line:
                    break
            pids = workers(up.pid)
            for pid in pids.values():
                begin_peak(pid)
            with ThreadPoolExecutor(len(PROMPTS)) as clients:
                positions = sum(clients.map(partial(answered, url), PROMPTS))
            taken = [memory(pids[shard], "VmHWM") for shard in range(SHARDS)]
            left = [memory(pids[shard], "VmRSS") for shard in range(SHARDS)]
        finally:
            up.terminate()
            up.wait(60)
    worst, all_planned = 0, 0
    print(f"While {len(PROMPTS)} answers were made, of {positions} tokens together, prompts included:")
    print("shard  weights, buffers, cache, MiB  with a process, MiB  resident at most, MiB  apart  resident after, MiB")
    for shard, held, rest in zip(planned["shards"], taken, left):
        cache = shard["session_cache_bytes"] * positions // planned["context"]
        own = shard["weight_bytes"] + shard["buffer_bytes"] + cache
        apart = held / (own + PROCESS) - 1
        worst = max(worst, abs(apart))
        all_planned += own + PROCESS
        print(
            f"{shard['shard']:5} {own / MIB:28.1f} {(own + PROCESS) / MIB:20.1f} {held / MIB:22.1f}"
            f" {apart * 100:+5.1f} % {rest / MIB:20.1f}"
        )
    apart = sum(taken) / all_planned - 1
    print(f"  all {' ':28} {all_planned / MIB:20.1f} {sum(taken) / MIB:22.1f} {apart * 100:+5.1f} %")
    return int(abs(apart) > MOST_APART or worst > MOST_APART_ALONE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="with --measure: a model's file")
    parser.add_argument("--measure", action="store_true", help="run it")
    options = parser.parse_args()
    binary = (options.bin_dir / "llama-swarm").resolve()
    if options.measure:
        return measure(binary, options.model)
    table(binary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
