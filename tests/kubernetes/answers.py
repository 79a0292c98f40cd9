"""Answers that are under way while a pod is deleted by force, with another replica of its shard and without."""

import http.client
import subprocess
import threading
import time

from observing import LONG_ANSWER, LONG_QUESTION, longest_pause, text_of
from running import Failure, note, wait_until
from scene import BOUND, SOME_PIECES, WORKERS, come_back

FORCE = ("--grace-period", "0", "--force")
# At the same time.
STREAMS = 3
# Of a gateway's counters: away from who is lost, and from who says that it leaves, for which a pod has two seconds.
CHANGES = ("retries", "moves")


class Answer(threading.Thread):
    """The long answer, piece by piece. `begun` is set when some pieces are there, or when it is over."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client, self.pieces, self.begun, self.fault = client, [], threading.Event(), None

    def run(self):
        try:
            for piece in self.client.stream(LONG_QUESTION, LONG_ANSWER):
                self.pieces.append(piece)
                if len(self.pieces) == SOME_PIECES:
                    self.begun.set()
        except (Failure, OSError, ValueError, http.client.HTTPException, subprocess.TimeoutExpired) as fault:
            self.fault = fault
        finally:
            self.begun.set()


def a_worker_deleted_in_answers(scene):
    """The only one of its shard: the answers wait for the pod that is made in its place."""
    pod = WORKERS[4]
    go_on(scene, lambda: delete_by_force(scene, pod), "the only one of its shard")
    come_back(scene, pod)


def a_spare_for_a_deleted_worker(scene):
    """Its shard has another one: the answers go on there at once."""
    pod = go_on(scene, lambda: delete_by_force(scene, serving(scene, 3)), "which has a spare")
    come_back(scene, pod)


def go_on(scene, act, which):
    """Answers while `act` deletes a pod, whose name it gives; all of them must end with the undisturbed text."""
    before = changes_of_route(scene)
    answers = [Answer(scene.client) for _ in range(STREAMS)]
    for answer in answers:
        answer.start()
    for answer in answers:
        answer.begun.wait(BOUND)
    issued = time.monotonic()
    pod = act()
    for answer in answers:
        answer.join(BOUND)
    for answer in answers:
        if answer.fault or answer.is_alive():
            note(f"instead: {answer.fault or 'no end'}")
    right = sum(text_of(answer.pieces) == scene.long_answer and not answer.fault for answer in answers)
    later = [sum(at > issued for at, _ in answer.pieces) for answer in answers]
    pauses = ", ".join(f"{longest_pause(answer.pieces):.2f}" for answer in answers if len(answer.pieces) > 1)
    scene.report.check(
        right == STREAMS,
        f"{pod}, {which}, deleted by force under {STREAMS} answers: {STREAMS - right} failed, {right} have the "
        f"undisturbed text; longest pauses {pauses} s",
        ["gateway"],
    )
    scene.report.check(min(later) > 0, f"{', '.join(map(str, later))} of their pieces came after the deletion began")
    changes = changes_of_route(scene) - before
    scene.report.check(changes > 0, f"answers changed their route {changes:.0f} times: the pod was on it")
    return pod


def changes_of_route(scene):
    gateways = [pod for pod in scene.pods() if scene.service_of(pod) == "gateway"]
    counted = [scene.metrics(pod).get(f"llama_swarm_gateway_{name}_total", 0) for pod in gateways for name in CHANGES]
    return sum(counted)


def delete_by_force(scene, pod):
    scene.kubectl("delete", "pod", pod, *FORCE)
    return pod


def serving(scene, shard):
    """The pod of a shard that has the most sessions now."""
    peers = {scene.peer_of(pod): pod for pod in scene.workers(shard)}

    def sessions():
        replicas = scene.gateway().last().replicas(shard)
        return {pod: replicas.get(peer, {}).get("active_sessions", 0) for peer, pod in peers.items()}

    wait_until(lambda: any(sessions().values()), f"a worker of shard {shard} has a session", ["gateway"], bound=20)
    busy = sessions()
    return max(busy, key=busy.get)
