#!/usr/bin/env python3
"""Our engine beside llama.cpp's, one thread each: the same files, in turns, medians and the ratios of rounds.

    cargo build --release --locked --workspace
    tests/bench/build-llama-cpp.sh FOLDER
    tests/bench/beside_llama_cpp.py --llama FOLDER/native/bin MODEL.gguf [MODEL.gguf ...]

A line each for decoding and prefill, for decoding behind --depth positions, and for a step of --batch sessions. With
two files separated by a comma, ours runs the first and llama.cpp the second.
"""

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

OURS = Path(__file__).resolve().parents[2] / "target/release/llama-swarm"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="OURS.gguf[,THEIRS.gguf]")
    parser.add_argument("--llama", type=Path, required=True, help="the folder of llama-bench and llama-batched-bench")
    parser.add_argument("--ours", type=Path, default=OURS, help="our program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prefill")
    parser.add_argument("--generate", type=int, default=64, help="tokens that are decoded")
    parser.add_argument("--depth", type=int, default=4000, help="positions before a deep decode; 0 leaves it out")
    parser.add_argument("--batch", type=int, default=16, help="sessions of a step; 0 leaves it out")
    parser.add_argument("--precision", help="of ours; the default if not given")
    parser.add_argument("--json", action="store_true", help="every round's figures instead of a table")
    return parser.parse_args()


def output(command):
    """What a program prints, or its own words about what is wrong."""
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{command[0]} failed:\n{ran.stderr[-2000:]}")
    return ran.stdout


def ours(given, model, context, batch, prompt):
    """One round of the engine alone: the report."""
    command = [given.ours, "bench", "--engine", "--json", "--rounds", 1, "--model", model, "--concurrency", batch]
    command += ["--threads", given.threads, "--prompt-tokens", prompt, "--max-tokens", given.generate]
    command += ["--context", context]
    if given.precision:
        command += ["--precision", given.precision]
    return json.loads(output(command))


def theirs(given, model, depth):
    """One round of llama-bench: tokens per second of prefill and decode behind so many positions."""
    prompt = 0 if depth else given.prompt
    command = [given.llama / "llama-bench", "-m", model, "-t", given.threads, "-p", prompt, "-n", given.generate]
    tests = json.loads(output([*command, "-d", depth, "-r", 1, "-ngl", 0, "-o", "json"]))
    return {"prefill" if test["n_prompt"] else "decode": test["avg_ts"] for test in tests}


def theirs_batched(given, model):
    """Decoded tokens per second of a batch of sessions."""
    cells = given.batch * (16 + given.generate)
    command = [given.llama / "llama-batched-bench", "-m", model, "-t", given.threads, "-tb", given.threads, "-c", cells]
    command += ["-npp", 16, "-ntg", given.generate, "-npl", given.batch, "--output-format", "jsonl"]
    lines = [line for line in output(command).splitlines() if line.startswith("{")]
    return json.loads(lines[-1])["speed_tg"]


def round_of(given, pair, number):
    """Both sides' figures by name, and our part of what memory allows. Who goes first changes."""
    our_file, _, their_file = pair.partition(",")
    their_file = their_file or our_file
    figures = {}

    def both(names, of_ours, of_theirs):
        order = [("ours", of_ours), ("theirs", of_theirs)]
        for side, run in order if number % 2 else reversed(order):
            for name, value in zip(names, run()):
                figures.setdefault(name, {})[side] = value

    floor = {}

    def shallow():
        report = ours(given, our_file, 16, 1, given.prompt)
        floor.update(report["floor"])
        line = report["results"][0]
        return line["decode_tokens_per_second"], line["prefill_tokens_per_second"]

    def of_bench():
        tests = theirs(given, their_file, 0)
        return tests["decode"], tests["prefill"]

    both(["decode", f"prefill {given.prompt}"], shallow, of_bench)
    if given.depth:
        both(
            [f"decode at {given.depth}"],
            lambda: [ours(given, our_file, given.depth, 1, 1)["results"][0]["decode_tokens_per_second"]],
            lambda: [theirs(given, their_file, given.depth)["decode"]],
        )
    if given.batch:
        both(
            [f"decode, {given.batch} sessions"],
            lambda: [ours(given, our_file, 16, given.batch, 1)["results"][0]["decode_tokens_per_second"]],
            lambda: [theirs_batched(given, their_file)],
        )
    return {"model": pair, "figures": figures, "floor": floor}


def show(rounds):
    """A table in Markdown."""
    print("| model | what | ours tok/s | llama.cpp tok/s | ratio |\n|---|---|---|---|---|")
    for pair in dict.fromkeys(one["model"] for one in rounds):
        of_pair = [one for one in rounds if one["model"] == pair]
        model = " beside ".join(Path(file).name for file in pair.split(","))
        for name in of_pair[0]["figures"]:
            sides = [one["figures"][name] for one in of_pair]
            median = {side: statistics.median(one[side] for one in sides) for side in ("ours", "theirs")}
            ratio = statistics.median(one["ours"] / one["theirs"] for one in sides)
            print(f"| {model} | {name} | {median['ours']:.1f} | {median['theirs']:.1f} | {ratio:.2f} |")
        reached = statistics.median(one["floor"]["reached"] for one in of_pair)
        allowed = statistics.median(one["floor"]["tokens_per_second"] for one in of_pair)
        print(f"| {model} | decode to the memory floor | – | {allowed:.1f} (floor) | {reached:.2f} |")


def main():
    given = arguments()
    if os.environ.get("LLAMA_SWARM_ISA"):
        print(f"LLAMA_SWARM_ISA={os.environ['LLAMA_SWARM_ISA']}\n")
    rounds = [round_of(given, pair, number) for number in range(1, given.rounds + 1) for pair in given.models]
    if given.json:
        print(json.dumps(rounds, indent=2))
    else:
        show(rounds)


if __name__ == "__main__":
    main()
