"""What the benchmarks beside this ask of a gateway, and what they hear of it: answers with the times of their tokens, and
the swarm as it is told.
"""

import http.client
import json
import os
import random
import threading
import time
from pathlib import Path

from nodes import SOON


class View(threading.Thread):
    """The swarm as the gateway says it, each state with its time."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.states, self.news = address, [], threading.Condition()
        self.start()

    def run(self):
        connection = http.client.HTTPConnection(self.address)
        connection.request("GET", "/v1/swarm", headers={"accept": "text/event-stream"})
        answer, name = connection.getresponse(), b""
        while line := answer.readline():
            if line.startswith(b"event: "):
                name = line[7:].strip()
            elif line.startswith(b"data: ") and name == b"status":
                status = json.loads(line[6:])
                with self.news:
                    self.states.append((time.monotonic(), status))
                    self.news.notify_all()

    def replicas(self, status):
        return {(r["worker"], shard): r for shard, of in enumerate(status["shards"]) for r in of["replicas"]}

    def when(self, worker, shard, state, since=0):
        """When it was first so after `since`; waits for it. One that is gone is OFFLINE too."""
        until = time.monotonic() + SOON
        with self.news:
            place = 0
            while True:
                for seen, status in self.states[place:]:
                    replica = self.replicas(status).get((worker, shard))
                    if seen >= since and (replica["state"] if replica else "OFFLINE").upper() == state:
                        return seen
                place = len(self.states)
                if not self.news.wait(until - time.monotonic()):
                    raise SystemExit(f"{worker} of shard {shard} is never {state}: {self.states[-1:]}")

    def sessions(self, shard):
        """Sessions of each worker of a shard."""
        with self.news:
            status = self.states[-1][1]
        of = self.replicas(status).items()
        return {worker: r["active_sessions"] for (worker, s), r in of if s == shard}


class Answer(threading.Thread):
    """One streamed answer: what came and when, or why it failed."""

    def __init__(self, given, address, number):
        super().__init__(daemon=True)
        self.given, self.address, self.number = given, address, number
        self.told, self.times, self.error = [], [], None
        self.start()

    def run(self):
        try:
            self.ask()
        except (OSError, http.client.HTTPException) as error:
            self.error = repr(error)

    def ask(self):
        words = random.Random(self.number)
        prompt = [words.randrange(1000, 40000) for _ in range(self.given.context)]
        warm = self.number % 2
        body = {
            "prompt": prompt, "max_tokens": self.given.tokens, "temperature": 0.8 * warm, "seed": self.number,
            "frequency_penalty": 0.2 * warm, "logprobs": 2, "stream": True, "ignore_eos": True,
        }
        connection = http.client.HTTPConnection(self.address, timeout=SOON)
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            self.error = f"{answer.status}: {answer.read().decode()}"
            return
        done = False
        while line := answer.readline():
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    self.error = str(event)
                for choice in event.get("choices", []):
                    self.told.append((choice["text"], choice.get("logprobs"), choice["finish_reason"]))
                    self.times.append(time.monotonic())
            done = done or line.startswith(b"data: [DONE]")
        self.error = self.error or (None if done else "the stream broke off")

    def pause(self, since):
        """The longest time between two tokens after `since`, which comes between two of them."""
        pairs = [(a, b) for a, b in zip(self.times, self.times[1:]) if b > since]
        return max((b - a for a, b in pairs), default=0)


def share(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))]


def tell(name, values):
    if values:
        told = ", ".join(f"{what} {share(values, part):.3f}" for what, part in [("p50", 0.5), ("p99", 0.99)])
        print(f"{name}: {told}, max {max(values):.3f} s, {len(values)} times")


def held(process):
    """MiB resident and open files."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(resident.split()[1]) // 1024, len(os.listdir(f"/proc/{process.pid}/fd"))
