"""What tests of a whole swarm share: asking it, and following what its nodes see. Only the standard library."""

import http.client
import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass

from running import BOUND, POLL, Failure

SHARDS = 8
# How soon all others must see that a worker is gone.
PROMISE = 2.0
QUESTION = "What is the capital of France?"
LONG_QUESTION = "Write a long story about an old lighthouse keeper and the sea."
LONG_ANSWER = 160


class Client:
    """Asks a gateway over HTTP on loopback. `key`: what it shows, where the gateway asks for one."""

    def __init__(self, http_port, key=None):
        self.http_port, self.key = http_port, key

    def ask(self, question, max_tokens, trace=None):
        """The model's likeliest answer. `trace`: the id of a trace that goes on here."""
        answer = json.loads(self._post(question, max_tokens, stream=False, trace=trace).read())
        return answer["choices"][0]["message"]["content"]

    def stream(self, question, max_tokens):
        """Yields (arrival, text) for each piece; fails when the stream does not end as it should."""
        answer, finished = self._post(question, max_tokens, stream=True), None
        while line := answer.readline():
            data = line.strip().removeprefix(b"data: ")
            if data == b"[DONE]":
                if finished not in ("stop", "length"):
                    raise Failure(f"the stream ended without a reason: {finished}", ["gateway"])
                return
            if not data:
                continue
            event = json.loads(data)
            if "error" in event:
                raise Failure(f"the stream ended with {event['error']}", ["gateway"])
            choice = event["choices"][0]
            finished = choice["finish_reason"] or finished
            if text := choice["delta"].get("content"):
                yield time.monotonic(), text
        raise Failure("the stream broke off", ["gateway"])

    def _post(self, question, max_tokens, stream, trace=None):
        answer = self.post(question, max_tokens, stream, trace, self.key)
        if answer.status != 200:
            raise Failure(f"{answer.status}: {answer.read().decode()}", ["gateway"])
        return answer

    def post(self, question, max_tokens, stream=False, trace=None, key=None):
        """The answer, whatever it is."""
        body = {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": stream,
        }
        headers = {"content-type": "application/json"}
        if trace:
            headers["traceparent"] = f"00-{trace}-{os.urandom(8).hex()}-01"
        if key:
            headers["authorization"] = f"Bearer {key}"
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=BOUND)
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        return connection.getresponse()

    def ready(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclass
class Seen:
    """A status and when its line arrived here."""

    at: float
    status: dict

    @property
    def peer(self):
        return self.status["node"]

    @property
    def revision(self):
        return self.status["revision"]

    def replicas(self, shard):
        return {replica["worker"]: replica for replica in self.status["shards"][shard]["replicas"]}

    def state(self, shard, peer):
        return self.replicas(shard).get(peer, {}).get("state")

    def is_whole(self, peers):
        """All shards are there, loaded, by these peers and by nobody else. `peers`: a set for each shard."""
        return self.status["swarm_ready"] and all(
            {w: r["state"] for w, r in self.replicas(shard).items()} == dict.fromkeys(workers, "LOADED")
            for shard, workers in enumerate(peers)
        )


class Watch:
    """Follows what one node sees, by a command that prints a status a line."""

    def __init__(self, node, command):
        self.node, self.command = node, [str(word) for word in command]
        self.changed, self.history, self.child = threading.Condition(), [], None
        self.closed = False
        self.start()

    @classmethod
    def inside(cls, node, enter, port, key=()):
        """By the binary in the node's own container, which the command `enter` starts. `key`: its arguments for one."""
        inner = ["/usr/local/bin/llama-swarm", "status", "--json", "--watch"]
        return cls(node, [*enter, *inner, "--addr", f"127.0.0.1:{port}", *key])

    def start(self):
        """Begins, and again after the node has ended. A node that has just started may not answer yet."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        lines, until = 0, time.monotonic() + BOUND
        while not lines and not self.closed and time.monotonic() < until:
            self.child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            for line in self.child.stdout:
                seen = Seen(time.monotonic(), json.loads(line))
                lines += 1
                with self.changed:
                    self.history.append(seen)
                    self.changed.notify_all()
            self.child.wait()
            time.sleep(0 if lines else POLL)

    def stop(self):
        self.closed = True
        if self.child:
            self.child.terminate()

    def last(self):
        return self.history[-1]

    def wait(self, so, what, since=None):
        """The first status from `since` on, or from the last one on, that is so."""
        deadline = time.monotonic() + BOUND
        with self.changed:
            place = len(self.history) - 1 if since is None else 0
            place = max(place, 0)
            while True:
                for seen in self.history[place:]:
                    if (since is None or seen.at >= since) and so(seen):
                        return seen
                place = len(self.history)
                if not self.changed.wait(max(0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise Failure(f"{self.node} has not seen within {BOUND:.0f} s: {what}\n{self._told()}", [self.node])

    def _told(self):
        if not self.history:
            return "it told nothing"
        shards = self.last().status["shards"]
        return "\n".join(
            f"  shard {shard['shard_id']}: "
            + ", ".join(f"{replica['worker'][-6:]} {replica['state']}" for replica in shard["replicas"])
            for shard in shards
        )


def wait_whole(watches, peers, since=None):
    """Until every node sees all shards once and loaded; gives each node's moment. `peers`: a set for each shard."""
    what = f"{len(peers)} shards, each LOADED by its own workers and nobody else"
    return {node: watch.wait(lambda seen: seen.is_whole(peers), what, since).at for node, watch in watches.items()}


def text_of(pieces):
    return "".join(text for _, text in pieces)


def longest_pause(pieces):
    return max(after[0] - before[0] for before, after in zip(pieces, pieces[1:], strict=False))


def disturbed_answer(client, when, act):
    """Pieces of the long answer, in whose middle `act` ran, and when it had.

    `when` is asked at each piece, with those that are there, until it gives what to act on.
    """
    pieces, actor, acted = [], None, []

    def run_act(target):
        act(target)
        acted.append(time.monotonic())

    for piece in client.stream(LONG_QUESTION, LONG_ANSWER):
        pieces.append(piece)
        if actor is None and (target := when(pieces)):
            actor = threading.Thread(target=run_act, args=[target])
            actor.start()
    if actor is None:
        raise Failure("the answer was over before anything was done to it", ["gateway"])
    actor.join()
    if not acted:
        raise Failure("what was to disturb the answer failed", ["gateway"])
    return pieces, acted[0]
