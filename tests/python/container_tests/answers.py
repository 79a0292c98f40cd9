"""What the model answers, also over the loss of a worker."""

import time

from container_tests.swarm import the_only, watch_inside
from observing import LONG_ANSWER, LONG_QUESTION, QUESTION, disturbed_answer, longest_pause, text_of
from running import Failure, docker, note

# A worker is killed when so much of the answer is there.
KILL_AFTER_CHUNKS = 20


def the_model_answers(scene):
    since = time.monotonic()
    scene.answer = scene.swarm.ask(QUESTION, 32)
    took = time.monotonic() - since
    scene.report.check("Paris" in scene.answer, f"{QUESTION} {scene.answer!r} ({took:.1f} s)")


def a_worker_lost_in_an_answer(scene):
    """Shard 3 has two replicas; the one that serves is killed in the middle."""
    containers = second_replica(scene)
    pieces = list(scene.swarm.stream(LONG_QUESTION, LONG_ANSWER))
    undisturbed = text_of(pieces)
    note(f"undisturbed: {len(pieces)} pieces, longest pause {longest_pause(pieces):.2f} s")

    def serving(pieces):
        if len(pieces) < KILL_AFTER_CHUNKS:
            return None
        replicas = scene.observers.outside.last().replicas(3)
        busy = [peer for peer in containers if replicas[peer]["active_sessions"]]
        return containers[busy[0]] if len(busy) == 1 else None

    pieces, killed_at = disturbed_answer(scene.swarm, serving, lambda container: docker("kill", container))
    after = sum(at > killed_at for at, _ in pieces)
    if not after:
        raise Failure("the answer was over before the worker was killed", ["gateway"])
    scene.report.check(
        text_of(pieces) == undisturbed,
        f"worker-3 killed in an answer, {after} of {len(pieces)} pieces before its end: the text is the undisturbed "
        f"one; longest pause {longest_pause(pieces):.2f} s",
    )


def second_replica(scene):
    """Adds one to shard 3; gives peer id → container."""
    scene.swarm.up("--scale", "worker-3=2", "worker-3")
    others = set(scene.swarm.container_ids("worker-3")) - {scene.containers["worker-3"]}
    second = the_only(others, "second container of worker-3")
    own = watch_inside(scene.swarm, "worker-3", second)
    (first,) = scene.peers[3]
    peer = own.wait(lambda seen: True, "any status").peer
    own.stop()
    scene.peers[3].add(peer)
    scene.wait_whole()
    return {first: scene.containers["worker-3"], peer: second}
